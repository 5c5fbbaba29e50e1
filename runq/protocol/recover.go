package protocol

import (
	"cmp"
	"slices"

	"github.com/coreplica/coreplica/replica/clock"
)

// recovery is the way from an arbiter word to a log that is served. Every step
// can be repeated by the next taker: until the last one, the arbiter word still
// tells where the last active epoch lies, and nothing is taken away from there.
type recovery struct {
	from ArbiterWord
	// owner and active are the latest lives that the owners in from can have.
	// They are kept from before the swap: a tick between it and its answer
	// already shows us as the owner.
	owner, active Stream
	// self is a change of regions by the owner: the queue in memory stands.
	self bool
	// victims are lives that must end before their tasks may run elsewhere.
	victims  []Stream
	deadline clock.Instant
	// ward is that owner, if it does not die.
	ward    Stream
	sources []Core
	epoch   uint32 // The last active one, which sources hold.
	at      int
	words   []CommitWord // What sealing found, epoch 0 for a lost region.
	best    uint64       // The highest sealed tail.
	// common is the lowest one: what stands above it was never in all copies,
	// so it was never acknowledged, and it is no loss if it is gone.
	common  uint64
	read    sources
	origins []origin // Of payloads, by the places of their tasks.
	all     []int32  // The places in the order of the queue, which no longer changes.
	reports []Effect
	asked   bool // An effect of this recovery is not answered yet.
	blocked bool // There was no room; the next tick tries again.
}

// takeOver begins with a new epoch.
func (n *Node) takeOver(id Core) {
	v := &n.views[id]
	if _, err := v.word.take(n.core, n.cfg.EpochLimit); err != nil {
		n.exhausted(id)
		return
	}
	n.logs[id] = &log{id: id, stage: swapping, giving: noCore, rec: &recovery{
		from: v.word, owner: Stream{v.word.Owner, v.ownerLife}, active: Stream{v.word.ActiveOwner, v.activeLife},
	}}
}

// exhausted says, once, that a log has run out of epochs.
func (n *Node) exhausted(id Core) {
	if v := &n.views[id]; !v.exhausted {
		v.exhausted = true
		n.emit(Effect{Kind: EffectReport, Log: id, Seq: LossEpochs})
	}
}

// members lists the cores that hold the last active epoch.
func members(w ArbiterWord, cores int) []Core {
	var list []Core
	if w.ActiveEpoch == 0 {
		return nil
	}
	for c := range w.InSync(cores).All() {
		list = append(list, Core(c))
	}
	return list
}

// advance drives one log on that can go on by itself. One effect at a time may
// wait for an answer.
func (n *Node) advance() {
	for i := range n.logs {
		if n.asking != noCore || n.life != alive {
			return
		}
		if l := n.logs[i]; l != nil {
			n.advanceLog(l)
		}
	}
}

func (n *Node) advanceLog(l *log) {
	if l.rec != nil && l.rec.blocked {
		return
	}
	switch l.stage {
	case broken:
		n.renewCopies(l)
	case serving:
		switch {
		case l.wanted:
			n.renewCopies(l)
		case l.giving != noCore && (l.q.claimed == 0 || n.mut&mutHandClaimed != 0):
			n.handOver(l)
		}
	case swapping:
		n.swap(l)
	case sealing:
		n.seal(l)
	case reading:
		region := RegionID{l.id, l.rec.sources[l.rec.at], l.rec.epoch}
		n.askFor(l, Effect{Kind: EffectRead, Log: l.id, Region: region, Epoch: region.Epoch})
	case copying:
		n.copyOut(l)
	}
}

// renewCopies takes the log over from ourselves, to have it in other regions.
func (n *Node) renewCopies(l *log) {
	l.wanted = false
	l.stage, l.rec = swapping, &recovery{from: l.word, self: true}
	n.advanceLog(l)
}

func (n *Node) askFor(l *log, e Effect) {
	l.rec.asked = true
	n.ask(l.id, e)
}

func (n *Node) swap(l *log) {
	next, err := l.rec.from.take(n.core, n.cfg.EpochLimit)
	if err != nil {
		// Only the owner itself comes here, to replace a copy. It cannot, and
		// must not go on with fewer than the arbiter word says.
		n.exhausted(l.id)
		n.fence(l)
		return
	}
	n.views[l.id].claim(next.Epoch)
	n.askFor(l, Effect{Kind: EffectArbiter, Log: l.id, Old: l.rec.from.Pack(), New: next.Pack()})
}

// claim notes an epoch that is ours if anyone's of our core.
func (v *view) claim(epoch uint32) {
	if v.mine == 0 {
		v.mine = epoch
	}
}

func (n *Node) seal(l *log) {
	rec := l.rec
	if rec.at == len(rec.sources) || n.mut&mutNoSeal != 0 {
		l.stage, rec.at = reading, 0
		if len(rec.sources) == 0 {
			n.rebuild(l)
		}
		n.advanceLog(l)
		return
	}
	region := RegionID{l.id, rec.sources[rec.at], rec.epoch}
	n.askFor(l, Effect{Kind: EffectSeal, Log: l.id, Region: region, Epoch: region.Epoch})
}

// result takes the answer to the effect that ended the last program.
func (n *Node) result(ev *Event) {
	if n.asking == noCore {
		return
	}
	l := n.logs[n.asking]
	n.asking = noCore
	if l == nil || l.rec == nil || !l.rec.asked {
		return // It was given up in the meantime.
	}
	l.rec.asked = false
	switch l.stage {
	case swapping:
		n.swapped(l, ev)
	case sealing:
		w := CommitWord{}
		if ev.OK {
			w = UnpackCommit(ev.Word)
		}
		l.rec.words = append(l.rec.words, w)
		l.rec.at++
	case reading:
		n.absorb(l, ev)
	case activating:
		n.activated(l, ev)
	case handingOver:
		if !ev.OK {
			n.fence(l)
			return
		}
		n.sawArbiter(l.id, UnpackArbiter(ev.Word))
		n.views[l.id].formerly = true
		n.logs[l.id] = nil
	}
}

// swapped begins to reign, or finds that another one does.
func (n *Node) swapped(l *log, ev *Event) {
	if !ev.OK {
		// The word that was there is not looked at: it may be newer than any
		// heartbeat that we have seen, and its owner's life then unknown.
		if l.rec.self {
			n.fence(l)
		} else {
			n.logs[l.id] = nil
		}
		return
	}
	n.sawArbiter(l.id, UnpackArbiter(ev.Word))
	rec := l.rec
	l.word = UnpackArbiter(ev.Word)
	l.epoch = l.word.Epoch
	rec.sources, rec.epoch = members(rec.from, n.cfg.Cores), rec.from.ActiveEpoch
	if n.mut&mutReadRecovering != 0 && rec.from.Phase == Recovering && rec.epoch != 0 {
		rec.epoch = rec.from.Epoch
	}
	l.stage = sealing
	if rec.self {
		return
	}
	if rec.from.Phase == Vacant {
		n.condemn(l, Stream{l.id, n.lifeOf(l.id)}) // It hangs since its birth.
	} else {
		n.condemn(l, rec.owner)
	}
	if rec.from.Phase == Recovering && rec.epoch != 0 {
		n.condemn(l, rec.active)
	}
	if rec.from.Phase != Handed && rec.epoch != 0 {
		rec.ward = rec.active
	}
	if len(rec.victims) > 0 {
		l.stage, rec.deadline = killing, n.now.Add(n.cfg.KillDeadline)
	}
}

// condemn kills a life that is not known to be over. Its affinity is reset
// first: pinned beneath a real-time hog it would not run, and so not die.
func (n *Node) condemn(l *log, life Stream) {
	if life.Incarnation == 0 || n.gone(life.Core, life.Incarnation) || slices.Contains(l.rec.victims, life) || life.Core == n.core {
		return
	}
	l.rec.victims = append(l.rec.victims, life)
	n.emit(Effect{Kind: EffectResetAffinity, Log: l.id, Core: life.Core, Incarnation: life.Incarnation})
	n.emit(Effect{Kind: EffectKill, Log: l.id, Core: life.Core, Incarnation: life.Incarnation})
}

// mourn goes on when all victims are gone.
func (n *Node) mourn(l *log) {
	l.rec.victims = slices.DeleteFunc(l.rec.victims, func(s Stream) bool { return n.gone(s.Core, s.Incarnation) })
	if l.stage == killing && len(l.rec.victims) == 0 {
		l.stage = sealing
	}
}

// hurry goes on without those that do not die in time. The seal fences what
// they publish; their attempts are left in quarantine.
func (n *Node) hurry() {
	for _, l := range n.logs {
		if l == nil || l.stage != killing {
			continue
		}
		if n.mourn(l); l.stage == killing && n.now >= l.rec.deadline {
			for _, s := range l.rec.victims {
				n.emit(Effect{Kind: EffectUnkillable, Log: l.id, Core: s.Core, Incarnation: s.Incarnation})
			}
			l.stage = sealing
		}
	}
}

// absorb takes what one region holds.
func (n *Node) absorb(l *log, ev *Event) {
	rec := l.rec
	if rec.at == 0 {
		n.measure(l)
	}
	if n.mut&mutNoSeal != 0 && ev.OK {
		rec.best = max(rec.best, UnpackCommit(ev.Word).Tail)
	}
	if ev.OK && uint64(len(ev.Slots)) >= n.cfg.Slots*RecordWords {
		one := n.mut&mutTruncate != 0 && (len(rec.read.rings) > 0 || UnpackCommit(ev.Word).Tail < rec.best)
		if !rec.self && !one {
			rec.read.rings = append(rec.read.rings, ev.Slots)
		}
		rec.read.arenas = append(rec.read.arenas, ev.Arena)
	}
	rec.at++
	if rec.at == len(rec.sources) {
		n.rebuild(l)
	}
}

// measure finds how far the log goes.
func (n *Node) measure(l *log) {
	rec := l.rec
	lowest := uint64(MaxTail)
	rec.common = MaxTail
	for _, w := range rec.words {
		if w.Epoch != 0 {
			rec.common = min(rec.common, w.Tail)
		}
		rec.best, lowest = max(rec.best, w.Tail), min(lowest, w.Tail)
	}
	if n.mut&mutShortestLog != 0 && lowest < rec.best {
		rec.best = lowest
	}
	if !rec.self && rec.best > 0 {
		n.scratch.take(n, l)
	}
}

// rebuild makes the queue from the records and decides what becomes of the
// attempts that were under way.
func (n *Node) rebuild(l *log) {
	rec := l.rec
	l.stage = copying
	if !rec.self {
		l.q = newQueue(n.cfg.Run)
		n.replay(l)
		rec.all = l.q.inOrder()
		n.inherit(l)
	} else {
		rec.all = l.q.inOrder()
	}
	rec.origins = room(rec.origins, len(l.q.tasks), n.scratch.of(l).lent().origins)[:len(l.q.tasks)]
	for _, i := range rec.all {
		t := &l.q.tasks[i]
		if t.Payload.Bytes == 0 {
			continue
		}
		var ok bool
		if rec.origins[t.place], ok = rec.find(l, t.Payload); ok {
			continue
		}
		t.Payload = Ref{}
		if !rec.self && t.Record.Seq >= rec.common {
			l.q.end(t, StateCancelled) // Its submitter was never told of it.
			continue
		}
		rec.report(l.id, t, LossPayload)
		if !t.state.Terminal() {
			l.q.end(t, StateLost)
		}
	}
	rec.read.rings = nil
}

func (rec *recovery) report(log Core, t *task, reason uint64) {
	rec.reports = append(rec.reports, Effect{Kind: EffectReport, Log: log, ID: t.ID, Attempt: t.Attempt, Seq: reason})
}

// replay applies the records from the last whole snapshot on. A record that is
// valid nowhere is reported and stepped over: stopping there would throw away
// what was acknowledged after it.
func (n *Node) replay(l *log) {
	rec := l.rec
	if len(rec.sources) > 0 && rec.best == 0 {
		// No copy is left. What was submitted to it may never be called absent.
		l.q.seen.lost.raise(l.id, n.views[l.id].drawn+1)
		rec.reports = append(rec.reports, Effect{Kind: EffectReport, Log: l.id, Seq: LossLog})
		return
	}
	start, entries, prio := rec.start(&n.cfg)
	l.q.reserve(entries, prio, n.scratch.of(l))
	var r Record
	for seq := start; seq < rec.best; seq++ {
		if rec.record(&n.cfg, seq, &r) {
			l.q.replay(&r)
			continue
		}
		if n.mut&mutTruncate != 0 && seq > start {
			return
		}
		if seq >= rec.common {
			continue
		}
		rec.reports = append(rec.reports, Effect{Kind: EffectReport, Log: l.id, Seq: LossRecord, Old: seq})
	}
}

// inherit decides about the attempts of the owner before.
func (n *Node) inherit(l *log) {
	rec := l.rec
	gone := rec.ward.Incarnation == 0 || n.gone(rec.ward.Core, rec.ward.Incarnation)
	for _, i := range rec.all {
		t := &l.q.tasks[i]
		if t.state != StateClaimed {
			continue
		}
		ward, over := rec.ward, gone
		if t.Arg2&snapWarded != 0 { // In quarantine since an earlier takeover.
			ward = Stream{Core(t.Arg), uint32(t.NotBefore)}
			over = n.gone(ward.Core, ward.Incarnation)
		}
		if !over {
			t.Arg, t.Arg2, t.NotBefore = uint16(ward.Core), snapWarded, uint64(ward.Incarnation)
			continue
		}
		if n.crashed(ward) || n.mut&mutCountKills != 0 {
			t.Crashes++
		}
		t.Attempt-- // The death of a worker takes no attempt from a task; its token goes on.
		n.reopen(l, t)
	}
}

// crashed reports whether a life is known to have ended by itself. A death that
// a takeover brought says nothing against the tasks that were running.
func (n *Node) crashed(life Stream) bool {
	if life.Core == n.core {
		return n.risen && life.Incarnation == n.incarnation-1
	}
	return life.Incarnation > 0 && n.peers[life.Core].crashed == life.Incarnation
}

// reopen makes a task ready again whose attempt is certainly over, or ends it if
// its mode or its history forbids another.
func (n *Node) reopen(l *log, t *task) {
	switch {
	case t.Mode == AtMostOnce:
		l.rec.report(l.id, t, LossInFlight)
		l.q.end(t, StateLost)
	case t.Flags&CancelAsked != 0:
		l.q.end(t, StateCancelled)
	case int(t.Crashes) > n.cfg.MaxCrashes:
		l.rec.report(l.id, t, LossPoison)
		l.q.end(t, StateLost)
	default:
		t.Arg, t.Arg2, t.NotBefore = 0, 0, 0
		l.q.set(t, StateReady)
	}
}

// release ends the quarantine of attempts whose process has gone at last.
func (n *Node) release(l *log) {
	for _, i := range l.q.sorted() {
		t := &l.q.tasks[i]
		if t.state != StateClaimed || t.Arg2&snapWarded == 0 || !n.gone(Core(t.Arg), uint32(t.NotBefore)) {
			continue
		}
		if t.Mode == AtMostOnce {
			n.lose(l, t, LossInFlight)
			continue
		}
		n.appendTo(l, &Record{Kind: KindRetry, ID: t.ID, Attempt: t.Attempt, Token: t.Token, Crashes: t.Crashes, Affinity: t.Affinity, Arg: retryFree}, t)
	}
}

// copyOut writes a snapshot into fresh regions and makes them the log.
func (n *Node) copyOut(l *log) {
	l.members = n.choose()
	l.lives = l.lives[:0:0]
	// Takers before us that did not get this far left regions behind. What
	// stays is the last active epoch: the next taker may need it.
	keep := l.word.ActiveEpoch
	if n.mut&mutFreeEarly != 0 {
		keep = 0
	}
	n.emit(Effect{Kind: EffectFreeBelow, Log: l.id, Epoch: l.epoch, Old: uint64(keep)})
	for _, member := range l.members {
		l.lives = append(l.lives, n.lifeOf(member))
		n.emit(Effect{
			Kind: EffectOpen, Log: l.id, Region: RegionID{l.id, member, l.epoch},
			New: DirectoryWord{n.core, l.epoch, n.incarnation}.Pack(),
		})
	}
	size := 0
	for _, i := range l.rec.all {
		size += int(cells(int(l.q.tasks[i].Payload.Bytes))) * CellBytes
	}
	// Memory for all of it at once: to grow step by step is to copy it twice.
	var spare Scratch
	if !l.rec.self {
		spare = n.scratch.of(l).lent()
	}
	l.words, l.data = room(l.words, (int(l.q.records())+4)*RecordWords, spare.words), room(l.data, size, spare.data)
	var ok bool
	l.next, l.head, l.sent, l.payloads, l.freed = 0, 0, 0, l.payloads[:0], l.freed[:0]
	l.arena = newArena(n.cfg.Cells)
	for _, i := range l.rec.all {
		t := &l.q.tasks[i]
		if t.Payload.Bytes == 0 {
			continue
		}
		data := l.rec.payload(l, l.rec.origins[t.place], t.Payload.Bytes)
		if t.Payload.Cell, ok = n.put(l, data); !ok {
			panic("protocol: payloads that fitted one arena do not fit another")
		}
	}
	n.checkpoint(l)
	n.write(l, &Record{Kind: KindTakeover, ID: TaskID{N: uint64(l.rec.from.ActiveEpoch)}})
	n.flush(l)
	l.stage = activating
	n.askFor(l, Effect{Kind: EffectArbiter, Log: l.id, Old: l.word.Pack(), New: l.word.activate(l.members, n.cfg.Cores).Pack()})
}

// activated serves the log, and only now says what was lost.
func (n *Node) activated(l *log, ev *Event) {
	if !ev.OK {
		// The word that was there is not looked at: it may be newer than any
		// heartbeat that we have seen, and its owner's life then unknown.
		if l.rec.self {
			n.fence(l)
		} else {
			n.logs[l.id] = nil
		}
		return
	}
	n.sawArbiter(l.id, UnpackArbiter(ev.Word))
	l.word = UnpackArbiter(ev.Word)
	rec := l.rec
	l.stage, l.rec, l.wanted, l.settled, l.unstored = serving, nil, false, n.now, nil
	l.words, l.sent = l.words[:0], 0
	l.published = l.next
	l.doomed = nil
	for _, i := range rec.all {
		t := &l.q.tasks[i]
		if t.seq = 0; t.state.Terminal() && t.collected {
			l.doomed = append(l.doomed, laneEntry{t.place, t.order})
		}
	}
	for _, e := range rec.reports {
		n.later(e)
	}
	n.resume(l)
	n.emit(Effect{Kind: EffectFreeBelow, Log: l.id, Epoch: l.epoch})
	n.checkMembers(l)
	n.release(l)
}

// handOver gives a log to another core: nothing runs, so nobody must die.
func (n *Node) handOver(l *log) {
	next, err := l.word.take(l.giving, n.cfg.EpochLimit)
	if err != nil {
		l.giving = noCore
		return
	}
	next.Phase = Handed
	l.stage, l.rec = handingOver, &recovery{from: l.word, self: true}
	n.askFor(l, Effect{Kind: EffectArbiter, Log: l.id, Old: l.word.Pack(), New: next.Pack()})
}

// sorted returns the places of all entries in the order of the queue.
func (q *queue) sorted() []int32 { return q.appendSorted(make([]int32, 0, q.index.n)) }

// inOrder is sorted for who appends no record while he walks: an append may take a
// snapshot, which walks in the same memory.
func (q *queue) inOrder() []int32 {
	q.all = q.appendSorted(q.all[:0])
	return q.all
}

// appendSorted appends them to an empty slice.
func (q *queue) appendSorted(all []int32) []int32 {
	last, inOrder := uint64(0), true
	for i := range q.tasks {
		if t := &q.tasks[i]; t.used {
			all = append(all, int32(i))
			inOrder = inOrder && t.order > last
			last = t.order
		}
	}
	if inOrder {
		return all // As in a queue that was just taken over.
	}
	slices.SortFunc(all, func(a, b int32) int { return cmp.Compare(q.tasks[a].order, q.tasks[b].order) })
	return all
}
