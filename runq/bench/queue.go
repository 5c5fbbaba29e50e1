package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coreplica/coreplica/runq"
)

// Queue is the name of the contender that is the product, by its API, and Protocol
// that of its state machine and memory alone.
const (
	Queue    = "runq"
	Protocol = "protocol"
)

// handler is what benchmarks submit: it does nothing.
const handler = "coreplica.bench.nothing"

func init() {
	runq.Register(handler, func(context.Context, *runq.Task) ([]byte, error) { return nil, nil })
}

// inFlight is how many batches are under way at once: enough that workers never
// wait for whoever submits, and few enough for the smallest log.
const inFlight = 4

// patience bounds a block: a queue that takes so long stands still.
const patience = time.Minute

// NewQueue returns the queue with so many workers and copies. Each task is
// submitted, acknowledged, claimed, ended, and its result waited for.
func NewQueue(threads bool, workers, k int) Contender {
	mode := "processes"
	if threads {
		mode = "threads"
	}
	return Contender{Name: Queue, Mode: mode, K: k, Workers: workers, New: func() (Instance, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		q, err := runq.Open(ctx, runq.Options{Threads: threads, Workers: workers, K: k, AllowSharedDomain: true, Slots: 1 << 13})
		if err != nil {
			return Instance{}, err
		}
		payload := make([]byte, PayloadBytes)
		jobs := make([]runq.Job, Batch)
		for i := range jobs {
			jobs[i] = runq.Job{Name: handler, Payload: payload}
		}
		return Instance{
			Run: func(n int) error { return through(q, jobs, n) },
			Close: func() error {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				return q.Close(ctx)
			},
		}, nil
	}}
}

// through takes n tasks through a queue, a few batches at a time.
func through(q *runq.Queue, jobs []runq.Job, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var flying [][]runq.ID
	land := func() error {
		for _, id := range flying[0] {
			r, err := q.Wait(ctx, id)
			if err := errors.Join(err, r.Err); err != nil {
				return fmt.Errorf("wait for %v: %w", id, err)
			}
		}
		flying = flying[1:]
		return nil
	}
	for ; n > 0; n -= len(jobs) {
		ids, err := q.SubmitBatch(ctx, jobs)
		if err != nil {
			return fmt.Errorf("submit: %w", err)
		}
		if flying = append(flying, ids); len(flying) > inFlight {
			if err := land(); err != nil {
				return err
			}
		}
	}
	for len(flying) > 0 {
		if err := land(); err != nil {
			return err
		}
	}
	return nil
}
