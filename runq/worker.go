package runq

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/internal/shm"
	"github.com/coreplica/coreplica/runq/internal/trial"
	"github.com/coreplica/coreplica/runq/protocol"
)

const (
	// maxStep is how many events one step takes, those that speak of several tasks
	// counted for each: what it appends must fit a small ring, and its time must be nothing beside a lease.
	maxStep = 512
	// maxPrefetch is how many tasks may be claimed beyond the handlers, where
	// tasks are short.
	maxPrefetch = 256
	// ahead is how much work is claimed ahead: more than the time that a handler
	// takes to wake up, and so little that hardly a task waits where it cannot
	// be stolen.
	ahead = time.Millisecond
	// A tick is a small part of a lease. It is also how late a delayed task, or a
	// result that nobody hurried for, can be.
	leastTick = 500 * time.Microsecond
	mostTick  = 2 * time.Millisecond
	// careful is for how long after a crash nothing is claimed ahead: whatever
	// is claimed when a worker dies is suspected of having killed it.
	careful = 10 * time.Second
)

// worker is the scheduling loop of one core: it feeds the protocol's node with
// what happens and performs what the node wants.
type worker struct {
	core       protocol.Core
	node       *protocol.Node
	exec       *shm.Executor
	mem        *shm.Memory
	cfg        protocol.Config
	in         *inbox
	pool       *pool
	now        func() clock.Instant
	began      time.Time // The wall clock at instant 0.
	post       func([]notice)
	maxPayload int
	handlers   int
	taskLease  time.Duration
	// recorder is called with each step; nil in production.
	recorder func([]protocol.Event, []protocol.Effect)
	// home is the CPU that the loop is bound to; nil for a goroutine.
	home *home
	// doomed ends the loop from outside: a goroutine cannot be killed.
	doomed atomic.Bool
	life   atomic.Uint32 // The incarnation, for others.
	held   atomic.Int64  // Until when handlers may begin, by the run's clock.

	control  protocol.Control
	evs      []protocol.Event
	taken    []protocol.Event
	lying    [][]byte // What those lie in.
	finished []*run
	programs [2][]protocol.Effect
	one      protocol.Effect // A task's part of an effect that speaks of several.
	flip     int
	answer   protocol.Event // What the last program asked for.
	asked    bool
	notes    []notice
	// begun are attempts that the last program started, active all that have
	// not been settled, sent those whose end the node was told, again those to
	// tell it later.
	begun, active, sent, again []*run
	late                       []*run // They came back because the lease was over.
	// spent were settled and are not told of yet, spare are for new attempts.
	spent, spare   []*run
	sentHead       int
	ticked         clock.Instant
	tickEvery      time.Duration
	nextTick       clock.Instant
	rate           int // Attempts that ended since the last tick.
	prefetch       int
	running        int // Attempts that are with the handlers.
	crashed, stole clock.Instant
	claimed        clock.Instant   // When attempts were begun, or ended, last.
	inherited      []bool          // Logs taken from others, until a task of theirs starts.
	heir           bool            // The pending answer says that one is served now.
	question       protocol.Effect // The one that the last program ended with.
	served         []protocol.Core
}

// workerConfig is what a worker is started with.
type workerConfig struct {
	cfg        protocol.Config
	core       protocol.Core
	mem        *shm.Memory
	in         *inbox
	now        func() clock.Instant
	began      time.Time
	post       func([]notice)
	maxPayload int
	handlers   int
	taskLease  time.Duration
}

func newWorker(c workerConfig) (*worker, error) {
	node, err := protocol.NewNode(c.cfg, c.core)
	if err != nil {
		return nil, err
	}
	w := &worker{
		core: c.core, node: node, mem: c.mem, cfg: c.cfg, in: c.in, now: c.now, began: c.began, post: c.post,
		maxPayload: c.maxPayload, handlers: c.handlers, taskLease: c.taskLease,
		tickEvery: min(max(c.cfg.Lease.Renewal()/4, leastTick), mostTick), inherited: make([]bool, c.cfg.Cores), crashed: -clock.Instant(careful),
	}
	w.exec = shm.NewExecutor(c.mem, node, w)
	w.prepare()
	return w, nil
}

// wall returns the wall clock's time of microseconds of the run.
func (w *worker) wall(us uint64) time.Time { return w.began.Add(time.Duration(us) * time.Microsecond) }

// run lives until the node exits or the worker is doomed. crashed says how the
// life before ended.
func (w *worker) run(crashed bool) {
	w.pool = newPool(w, w.handlers)
	w.step(protocol.Event{Kind: protocol.EventStart, Crashed: crashed})
	w.resume()
	w.life.Store(w.node.Incarnation())
	w.note(notice{kind: noteBorn, core: w.core, incarnation: w.node.Incarnation()})
	w.flush()
	if crashed {
		w.crashed = w.now()
	}
	w.gather()
	for !w.node.Exited() && !w.doomed.Load() {
		if w.turn() {
			continue
		}
		if !w.in.doze() {
			continue
		}
		if w.pool.waiting() {
			w.in.nudge() // A handler came to an end between our look and our nap.
		}
		w.in.alarm.sleep(w.nextTick.Sub(w.now()))
	}
	if w.node.Exited() {
		w.note(notice{kind: noteExit, core: w.core, incarnation: w.node.Incarnation()})
		w.flush()
	}
	w.end()
}

// end stops what runs.
func (w *worker) end() {
	w.pool.close()
	for _, r := range w.active {
		r.ctx.end(context.Canceled)
	}
}

// turn does what there is to do, once. It reports whether there was anything.
func (w *worker) turn() bool {
	now := w.now()
	evs, deaths := w.hear(now)
	if deaths {
		// What the dead one did last, the node has not seen, and a takeover that
		// begins with an old word fails until the next tick.
		w.look(now)
	}
	if now >= w.nextTick {
		evs = w.tick(now, evs)
	}
	evs = w.ends(now, evs)
	busy := len(evs) > 0
	for n := stepOf(evs); n > 0; n = stepOf(evs) {
		w.stepAll(evs[:n])
		evs = evs[n:]
	}
	if free := w.handlers + w.prefetch - w.running; free > 0 && busy {
		evs = append(evs, protocol.Event{Kind: protocol.EventIdle, Now: now, Count: free})
	}
	if len(evs) > 0 {
		w.stepAll(evs)
	}
	w.resume()
	w.start()
	w.flush()
	return busy
}

// stepOf returns how many events fill a step, or 0 if all of them do not.
func stepOf(evs []protocol.Event) int {
	tasks := 0
	for i := range evs {
		if tasks += int(evs[i].More) + 1; tasks >= maxStep {
			return i + 1
		}
	}
	return 0
}

// hear takes what is in the inbox, and reports whether somebody has died. The events
// are the worker's, so the others are put behind them.
func (w *worker) hear(now clock.Instant) (evs []protocol.Event, deaths bool) {
	w.taken, w.lying = w.in.take(w.taken, w.lying)
	evs = w.taken
	for i := range evs {
		ev := &evs[i]
		ev.Now = now
		switch ev.Kind {
		case protocol.EventSteal:
			if !w.mayAsk(now) {
				ev.Kind = 0 // The node knows no such event.
			}
		case protocol.EventExited:
			deaths = true
			w.exec.Exited(ev.Core, ev.Incarnation)
			if ev.Crashed {
				w.crashed = now
				w.claimAhead(0)
			}
		}
	}
	return evs, deaths
}

// mayAsk reports whether to ask for tasks of others: when there is nothing to do
// here, and nothing under way from there.
func (w *worker) mayAsk(now clock.Instant) bool {
	if len(w.active) > 0 || w.node.Ready() > 0 || now.Sub(w.stole) < w.cfg.Retry {
		return false
	}
	w.stole = now
	return true
}

// tick reads the control page and adapts to what tasks are like.
func (w *worker) tick(now clock.Instant, evs []protocol.Event) []protocol.Event {
	w.ticked, w.nextTick = now, now.Add(w.tickEvery)
	if at, ok := w.node.Expiry(now); ok {
		w.nextTick = min(w.nextTick, at) // A lease that runs out is looked at then.
	}
	w.stay()
	w.mem.ReadControl(&w.control)
	evs = append(evs, protocol.Event{Kind: protocol.EventTick, Now: now, Control: &w.control})
	if w.rate == 0 && w.running > w.handlers {
		w.claimAhead(0) // What is under way takes longer than a tick.
	}
	w.rate = 0
	for _, r := range w.active {
		if !r.reported && now.Sub(r.began) > w.taskLease {
			r.reported = true
			w.note(notice{kind: noteStuck, id: r.task.ID, core: w.core, log: r.log})
		}
	}
	for _, r := range w.again {
		evs = w.tell(now, evs, r)
	}
	w.again = w.again[:0]
	return evs
}

// ends tells the node which attempts have ended.
func (w *worker) ends(now clock.Instant, evs []protocol.Event) []protocol.Event {
	w.finished = w.sortLate(w.pool.take(w.finished))
	w.rate += len(w.finished)
	if w.running -= len(w.finished); len(w.finished) > 0 {
		w.adapt(now)
	}
	for i, r := range w.finished {
		evs = w.tell(now, evs, r)
		w.finished[i] = nil
	}
	return evs
}

// adapt decides how many tasks are claimed ahead, by how fast they end. When the
// handlers have run dry soon, there should have been more.
func (w *worker) adapt(now clock.Instant) {
	took := now.Sub(w.claimed)
	w.claimed = now
	switch {
	case now.Sub(w.crashed) < careful:
		w.claimAhead(0)
	case w.running == 0 && took < ahead:
		w.claimAhead(2*w.prefetch + w.handlers)
	case w.running > 0 && took > ahead:
		w.claimAhead(min(w.prefetch, int(ahead*time.Duration(len(w.finished))/took)))
	}
}

func (w *worker) claimAhead(n int) {
	if n = min(n, maxPrefetch); n != w.prefetch {
		w.prefetch = n
		w.pool.setHold(n / 2)
	}
}

func (w *worker) tell(now clock.Instant, evs []protocol.Event, r *run) []protocol.Event {
	if h := trial.Hooks.Accepting; h != nil && r.outcome == protocol.OutcomeDone {
		h(r.task.Payload, r.attempt, r.token)
	}
	w.sent = append(w.sent, r)
	if r.outcome == protocol.OutcomeDone && len(r.out) == 0 {
		evs = protocol.AppendFinished(evs, r.log, r.task.ID, r.attempt, r.token)
		evs[len(evs)-1].Now = now
		return evs
	}
	return append(evs, protocol.Event{
		Kind: protocol.EventFinished, Now: now, Log: r.log, ID: r.task.ID, Attempt: r.attempt, Token: r.token,
		Outcome: r.outcome, NotBefore: r.notBefore, Payload: r.out,
	})
}

// step feeds one event and performs what follows.
func (w *worker) step(ev protocol.Event) {
	ev.Now = w.now()
	w.evs = append(w.evs[:0], ev)
	w.perform(w.node.Step(&w.evs[0], w.program()), w.evs)
	w.publish()
}

func (w *worker) stepAll(evs []protocol.Event) {
	w.perform(w.node.StepAll(evs, w.program()), evs)
	w.publish()
}

// program returns a buffer that does not overlap with the one before.
func (w *worker) program() []protocol.Effect {
	w.flip ^= 1
	return w.programs[w.flip][:0]
}

// perform performs a program, and those that follow if it fails.
func (w *worker) perform(program []protocol.Effect, evs []protocol.Event) {
	var next protocol.Event
	for {
		w.programs[w.flip] = program
		if w.recorder != nil {
			w.recorder(evs, program)
		}
		w.watch(program)
		if !w.exec.Perform(program, &next) {
			return
		}
		if next.Kind != protocol.EventAborted {
			w.answer, w.asked = next, true
			w.stepped(&next)
			return
		}
		if failed := &next.Rest[0]; failed.Kind == protocol.EffectPublish && protocol.UnpackCommit(next.Word).Sealed {
			if h := trial.Hooks.Fenced; h != nil {
				h(failed.Log)
			}
			w.note(notice{kind: noteStep, step: WritesFenced, core: w.core, log: failed.Log, incarnation: w.node.Incarnation(), seq: uint64(failed.Region.Epoch)})
		}
		next.Now = w.now()
		abort := []protocol.Event{next}
		program, evs = w.node.Step(&abort[0], w.program()), abort
	}
}

// resume answers what programs asked for. A recovery asks many times, and between
// two questions the lease is renewed. Whoever has taken a queue over starts with its
// tasks at once, not with what others have to ask about them, nor with the copies of
// another queue that were lost by the same death.
func (w *worker) resume() {
	for w.asked && !w.node.Exited() && !w.doomed.Load() {
		if now := w.now(); w.node.Incarnation() > 0 && now >= w.nextTick {
			w.look(now)
			continue
		}
		heir := w.heir
		w.asked, w.heir = false, false
		w.step(w.answer)
		if free := w.handlers + w.prefetch - w.running; heir && free > 0 {
			w.step(protocol.Event{Kind: protocol.EventIdle, Count: free})
			w.start()
		}
	}
}

// look lets the node see the control page as it is now.
func (w *worker) look(now clock.Instant) {
	w.ticked, w.nextTick = now, now.Add(w.tickEvery)
	w.mem.ReadControl(&w.control)
	w.step(protocol.Event{Kind: protocol.EventTick, Control: &w.control})
}

// start hands new attempts to the handlers.
func (w *worker) start() {
	w.beginAgain()
	if len(w.begun) == 0 {
		return
	}
	if len(w.begun) == w.running {
		w.claimed = w.now() // The handlers were idle until now.
	}
	w.pool.put(w.begun)
	clear(w.begun)
	w.begun = w.begun[:0]
}

func (w *worker) note(n notice) {
	if n.kind == noteStep {
		n.payload = order.AppendUint64(nil, uint64(w.now())) // When, for it is told later.
	}
	if last := len(w.notes) - 1; last < 0 || !w.notes[last].joins(&n) {
		w.notes = append(w.notes, n)
	}
}

// flush tells what there is to tell, and lets go of what it was about.
func (w *worker) flush() {
	if len(w.notes) > 0 {
		w.post(w.notes)
		clear(w.notes)
		w.notes = w.notes[:0]
	}
	w.recycle()
}
