package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
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

// submitters is how many goroutines submit and wait at once, each with inFlight
// batches: enough that workers never wait for whoever submits, and few enough for
// the smallest log.
const (
	submitters = 8
	inFlight   = 2
)

// patience bounds a block: a queue that takes so long stands still.
const patience = time.Minute

// NewQueue returns the queue with so many workers and copies, in the mode threads,
// processes, or, for processes whose tasks are detached, detached. Each task is
// submitted, acknowledged, claimed and ended; its result is waited for, or, where
// tasks are detached, there is none, as in the pools that it is compared with.
func NewQueue(threads, detached bool, workers, k int) Contender {
	mode := "processes"
	if threads {
		mode = "threads"
	}
	if detached {
		mode = "detached"
	}
	return Contender{Name: Queue, Mode: mode, K: k, Workers: workers, New: func() (Instance, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		q, err := runq.Open(ctx, runq.Options{Threads: threads, Workers: workers, K: k, AllowSharedDomain: true, Slots: 1 << 14})
		if err != nil {
			return Instance{}, err
		}
		payload := make([]byte, PayloadBytes)
		jobs := make([]runq.Job, Batch)
		for i := range jobs {
			jobs[i] = runq.Job{Name: handler, Payload: payload, Detached: detached}
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

// through takes n tasks through a queue.
func through(q *runq.Queue, jobs []runq.Job, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var left atomic.Int64
	left.Store(int64(n))
	errs := make([]error, submitters)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = submitter(ctx, q, jobs, &left) })
	}
	all.Wait()
	for jobs[0].Detached && q.Stats().Pending > 0 {
		if ctx.Err() != nil {
			return errors.Join(append(errs, fmt.Errorf("wait for detached tasks: %w", ctx.Err()))...)
		}
		time.Sleep(pollEvery)
	}
	return errors.Join(errs...)
}

// pollEvery is how often it is looked whether detached tasks have ended.
const pollEvery = 50 * time.Microsecond

// submitter submits batches as long as there are tasks left, and waits for each of
// its tasks.
func submitter(ctx context.Context, q *runq.Queue, jobs []runq.Job, left *atomic.Int64) error {
	var flying [][]runq.ID
	for {
		more := left.Add(-int64(len(jobs))) >= 0
		if more {
			ids, err := q.SubmitBatch(ctx, jobs)
			if err != nil {
				return fmt.Errorf("submit: %w", err)
			}
			if jobs[0].Detached {
				continue
			}
			flying = append(flying, ids)
		}
		if len(flying) == 0 {
			return nil
		}
		if more && len(flying) <= inFlight {
			continue
		}
		for _, id := range flying[0] {
			r, err := q.Wait(ctx, id)
			if err := errors.Join(err, r.Err); err != nil {
				return fmt.Errorf("wait for %v: %w", id, err)
			}
		}
		flying = flying[1:]
	}
}
