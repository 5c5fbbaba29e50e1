package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/coreplica/coreplica/numa"
)

// ErrOneCPU means that two threads cannot run at the same time here.
var ErrOneCPU = errors.New("measure a line's latency: it takes two CPUs and GOMAXPROCS of at least 2")

// A line goes back and forth so often in a round; rounds are short, so that some are
// not disturbed, and end after a while if the threads do not meet.
const (
	lineTrips    = 200
	lineRounds   = 500
	linePatience = 10 * time.Second
)

// LineLatency measures how long it takes until a CPU sees what another one has
// written, in nanoseconds: half a trip of a line that goes back and forth between
// two bound threads, in the fastest of some rounds.
func LineLatency(ctx context.Context, cpuA, cpuB int) (ns float64, err error) {
	if cpuA == cpuB || runtime.GOMAXPROCS(0) < 2 {
		return 0, ErrOneCPU
	}
	ctx, cancel := context.WithTimeout(ctx, linePatience)
	defer cancel()
	idle := func(numa.Binding, []struct{}) {}
	a, err := numa.StartWorker(numa.Binding{Node: numa.Unknown, CPUs: numa.List{cpuA}}, idle, numa.WorkerOptions{})
	if err != nil {
		return 0, fmt.Errorf("measure a line's latency: %w", err)
	}
	defer a.Close()
	b, err := numa.StartWorker(numa.Binding{Node: numa.Unknown, CPUs: numa.List{cpuB}}, idle, numa.WorkerOptions{})
	if err != nil {
		return 0, fmt.Errorf("measure a line's latency: %w", err)
	}
	defer b.Close()
	for range lineRounds {
		took, err := bounce(ctx, a, b)
		if errors.Is(err, context.DeadlineExceeded) && ns > 0 {
			break // The threads seldom meet: the rounds that were made must do.
		}
		if err != nil {
			return 0, fmt.Errorf("measure a line's latency between CPUs %d and %d: %w", cpuA, cpuB, err)
		}
		if got := float64(took) / (2 * lineTrips); ns == 0 || got < ns {
			ns = got
		}
	}
	return ns, nil
}

// bounce lets two workers answer each other in one word.
func bounce(ctx context.Context, a, b *numa.Worker[struct{}]) (took time.Duration, err error) {
	var line struct {
		_    [128]byte
		word atomic.Uint64
		_    [128]byte
	}
	// await returns false if the other one does not answer.
	await := func(want uint64) bool {
		for spins := 0; line.word.Load() != want; spins++ {
			if spins&(1<<16-1) == 1<<16-1 && ctx.Err() != nil {
				return false
			}
		}
		return true
	}
	answered := make(chan error, 1)
	go func() {
		answered <- b.Run(context.Background(), func() {
			for i := uint64(1); i <= lineTrips; i++ {
				if !await(2*i - 1) {
					return
				}
				line.word.Store(2 * i)
			}
		})
	}()
	err = a.Run(context.Background(), func() {
		start := time.Now()
		for i := uint64(1); i <= lineTrips; i++ {
			line.word.Store(2*i - 1)
			if !await(2 * i) {
				return
			}
			if i == 1 {
				start = time.Now() // The first trip waits for the other thread to come.
			}
		}
		took = time.Since(start)
	})
	return took, errors.Join(err, <-answered, ctx.Err())
}
