package runq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/internal/trial"
	"github.com/coreplica/coreplica/runq/protocol"
)

// fleet is how workers live: as goroutines, or as processes.
type fleet interface {
	// boot starts a life of a worker. Crashed says how the one before ended.
	// The link is there when boot returns. When the life is over the fleet
	// calls died, and restart when all that it said was heard.
	boot(core protocol.Core, crashed bool) (link, error)
	// kill ends a life, and resetAffinity lets it run anywhere to die.
	kill(core protocol.Core, incarnation uint32)
	resetAffinity(core protocol.Core, incarnation uint32)
	// stop ends all workers and waits for handlers until ctx ends.
	stop(ctx context.Context) error
	// release gives the memory back.
	release() error
	// pid is the process of a worker, 0 for none.
	pid(core protocol.Core) int
}

// link is the way to one life of a worker. It never waits: a worker that stands
// still must not stop who talks to it.
type link interface {
	// post hands events over. What they refer to stays as it is until they are
	// answered.
	post(evs []protocol.Event)
}

// slot is the place of a worker, whichever life is in it.
type slot struct {
	core protocol.Core
	mu   sync.Mutex
	link link
	// life is the incarnation that was born last, doomed the last one that a
	// takeover wanted to kill, fenced the last one that ended by itself because
	// it was fenced off.
	life, doomed, fenced uint32
	dead                 uint32 // The last life that is over.
	crashed              bool   // How it ended.
	up                   bool
	deaths               int // In a row, without a time of health between them.
	bornAt               clock.Instant
	completed            atomic.Uint64
	watch                clock.Watch // Of its heartbeat; for tend alone.
	away                 atomic.Bool // Its CPU is offline.
	lossy                atomic.Bool // Something to or from it was dropped: ask again.
}

// Restarts wait longer after each death that comes soon after a birth, so that a
// worker that cannot live does not take a CPU.
const (
	firstRestart = time.Millisecond
	lastRestart  = time.Second
	healthy      = 5 * time.Second
)

// boot starts a life of a worker, and again if that fails.
func (q *Queue) boot(core protocol.Core, crashed bool) {
	s := q.slots[core]
	l, err := q.fleet.boot(core, crashed)
	if err != nil {
		if q.isClosing() {
			return
		}
		q.opts.Logger.Error("start worker", "worker", core, "error", err)
		s.mu.Lock()
		s.deaths++
		s.mu.Unlock()
		q.restart(core, crashed)
		return
	}
	s.mu.Lock()
	s.link, s.up = l, true
	s.mu.Unlock()
}

// mourning is how long a new life waits at most until the queue of the one before
// is served again: whoever takes it over needs the CPUs first.
const mourning = 100 * time.Millisecond

// beingTaken reports whether another worker is about to take a worker's queue over.
func (q *Queue) beingTaken(core protocol.Core) bool {
	w := q.mem.Arbiter(core)
	if w.Phase == protocol.Active && w.Owner != core || w.Phase == protocol.Vacant {
		return false
	}
	return slices.ContainsFunc(q.slots, func(s *slot) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.core != core && s.up && s.life > 0
	})
}

// restart starts another life after a while, unless the queue is closing.
func (q *Queue) restart(core protocol.Core, crashed bool) {
	if q.isClosing() {
		return
	}
	s := q.slots[core]
	s.mu.Lock()
	wait := min(firstRestart<<min(max(s.deaths-1, 0), 20), lastRestart)
	s.mu.Unlock()
	q.ended.Go(func() {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		for until := q.now().Add(wait + mourning); ; timer.Reset(firstRestart) {
			select {
			case <-q.closing:
				return
			case <-timer.C:
			}
			if !q.beingTaken(core) || q.now() >= until {
				break
			}
		}
		q.stats.restarts.Add(1)
		q.boot(core, crashed)
	})
}

// died is called by the fleet as soon as a life is over, so that its neighbours
// need not wait for what it said before. Incarnation 0 is one that was never
// born. It returns whether the life ended by itself.
func (q *Queue) died(core protocol.Core, incarnation uint32, cause error) (crashed bool) {
	s := q.slots[core]
	s.mu.Lock()
	s.up, s.link, s.life = false, nil, 0
	crashed = s.crashed
	if incarnation > s.dead {
		crashed = s.doomed < incarnation && s.fenced < incarnation
		s.dead, s.crashed = incarnation, crashed
	}
	if q.now().Sub(s.bornAt) > healthy {
		s.deaths = 0
	}
	s.deaths++
	kind := WorkerDied
	switch {
	case incarnation > 0 && s.fenced >= incarnation:
		kind = WorkerFenced
	case incarnation > 0 && s.doomed >= incarnation:
		kind = WorkerKilled
	}
	s.mu.Unlock()
	if q.isClosing() {
		return crashed
	}
	if incarnation > 0 {
		for _, other := range q.slots {
			if other.core != core {
				q.post(other.core, []protocol.Event{{Kind: protocol.EventExited, Core: core, Incarnation: incarnation, Crashed: crashed}})
			}
		}
	}
	if kind == WorkerDied {
		q.stats.crashes.Add(1)
	}
	q.happen(Happening{Kind: kind, Worker: int(core), Incarnation: incarnation, Err: cause})
	return crashed
}

func (q *Queue) isClosing() bool {
	select {
	case <-q.closing:
		return true
	default:
		return false
	}
}

// post hands events to a worker, or reports that it is not there.
func (q *Queue) post(core protocol.Core, evs []protocol.Event) bool {
	s := q.slots[core]
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l != nil {
		l.post(evs)
	}
	return l != nil
}

// route hands events to whoever serves a log, or reports that nobody does.
func (q *Queue) route(log protocol.Core, evs []protocol.Event) bool {
	w := q.mem.Arbiter(log)
	return w.Phase == protocol.Active && int(w.Owner) < len(q.slots) && q.post(w.Owner, evs)
}

// take hears what a worker tells.
func (q *Queue) take(core protocol.Core, notes []notice) {
	var t *table
	unlock := func() {
		if t != nil {
			t.unlock()
			t = nil
		}
	}
	for i := range notes {
		n := &notes[i]
		if n.kind != noteAnswer && (n.kind != noteReport || n.id.N == 0) {
			unlock()
			q.heard(core, n)
			continue
		}
		if n.id.Run != q.cfg.Run || int(n.id.Core) >= len(q.tables) {
			continue
		}
		if t != q.tables[n.id.Core] {
			unlock()
			t = q.tables[n.id.Core]
			t.mu.Lock()
		}
		if n.kind == noteReport {
			t.lost(n)
			continue
		}
		if n.code == protocol.CodeDone {
			q.slots[core].completed.Add(1 + uint64(n.more))
		}
		for range uint64(n.more) + 1 {
			t.answer(n)
			n.id.N++
		}
	}
	unlock()
	for i := range notes {
		if n := &notes[i]; n.kind == noteReport && n.id.N > 0 {
			q.happen(Happening{Kind: TaskLost, Worker: int(n.core), Queue: int(n.log), ID: n.id, Err: &LostError{n.id, LossReason(n.seq)}})
		}
	}
}

// heard takes a notice that is not about one task's answer.
func (q *Queue) heard(core protocol.Core, n *notice) {
	switch n.kind {
	case noteMessage:
		q.route(n.message.ToLog, []protocol.Event{{Kind: protocol.EventMessage, Log: n.message.ToLog, Message: n.message}})
	case noteReport:
		q.stats.recordsLost.Add(1)
		q.happen(Happening{Kind: RecordsLost, Worker: int(n.core), Queue: int(n.log), Err: fmt.Errorf("queue %d: %v", n.log, LossReason(n.seq))})
	case noteReset:
		q.fleet.resetAffinity(n.core, n.incarnation)
	case noteKill:
		if h := trial.Hooks.Spare; h != nil && h(int(n.core), n.incarnation) {
			return
		}
		s := q.slots[n.core]
		s.mu.Lock()
		s.doomed = max(s.doomed, n.incarnation)
		s.mu.Unlock()
		q.fleet.kill(n.core, n.incarnation)
	case noteUnkillable:
		q.stats.unkillable.Add(1)
		q.happen(Happening{Kind: Unkillable, Worker: int(n.core), Incarnation: n.incarnation, Queue: int(n.log), Err: ErrOwnerUnkillable})
	case noteBorn:
		q.born(core, n.incarnation)
	case noteExit:
		q.fencedOff(core, n.incarnation)
	case noteMissed:
		q.slots[core].lossy.Store(true)
	case noteStep:
		if n.step == QueueServed && n.changed {
			q.stats.takeovers.Add(1)
		}
		h := Happening{Kind: n.step, Worker: int(n.core), Incarnation: n.incarnation, Queue: int(n.log), Epoch: uint32(n.seq), ID: n.id}
		if len(n.payload) == 8 {
			h.Time = q.began.Add(time.Duration(order.Uint64(n.payload)))
		}
		q.happen(h)
	case noteStuck:
		q.stats.stuck.Add(1)
		q.happen(Happening{Kind: TaskStuck, Worker: int(n.core), Queue: int(n.log), ID: n.id})
	}
}

// fencedOff notes that a life ended because it was fenced off.
func (q *Queue) fencedOff(core protocol.Core, incarnation uint32) {
	s := q.slots[core]
	s.mu.Lock()
	defer s.mu.Unlock()
	if incarnation > s.fenced {
		s.fenced = incarnation
		q.stats.fenced.Add(1)
	}
}

// born notes that a worker lives, and tells it who does not.
func (q *Queue) born(core protocol.Core, incarnation uint32) {
	s := q.slots[core]
	s.mu.Lock()
	s.life, s.bornAt = incarnation, q.now()
	s.mu.Unlock()
	for _, other := range q.slots {
		other.mu.Lock()
		dead, crashed := other.dead, other.crashed
		other.mu.Unlock()
		// Also of one that lives again: how it died counts against its tasks.
		if other.core != core && dead > 0 {
			q.post(core, []protocol.Event{{Kind: protocol.EventExited, Core: other.core, Incarnation: dead, Crashed: crashed}})
		}
	}
	q.post(core, []protocol.Event{q.cpus()})
	q.happen(Happening{Kind: WorkerUp, Worker: int(core), Incarnation: incarnation})
}

// happen logs and tells what happened.
func (q *Queue) happen(h Happening) {
	if h.Time.IsZero() {
		h.Time = time.Now()
	}
	q.recent.add(&h)
	args := []any{"worker", h.Worker, "incarnation", h.Incarnation, "queue", h.Queue, "epoch", h.Epoch}
	if h.ID.N > 0 {
		args = append(args, "task", h.ID.String())
	}
	if h.Err != nil {
		q.opts.Logger.Warn(h.Kind.String(), append(args, "error", h.Err)...)
	} else {
		q.opts.Logger.Info(h.Kind.String(), args...)
	}
	if q.opts.Observe != nil {
		q.observed.Lock()
		defer q.observed.Unlock()
		q.opts.Observe(h)
	}
}

// tendEvery is how often the submitter's side looks after what it waits for.
const tendEvery = time.Millisecond

// tend asks again, notices who serves which log, and shares work out.
func (q *Queue) tend() {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	var before, control protocol.Control
	q.mem.ReadControl(&before)
	for n := 0; ; n++ {
		select {
		case <-q.closing:
			return
		case <-tick.C:
		}
		now := q.now()
		q.mem.ReadControl(&control)
		if err := q.checkControl(&before, &control); err != nil {
			q.lose(err)
			return
		}
		before, control = control, before
		for i, t := range q.tables {
			q.follow(t, protocol.UnpackArbiter(before.Arbiters[i]))
			t.tick(now)
		}
		if n%stealEvery == 0 {
			q.share()
		}
		if n%lossyEvery == 0 {
			q.makeUp()
			q.rescue(now)
		}
		if n%cpusEvery == 0 {
			q.followCPUs()
		}
	}
}

// lossyEvery is how many turns a worker that reads too slowly is left alone.
const lossyEvery = 50

// makeUp asks again where something that was said was dropped.
func (q *Queue) makeUp() {
	for _, s := range q.slots {
		if !s.lossy.Swap(false) {
			continue
		}
		for log := range q.tables {
			if w := q.mem.Arbiter(protocol.Core(log)); w.Owner == s.core {
				for _, t := range q.tables {
					t.reask(protocol.Core(log))
				}
			}
		}
	}
}

// follow asks about everything again where another life serves a log.
func (q *Queue) follow(t *table, w protocol.ArbiterWord) {
	if w.Phase != protocol.Active || int(w.Owner) >= len(q.slots) {
		return
	}
	s := q.slots[w.Owner]
	s.mu.Lock()
	life, up := s.life, s.up
	s.mu.Unlock()
	if !up || life == 0 || t.owner == w.Owner && t.ownerLife == life {
		return
	}
	first := t.ownerLife == 0
	t.owner, t.ownerLife = w.Owner, life
	if first {
		return
	}
	for _, other := range q.tables {
		other.reask(t.log)
	}
}

// lose ends a queue that cannot go on.
func (q *Queue) lose(err error) {
	q.mu.Lock()
	if q.failed == nil {
		q.failed = err
	}
	q.mu.Unlock()
	q.opts.Logger.Error("queue is lost", "error", err)
	for _, t := range q.tables {
		t.fail(err)
	}
	q.released()
}

// A queue is worth stealing from when it has more than a handful of tasks, and
// stealing is worth a look every few milliseconds.
const (
	stealEvery = 4
	worthwhile = 8
)

// share tells workers without tasks to steal from the longest queue.
func (q *Queue) share() {
	longest, most := protocol.Core(0), 0
	var idle []protocol.Core
	for i, t := range q.tables {
		t.mu.Lock()
		pending := t.pending
		t.mu.Unlock()
		if pending == 0 && !q.slots[i].away.Load() {
			idle = append(idle, protocol.Core(i))
		}
		if pending > most {
			longest, most = protocol.Core(i), pending
		}
	}
	if most < worthwhile {
		return
	}
	for _, core := range idle {
		q.post(core, []protocol.Event{{Kind: protocol.EventSteal, Log: longest}})
	}
}

// counters are what Stats shows.
type counters struct {
	submitted, accepted, completed, failed, cancelled, lost, retried atomic.Uint64
	crashes, restarts, takeovers, fenced, unkillable, stuck          atomic.Uint64
	recordsLost                                                      atomic.Uint64
}

func (c *counters) count(err error) {
	if err == nil {
		c.completed.Add(1)
		return
	}
	var lost *LostError
	switch {
	case errors.Is(err, ErrCancelled):
		c.cancelled.Add(1)
	case errors.As(err, &lost):
		c.lost.Add(1)
	default:
		c.failed.Add(1)
	}
}

// Stats returns counters and how the workers are.
func (q *Queue) Stats() Stats {
	c := &q.stats
	s := Stats{
		Submitted: c.submitted.Load(), Accepted: c.accepted.Load(), Completed: c.completed.Load(), Failed: c.failed.Load(),
		Cancelled: c.cancelled.Load(), Lost: c.lost.Load(), Retried: c.retried.Load(), Crashes: c.crashes.Load(), Restarts: c.restarts.Load(),
		Takeovers: c.takeovers.Load(), Fenced: c.fenced.Load(), Unkillable: c.unkillable.Load(), Stuck: c.stuck.Load(), RecordsLost: c.recordsLost.Load(),
	}
	for i, slot := range q.slots {
		slot.mu.Lock()
		w := WorkerStats{CPU: q.seats[i].cpu, Node: q.seats[i].node, Up: slot.up, Incarnation: slot.life, PID: q.fleet.pid(slot.core), Completed: slot.completed.Load()}
		slot.mu.Unlock()
		t := q.tables[i]
		t.mu.Lock()
		w.Pending = t.pending
		s.Pending += t.pending
		s.Retained += t.kept
		t.mu.Unlock()
		s.Workers = append(s.Workers, w)
	}
	if !q.isClosing() {
		for log := range q.tables {
			if w := q.mem.Arbiter(protocol.Core(log)); w.Phase == protocol.Active && int(w.Owner) < len(s.Workers) {
				s.Workers[w.Owner].Queues = append(s.Workers[w.Owner].Queues, log)
			}
		}
	}
	return s
}
