package protocol

import (
	"cmp"
	"math/bits"
	"slices"
)

// TaskState is where a task stands in one log.
type TaskState uint8

const (
	// StateNone is no task: never seen, or forgotten after its end.
	StateNone TaskState = iota
	// StateReady waits for a claim, from its NotBefore on.
	StateReady
	// StateClaimed has an attempt under way.
	StateClaimed
	// StateMoving is offered to another log, which has not answered.
	StateMoving
	// StateMoved is in another log; the entry tells which.
	StateMoved
	// StateRefused was offered to this log and refused.
	StateRefused
	// StateDone ended with a result.
	StateDone
	// StateCancelled ended by a cancel, or was never there and never will be.
	StateCancelled
	// StateLost may not be run again, and its submitter is told so.
	StateLost
	states
)

var stateNames = [states]string{"none", "ready", "claimed", "moving", "moved", "refused", "done", "cancelled", "lost"}

func (s TaskState) String() string { return stateNames[min(s, states-1)] }

// Terminal reports whether the task has ended: such an entry is a tombstone.
func (s TaskState) Terminal() bool { return s >= StateDone }

// task is an entry of a queue. Its record holds what a snapshot would write;
// Arg is the log it moves or moved to, Arg2 the state.
type task struct {
	Record
	// order is the place in the queue among equals; seq the last record.
	order, seq uint64
	// heap is the place in the ready or delayed heap plus one, 0 in none.
	heap  int32
	place int32 // Where the entry stands.
	state TaskState
	// refused says that Hop is one that this log refused.
	refused bool
	// collected tombstones have nobody to tell any more.
	collected bool
	late      bool // In the delayed heap.
	laned     bool // In the lane of its priority.
	used      bool
}

// Bits above the state in Arg2 of a snapshot's record.
const (
	snapRefused = 1 << 8 << iota
	snapCollected
	snapWarded
)

// queue is the replicated state of a log: what its records add up to. Applying
// the same records to the same queue gives the same queue, on the owner that
// wrote them and on the neighbour that reads them.
type queue struct {
	run     uint64
	index   table
	tasks   []task
	spare   []int32 // Free places in tasks.
	lanes   [MaxPrio + 1]lane
	busy    uint64  // The lanes that may have tasks, a bit each.
	ready   []int32 // A heap by priority, deadline and order, of those in no lane.
	delayed []int32 // A heap by NotBefore.
	waiting int     // Tasks in lanes and heaps.
	seen    vector
	order   uint64
	claimed int
	all     []int32 // For inOrder.
}

func newQueue(run uint64) *queue {
	return &queue{run: run, seen: newVector()}
}

func (q *queue) clone() *queue {
	c := *q
	c.index = q.index.clone()
	for i := range c.lanes {
		c.lanes[i] = q.lanes[i].clone()
	}
	c.tasks, c.spare = slices.Clone(q.tasks), slices.Clone(q.spare)
	c.ready, c.delayed = slices.Clone(q.ready), slices.Clone(q.delayed)
	c.seen, c.all = q.seen.clone(), nil
	return &c
}

// find returns the entry of an ID, or nil.
func (q *queue) find(id TaskID) *task {
	i := q.index.find(q.tasks, &id)
	if i < 0 {
		return nil
	}
	return &q.tasks[i]
}

// after returns the entry of an ID, or nil, where the one before it in a run was t,
// or nil: what came together stands together.
func (q *queue) after(t *task, id *TaskID) *task {
	if t != nil {
		if i := int(t.place) - 1; i >= 0 && q.tasks[i].used && q.tasks[i].is(id) {
			return &q.tasks[i]
		}
		if i := int(t.place) + 1; i < len(q.tasks) && q.tasks[i].used && q.tasks[i].is(id) {
			return &q.tasks[i]
		}
	}
	if i := q.index.find(q.tasks, id); i >= 0 {
		return &q.tasks[i]
	}
	return nil
}

// records is how many records a snapshot of the queue has.
func (q *queue) records() uint64 { return uint64(q.index.n) + q.seen.records() + 2 }

func (q *queue) insert(r *Record, state TaskState) *task {
	var i int32
	if n := len(q.spare); n > 0 {
		i, q.spare = q.spare[n-1], q.spare[:n-1]
	} else {
		i = int32(len(q.tasks))
		q.tasks = append(q.tasks, task{})
	}
	t := &q.tasks[i]
	q.order++
	t.become(r, q.order, i)
	q.index.add(q.tasks, i)
	q.enter(t, state)
	return t
}

func (q *queue) remove(t *task) {
	if !t.state.Terminal() {
		q.leave(t)
	}
	q.index.remove(q.tasks, t.place)
	t.state, t.used = StateNone, false // The rest is written anew with the next task.
	q.spare = append(q.spare, t.place)
}

// become makes an entry that of a record's task, in no state yet.
func (t *task) become(r *Record, order uint64, place int32) {
	t.Record = *r
	t.state, t.refused, t.collected, t.late, t.laned, t.used = StateNone, false, false, false, false, true
	t.order, t.seq, t.heap, t.place = order, r.Seq, 0, place
}

// set moves an entry to another state.
func (q *queue) set(t *task, state TaskState) {
	q.leave(t)
	q.enter(t, state)
}

func (q *queue) enter(t *task, state TaskState) {
	t.state = state
	switch {
	case state == StateClaimed:
		q.claimed++
	case state == StateReady && t.NotBefore > 0:
		t.late = true
		q.waiting++
		q.push(&q.delayed, t.place)
	case state == StateReady:
		q.waiting++
		q.enqueue(t)
	}
}

// enqueue makes a task ready: in its lane if it is the youngest there.
func (q *queue) enqueue(t *task) {
	l := &q.lanes[t.Prio&MaxPrio]
	if t.Deadline != 0 || l.last() >= t.order {
		q.push(&q.ready, t.place)
		return
	}
	t.laned = true
	l.push(q.tasks, laneEntry{t.place, t.order})
	q.busy |= 1 << (t.Prio & MaxPrio)
}

func (q *queue) leave(t *task) {
	switch {
	case t.state == StateClaimed:
		q.claimed--
	case t.laned:
		t.laned = false
		q.waiting--
		q.lanes[t.Prio&MaxPrio].drop(t.order)
	case t.heap != 0 && t.late:
		t.late = false
		q.waiting--
		q.pull(&q.delayed, t.heap-1)
	case t.heap != 0:
		q.waiting--
		q.pull(&q.ready, t.heap-1)
	}
}

// apply performs a record on the queue, where t is the task that it is about, or
// nil, and returns the payload that nobody needs any more. A record that does not fit the state changes nothing: that is
// what makes repeated, late and lost records harmless.
func (q *queue) apply(r *Record, t *task) (freed Ref) {
	switch r.Kind {
	case KindEnqueue:
		if q.seen.add(r.ID) {
			q.insert(r, StateReady)
		}
	case KindClaim, KindDone:
		if t != nil && fits(r, t) {
			return q.attempt(t, r)
		}
	case KindCancel:
		return q.cancel(t, r)
	case KindMoveIn, KindRefuse:
		return q.arrive(t, r)
	case KindFloor:
		switch r.Arg {
		case floorClosed:
			q.seen.close(r.ID.Core, r.ID.Incarnation)
			q.dropBelow(r)
		case floorLow:
			q.seen.raise(r.ID.Stream, r.ID.N)
			q.dropBelow(r)
		case floorLost:
			q.seen.lost.raise(r.ID.Core, r.ID.Incarnation)
		}
	case KindSnapSeen:
		if r.Arg2 == 0 {
			q.seen.raise(r.ID.Stream, r.ID.N)
		} else {
			q.seen.add(r.ID)
		}
	case KindSnapTask:
		q.restore(r)
	default:
		if t != nil && fits(r, t) {
			freed = q.advance(t, r)
		}
	}
	return freed
}

// replay performs a record of a log that was read.
func (q *queue) replay(r *Record) {
	if !r.Kind.spans() || r.Arg2 == 0 {
		q.apply(r, q.find(r.ID))
		return
	}
	for one := range r.Each {
		q.apply(one, q.find(one.ID))
	}
}

// fits reports whether a record speaks of the state that the task is in.
func fits(r *Record, t *task) bool {
	switch r.Kind {
	case KindClaim:
		return t.state == StateReady
	case KindDone, KindRetry:
		return t.state == StateClaimed && r.Attempt == t.Attempt && r.Token == t.Token
	case KindLost:
		return !t.state.Terminal()
	case KindMoveOut:
		return t.state == StateReady
	case KindMoved, KindMoveBack:
		return t.state == StateMoving && r.Hop == t.Hop
	case KindRetire:
		return t.state == StateMoved || t.state == StateRefused
	case KindCollect:
		return t.state.Terminal()
	}
	return false
}

// attempt begins an attempt or takes its end, as a record says that fits. Most
// records are of these kinds.
func (q *queue) attempt(t *task, r *Record) (freed Ref) {
	t.seq = r.Seq
	if r.Kind == KindClaim {
		t.Attempt, t.Token, t.NotBefore = r.Attempt, r.Token, 0
		q.leave(t)
		t.state = StateClaimed
		q.claimed++
		return Ref{}
	}
	freed, t.Payload = t.Payload, r.Payload
	t.collected = t.Flags&Detached != 0
	t.state = StateDone
	q.claimed--
	return freed
}

// advance performs another record that fits.
func (q *queue) advance(t *task, r *Record) (freed Ref) {
	t.seq = r.Seq
	switch r.Kind {
	case KindRetry:
		if t.Flags&CancelAsked != 0 {
			return q.end(t, StateCancelled)
		}
		t.NotBefore, t.Crashes, t.Affinity = r.NotBefore, r.Crashes, r.Affinity
		if r.Arg == retryFree {
			t.Attempt--
		}
		t.Arg, t.Arg2 = 0, 0
		q.set(t, StateReady)
	case KindLost:
		return q.end(t, StateLost)
	case KindMoveOut:
		t.Hop, t.Arg, t.refused = r.Hop, r.Arg, false
		q.set(t, StateMoving)
	case KindMoved:
		freed, t.Payload = t.Payload, Ref{}
		q.set(t, StateMoved)
	case KindMoveBack:
		q.set(t, StateReady)
	case KindRetire:
		q.remove(t)
	case KindCollect:
		freed, t.Payload, t.collected = t.Payload, Ref{}, true
	}
	return freed
}

// end makes a tombstone without a result.
func (q *queue) end(t *task, state TaskState) (freed Ref) {
	freed, t.Payload = t.Payload, Ref{}
	t.collected = t.Flags&Detached != 0 || state == StateCancelled
	q.set(t, state)
	return freed
}

func (q *queue) cancel(t *task, r *Record) (freed Ref) {
	switch {
	case t == nil && !q.seen.has(r.ID):
		q.seen.add(r.ID)
		q.insert(r, StateCancelled).collected = true
	case t != nil && t.state == StateReady:
		t.seq = r.Seq
		return q.end(t, StateCancelled)
	case t != nil && t.state == StateClaimed:
		t.Flags |= CancelAsked
		t.seq = r.Seq
	}
	return Ref{}
}

// arrive takes or refuses an offered task. The pair of ID and hop is what tells
// a task that comes back from an offer that was repeated.
func (q *queue) arrive(t *task, r *Record) (freed Ref) {
	if t == nil {
		if q.seen.has(r.ID) {
			return r.Payload
		}
		q.seen.add(r.ID)
		if r.Kind == KindMoveIn {
			q.insert(r, StateReady)
		} else {
			q.insert(r, StateRefused).refused = true
		}
		return Ref{}
	}
	// An offer back to a log that still waits for the answer is the answer.
	if t.Hop >= r.Hop || t.state != StateMoved && t.state != StateRefused && t.state != StateMoving {
		return r.Payload
	}
	if r.Kind == KindRefuse {
		if t.state == StateMoving {
			freed, t.Payload = t.Payload, Ref{}
			q.set(t, StateMoved)
		}
		t.Hop, t.seq, t.refused = r.Hop, r.Seq, true
		return freed
	}
	q.leave(t)
	q.order++
	freed = t.Payload
	t.become(r, q.order, t.place)
	q.enter(t, StateReady)
	return freed
}

// dropBelow forgets entries that only remember where a task went, where it is
// known to have ended.
func (q *queue) dropBelow(r *Record) {
	for i := range q.tasks {
		t := &q.tasks[i]
		if !t.used || t.state != StateRefused && t.state != StateMoved || t.ID.Core != r.ID.Core {
			continue
		}
		if r.Arg == floorClosed && t.ID.Incarnation < r.ID.Incarnation || r.Arg == floorLow && t.ID.Stream == r.ID.Stream && t.ID.N <= r.ID.N {
			q.remove(t)
		}
	}
}

// restore inserts a task of a snapshot.
func (q *queue) restore(r *Record) {
	state := TaskState(r.Arg2 & 0xff)
	if q.find(r.ID) != nil || state == StateNone || state >= states {
		return
	}
	q.seen.add(r.ID)
	t := q.insert(r, state)
	t.refused, t.collected = r.Arg2&snapRefused != 0, r.Arg2&snapCollected != 0
	t.Arg2 &= snapWarded
}

// snapshot yields the queue as records, in the order of the queue, so that a
// new owner serves in the order of the old one.
func (q *queue) snapshot(yield func(Record)) {
	yield(Record{Kind: KindSnapBegin, ID: TaskID{Run: q.run, N: q.records() - 2}})
	q.seen.snapshot(q.run, yield)
	for _, i := range q.inOrder() {
		t := &q.tasks[i]
		r := t.Record
		r.Kind, r.Arg2 = KindSnapTask, uint16(t.state)|t.Arg2&snapWarded
		if t.refused {
			r.Arg2 |= snapRefused
		}
		if t.collected {
			r.Arg2 |= snapCollected
		}
		yield(r)
	}
	yield(Record{Kind: KindSnapEnd, ID: TaskID{Run: q.run}})
}

// far yields the ready tasks from the far end of the queue, roughly: those that it
// would be the longest until their turn.
func (q *queue) far(yield func(*task) bool) {
	for prio := range q.lanes {
		l := &q.lanes[prio]
		for at := l.tail; at > l.head; at-- {
			if e := l.ring[(at-1)&uint64(len(l.ring)-1)]; e.lives(q.tasks) && !yield(&q.tasks[e.place]) {
				return
			}
		}
	}
	for i := len(q.ready) - 1; i >= 0; i-- {
		if !yield(&q.tasks[q.ready[i]]) {
			return
		}
	}
}

// wake makes delayed tasks ready whose time has come, in microseconds.
func (q *queue) wake(now uint64) {
	for len(q.delayed) > 0 {
		i := q.delayed[0]
		t := &q.tasks[i]
		if t.NotBefore > now {
			return
		}
		q.pull(&q.delayed, 0)
		t.late = false
		q.enqueue(t)
	}
}

// first returns the task to run next, or nil.
func (q *queue) first() *task {
	best := int32(-1)
	for q.busy != 0 {
		prio := bits.Len64(q.busy) - 1
		if best = q.lanes[prio].front(q.tasks); best >= 0 {
			break
		}
		q.busy &^= 1 << prio
	}
	if len(q.ready) > 0 && (best < 0 || q.before(&q.ready, q.ready[0], best)) {
		best = q.ready[0]
	}
	if best < 0 {
		return nil
	}
	return &q.tasks[best]
}

// before is the order of both heaps.
func (q *queue) before(h *[]int32, a, b int32) bool {
	x, y := &q.tasks[a], &q.tasks[b]
	if h == &q.delayed {
		return cmp.Or(cmp.Compare(x.NotBefore, y.NotBefore), cmp.Compare(x.order, y.order)) < 0
	}
	// A deadline of 0 is none, and wraps to the latest of all.
	return cmp.Or(cmp.Compare(y.Prio, x.Prio), cmp.Compare(x.Deadline-1, y.Deadline-1), cmp.Compare(x.order, y.order)) < 0
}

func (q *queue) put(h *[]int32, at int, i int32) {
	(*h)[at] = i
	q.tasks[i].heap = int32(at) + 1
}

func (q *queue) push(h *[]int32, i int32) {
	*h = append(*h, i)
	q.up(h, len(*h)-1, i)
}

func (q *queue) up(h *[]int32, at int, i int32) {
	for at > 0 && q.before(h, i, (*h)[(at-1)/2]) {
		q.put(h, at, (*h)[(at-1)/2])
		at = (at - 1) / 2
	}
	q.put(h, at, i)
}

// pull takes the element at a place out of a heap.
func (q *queue) pull(h *[]int32, at int32) {
	q.tasks[(*h)[at]].heap = 0
	last := len(*h) - 1
	i := (*h)[last]
	*h = (*h)[:last]
	if int(at) == last {
		return
	}
	hole := int(at)
	for {
		child := 2*hole + 1
		if child+1 < last && q.before(h, (*h)[child+1], (*h)[child]) {
			child++
		}
		if child >= last || !q.before(h, (*h)[child], i) {
			break
		}
		q.put(h, hole, (*h)[child])
		hole = child
	}
	q.up(h, hole, i)
}
