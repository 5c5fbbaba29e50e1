package sim

import (
	"maps"
	"slices"

	"github.com/coreplica/coreplica/replica/quorum"
	"github.com/coreplica/coreplica/runq/protocol"
)

// region is one copy of one log in one epoch, as it lies in shared memory.
type region struct {
	writer protocol.DirectoryWord
	commit uint64
	slots  []uint64
	arena  []byte
	rotten bool // A record in it was damaged.
	owner  *world
}

// process is one life of a core.
type process struct {
	owner   *world
	node    *protocol.Node
	core    protocol.Core
	life    uint32
	dead    bool
	program []protocol.Effect
	pc      int
	part    int // Stores of the effect at pc that are done.
	// abort must come before any other event; next is an answer.
	abort, next *protocol.Event
	// inbox are events that are not lost: deaths, finished attempts.
	inbox    []protocol.Event
	running  []attempt
	resume   int64 // Paused until then.
	tick     int64 // When the next one is due.
	rate     int64 // Clock error in ppm.
	stubborn bool  // It does not die when killed, until the faults end.
	doomed   bool  // It was killed and has not exited.
	wedged   bool  // Its scheduling loop hangs.

	// For the explorer: the node's state as it is encoded, and a control page
	// that holds no news for it. Both are forgotten with the next step.
	encoded []byte
	dull    uint64
}

// attempt is a body under way.
type attempt struct {
	log     protocol.Core
	id      protocol.TaskID
	attempt uint16
	token   uint32
	ends    int64
	stop    bool
	sent    bool // Its end was told, and is not answered yet.
}

// world is everything outside of the nodes. It performs effects one at a time.
type world struct {
	cfg          protocol.Config
	arbiters     []uint64
	incarnations []uint64
	heartbeats   []uint64
	regions      map[protocol.RegionID]*region
	up           []bool     // Whether a core's memory is there.
	away         quorum.Set // Cores whose CPU is offline.
	procs        []*process
	check        *checker
	now          int64
	prepare      func(*protocol.Node)
	// On messages, answers, begins and kills the driver decides what happens.
	onSend   func(p *process, m protocol.Message)
	onAnswer func(p *process, e *protocol.Effect)
	onBegin  func(p *process, e *protocol.Effect)
	onKill   func(core protocol.Core, life uint32)
	onStep   func(p *process, evs []protocol.Event, effects []protocol.Effect)
	// freeAll frees regions whose writers live, for a control.
	freeAll bool
}

func newWorld(cfg protocol.Config) *world {
	w := &world{
		cfg: cfg, regions: map[protocol.RegionID]*region{},
		arbiters: make([]uint64, cfg.Cores), incarnations: make([]uint64, cfg.Cores), heartbeats: make([]uint64, cfg.Cores),
		up: make([]bool, cfg.Cores), procs: make([]*process, cfg.Cores),
	}
	w.check = newChecker(w)
	return w
}

// boot starts a new life of a core.
func (w *world) boot(core protocol.Core) {
	node, err := protocol.NewNode(w.cfg, core)
	if err != nil {
		panic(err) // The configuration was checked when the run began.
	}
	if w.prepare != nil {
		w.prepare(node)
	}
	w.up[core] = true
	p := &process{owner: w, node: node, core: core, tick: w.now}
	before := w.procs[core]
	w.procs[core] = p
	p.inbox = append(p.inbox, protocol.Event{Kind: protocol.EventStart, Crashed: before != nil && !before.doomed})
	if w.away != 0 {
		w.tellCPUs(p)
	}
}

// leave takes a core's CPU away, or brings it back, and tells everyone, each of
// whom hears it when it comes to it.
func (w *world) leave(core protocol.Core) {
	if w.away.Has(int(core)) {
		w.away = w.away.Without(int(core))
		w.check.count("fault", "cpu back")
	} else {
		w.away = w.away.With(int(core))
		w.check.count("fault", "leave")
	}
	for _, p := range w.procs {
		if !p.dead {
			w.tellCPUs(p)
		}
	}
}

// tellCPUs tells a process which CPUs are offline.
func (w *world) tellCPUs(p *process) {
	p.inbox = append(p.inbox, protocol.Event{Kind: protocol.EventCPUs, Word: uint64(w.away)})
}

// crash ends a core: its process is gone, and so is every region in its memory.
func (w *world) crash(core protocol.Core) {
	for id := range w.regions {
		if id.Host == core {
			delete(w.regions, id)
		}
	}
	w.up[core] = false
	w.exit(core)
}

// exit ends a process and leaves its memory.
func (w *world) exit(core protocol.Core) {
	p := w.procs[core]
	if p == nil || p.dead {
		return
	}
	p.dead = true
	if !p.doomed {
		w.countDeaths(core)
	}
	for _, q := range w.procs {
		if q != nil && q.core != core && !q.dead {
			q.inbox = append(q.inbox, protocol.Event{Kind: protocol.EventExited, Core: core, Incarnation: p.life, Crashed: !p.doomed})
		}
	}
}

// countDeaths notes that the owner of some tasks died by itself. Whether an
// attempt was claimed or had begun is for the log to know, so this is the most
// that may be held against a task.
func (w *world) countDeaths(core protocol.Core) {
	for _, h := range w.check.tasks {
		if a := w.arbiter(h.at.log); h.at.epoch > 0 && a.ActiveOwner == core {
			h.deaths++
		}
	}
}

// clock returns what a process reads from its clock.
func (w *world) clock(p *process) int64 { return w.now + w.now/1_000_000*p.rate }

// step feeds events to a process and takes its program.
func (w *world) step(p *process, evs ...protocol.Event) {
	if p.owner != w {
		p.owner, p.node = w, p.node.Clone()
	}
	for i := range evs {
		evs[i].Now = instant(w.clock(p))
		if evs[i].Kind == protocol.EventTick {
			evs[i].Control = &protocol.Control{
				Arbiters: slices.Clone(w.arbiters), Incarnations: slices.Clone(w.incarnations), Heartbeats: slices.Clone(w.heartbeats),
			}
		}
	}
	var effects []protocol.Effect
	if len(evs) == 1 {
		effects = p.node.Step(&evs[0], nil)
	} else {
		effects = p.node.StepAll(evs, nil)
	}
	effects = protocol.CloneEffects(effects)
	if w.onStep != nil {
		w.onStep(p, evs, effects)
	}
	w.check.runs(evs, effects)
	p.life = p.node.Incarnation()
	p.program, p.pc, p.part = effects, 0, 0
	p.encoded, p.dull = nil, 0
}

// perform does the next effect of a process's program.
func (w *world) perform(p *process) {
	e := &p.program[p.pc]
	if n := stores(e); n > 1 {
		// Anything may happen between two stores of one effect.
		one := store(*e, p.part)
		w.check.before(p, &one)
		w.do(p, &one)
		if p.part++; p.part == n {
			p.part = 0
			p.pc++
		}
		return
	}
	w.check.before(p, e)
	ok, result := w.do(p, e)
	switch {
	case !ok:
		word := uint64(0)
		if r := w.regions[e.Region]; r != nil && e.Kind == protocol.EffectPublish {
			word = r.commit
		}
		p.abort = &protocol.Event{Kind: protocol.EventAborted, Word: word, Rest: p.program[p.pc:]}
		p.program, p.pc = nil, 0
		return
	case result != nil:
		p.next = result
	}
	p.pc++
	if p.dead {
		return
	}
	if p.node.Exited() && p.pc == len(p.program) {
		w.exit(p.core)
	}
}

// stores returns how many single stores an effect consists of.
func stores(e *protocol.Effect) int {
	switch e.Kind {
	case protocol.EffectStoreSlots:
		return len(e.Words) / protocol.RecordWords
	case protocol.EffectStoreCells:
		return len(e.Data) / protocol.CellBytes
	}
	return 1
}

// store returns one of the single stores of an effect.
func store(e protocol.Effect, i int) protocol.Effect {
	e.Seq += uint64(i)
	if e.Kind == protocol.EffectStoreSlots {
		e.Words = e.Words[i*protocol.RecordWords:][:protocol.RecordWords]
	} else {
		e.Data = e.Data[i*protocol.CellBytes:][:protocol.CellBytes]
	}
	return e
}

// do performs one effect: one store, one compare-and-swap, one answer.
func (w *world) do(p *process, e *protocol.Effect) (ok bool, result *protocol.Event) {
	r := w.regions[e.Region]
	if r != nil && r.owner != w {
		switch e.Kind {
		case protocol.EffectStoreCells, protocol.EffectStoreSlots, protocol.EffectPublish, protocol.EffectSeal:
			r = w.own(e.Region)
		}
	}
	switch e.Kind {
	case protocol.EffectHeartbeat:
		w.heartbeats[e.Core] = e.New
	case protocol.EffectStoreCells:
		if r != nil {
			copy(r.arena[e.Seq*protocol.CellBytes:], e.Data)
		}
		w.check.stored(p, e, r)
	case protocol.EffectStoreSlots:
		if r != nil {
			copy(r.slots[(e.Seq&(w.cfg.Slots-1))*protocol.RecordWords:], e.Words)
		}
		w.check.stored(p, e, r)
	case protocol.EffectPublish:
		if r == nil || r.commit != e.Old {
			w.check.fenced(p, e, r)
			return false, nil
		}
		r.commit = e.New
		w.check.published(p, e, r)
	case protocol.EffectOpen:
		return w.open(e), nil
	case protocol.EffectFreeBelow:
		w.free(p, e)
	case protocol.EffectAnswer, protocol.EffectReject:
		for one := range e.Each {
			w.check.answered(p, one)
			w.onAnswer(p, one)
		}
	case protocol.EffectBegin:
		for one := range e.Each {
			w.check.begun(p, one)
			w.onBegin(p, one)
		}
	case protocol.EffectStop:
		for i := range p.running {
			if p.running[i].id == e.ID {
				p.running[i].stop = true
			}
		}
	case protocol.EffectSend:
		w.send(p, e)
	case protocol.EffectReport:
		w.check.reported(e)
	case protocol.EffectForget:
		for one := range e.Each {
			w.check.forgotten(one)
		}
	case protocol.EffectKill:
		w.onKill(e.Core, e.Incarnation)
	case protocol.EffectExit:
		p.doomed = true
		w.exit(p.core)
	default:
		return true, w.asked(e, r)
	}
	return true, nil
}

// asked performs an effect that wants an answer.
func (w *world) asked(e *protocol.Effect, r *region) *protocol.Event {
	ev := &protocol.Event{Kind: protocol.EventResult, OK: true}
	switch e.Kind {
	case protocol.EffectDraw:
		w.incarnations[e.Log]++
		ev.Word = w.incarnations[e.Log]
	case protocol.EffectArbiter:
		if ev.OK = w.arbiters[e.Log] == e.Old; ev.OK {
			w.arbiters[e.Log] = e.New
			w.check.swapped(e)
		}
		ev.Word = w.arbiters[e.Log]
	case protocol.EffectSeal:
		if ev.OK = r != nil; ev.OK {
			c := protocol.UnpackCommit(r.commit)
			c.Sealed = true
			r.commit = c.Pack()
			ev.Word = r.commit
		}
	case protocol.EffectRead:
		if ev.OK = r != nil; ev.OK {
			ev.Word, ev.Slots, ev.Arena = r.commit, slices.Clone(r.slots), slices.Clone(r.arena)
		}
	default:
		return nil // Affinity and news about victims change nothing here.
	}
	return ev
}

func (w *world) open(e *protocol.Effect) bool {
	id := e.Region
	if !w.up[id.Host] {
		return false
	}
	areas := 0
	for other := range w.regions {
		if other.Log == id.Log && other.Host == id.Host && other.Epoch != id.Epoch {
			areas++
		}
	}
	if areas >= protocol.SpareAreas {
		w.check.count("fault", "no spare area")
		return false
	}
	w.regions[id] = &region{
		owner: w, writer: protocol.UnpackDirectory(e.New), commit: protocol.CommitWord{Epoch: id.Epoch}.Pack(),
		slots: make([]uint64, w.cfg.Slots*protocol.RecordWords), arena: make([]byte, uint64(w.cfg.Cells)*protocol.CellBytes),
	}
	w.check.opened(id)
	return true
}

// free frees the regions of earlier epochs whose writers have exited.
func (w *world) free(p *process, e *protocol.Effect) {
	for id, r := range w.regions {
		if id.Log != e.Log || id.Epoch >= e.Epoch || uint64(id.Epoch) == e.Old {
			continue
		}
		writer := w.procs[r.writer.Writer]
		self := r.writer.Writer == p.core && r.writer.Incarnation <= p.life
		if self || w.freeAll || writer == nil || writer.dead || writer.life != r.writer.Incarnation {
			delete(w.regions, id)
			w.check.freed(id)
		}
	}
}

// send attaches the payload from any valid copy.
func (w *world) send(p *process, e *protocol.Effect) {
	m := *e.Message
	if e.Ref.Bytes > 0 {
		payload, ok := w.payload(e)
		if !ok {
			return
		}
		m.Payload = payload
	}
	w.onSend(p, m)
}

// payload reads what an effect refers to from any member's copy.
func (w *world) payload(e *protocol.Effect) ([]byte, bool) {
	if e.Ref.Bytes == 0 {
		return nil, true
	}
	for _, member := range e.Members {
		r := w.regions[protocol.RegionID{Log: e.Log, Host: member, Epoch: e.Epoch}]
		if r == nil {
			continue
		}
		if data, ok := e.Ref.Read(r.arena); ok {
			return slices.Clone(data), true
		}
	}
	return nil, false
}

// arbiter returns a log's arbiter word.
func (w *world) arbiter(log protocol.Core) protocol.ArbiterWord {
	return protocol.UnpackArbiter(w.arbiters[log])
}

// own makes a region this world's own before it is written to.
func (w *world) own(id protocol.RegionID) *region {
	copied := *w.regions[id]
	copied.slots, copied.arena, copied.owner = slices.Clone(copied.slots), slices.Clone(copied.arena), w
	w.regions[id] = &copied
	return &copied
}

// clone copies the world for the explorer. Regions and nodes are copied only
// when they change. Hooks are set anew by the caller.
func (w *world) clone() *world {
	c := *w
	c.arbiters, c.incarnations, c.heartbeats = slices.Clone(w.arbiters), slices.Clone(w.incarnations), slices.Clone(w.heartbeats)
	c.up = slices.Clone(w.up)
	c.regions = maps.Clone(w.regions)
	c.procs = make([]*process, len(w.procs))
	for i, p := range w.procs {
		if p == nil {
			continue
		}
		copied := *p
		copied.inbox, copied.running = slices.Clone(p.inbox), slices.Clone(p.running)
		c.procs[i] = &copied
	}
	c.check = w.check.clone(&c)
	return &c
}

// sortedRegions lists regions in a fixed order.
func (w *world) sortedRegions() []protocol.RegionID {
	return slices.SortedFunc(maps.Keys(w.regions), compareRegions)
}
