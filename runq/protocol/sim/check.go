package sim

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/protocol"
)

// ErrViolation is what a broken invariant is reported as.
var ErrViolation = errors.New("invariant broken")

func instant(ns int64) clock.Instant { return clock.Instant(ns) }

// reign names a log in an epoch.
type reign struct {
	log   protocol.Core
	epoch uint32
}

// place is where a task's latest record stands.
type place struct {
	reign
	seq uint64
	ref protocol.Ref
}

// history is what the journals of submitters and handlers know of a task.
type history struct {
	mode     protocol.Mode
	payload  []byte
	acked    bool
	absent   bool
	stopped  bool // Its cancel was acknowledged before a start.
	lost     bool // It was reported.
	done     bool
	token    uint32 // Of the accepted result.
	ended    bool   // A record that ends it was published somewhere.
	toStop   bool   // A snapshot says that its attempt was asked to stop: the record that asked may be in no copy.
	starts   int
	maxToken uint32
	deaths   int // Processes that died by themselves while they ran it.
	at       place
	was      place // Where it stood in the log that offered it to that of at.
}

// over reports whether an acknowledged answer says that the task has ended.
func (h *history) over() bool { return h.done || h.stopped || h.lost || h.absent }

// published is what a log holds in an epoch, by the first copy that had it.
type published struct {
	owner   *checker
	records map[uint64][protocol.RecordWords]uint64
}

// checker asserts the invariants after each effect. Its first finding stays.
type checker struct {
	w       *world
	err     error
	writers map[reign]protocol.Stream
	logs    map[reign]*published
	active  []uint32
	reigned map[reign]bool // Epochs that became active.
	freed1  map[protocol.RegionID]bool
	tasks   map[protocol.TaskID]*history
	// excused is set where more copies may fail than the protocol survives:
	// a loss must then be reported, and nothing else about tasks is checked
	// after it was.
	excused, lossy bool
	counts         map[string]map[string]int
}

func newChecker(w *world) *checker {
	return &checker{
		w: w, writers: map[reign]protocol.Stream{}, logs: map[reign]*published{},
		active: make([]uint32, w.cfg.Cores), reigned: map[reign]bool{}, freed1: map[protocol.RegionID]bool{}, tasks: map[protocol.TaskID]*history{},
		counts: map[string]map[string]int{},
	}
}

func (c *checker) clone(w *world) *checker {
	d := *c
	d.w = w
	d.writers, d.freed1, d.active, d.reigned = maps.Clone(c.writers), maps.Clone(c.freed1), slices.Clone(c.active), maps.Clone(c.reigned)
	d.logs = maps.Clone(c.logs)
	d.tasks = make(map[protocol.TaskID]*history, len(c.tasks))
	for id, h := range c.tasks {
		copied := *h
		d.tasks[id] = &copied
	}
	return &d // Counts are shared: they count all that happened.
}

func (c *checker) fail(invariant, format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s: %s", ErrViolation, invariant, fmt.Sprintf(format, args...))
	}
}

func (c *checker) count(group, name string) {
	if c.counts == nil {
		return // An explorer's.
	}
	if c.counts[group] == nil {
		c.counts[group] = map[string]int{}
	}
	c.counts[group][name]++
}

// task returns the history of an ID, made if need be.
func (c *checker) task(id protocol.TaskID) *history {
	h := c.tasks[id]
	if h == nil {
		h = &history{}
		c.tasks[id] = h
	}
	return h
}

// superseded reports whether a newer epoch than this one has been opened.
func (c *checker) superseded(log protocol.Core, epoch uint32) bool {
	return c.w.arbiter(log).Epoch > epoch
}

// before counts what is about to be done.
func (c *checker) before(p *process, e *protocol.Effect) {
	if c.counts == nil {
		return
	}
	c.count("effect", e.Kind.String())
	if e.Kind == protocol.EffectArbiter {
		w := protocol.UnpackArbiter(e.New)
		c.count("step", "swap to "+w.Phase.String())
		if w.Phase == protocol.Handed && w.Owner != e.Log && w.Owner != p.core {
			c.count("step", "hand to a stand-in")
		}
	}
	if (e.Kind == protocol.EffectStoreSlots || e.Kind == protocol.EffectStoreCells) && c.superseded(e.Log, e.Region.Epoch) {
		c.count("fault", "store after losing the log")
	}
}

// stored checks that slot stores, which nothing fences, do no harm: I1, and that
// no area is given away while its writer may still write.
func (c *checker) stored(p *process, e *protocol.Effect, r *region) {
	if c.freed1[e.Region] {
		c.fail("freed area", "core %d stored into %v after it was freed", p.core, e.Region)
	}
	if r != nil && (r.writer.Writer != p.core || r.writer.Incarnation != p.life) {
		c.fail("I1 one writer", "core %d life %d stored into %v, which core %d life %d writes", p.core, p.life, e.Region, r.writer.Writer, r.writer.Incarnation)
	}
}

// opened forgets what was published before in an epoch that never became active:
// a taker that lost a copy halfway writes all of them again.
func (c *checker) opened(id protocol.RegionID) {
	delete(c.freed1, id)
	if at := (reign{id.Log, id.Epoch}); !c.reigned[at] {
		delete(c.logs, at)
	} else {
		c.fail("I1 one writer", "%v was opened again after its epoch was served", id)
	}
}

// freed checks that the last active epoch stays until there is another.
func (c *checker) freed(id protocol.RegionID) {
	c.freed1[id] = true
	if w := c.w.arbiter(id.Log); id.Epoch == w.ActiveEpoch {
		c.fail("kept until ACTIVE", "%v was freed while it is the last active epoch", id)
	}
}

func (c *checker) fenced(_ *process, e *protocol.Effect, r *region) {
	if r != nil {
		c.count("fault", "fenced publish")
	} else {
		c.count("fault", "publish to a lost copy")
	}
}

// published checks I1 (one writer for a log and epoch), I2 (copies agree) and I4
// (nothing is published below a promised epoch).
func (c *checker) published(p *process, e *protocol.Effect, r *region) {
	from, to := protocol.UnpackCommit(e.Old), protocol.UnpackCommit(e.New)
	at := reign{e.Log, to.Epoch}
	me := protocol.Stream{Core: p.core, Incarnation: p.life}
	if writer, ok := c.writers[at]; ok && writer != me {
		c.fail("I1 one writer", "log %d epoch %d is written by %v and %v", e.Log, to.Epoch, writer, me)
	}
	c.writers[at] = me
	// A taker that was overtaken may go on filling regions that nobody reads.
	if from.Sealed || from.Epoch != to.Epoch || to.Epoch < c.active[e.Log] && c.reigned[at] {
		c.fail("I4 fence", "core %d published %v in log %d, whose epoch %d is served", p.core, to, e.Log, c.active[e.Log])
	}
	log := c.logs[at]
	switch {
	case log == nil:
		log = &published{c, map[uint64][protocol.RecordWords]uint64{}}
	case log.owner != c:
		log = &published{c, maps.Clone(log.records)}
	}
	c.logs[at] = log
	for seq := from.Tail; seq < to.Tail; seq++ {
		slot := (seq & (c.w.cfg.Slots - 1)) * protocol.RecordWords
		words := [protocol.RecordWords]uint64(r.slots[slot : slot+protocol.RecordWords])
		if known, ok := log.records[seq]; ok && known != words && !r.rotten {
			c.fail("I2 copies agree", "record %d of log %d epoch %d differs between copies", seq, e.Log, to.Epoch)
		} else if !ok {
			log.records[seq] = words
			c.learn(at, seq, words)
		}
	}
}

// learn notes a record that was published for the first time.
func (c *checker) learn(at reign, seq uint64, words [protocol.RecordWords]uint64) {
	r, err := protocol.Decode(words[:], c.w.cfg.Run)
	if err != nil || r.Epoch != at.epoch || r.Seq != seq {
		c.fail("I2 copies agree", "record %d of log %d epoch %d was published and is not valid: %v", seq, at.log, at.epoch, err)
		return
	}
	c.count("record", r.Kind.String())
	switch r.Kind {
	case protocol.KindEnqueue, protocol.KindMoveIn:
		h := c.task(r.ID)
		if h.at.log != at.log {
			h.was = h.at
		}
		h.at = place{at, seq, r.Payload}
	case protocol.KindSnapTask:
		switch state := protocol.TaskState(r.Arg2 & 0xff); state {
		case protocol.StateMoving, protocol.StateMoved, protocol.StateRefused:
			// It may have arrived elsewhere already, and then that is where it is.
		default:
			c.task(r.ID).at = place{at, seq, r.Payload}
			c.task(r.ID).ended = c.task(r.ID).ended || state.Terminal()
			c.task(r.ID).toStop = c.task(r.ID).toStop || r.Flags&protocol.CancelAsked != 0
		}
	case protocol.KindRetry:
		c.task(r.ID).ended = c.task(r.ID).ended || c.task(r.ID).toStop
	case protocol.KindDone, protocol.KindCancel, protocol.KindLost:
		for one := range r.Each {
			c.task(one.ID).ended = true
		}
	}
}

// swapped notes who serves a log, and checks that nothing was lost on the way.
func (c *checker) swapped(e *protocol.Effect) {
	w := protocol.UnpackArbiter(e.New)
	if w.Phase != protocol.Active {
		return
	}
	c.active[e.Log] = w.Epoch
	c.reigned[reign{e.Log, w.Epoch}] = true
	c.count("step", "takeover complete")
	if c.better(protocol.UnpackArbiter(e.Old), w) {
		c.count("step", "copies go to better hosts")
	}
	c.conserved()
}

// better reports whether an owner moved copies, of which none was lost, to cores
// that come earlier around the ring.
func (c *checker) better(old, w protocol.ArbiterWord) bool {
	if old.ActiveEpoch == 0 || old.ActiveOwner != w.Owner || w.Mask >= old.Mask {
		return false
	}
	for host := range old.InSync(c.w.cfg.Cores).All() {
		if c.w.procs[host].dead {
			return false
		}
	}
	return bits.OnesCount8(w.Mask) == bits.OnesCount8(old.Mask)
}

// answered checks I3 (acknowledged is in every in-sync copy), I6 (one accepted
// result) and that answers do not contradict each other.
func (c *checker) answered(p *process, e *protocol.Effect) {
	if e.Kind == protocol.EffectReject {
		c.count("answer", "reject")
		return
	}
	c.count("answer", e.Code.String())
	h := c.task(e.ID)
	if c.lossy {
		return
	}
	switch e.Code {
	case protocol.CodeAccepted:
		if h.absent {
			c.fail("absent stays absent", "%v was accepted after it was answered absent", e.ID)
		}
		h.acked = true
		c.durable(e, h)
	case protocol.CodeAbsent:
		if h.acked || h.starts > 0 {
			c.fail("absent stays absent", "%v was answered absent, and it was accepted or started", e.ID)
		}
		h.absent = true
	case protocol.CodeCancelled:
		if h.done {
			c.fail("I5 tombstones", "%v was cancelled after its result was accepted", e.ID)
		}
		h.stopped = true
	case protocol.CodeDone, protocol.CodeResult:
		c.accepted(p, e, h)
	case protocol.CodeKnown:
		if protocol.TaskState(e.Seq) == protocol.StateLost {
			h.lost = true
		}
	}
}

// accepted checks I6.
func (c *checker) accepted(_ *process, e *protocol.Effect, h *history) {
	if h.done && h.token != e.Token || h.stopped || h.absent {
		c.fail("I6 one result", "%v: the result of token %d was accepted after that of %d (cancelled %v, absent %v)", e.ID, e.Token, h.token, h.stopped, h.absent)
	}
	if e.Code == protocol.CodeDone && h.mode == protocol.OnceRecorded && e.Token != h.maxToken {
		c.fail("fencing token", "%v: the result of token %d was accepted, and %d was given out", e.ID, e.Token, h.maxToken)
	}
	h.done, h.token = true, e.Token
	if data, ok := c.w.payload(e); ok && e.Ref.Bytes > 0 && string(data) != string(resultOf(e.ID, e.Token)) {
		c.fail("I6 one result", "%v: the result of token %d reads %x", e.ID, e.Token, data)
	}
}

// durable checks I3 for a task that was just acknowledged.
func (c *checker) durable(e *protocol.Effect, h *history) {
	at := h.at
	if at.log != e.Log && h.was.log == e.Log && c.moving(e) {
		at = h.was // The log that offers a task answers for it until another one has it whole.
	}
	w := c.w.arbiter(at.log)
	if at.epoch == 0 || w.ActiveEpoch != at.epoch || h.ended {
		return // It went on before the answer came; conserved speaks for it.
	}
	copies := 0
	for member := range w.InSync(c.w.cfg.Cores).All() {
		r := c.w.regions[protocol.RegionID{Log: at.log, Host: protocol.Core(member), Epoch: at.epoch}]
		if r == nil {
			continue // Lost since it was published.
		}
		if _, ok := at.ref.Read(r.arena); !ok && !r.rotten || protocol.UnpackCommit(r.commit).Tail <= at.seq {
			c.fail("I3 acknowledged is replicated", "%v is acknowledged and not in the copy at %d", e.ID, member)
		}
		copies++
	}
	if copies == 0 && !c.excused {
		c.fail("I3 acknowledged is replicated", "%v is acknowledged and in no copy", e.ID)
	}
}

// moving reports whether the log that answers for a task has it on offer.
func (c *checker) moving(e *protocol.Effect) bool {
	return slices.ContainsFunc(c.statesOf(e.Log), func(state func(protocol.TaskID) protocol.TaskState) bool {
		return state(e.ID) == protocol.StateMoving
	})
}

// running returns a process that has not ended and runs a task, or nil.
func (c *checker) running(id protocol.TaskID) *process {
	for _, p := range c.w.procs {
		if p != nil && !p.dead && slices.ContainsFunc(p.running, func(a attempt) bool { return a.id == id && !a.sent }) {
			return p
		}
	}
	return nil
}

// begun checks I5 (nothing that ended starts again), I7 (at most once) and that
// fencing tokens grow.
func (c *checker) begun(p *process, e *protocol.Effect) {
	h := c.task(e.ID)
	c.count("begin", e.Mode.String())
	zombie := c.superseded(e.Log, e.Epoch)
	if zombie {
		c.count("fault", "start after losing the log")
	}
	h.starts++
	if c.lossy {
		return
	}
	if h.over() && !zombie {
		c.fail("I5 tombstones", "%v started by core %d after it had ended (done %v, cancelled %v, lost %v, absent %v)", e.ID, p.core, h.done, h.stopped, h.lost, h.absent)
	}
	if e.Mode == protocol.AtMostOnce && (h.starts > 1 || h.lost) {
		c.fail("I7 at most once", "%v started %d times (lost %v)", e.ID, h.starts, h.lost)
	}
	if e.Mode == protocol.OnceRecorded && e.Token <= h.maxToken {
		c.fail("fencing token", "%v got the token %d after %d", e.ID, e.Token, h.maxToken)
	}
	if other := c.running(e.ID); other != nil && e.Mode == protocol.OnceRecorded && !zombie {
		c.fail("one attempt at a time", "%v starts at core %d, and core %d runs it", e.ID, p.core, other.core)
	}
	h.maxToken = max(h.maxToken, e.Token)
	if data, ok := c.w.payload(e); !ok && !zombie && !c.excused {
		c.fail("payload", "%v has no valid payload", e.ID)
	} else if ok && h.payload != nil && string(data) != string(h.payload) && !zombie {
		c.fail("payload", "%v runs with the payload %x, not %x", e.ID, data, h.payload)
	}
}

// runs counts events and effects that speak of several tasks.
func (c *checker) runs(evs []protocol.Event, effects []protocol.Effect) {
	for i := range evs {
		if evs[i].More > 0 {
			c.count("run of", evs[i].Kind.String())
		}
	}
	for i := range effects {
		if e := &effects[i]; e.Kind == protocol.EffectBegin && e.More > 0 {
			c.count("run of", e.Kind.String())
		}
	}
}

// reported checks that losses are reported only where something can be lost.
func (c *checker) reported(e *protocol.Effect) {
	reason := [...]string{"", "in flight", "poison", "payload", "record", "log", "epochs"}[e.Seq]
	c.count("report", reason)
	switch e.Seq {
	case protocol.LossInFlight:
		if h := c.task(e.ID); h.payload != nil && h.mode != protocol.AtMostOnce {
			c.fail("reported loss", "%v is %v and was reported lost", e.ID, h.mode)
		}
		if p := c.running(e.ID); p != nil {
			c.fail("reported loss", "%v was reported lost in flight, and core %d runs it", e.ID, p.core)
		}
		c.task(e.ID).lost = true
	case protocol.LossPoison:
		h := c.task(e.ID)
		if h.lost = true; h.deaths <= max(c.w.cfg.MaxCrashes, 1) {
			c.fail("takeover kills are no crashes", "%v was given up as poison after %d deaths", e.ID, h.deaths)
		}
	case protocol.LossPayload, protocol.LossRecord, protocol.LossLog:
		if !c.excused {
			c.fail("I3 acknowledged is replicated", "a loss (%s, log %d, %v, record %d) was reported although copies were left", reason, e.Log, e.ID, e.Old)
		}
		c.lossy = true
	}
}

// forgotten checks I9: a tombstone is dropped only when every in-sync copy
// remembers the ID.
func (c *checker) forgotten(e *protocol.Effect) {
	c.count("step", "tombstone dropped")
	w := c.w.arbiter(e.Log)
	if w.Phase != protocol.Active || c.lossy {
		return
	}
	for member := range w.InSync(c.w.cfg.Cores).All() {
		id := protocol.RegionID{Log: e.Log, Host: protocol.Core(member), Epoch: w.ActiveEpoch}
		if r := c.w.regions[id]; r != nil && !r.rotten {
			if _, seen := protocol.QueueOf(c.w.cfg, id, protocol.UnpackCommit(r.commit), r.slots); !seen(e.ID) {
				c.fail("I9 remembered", "%v was forgotten, and %v never saw it", e.ID, id)
			}
		}
	}
}

// conserved checks I8: every acknowledged task that has not ended is in some
// log, by the best copy of its last active epoch.
func (c *checker) conserved() {
	if c.lossy || c.excused {
		return
	}
	var states []func(protocol.TaskID) protocol.TaskState
	for log := range c.w.arbiters {
		states = append(states, c.statesOf(protocol.Core(log))...)
	}
	for _, id := range slices.SortedFunc(maps.Keys(c.tasks), compareIDs) {
		h := c.tasks[id]
		if !h.acked || h.over() || h.ended {
			continue
		}
		there := slices.ContainsFunc(states, func(state func(protocol.TaskID) protocol.TaskState) bool {
			s := state(id)
			return s != protocol.StateNone && s != protocol.StateMoved && s != protocol.StateRefused
		})
		if !there {
			c.fail("I8 conservation", "%v was acknowledged, has not ended, and is in no log", id)
		}
	}
}

// statesOf reads a log out of the copy of its last active epoch with the highest
// tail, or where that one is damaged, out of all copies.
func (c *checker) statesOf(log protocol.Core) []func(protocol.TaskID) protocol.TaskState {
	w := c.w.arbiter(log)
	var all []func(protocol.TaskID) protocol.TaskState
	best, rotten := uint64(0), false
	for member := range w.InSync(c.w.cfg.Cores).All() {
		id := protocol.RegionID{Log: log, Host: protocol.Core(member), Epoch: w.ActiveEpoch}
		r := c.w.regions[id]
		if r == nil || w.ActiveEpoch == 0 {
			continue
		}
		commit := protocol.UnpackCommit(r.commit)
		if rotten = rotten || r.rotten; !rotten && commit.Tail > best {
			best, all = commit.Tail, nil
		}
		if rotten || commit.Tail == best {
			state, _ := protocol.QueueOf(c.w.cfg, id, commit, r.slots)
			all = append(all, state)
		}
	}
	return all
}

func compareIDs(a, b protocol.TaskID) int {
	return cmp.Or(cmp.Compare(a.Core, b.Core), cmp.Compare(a.Incarnation, b.Incarnation), cmp.Compare(a.N, b.N))
}

func compareRegions(a, b protocol.RegionID) int {
	return cmp.Or(cmp.Compare(a.Log, b.Log), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Epoch, b.Epoch))
}

// resultOf is what an attempt of the simulation answers.
func resultOf(id protocol.TaskID, token uint32) []byte {
	return fmt.Appendf(nil, "result of %d.%d.%d by %d", id.Core, id.Incarnation, id.N, token)
}
