package runq

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/internal/proc"
	"github.com/coreplica/coreplica/runq/internal/shm"
	"github.com/coreplica/coreplica/runq/protocol"
)

// Queue is an open run queue. Its methods may be called by any goroutine.
type Queue struct {
	opts   Options
	cfg    protocol.Config
	mem    *shm.Memory
	now    func() clock.Instant
	began  time.Time
	seats  []seat
	tables []*table
	slots  []*slot
	fleet  fleet
	name   *proc.Name // Nil for a nameless queue, and so is window.
	window *window
	recent recent
	keep   int // Results that a table retains.
	stats  counters
	next   atomic.Uint32 // Where to look first for the table with least to do.

	mu       sync.Mutex
	state    queueState
	failed   error
	closing  chan struct{} // Closed when Close begins.
	closed   chan struct{} // Closed when it has ended.
	closeErr error
	room     chan struct{} // Closed when there is room, if somebody waits for it.
	wanted   atomic.Bool
	observed sync.Mutex
	ended    sync.WaitGroup
}

// Results are kept for as many tasks as may be submitted at once many times over,
// so that age is what ends them and number is what bounds memory.
const (
	keepFactor = 16
	leastKept  = 1 << 16
)

type queueState uint8

const (
	open queueState = iota
	draining
	closing
)

// Open starts the workers and returns when each serves its queue with all its
// copies.
func Open(ctx context.Context, opts Options) (*Queue, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	q := &Queue{opts: opts, closing: make(chan struct{}), closed: make(chan struct{}), keep: max(keepFactor*opts.MaxPending, leastKept) / opts.Workers}
	var run [8]byte
	if _, err := rand.Read(run[:]); err != nil {
		return nil, fmt.Errorf("open queue: draw a run: %w", err)
	}
	seats, domains := opts.place()
	if opts.Threads {
		domains = nil // They share one anyway: the process.
	}
	q.seats, q.cfg = seats, opts.config(binary.LittleEndian.Uint64(run[:]), domains)
	if _, err := protocol.NewNode(q.cfg, 0); err != nil {
		return nil, fmt.Errorf("open queue: %w", errors.Join(ErrInvalid, err))
	}
	if err := q.start(ctx); err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	if err := q.served(ctx); err != nil {
		stop, cancel := context.WithCancel(context.Background())
		cancel()
		return nil, fmt.Errorf("open queue: %w", errors.Join(err, q.Close(stop)))
	}
	return q, nil
}

// start takes the name and makes the memory and the workers.
func (q *Queue) start(ctx context.Context) (err error) {
	if q.opts.Name != "" {
		if q.name, err = proc.TakeName(q.opts.Name); err != nil {
			if errors.Is(err, proc.ErrTaken) {
				err = fmt.Errorf("%w: %w", ErrNameTaken, err)
			}
			return err
		}
	}
	if q.opts.Threads {
		q.fleet, err = newThreads(q)
	} else {
		q.fleet, err = newProcesses(ctx, q)
	}
	if err != nil {
		return errors.Join(err, q.release())
	}
	for i := range q.opts.Workers {
		q.tables = append(q.tables, newTable(q, protocol.Core(i)))
		q.slots = append(q.slots, &slot{core: protocol.Core(i)})
	}
	if q.name != nil {
		if q.window, err = openWindow(q, q.name); err != nil {
			return errors.Join(err, q.release())
		}
	}
	for i := range q.opts.Workers {
		q.boot(protocol.Core(i), false)
	}
	q.ended.Go(q.tend)
	return nil
}

// release gives back what start took: the window before the memory, which it
// shows, and the name last, for others may take it then.
func (q *Queue) release() (err error) {
	if q.window != nil {
		err = q.window.close()
	}
	if q.fleet != nil {
		err = errors.Join(err, q.fleet.release())
	}
	if q.name != nil {
		err = errors.Join(err, q.name.Close())
	}
	return err
}

// served waits until every log is served by its own worker with all copies.
func (q *Queue) served(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		waiting := q.unserved()
		if waiting < 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for worker %d, whose queue is at %v: %w", waiting, q.mem.Arbiter(protocol.Core(waiting)), context.Cause(ctx))
		case <-q.closing:
			return q.reason()
		case <-tick.C:
		}
	}
}

// reason says why the queue takes nothing any more.
func (q *Queue) reason() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.failed != nil:
		return q.failed
	case q.state == draining:
		return ErrDraining
	case q.state == closing:
		return ErrClosed
	}
	return nil
}

// Wait waits for a task to end and hands its result over: once, and to all who
// wait for it then.
func (q *Queue) Wait(ctx context.Context, id ID) (Result, error) {
	t, err := q.tableOf(id)
	if err != nil {
		return Result{}, fmt.Errorf("wait for %v: %w", id, err)
	}
	result, w, err := t.waitFor(id)
	if w == nil {
		return result, err
	}
	select {
	case <-w.done:
		if errors.Is(w.result.Err, ErrClosed) || errors.Is(w.result.Err, ErrControlLost) {
			return Result{}, w.result.Err
		}
		return w.result, nil
	case <-ctx.Done():
		return Result{}, fmt.Errorf("wait for %v: %w", id, context.Cause(ctx))
	}
}

func (q *Queue) tableOf(id ID) (*table, error) {
	switch {
	case id.Run != q.cfg.Run:
		return nil, ErrOtherRun
	case int(id.Core) >= len(q.tables):
		return nil, fmt.Errorf("there is no queue %d: %w", id.Core, ErrInvalid)
	}
	return q.tables[id.Core], nil
}

// Cancel ends a task that has not started, and ends the context of one that has.
// It returns when that is recorded; how the task ends then is for Wait to tell.
func (q *Queue) Cancel(ctx context.Context, id ID) error {
	if _, err := q.inquire(ctx, id, true); err != nil {
		return fmt.Errorf("cancel %v: %w", id, err)
	}
	return nil
}

// Resolve says where a task stands. It is what to ask after an [*UnknownError].
func (q *Queue) Resolve(ctx context.Context, id ID) (State, error) {
	s, err := q.inquire(ctx, id, false)
	if err != nil {
		return Unknown, fmt.Errorf("resolve %v: %w", id, err)
	}
	return s, nil
}

func (q *Queue) inquire(ctx context.Context, id ID, cancel bool) (State, error) {
	t, err := q.tableOf(id)
	if err != nil {
		return Unknown, err
	}
	s, a := t.question(id, cancel)
	if a == nil {
		return s, nil
	}
	select {
	case s, ok := <-a.reply:
		if !ok {
			return Unknown, q.reason()
		}
		return s, nil
	case <-q.closing:
		return Unknown, q.reason()
	case <-ctx.Done():
		return Unknown, context.Cause(ctx)
	}
}

// Drain takes no more tasks and waits until those that were taken have ended.
func (q *Queue) Drain(ctx context.Context) error {
	q.mu.Lock()
	if q.state == open {
		q.state = draining
	}
	q.mu.Unlock()
	q.released()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for q.pending() > 0 {
		select {
		case <-tick.C:
		case <-q.closing:
			return fmt.Errorf("drain queue: %w", q.reason())
		case <-ctx.Done():
			return fmt.Errorf("drain queue: %d tasks have not ended: %w", q.pending(), context.Cause(ctx))
		}
	}
	return nil
}

func (q *Queue) pending() (n int) {
	for _, t := range q.tables {
		t.mu.Lock()
		n += t.pending
		t.mu.Unlock()
	}
	return n
}

// Close ends the workers and gives everything back. Handlers that run have their
// contexts ended, and are waited for until ctx ends; tasks that have not ended by
// then are gone. It may be called more than once.
func (q *Queue) Close(ctx context.Context) error {
	q.mu.Lock()
	first := q.state != closing
	q.state = closing
	if first {
		close(q.closing)
	}
	q.mu.Unlock()
	if !first {
		<-q.closed
		return q.closeErr
	}
	defer close(q.closed)
	q.released()
	err := q.fleet.stop(ctx)
	q.ended.Wait()
	reason := q.reason()
	for _, t := range q.tables {
		t.fail(reason)
	}
	if err = errors.Join(err, q.release()); err != nil {
		q.closeErr = fmt.Errorf("close queue: %w", err)
	}
	return q.closeErr
}
