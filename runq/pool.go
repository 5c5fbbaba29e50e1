package runq

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"sync"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/protocol"
)

// run is an attempt under way in this worker.
type run struct {
	log     protocol.Core
	task    Task
	token   uint32
	attempt uint16
	in, out []byte
	ctx     *attemptContext
	outcome protocol.Outcome
	// notBefore is when the next attempt may begin, in microseconds of the run.
	notBefore uint64
	began     clock.Instant
	at        int // Its place in the list of active runs.
	stopped   bool
	reported  bool
	late      bool // It did not begin, for the lease was over.
	fresh     bool // Its context can serve another attempt.
}

// pool runs handlers off the scheduling loop, a few at a time. Runs come and go
// under one lock that a handler takes once a task.
type pool struct {
	w    *worker
	mu   sync.Mutex
	todo []*run
	head int
	done []*run
	idle int
	// more wakes a handler that found nothing to do.
	more *sync.Cond
	// hold is how many results may wait while there is more to do: the loop
	// raises it when tasks are short.
	hold   int
	closed bool
	ended  sync.WaitGroup
}

func newPool(w *worker, handlers int) *pool {
	p := &pool{w: w}
	p.more = sync.NewCond(&p.mu)
	for range handlers {
		p.ended.Go(p.handle)
	}
	return p
}

// put hands runs to the handlers.
func (p *pool) put(runs []*run) {
	p.mu.Lock()
	if p.head > len(p.todo)/2 {
		n := copy(p.todo, p.todo[p.head:])
		clear(p.todo[n:])
		p.todo, p.head = p.todo[:n], 0
	}
	p.todo = append(p.todo, runs...)
	wake := min(p.idle, len(runs))
	p.mu.Unlock()
	for range wake {
		p.more.Signal()
	}
}

// take returns the runs that have ended and leaves buf in their place.
func (p *pool) take(buf []*run) []*run {
	p.mu.Lock()
	done := p.done
	p.done = buf[:0]
	p.mu.Unlock()
	return done
}

// setHold says how many results may wait.
func (p *pool) setHold(n int) {
	p.mu.Lock()
	p.hold = n
	p.mu.Unlock()
}

// close drops what no handler has begun with and lets the handlers end.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.head = len(p.todo)
	p.mu.Unlock()
	p.more.Broadcast()
}

// handle is a handler's goroutine.
func (p *pool) handle() {
	var labels labelCache
	p.mu.Lock()
	for {
		for p.head == len(p.todo) && !p.closed {
			p.idle++
			p.more.Wait()
			p.idle--
		}
		if p.closed {
			p.mu.Unlock()
			return
		}
		r := p.todo[p.head]
		p.todo[p.head] = nil
		p.head++
		p.mu.Unlock()
		p.w.execute(r, &labels)
		p.mu.Lock()
		p.done = append(p.done, r)
		if len(p.done) > p.hold || p.head == len(p.todo) {
			p.w.in.nudge()
		}
	}
}

// labelCache has the pprof labels of a handler's goroutine: setting them anew for
// each task would cost more than many tasks do.
type labelCache struct {
	number uint32
	known  map[uint32]context.Context
}

func (c *labelCache) set(w *worker, number uint32, name string) {
	if c.number == number {
		return
	}
	ctx, ok := c.known[number]
	if !ok {
		if c.known == nil {
			c.known = map[uint32]context.Context{}
		}
		ctx = pprof.WithLabels(context.Background(), pprof.Labels("runq_worker", strconv.Itoa(int(w.core)), "runq_task", name))
		c.known[number] = ctx
	}
	pprof.SetGoroutineLabels(ctx)
	c.number = number
}

// execute runs an attempt's handler and decides how it ended.
func (w *worker) execute(r *run, labels *labelCache) {
	if len(r.out) > 0 {
		return // Its payload was lost before it began.
	}
	if r.late = !w.mayBegin(); r.late {
		return
	}
	env, err := openEnvelope(r.in)
	if err != nil {
		r.out = appendResult(r.out, endPayload, "")
		return
	}
	h, ok := lookup(env.handler)
	if !ok {
		r.out = appendResult(r.out, endNoHandler, strconv.FormatUint(uint64(env.handler), 16))
		return
	}
	deadline := time.Time{}
	if env.deadline > 0 {
		if uint64(w.now())/1000 >= env.deadline {
			r.out = appendResult(r.out, endDeadline, "")
			return
		}
		deadline = w.wall(env.deadline)
	}
	labels.set(w, env.handler, h.name)
	r.task.Name, r.task.Payload, r.task.Deadline = h.name, env.payload, deadline
	r.task.Attempt, r.task.Token, r.task.Worker = int(r.attempt), r.token, int(w.core)
	r.ctx.begin(deadline)
	out, err := call(h.handle, r)
	r.fresh = r.ctx.finish()
	if err == nil && len(out) > w.maxPayload {
		err = fmt.Errorf("result of %d bytes: %w: want %d at most", len(out), ErrTooLarge, w.maxPayload)
	}
	if err != nil {
		w.failed(r, err, env.retry)
		return
	}
	if len(out) > 0 {
		r.out = append(append(r.out, byte(endOK)), out...)
	}
}

// failed decides about another attempt. The payload is the result if there is
// none.
func (w *worker) failed(r *run, err error, retry Retry) {
	text, how := err.Error(), endError
	if p := (*panicError)(nil); errors.As(err, &p) {
		text, how = p.text+stackMark+p.stack, endPanic
	}
	r.out = appendResult(r.out, how, text[:min(len(text), w.maxPayload)])
	if failures := int(r.attempt); failures < retry.Attempts || w.stopped(r) {
		r.outcome = protocol.OutcomeRetry
		r.notBefore = uint64(w.now()+clock.Instant(retry.after(failures)))/1000 + 1
	}
}

// panicError is a handler's panic.
type panicError struct{ text, stack string }

func (e *panicError) Error() string { return "handler panicked: " + e.text }

// call runs a handler and makes a panic an error: it ends the task, not the
// worker.
func call(h Handler, r *run) (out []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{fmt.Sprint(p), string(debug.Stack())}
		}
	}()
	return h(r.ctx, &r.task)
}
