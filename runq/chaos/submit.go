package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/coreplica/coreplica/runq"
	"github.com/coreplica/coreplica/runq/internal/trial"
)

const (
	// batch is how many tasks are submitted together, and flying how many
	// batches wait for their end: what is queued when a core fails.
	batch  = 64
	flying = 24
	// refusedPause is how long to wait when a queue takes nothing.
	refusedPause = time.Millisecond
	// pace is between two batches when there are enough tasks and faults still
	// come: a queue without tasks cannot lose any.
	pace = 4 * time.Millisecond
)

// One task in so many is cancelled, or submitted once more when it has ended, or
// keeps its handler busy.
const (
	cancelOne    = 50
	redeliverOne = 40
	busyOne      = 20
	mostBusy     = 2 * time.Millisecond
)

// flight is a task that was acknowledged.
type flight struct {
	id  runq.ID
	in  payload
	job runq.Job
}

// submit submits until enough tasks were acknowledged and all faults have
// happened, and waits for all of them.
func (t *run) submit(ctx context.Context, faulty <-chan struct{}) {
	var waiting sync.WaitGroup
	defer waiting.Wait()
	room := make(chan struct{}, flying)
	rng := t.seeded(1)
	next := uint64(0)
	for ctx.Err() == nil && t.failure() == nil {
		if t.acked.Load() >= int64(t.cfg.Tasks) {
			select {
			case <-faulty:
				return
			case <-time.After(pace):
			}
		}
		flights := make([]flight, batch)
		jobs := make([]runq.Job, batch)
		for i := range flights {
			p := payload{task: next, mode: AtLeastOnce}
			switch next++; rng.IntN(10) {
			case 0, 1:
				p.mode = AtMostOnce
			case 2, 3, 4:
				p.mode = OnceRecorded
			}
			if rng.IntN(busyOne) == 0 {
				p.busy = time.Duration(rng.Int64N(int64(mostBusy)))
			}
			jobs[i] = runq.Job{Name: handlerName, Payload: p.bytes(), Mode: modeOf(p.mode)}
			flights[i] = flight{in: p, job: jobs[i]}
		}
		landed := t.launch(ctx, flights, jobs)
		if len(landed) == 0 {
			time.Sleep(refusedPause)
			continue
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		waiting.Go(func() {
			defer func() { <-room }()
			t.land(ctx, landed)
		})
	}
}

func modeOf(m Mode) runq.Mode {
	return map[Mode]runq.Mode{AtLeastOnce: runq.AtLeastOnce, AtMostOnce: runq.AtMostOnce, OnceRecorded: runq.OnceRecorded}[m]
}

// launch submits a batch, and returns the tasks that were acknowledged. What
// became of the others, nobody was told.
func (t *run) launch(ctx context.Context, flights []flight, jobs []runq.Job) (landed []flight) {
	before := make([]Record, len(flights))
	for i, f := range flights {
		before[i] = Record{Kind: Submitting, Task: f.in.task, Mode: f.in.mode}
	}
	t.note(before...)
	ids, err := t.q.SubmitBatch(ctx, jobs)
	var after []Record
	for i, id := range ids {
		if id.N == 0 {
			continue
		}
		flights[i].id = id
		landed = append(landed, flights[i])
		after = append(after, Record{Kind: Acknowledged, Task: flights[i].in.task, Mode: flights[i].in.mode})
	}
	if len(after) > 0 {
		t.note(after...)
	}
	t.acked.Add(int64(len(landed)))
	if err != nil && ctx.Err() == nil && !errors.Is(err, runq.ErrDegraded) && !errors.Is(err, runq.ErrFull) && !errors.Is(err, runq.ErrUnknown) {
		t.fail(fmt.Errorf("submit: %w", err))
	}
	return landed
}

// land waits for the end of tasks, cancels a few, and submits a few once more.
func (t *run) land(ctx context.Context, flights []flight) {
	for _, f := range flights {
		if f.in.task%cancelOne == 7 {
			t.note(Record{Kind: Cancelling, Task: f.in.task, Mode: f.in.mode})
			// What it came to is for Wait to tell.
			if err := t.q.Cancel(ctx, f.id); err != nil && ctx.Err() == nil {
				t.fail(err)
				return
			}
		}
	}
	for _, f := range flights {
		result, err := t.q.Wait(ctx, f.id)
		if err != nil {
			if ctx.Err() == nil {
				t.fail(err)
			}
			return
		}
		r, err := endOf(result)
		if err != nil && !t.cfg.control() {
			t.fail(fmt.Errorf("task %d: %w", f.in.task, err))
			return
		}
		if err != nil {
			continue // A control may break more than it is about.
		}
		r.Task, r.Mode = f.in.task, f.in.mode
		if f.in.task%cancelOne == 7 && r.Kind != Cancelled {
			late := r
			late.Kind = CancelLate
			t.note(late)
		}
		t.note(r)
		t.ended.Add(1)
		if f.in.task%redeliverOne == 3 {
			if err := trial.Redeliver(t.q, f.id, f.job); err != nil {
				t.fail(err)
			}
		}
	}
}

// endOf turns a result into what the journal says about it.
func endOf(result runq.Result) (Record, error) {
	var lost *runq.LostError
	switch {
	case result.Err == nil:
		r, err := readResult(result.Payload)
		r.Kind, r.TimeNs = Seen, 0
		return r, err
	case errors.As(result.Err, &lost):
		return Record{Kind: Lost}, nil
	case errors.Is(result.Err, runq.ErrCancelled):
		return Record{Kind: Cancelled}, nil
	}
	return Record{}, fmt.Errorf("ended in a way that no fault explains: %w", result.Err)
}
