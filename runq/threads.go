package runq

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/internal/shm"
	"github.com/coreplica/coreplica/runq/protocol"
)

// threads are workers that are goroutines.
type threads struct {
	q       *Queue
	mu      sync.Mutex
	workers []*worker
	ended   sync.WaitGroup
}

func newThreads(q *Queue) (fleet, error) {
	mem, err := shm.NewHeap(q.cfg.Geometry)
	if err != nil {
		return nil, err
	}
	q.mem, q.began = mem, time.Now()
	q.now = func() clock.Instant { return clock.Instant(time.Since(q.began)) }
	return &threads{q: q, workers: make([]*worker, q.opts.Workers)}, nil
}

func (f *threads) boot(core protocol.Core, crashed bool) (link, error) {
	q := f.q
	in := newInbox(newChannelAlarm())
	w, err := newWorker(workerConfig{
		cfg: q.cfg, core: core, mem: q.mem, in: in, now: q.now, began: q.began, post: func(notes []notice) { q.take(core, notes) },
		maxPayload: q.opts.MaxPayload, handlers: q.opts.Handlers, taskLease: q.opts.TaskLease,
	})
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.isClosing() {
		return nil, ErrClosed
	}
	f.workers[core] = w
	f.ended.Add(1)
	go func() {
		defer f.ended.Done()
		w.run(crashed)
		q.restart(core, q.died(core, w.node.Incarnation(), nil))
	}()
	return threadLink{in}, nil
}

// threadLink copies events into an inbox of this process.
type threadLink struct{ in *inbox }

func (l threadLink) post(evs []protocol.Event) { l.in.put(evs...) }

// kill has the loop end at its next turn. One that hangs cannot be ended.
func (f *threads) kill(core protocol.Core, incarnation uint32) {
	f.mu.Lock()
	w := f.workers[core]
	f.mu.Unlock()
	if w != nil && w.life.Load() == incarnation {
		w.doom()
	}
}

func (f *threads) resetAffinity(protocol.Core, uint32) {}

func (f *threads) pid(protocol.Core) int { return 0 }

func (f *threads) stop(ctx context.Context) error {
	f.mu.Lock()
	for _, w := range f.workers {
		if w != nil {
			w.doom()
		}
	}
	f.mu.Unlock()
	f.ended.Wait()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, w := range f.workers {
			if w != nil {
				w.pool.ended.Wait()
			}
		}
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("handlers still run, and a goroutine cannot be ended: %w", context.Cause(ctx))
	}
}

// release does nothing: handlers that never return may still look at the memory,
// and the garbage collector sees when they do not.
func (f *threads) release() error { return nil }

// doom ends the loop from outside.
func (w *worker) doom() {
	w.doomed.Store(true)
	w.in.nudge()
}
