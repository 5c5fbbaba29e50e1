package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/protocol"
)

// Options say what to simulate.
type Options struct {
	Seed uint64
	// Steps is how long faults happen; 0 means [DefaultSteps]. The run goes on
	// until everything has settled.
	Steps  int
	Faults Faults
	// Prepare is called with each node before it lives.
	Prepare func(*protocol.Node)
	// Begin is called with the configuration that the seed chose.
	Begin func(protocol.Config)
	// Record is called with what each step of a node was given and returned.
	Record func(core protocol.Core, evs []protocol.Event, effects []protocol.Effect)

	// sideRenewal renews leases from a side goroutine, as a control: what hangs
	// then seems alive.
	sideRenewal bool
	freeAll     bool
}

// DefaultSteps is how many actions of a run have faults among them.
const DefaultSteps = 5000

// patience is how many actions a run may take to settle without faults.
const patience = 150_000

// Result is what a run did.
type Result struct {
	Seed     uint64                    `json:"seed"`
	Steps    int                       `json:"steps"`
	Tasks    int                       `json:"tasks"`
	Excused  bool                      `json:"excused"` // More copies were allowed to fail than there are.
	Coverage map[string]map[string]int `json:"coverage"`
}

// sim is one run.
type sim struct {
	opts     Options
	rng      *rand.Rand
	w        *world
	requests []*request
	byID     map[protocol.TaskID]*request
	streams  []uint32
	numbers  []uint64
	parcels  []parcel
	cut      []protocol.Core
	cutUntil []int64
	tasks    int
	crowded  bool // Rings are small, and one log gets many tasks in bursts: snapshots part batches.
	draining bool
	steps    int
}

// Run executes one seed. The same options give the same run.
func Run(opts Options) (Result, error) {
	if opts.Steps == 0 {
		opts.Steps = DefaultSteps
	}
	s := newSim(opts)
	for s.steps < opts.Steps && s.w.check.err == nil {
		s.action()
	}
	s.heal()
	for !s.settled() && s.w.check.err == nil {
		if s.steps > opts.Steps+patience {
			s.w.check.fail("liveness", "%s", s.stuck())
			break
		}
		s.action()
	}
	s.w.check.conserved()
	result := Result{opts.Seed, s.steps, len(s.requests), s.w.check.excused, s.w.check.counts}
	if err := s.w.check.err; err != nil {
		return result, fmt.Errorf("seed %d, step %d, faults %v: %w", opts.Seed, s.steps, opts.Faults, err)
	}
	return result, nil
}

func newSim(opts Options) *sim {
	rng := rand.New(rand.NewPCG(opts.Seed, 0x72756e71))
	cores := 3 + rng.IntN(3)
	cfg := protocol.Config{
		Geometry: protocol.Geometry{Cores: cores, Slots: 128, Cells: 96},
		Run:      opts.Seed, K: min(1+rng.IntN(4), 2+rng.IntN(2)), MinInSync: 1,
		Lease:        clock.Lease{Length: 800 * time.Microsecond, Drift: 200, Epsilon: 20 * time.Microsecond},
		Stagger:      200 * time.Microsecond,
		KillDeadline: 400 * time.Microsecond,
		Retry:        150 * time.Microsecond,
	}
	if rng.IntN(2) == 0 {
		cfg.MinInSync = 0
	}
	if rng.IntN(4) == 0 {
		cfg.MaxExceptions = 10
	}
	if rng.IntN(4) == 0 {
		cfg.Cells = 20 // Offers are refused for want of room.
	}
	cfg.MaxCrashes = 1 + rng.IntN(3)
	crowded, tasks := opts.Seed%8 == 5, 24
	if crowded {
		cfg.Slots, cfg.Cells, cfg.K, cfg.MinInSync, cfg.MaxExceptions, tasks = 64, 96, 3, 1, 10, 120
	}
	if opts.Begin != nil {
		opts.Begin(cfg)
	}
	s := &sim{
		opts: opts, rng: rng, w: newWorld(cfg), byID: map[protocol.TaskID]*request{}, tasks: tasks, crowded: crowded,
		streams: make([]uint32, cores), numbers: make([]uint64, cores), cut: make([]protocol.Core, cores), cutUntil: make([]int64, cores),
	}
	w := s.w
	w.check.excused = opts.Faults&Excess != 0 && rng.IntN(10) == 0
	w.prepare, w.freeAll = opts.Prepare, opts.freeAll
	w.onSend, w.onAnswer, w.onBegin = s.onSend, s.onAnswer, s.onBegin
	w.onKill = func(core protocol.Core, life uint32) {
		if p := w.procs[core]; p != nil && p.life == life && !p.dead {
			p.doomed = true
		}
	}
	if opts.Record != nil {
		w.onStep = func(p *process, evs []protocol.Event, effects []protocol.Effect) { opts.Record(p.core, evs, effects) }
	}
	if opts.Seed%4 == 3 {
		// Swarms of faults hide each other: a zombie is seldom left to wake up.
		// So some seeds do without those that stop cores for good.
		s.opts.Faults &^= Crash | Kill | Wedge | Pause | Suspicion
	}
	if crowded {
		s.opts.Faults &^= Kill | Wedge | Pause | Suspicion | Stubborn | Leave | Rot // A ring that is begun anew does not fill.
	}
	for core := range cores {
		s.boot(protocol.Core(core))
	}
	return s
}

func (s *sim) boot(core protocol.Core) {
	s.w.boot(core)
	if s.opts.Faults&Drift != 0 {
		s.w.procs[core].rate = s.rng.Int64N(401) - 200
		s.w.check.count("fault", "drift")
	}
}

// action is one thing that happens somewhere.
func (s *sim) action() {
	s.steps++
	s.w.now += 1 + s.rng.Int64N(2000)
	if !s.draining && s.rng.IntN(60) == 0 {
		s.inject()
	}
	if s.rng.IntN(s.seldom()) == 0 {
		if s.draining {
			s.ask()
		} else {
			s.act()
		}
	}
	p := s.w.procs[s.rng.IntN(len(s.w.procs))]
	switch {
	case p.dead:
		if s.rng.IntN(100) == 0 {
			s.boot(p.core)
		}
	case p.doomed && (!p.stubborn || s.draining) && s.rng.IntN(10) == 0:
		s.w.check.count("fault", "killed by a taker")
		s.w.exit(p.core)
	case p.doomed && p.stubborn && s.rng.IntN(3000) == 0:
		p.stubborn = false
	case p.resume > s.w.now:
	default:
		if !s.draining {
			s.strike(p)
		}
		if !p.dead {
			s.advance(p)
		}
	}
}

// seldom is how many actions pass between two of submitters.
func (s *sim) seldom() int {
	if s.crowded && !s.draining {
		return 8
	}
	return 25
}

// advance lets a process do its next thing.
func (s *sim) advance(p *process) {
	switch {
	case p.pc < len(p.program):
		s.w.perform(p)
	case p.abort != nil:
		ev := *p.abort
		p.abort = nil
		s.w.step(p, ev)
	case p.next != nil && p.life > 0 && p.tick <= s.w.now && !p.wedged:
		// A recovery of many logs must not keep the lease from being renewed.
		s.tick(p)
	case p.next != nil:
		ev := *p.next
		p.next = nil
		s.w.step(p, ev)
	case p.wedged:
		if s.opts.sideRenewal && p.tick <= s.w.now {
			p.tick = s.w.now + 100_000
			s.w.heartbeats[p.core]++
		}
	case len(p.inbox) > 0:
		ev := p.inbox[0]
		p.inbox = p.inbox[1:]
		s.w.step(p, ev)
	case p.life == 0:
		// Its incarnation is being drawn.
	case p.tick <= s.w.now:
		s.tick(p)
	default:
		s.work(p)
	}
}

func (s *sim) tick(p *process) {
	p.tick = s.w.now + int64(s.w.cfg.Lease.Length)/10
	s.w.step(p, protocol.Event{Kind: protocol.EventTick})
}

// work lets a process with nothing urgent do something useful: one thing, or all
// that is there in one batch.
func (s *sim) work(p *process) {
	var evs []protocol.Event
	limit := 1
	switch s.rng.IntN(12) {
	case 0, 1, 2:
		limit = 4
	case 3:
		limit = 32 // So that a snapshot comes in the midst of it.
	default:
		if s.crowded {
			limit = 32
		}
	}
	for len(evs) < limit {
		ev, ok := s.finished(p)
		if !ok {
			break
		}
		evs = protocol.Join(evs, &ev)
		if !hasResult(ev.ID) {
			limit = max(limit, 4)
		}
		if s.faulty(Duplicate, 8) {
			p.inbox = append(p.inbox, evs[len(evs)-1]) // A run, perhaps.
		}
	}
	for i := 0; i < len(s.parcels) && len(evs) < limit; i++ {
		if parcel := s.parcels[i]; parcel.to == p.core && parcel.due <= s.w.now {
			last := len(s.parcels) - 1
			s.parcels[i] = s.parcels[last]
			s.parcels = s.parcels[:last]
			i--
			evs = append(evs, parcel.ev)
		}
	}
	if free := 3 - len(p.running); free > 0 && len(evs) < limit && s.rng.IntN(3) == 0 {
		evs = append(evs, protocol.Event{Kind: protocol.EventIdle, Count: free})
	}
	if len(evs) == 0 && s.rng.IntN(8) == 0 {
		evs = append(evs, protocol.Event{Kind: protocol.EventSteal, Log: protocol.Core(s.rng.IntN(s.w.cfg.Cores))})
	}
	if len(evs) > 0 {
		s.w.step(p, evs...)
	}
}

// onSend puts a node's message on its way to the owner of the log.
func (s *sim) onSend(p *process, m protocol.Message) {
	s.w.check.count("message", m.Kind.String())
	to := s.w.arbiter(m.ToLog).Owner
	if !s.draining && s.cutUntil[p.core] > s.w.now && s.cut[p.core] == to {
		s.w.check.count("fault", "message cut off")
		return
	}
	s.post(to, protocol.Event{Kind: protocol.EventMessage, Message: &m})
}

// heal ends the faults. What hangs still hangs: that it is taken over is part
// of what must hold.
func (s *sim) heal() {
	s.draining = true
	hung := true
	for _, p := range s.w.procs {
		p.resume = 0
		hung = hung && p.wedged && !p.dead
	}
	if hung {
		// Nobody is left who could take over. That is for who opened the queue
		// to see, and to end one of them.
		s.w.exit(0)
	}
}

// ask lets a submitter whose task has not ended ask again.
func (s *sim) ask() {
	for range 4 {
		if len(s.requests) == 0 {
			return
		}
		r := s.requests[s.rng.IntN(len(s.requests))]
		if r.resolved || s.w.now-r.asked < 100_000 {
			continue
		}
		if s.w.check.task(r.id).lost {
			r.resolved = true // It was told so.
			continue
		}
		s.request(r, protocol.Event{Kind: protocol.EventResolve})
		return
	}
}

// settled reports whether every submitter knows how its task ended and every
// log is served by who shall serve it.
func (s *sim) settled() bool {
	if s.steps%16 != 0 {
		return false
	}
	for log := range s.w.arbiters {
		if !s.atHome(protocol.Core(log)) {
			return false
		}
	}
	if s.w.check.lossy {
		return true // Whose end is not known is among what was reported.
	}
	for _, r := range s.requests {
		if !r.resolved {
			return false
		}
	}
	return true
}

// atHome reports whether a log is served by its own core, if that lives and has its
// CPU, or else by another one of which that is so, if there is any.
func (s *sim) atHome(log protocol.Core) bool {
	owner := s.w.procs[s.w.arbiter(log).Owner]
	if owner.dead || owner.wedged || !owner.node.Serves(log) {
		return false
	}
	fit := func(p *process) bool { return !p.dead && !p.wedged && !s.w.away.Has(int(p.core)) }
	if home := s.w.procs[log]; fit(home) {
		return owner == home
	}
	return fit(owner) || !slices.ContainsFunc(s.w.procs, fit)
}

// stuck says what has not settled.
func (s *sim) stuck() string {
	text := "not settled:"
	for log := range s.w.arbiters {
		w := s.w.arbiter(protocol.Core(log))
		if p := s.w.procs[w.Owner]; !s.atHome(protocol.Core(log)) {
			text += fmt.Sprintf(" log %d %v (owner dead %v, hung %v; without a CPU %b)", log, w, p.dead, p.wedged, s.w.away)
		}
	}
	for _, r := range s.requests {
		if !r.resolved {
			text += fmt.Sprintf(" %v at log %d %+v;", r.id, r.where, *s.w.check.task(r.id))
		}
	}
	return text
}
