package runq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/protocol"
)

// entryState is how far a task has come, as its submitter knows.
type entryState uint8

const (
	submitting entryState = iota
	accepted
	// burying is a task that was refused: its number needs a tombstone, or it
	// would be a gap that every copy of the queue remembers.
	burying
	ended
)

// entry is a task of a submitter.
type entry struct {
	id    ID
	state entryState
	// where is the log to ask about it, denied those that know no such task.
	where                 protocol.Core
	denied                uint64
	detached, cancelAsked bool
	cells                 uint32
	batch                 *batch
	at                    int // Its place in the batch.
	wait                  *waiter
	askers                []*asker
	result                Result
	endedAt               clock.Instant
	due, full             bool // It is among those to ask again; the last answer was "full".
	// resent says that it was submitted to more than one owner of the log.
	resent bool
	// asked counts questions that were not answered yet. Only the last answer
	// may ask again, or each question would go on for ever beside the others.
	asked int
}

// waiter is what those who wait for one task share.
type waiter struct {
	done   chan struct{}
	result Result
}

// asker wants to know about one task, or to cancel it.
type asker struct {
	cancel bool
	reply  chan State
}

// batch is tasks that are submitted together.
type batch struct {
	evs   []protocol.Event
	bytes []byte
	codes []protocol.Code
	// number is that of name, which most often is all jobs' name.
	name   string
	number uint32
	left   atomic.Int64
	done   chan struct{}
}

var batches = sync.Pool{New: func() any { return &batch{done: make(chan struct{}, 1)} }}

func (b *batch) settle(at int, code protocol.Code) {
	b.codes[at] = code
	if b.left.Add(-1) == 0 {
		b.done <- struct{}{}
	}
}

// table has the tasks that were submitted to one log.
type table struct {
	q      *Queue
	log    protocol.Core
	mu     sync.Mutex
	stream protocol.Stream
	next   uint64
	tasks  index
	slab   []entry
	free   []int32
	// pending tasks have not ended; their payloads take cells.
	pending, cells int
	// retained are the keys of ended tasks, oldest first; some are gone.
	retained []uint64
	kept     int
	again    []uint64
	// pause is how long to wait before those in again are asked, from then on.
	pause time.Duration
	from  clock.Instant
	// collects are the results that were handed over last: whoever serves the
	// log next may not have heard of it.
	collects  []protocol.Event
	collected int
	// owner is who served the log when all of it was asked about last.
	owner     protocol.Core
	ownerLife uint32
	out       []protocol.Event
}

// maxNumber bounds the tasks of a stream, so that stream and number fit one word.
const maxNumber = 1<<40 - 1

func keyOf(id ID) uint64 { return uint64(id.Incarnation)<<40 | id.N }

func newTable(q *Queue, log protocol.Core) *table {
	return &table{q: q, log: log, stream: q.mem.Draw(log), tasks: newIndex(), owner: log, pause: askAgain}
}

// allocate returns a new entry with an ID of its own.
func (t *table) allocate() *entry {
	if t.next == maxNumber {
		t.stream, t.next = t.q.mem.Draw(t.log), 0
	}
	t.next++
	return t.insert(ID{Run: t.q.cfg.Run, Stream: t.stream, N: t.next})
}

func (t *table) insert(id ID) *entry {
	var i int32
	if n := len(t.free); n > 0 {
		i, t.free = t.free[n-1], t.free[:n-1]
	} else {
		i = int32(len(t.slab))
		t.slab = append(t.slab, entry{})
	}
	t.tasks.set(keyOf(id), i)
	e := &t.slab[i]
	*e = entry{id: id, where: t.log}
	return e
}

func (t *table) find(id ID) *entry {
	i, ok := t.tasks.get(keyOf(id))
	if !ok {
		return nil
	}
	return &t.slab[i]
}

func (t *table) remove(e *entry) {
	i := t.tasks.remove(keyOf(e.id))
	*e = entry{}
	t.free = append(t.free, i)
}

// emit sends an event about a task when the lock is given back.
func (t *table) emit(ev protocol.Event) { t.out = append(t.out, ev) }

// unlock posts what was emitted, in order, and gives the lock back.
func (t *table) unlock() {
	for from := 0; from < len(t.out); {
		log := t.out[from].Log
		to := from + 1
		for to < len(t.out) && t.out[to].Log == log {
			to++
		}
		if !t.q.route(log, t.out[from:to]) {
			t.postpone(t.out[from:to])
		}
		from = to
	}
	t.out = t.out[:0]
	t.mu.Unlock()
}

// postpone asks later what nobody is there to hear.
func (t *table) postpone(evs []protocol.Event) {
	for i := range evs {
		if e := t.find(evs[i].ID); e != nil && e.state != ended {
			e.asked = 0
			t.askLater(e)
		}
	}
}

// collect lets the log drop a result.
func (t *table) collect(id ID, log protocol.Core) {
	ev := protocol.Event{Kind: protocol.EventCollect, ID: id, Log: log}
	if last := len(t.out) - 1; last < 0 || !t.out[last].Joins(&ev) {
		t.emit(ev)
	}
	last := len(t.collects) - 1
	if t.collected > 0 {
		last = (t.collected - 1) % len(t.collects)
	}
	switch {
	case last >= 0 && t.collects[last].Joins(&ev):
	case len(t.collects) < max(t.q.opts.MaxPending, leastCollects):
		t.collects = append(t.collects, ev)
	default:
		t.collects[t.collected%len(t.collects)] = ev
		t.collected++
	}
}

// leastCollects is how many of them are remembered at least: more than are ever
// under way.
const leastCollects = 1024

// ask asks what there is to ask about a task.
func (t *table) ask(e *entry) {
	e.asked++
	switch e.state {
	case submitting:
		t.emit(e.batch.evs[e.at])
	case burying:
		t.emit(protocol.Event{Kind: protocol.EventCancel, ID: e.id, Log: t.log})
	case accepted:
		ev := protocol.Event{Kind: protocol.EventResolve, ID: e.id, Log: e.where}
		if slices.ContainsFunc(e.askers, func(a *asker) bool { return a.cancel }) {
			// The answer may be lost, and a cancelled task leaves nothing.
			ev.Kind, e.cancelAsked = protocol.EventCancel, true
		}
		t.emit(ev)
	}
}

// askLater asks again in a while.
func (t *table) askLater(e *entry) {
	t.q.stats.retried.Add(1)
	if e.due || e.asked > 0 {
		return
	}
	e.due = true
	if len(t.again) == 0 {
		t.from = t.q.now().Add(t.pause)
	}
	t.again = append(t.again, keyOf(e.id))
}

// A busy, full or absent owner is left alone for a while, longer each time, and
// then asked some of what there is to ask: whoever takes a queue over has enough
// to do.
const (
	askAgain     = time.Millisecond
	askAgainMost = 32 * time.Millisecond
	askAtOnce    = 256
)

// tick asks again what is due and forgets results that nobody wants.
func (t *table) tick(now clock.Instant) {
	t.mu.Lock()
	defer t.unlock()
	t.expire(now)
	if len(t.again) == 0 || now < t.from {
		return
	}
	t.pause = min(2*t.pause, askAgainMost)
	t.from = now.Add(t.pause)
	slices.Sort(t.again) // In the order of their numbers: gaps are what a log has little room for.
	n := min(len(t.again), askAtOnce)
	for _, key := range t.again[:n] {
		if i, ok := t.tasks.get(key); ok {
			t.slab[i].due = false
			t.ask(&t.slab[i])
		}
	}
	t.again = slices.Delete(t.again, 0, n)
}

// expire forgets the oldest results, by age and by number.
func (t *table) expire(now clock.Instant) {
	if len(t.retained) > 2*max(t.kept, 1024) {
		t.retained = slices.DeleteFunc(t.retained, func(key uint64) bool { i, ok := t.tasks.get(key); return !ok || t.slab[i].state != ended })
	}
	drop := 0
	for ; drop < len(t.retained); drop++ {
		i, ok := t.tasks.get(t.retained[drop])
		if !ok {
			continue
		}
		e := &t.slab[i]
		if t.kept <= t.q.keep && now.Sub(e.endedAt) < t.q.opts.ResultRetention {
			break
		}
		t.kept--
		t.remove(e)
	}
	t.retained = slices.Delete(t.retained, 0, drop)
}

// reask asks about all tasks again: another worker serves the log, and nobody
// knows what the one before has answered.
func (t *table) reask(log protocol.Core) {
	t.mu.Lock()
	defer t.unlock()
	var places []int32
	for i := range t.slab {
		if e := &t.slab[i]; e.id.N > 0 && e.state != ended && (e.where == log || e.state != accepted && t.log == log) {
			places = append(places, int32(i))
		}
	}
	slices.SortFunc(places, func(a, b int32) int { return cmp.Compare(keyOf(t.slab[a].id), keyOf(t.slab[b].id)) })
	for _, i := range places {
		e := &t.slab[i]
		e.asked, e.resent = 0, e.state == submitting
		t.ask(e)
	}
	for _, ev := range t.collects {
		if ev.Log == log {
			t.emit(ev)
		}
	}
}

// end gives a task its result.
func (t *table) end(e *entry, result Result, log protocol.Core) {
	if e.state == submitting {
		t.accept(e)
	}
	if e.state != accepted {
		return
	}
	e.state, e.result, e.endedAt = ended, result, t.q.now()
	t.release(e)
	t.q.stats.count(result.Err)
	for _, a := range e.askers {
		a.reply <- stateOf(result.Err)
	}
	e.askers = nil
	if !e.detached {
		t.collect(e.id, log)
	}
	switch {
	case e.wait != nil:
		e.wait.result = result
		close(e.wait.done)
		t.remove(e)
	case e.detached:
		t.remove(e)
	default:
		t.kept++
		t.retained = append(t.retained, keyOf(e.id))
		if t.kept > t.q.keep {
			t.expire(e.endedAt)
		}
	}
}

// release gives back what an unfinished task takes.
func (t *table) release(e *entry) {
	t.pending--
	t.cells -= int(e.cells)
	t.q.released()
}

func (t *table) accept(e *entry) {
	e.state = accepted
	t.q.stats.accepted.Add(1)
	e.batch.settle(e.at, protocol.CodeAccepted)
	e.batch = nil
}

// refuse ends a submission without a task.
func (t *table) refuse(e *entry, code protocol.Code) {
	t.release(e)
	e.state = burying
	b := e.batch
	e.batch = nil
	b.settle(e.at, code)
	if code == protocol.CodeOtherRun || code == protocol.CodeInvalid {
		t.remove(e)
		return
	}
	t.ask(e)
}

// fail ends everything: the queue is closed, or lost.
func (t *table) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.slab {
		e := &t.slab[i]
		if e.id.N == 0 {
			continue
		}
		if e.state == submitting {
			e.batch.settle(e.at, protocol.CodeUnknown)
		}
		if e.wait != nil {
			e.wait.result = Result{Err: fmt.Errorf("wait for %v: %w", e.id, err)}
			close(e.wait.done)
		}
		for _, a := range e.askers {
			close(a.reply)
		}
		if e.state != ended {
			t.tasks.remove(keyOf(e.id))
			*e = entry{} // Its place is not used again.
		}
	}
	t.again, t.pending, t.cells = nil, 0, 0
}

// wait returns the result of a task, or what to wait for.
func (t *table) waitFor(id ID) (Result, *waiter, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.find(id)
	switch {
	case e == nil || e.state == burying:
		return Result{}, nil, fmt.Errorf("wait for %v: there is no such task, or its result was handed over: %w", id, ErrUnknown)
	case e.state == ended:
		result := e.result
		t.kept--
		t.remove(e)
		return result, nil, nil
	case e.detached:
		return Result{}, nil, fmt.Errorf("wait for %v: it is detached and has no result: %w", id, ErrInvalid)
	case e.wait == nil:
		e.wait = &waiter{done: make(chan struct{})}
	}
	return Result{}, e.wait, nil
}

// question asks about a task and returns where the answer comes, or the answer.
func (t *table) question(id ID, cancel bool) (State, *asker) {
	t.mu.Lock()
	defer t.unlock()
	e := t.find(id)
	if e != nil && e.state == ended {
		return stateOf(e.result.Err), nil
	}
	if e != nil && e.state == burying {
		return Absent, nil
	}
	if e == nil {
		if id.Core != t.log || id.Incarnation > t.stream.Incarnation || id.Stream == t.stream && id.N > t.next || id.N == 0 {
			return Absent, nil // It was never given out.
		}
		return Ended, nil
	}
	a := &asker{cancel: cancel, reply: make(chan State, 1)}
	e.askers = append(e.askers, a)
	if e.state == accepted {
		t.ask(e)
	}
	return Unknown, a
}

func stateOf(err error) State {
	if err == nil {
		return Done
	}
	var lost *LostError
	switch {
	case errors.As(err, &lost):
		return Lost
	case errors.Is(err, ErrCancelled):
		return Cancelled
	}
	return Done
}

// await waits for a batch.
func (b *batch) await(ctx context.Context) error {
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
