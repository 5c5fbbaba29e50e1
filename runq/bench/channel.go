package bench

import "sync/atomic"

// task is what channels carry: an identity and a payload, by value, as the queue
// copies them.
type task struct {
	id      uint64
	payload [PayloadBytes]byte
}

// sink keeps the compiler from leaving out that a payload is read.
var sink atomic.Uint32

// NewChannel returns the contender that the others are related to: one goroutine
// fills a buffered channel with a batch and empties it.
func NewChannel() Contender {
	return Contender{Name: Channel, Mode: "cycle", K: 1, Workers: 1, New: func() (Instance, error) {
		tasks := make(chan task, Batch)
		var next uint64
		return Instance{Run: func(n int) error {
			sum := uint32(0)
			for ; n > 0; n -= Batch {
				for range Batch {
					next++
					tasks <- task{id: next}
				}
				for range Batch {
					t := <-tasks
					sum += uint32(t.payload[0])
				}
			}
			sink.Add(sum)
			return nil
		}}, nil
	}}
}

// NewChannelWorkers returns a pool of goroutines that take tasks out of a buffered
// channel and tell their end through another.
func NewChannelWorkers(workers int) Contender {
	return Contender{Name: "channel-pool", Mode: "threads", K: 1, Workers: workers, New: func() (Instance, error) {
		tasks := make(chan task, Batch)
		done := make(chan uint64, Batch)
		for range workers {
			go func() {
				for t := range tasks {
					done <- t.id + uint64(t.payload[0])
				}
			}()
		}
		var next uint64
		return Instance{
			Run: func(n int) error {
				for ; n > 0; n -= Batch {
					for range Batch {
						next++
						tasks <- task{id: next}
					}
					for range Batch {
						<-done
					}
				}
				return nil
			},
			Close: func() error { close(tasks); return nil },
		}, nil
	}}
}

// Contenders returns those that need no third party: the channel, and the queue
// with one, two and three copies.
func Contenders() []Contender {
	all := []Contender{NewChannel(), NewChannelWorkers(2)}
	for k := 1; k <= 3; k++ {
		all = append(all, NewProtocol(k))
	}
	for k := 1; k <= 3; k++ {
		all = append(all, NewQueue(true, false, 3, k))
	}
	return all
}
