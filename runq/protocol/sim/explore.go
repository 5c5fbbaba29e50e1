package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/protocol"
)

// ErrUsage is returned for a system that cannot be.
var ErrUsage = errors.New("no such system")

// ExploreOptions say which state space to walk.
type ExploreOptions struct {
	Cores, K, Tasks, Failures int
	// Zombies is how many failures are cores that are taken for dead, and live.
	Zombies int
	// Full walks every interleaving of single effects. Without it, effects that
	// no other node can see are performed together with the one before them:
	// stores beyond the tail of a region and the news that end a program. That
	// is a partial-order reduction (Godefroid, 1996): such an effect commutes
	// with everything that others do, but for a crash that takes the region,
	// and a region that is lost looks the same with and without the store.
	Full bool
	// MaxStates ends the walk early; 0 means no limit.
	MaxStates int
	Prepare   func(*protocol.Node)
}

// Explored is what a walk saw.
type Explored struct {
	States      int            `json:"states"`
	Transitions int            `json:"transitions"`
	Ends        int            `json:"ends"` // States in which nothing can happen any more.
	Depth       int            `json:"depth"`
	Complete    bool           `json:"complete"`
	Actions     map[string]int `json:"actions"`
}

// explorer walks states depth first. Time stands still: what a lease would
// decide, a failure decides.
type explorer struct {
	opts ExploreOptions
	seen map[[2]uint64]struct{}
	seed [2]maphash.Seed
	out  Explored
	ctx  context.Context
}

// state is a world and what may still happen in it.
type state struct {
	w        *world
	tasks    int // Submitted so far.
	failures int
	zombies  int
	messages []protocol.Message
	doomed   uint64 // Cores that were killed and have not exited.
	depth    int
	path     *trail
}

// trail is the way to a state, shared with all that came by it.
type trail struct {
	action string
	before *trail
}

func (t *trail) String() string {
	var actions []string
	for ; t != nil; t = t.before {
		actions = append(actions, t.action)
	}
	slices.Reverse(actions)
	return strings.Join(actions, ", ")
}

// Explore walks all states and checks the invariants in each. An error tells the
// way to the state that breaks one.
func Explore(ctx context.Context, opts ExploreOptions) (Explored, error) {
	x := &explorer{opts: opts, seen: map[[2]uint64]struct{}{}, ctx: ctx, out: Explored{Actions: map[string]int{}}}
	x.seed = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	cfg := protocol.Config{
		Geometry: protocol.Geometry{Cores: opts.Cores, Slots: protocol.MinSlots, Cells: 4}, Run: 1, K: opts.K, MinInSync: 1,
		Lease: clock.Lease{Length: time.Second}, Retry: time.Hour,
	}
	if _, err := protocol.NewNode(cfg, 0); err != nil {
		return x.out, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	w := newWorld(cfg)
	w.prepare = opts.Prepare
	s := &state{w: w}
	s.hook()
	for core := range opts.Cores {
		w.boot(protocol.Core(core))
	}
	s.calm()
	complete, err := x.walk([]*state{s})
	x.out.Complete = complete
	x.out.States = len(x.seen)
	return x.out, err
}

// hook binds the world's hooks to a state.
func (s *state) hook() {
	w := s.w
	w.onSend = func(_ *process, m protocol.Message) { s.messages = append(s.messages, m) }
	w.onAnswer = func(p *process, e *protocol.Effect) {
		if e.Code == protocol.CodeDone || e.Kind == protocol.EffectReject {
			p.running = slices.DeleteFunc(p.running, func(a attempt) bool { return a.id == e.ID })
		}
	}
	w.onBegin = func(p *process, e *protocol.Effect) {
		p.running = append(p.running, attempt{log: e.Log, id: e.ID, attempt: e.Attempt, token: e.Token})
	}
	w.onKill = func(core protocol.Core, life uint32) {
		if p := w.procs[core]; p != nil && p.life == life && !p.dead {
			s.doomed |= 1 << core
		}
	}
}

func (s *state) clone() *state {
	c := *s
	c.w = s.w.clone()
	c.messages = slices.Clone(s.messages)
	c.hook()
	return &c
}

// calm lets all cores come up, which every run begins with.
func (s *state) calm() {
	for range 4 {
		for _, p := range s.w.procs {
			for s.busy(p) || len(p.inbox) > 0 {
				s.advance(p)
			}
			s.w.step(p, protocol.Event{Kind: protocol.EventTick})
			for s.busy(p) {
				s.advance(p)
			}
		}
	}
	s.messages = nil
}

func (s *state) busy(p *process) bool {
	return p.pc < len(p.program) || p.abort != nil || p.next != nil
}

// advance lets a process do the next thing that it must do.
func (s *state) advance(p *process) {
	switch {
	case p.pc < len(p.program):
		s.w.perform(p)
	case p.abort != nil:
		ev := *p.abort
		p.abort = nil
		s.w.step(p, ev)
	case p.next != nil:
		ev := *p.next
		p.next = nil
		s.w.step(p, ev)
	case len(p.inbox) > 0:
		ev := p.inbox[0]
		p.inbox = slices.Clone(p.inbox[1:])
		s.w.step(p, ev)
	}
}

// walk takes states from a stack until none is left.
func (x *explorer) walk(stack []*state) (complete bool, err error) {
	for len(stack) > 0 {
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if x.opts.MaxStates > 0 && len(x.seen) >= x.opts.MaxStates || x.ctx.Err() != nil {
			return false, x.ctx.Err()
		}
		if err := s.w.check.err; err != nil {
			return false, fmt.Errorf("%w\nafter %v", err, s.path)
		}
		key := x.hash(s)
		if _, known := x.seen[key]; known {
			continue
		}
		x.seen[key] = struct{}{}
		x.out.Depth = max(x.out.Depth, s.depth)
		next := x.successors(s)
		if len(next) == 0 {
			x.out.Ends++
			if err := s.settledEnd(); err != nil {
				return false, fmt.Errorf("%w\nafter %v", err, s.path)
			}
		}
		stack = append(stack, next...)
	}
	return true, nil
}

// successors returns the states that one action leads to.
func (x *explorer) successors(s *state) []*state {
	var next []*state
	try := func(name string, do func(*state)) {
		c := s.clone()
		c.depth++
		c.path = &trail{name, s.path}
		do(c)
		x.out.Transitions++
		kind, _, _ := strings.Cut(name, " ")
		x.out.Actions[kind]++
		next = append(next, c)
	}
	for core, p := range s.w.procs {
		if p.dead {
			continue
		}
		switch {
		case s.busy(p) || len(p.inbox) > 0:
			try(fmt.Sprintf("go %d", core), func(c *state) {
				q := c.w.procs[core]
				c.advance(q)
				for !x.opts.Full && !q.dead && q.pc < len(q.program) && unseen(&q.program[q.pc]) {
					c.advance(q)
				}
			})
		default:
			x.idle(s, p, try)
			x.look(s, p, try)
		}
		if s.doomed>>core&1 == 1 {
			try(fmt.Sprintf("die %d", core), func(c *state) {
				c.doomed &^= 1 << core
				c.w.procs[core].doomed = true
				c.w.exit(protocol.Core(core))
			})
		}
		if s.failures < x.opts.Failures {
			x.fail(s, p, try)
		}
	}
	return next
}

// unseen reports whether no other node can tell that an effect happened before
// the next one that is seen.
func unseen(e *protocol.Effect) bool {
	switch e.Kind {
	case protocol.EffectStoreCells, protocol.EffectStoreSlots, protocol.EffectHeartbeat, protocol.EffectForget,
		protocol.EffectResetAffinity, protocol.EffectReport, protocol.EffectReject:
		return true
	}
	return false
}

// idle lists what may happen to a node that has nothing under way.
func (x *explorer) idle(s *state, p *process, try func(string, func(*state))) {
	core := p.core
	if s.tasks < x.opts.Tasks && p.node.Serves(0) {
		try(fmt.Sprintf("submit %d", core), func(c *state) {
			c.tasks++
			id := protocol.TaskID{Run: 1, Stream: protocol.Stream{Core: 0, Incarnation: 1}, N: uint64(c.tasks)}
			h := c.w.check.task(id)
			h.mode, h.payload = protocol.Mode(c.tasks%3), []byte{byte(c.tasks)}
			c.w.step(c.w.procs[core], protocol.Event{Kind: protocol.EventSubmit, Task: protocol.Record{ID: id, Mode: h.mode}, Payload: h.payload})
		})
	}
	if p.node.Ready() > 0 && len(p.running) == 0 {
		try(fmt.Sprintf("claim %d", core), func(c *state) {
			c.w.step(c.w.procs[core], protocol.Event{Kind: protocol.EventIdle, Count: 1})
		})
	}
	for i := range p.running {
		if p.running[i].sent {
			continue
		}
		try(fmt.Sprintf("finish %d", core), func(c *state) {
			a := &c.w.procs[core].running[i]
			a.sent = true
			c.w.step(c.w.procs[core], protocol.Event{
				Kind: protocol.EventFinished, Log: a.log, ID: a.id, Attempt: a.attempt, Token: a.token, Payload: resultOf(a.id, a.token),
			})
		})
	}
}

// look lets a node read the control page, where that changes anything.
func (x *explorer) look(s *state, p *process, try func(string, func(*state))) {
	node := p.node.Clone()
	before := string(node.AppendState(nil))
	tick := protocol.Event{Kind: protocol.EventTick, Control: &protocol.Control{
		Arbiters: s.w.arbiters, Incarnations: s.w.incarnations, Heartbeats: s.w.heartbeats,
	}}
	if len(node.Step(&tick, nil)) == 0 && string(node.AppendState(nil)) == before {
		return
	}
	try(fmt.Sprintf("look %d", p.core), func(c *state) {
		c.w.step(c.w.procs[p.core], protocol.Event{Kind: protocol.EventTick})
	})
}

// fail lists how a core may fail: with its memory, or in the eyes of others.
func (x *explorer) fail(s *state, p *process, try func(string, func(*state))) {
	alive := 0
	for _, q := range s.w.procs {
		if !q.dead {
			alive++
		}
	}
	if alive > 1 && s.survives(p.core) {
		try(fmt.Sprintf("crash %d", p.core), func(c *state) {
			c.failures++
			c.w.crash(p.core)
		})
	}
	if alive > 1 && s.zombies < x.opts.Zombies {
		try(fmt.Sprintf("suspect %d", p.core), func(c *state) {
			c.failures++
			c.zombies++
			for _, q := range c.w.procs {
				if q.core != p.core && !q.dead {
					// What was read of the control page is read anew, then judged.
					q.inbox = append(slices.Clone(q.inbox), protocol.Event{Kind: protocol.EventTick}, protocol.Event{Kind: protocol.EventSuspect, Core: p.core})
				}
			}
		})
	}
}

// survives is as in the simulator: a log must keep a copy.
func (s *state) survives(core protocol.Core) bool {
	return (&sim{w: s.w}).survives(core)
}

// settledEnd checks a state in which nothing can happen any more: what was
// acknowledged has ended, or waits for nobody.
func (s *state) settledEnd() error {
	for _, id := range slices.SortedFunc(maps.Keys(s.w.check.tasks), compareIDs) {
		h := s.w.check.tasks[id]
		if h.acked && !h.over() && !h.ended {
			return fmt.Errorf("%w: liveness: %v is acknowledged, has not ended, and nothing can happen any more", ErrViolation, id)
		}
	}
	return nil
}

// hash is a state's identity: two hashes of 64 bits each, so that among 10^8
// states a collision has a chance of about 10^-22.
func (x *explorer) hash(s *state) [2]uint64 {
	b := s.encode(make([]byte, 0, 4096))
	return [2]uint64{maphash.Bytes(x.seed[0], b), maphash.Bytes(x.seed[1], b)}
}

func (s *state) encode(b []byte) []byte {
	word := func(w uint64) { b = binary.AppendUvarint(b, w) }
	word(uint64(s.tasks)<<32 | uint64(s.failures)<<16 | uint64(s.zombies))
	word(s.doomed)
	for i := range s.w.arbiters {
		word(s.w.arbiters[i])
		word(s.w.heartbeats[i] >> 32)
		word(s.w.incarnations[i])
	}
	for _, id := range s.w.sortedRegions() {
		r := s.w.regions[id]
		word(uint64(id.Log)<<40 | uint64(id.Host)<<32 | uint64(id.Epoch))
		word(r.commit)
		tail := protocol.UnpackCommit(r.commit).Tail
		for seq := tail - min(tail, s.w.cfg.Slots); seq < tail; seq++ {
			at := (seq & (s.w.cfg.Slots - 1)) * protocol.RecordWords
			word(r.slots[at+protocol.RecordWords-1])
		}
	}
	for _, p := range s.w.procs {
		b = s.encodeProcess(b, p)
	}
	for _, id := range slices.SortedFunc(maps.Keys(s.w.check.tasks), compareIDs) {
		h := s.w.check.tasks[id]
		b = fmt.Appendf(b, "%v%v%v%v%v%d%d", h.acked, h.done, h.lost, h.ended, h.stopped, h.starts, h.maxToken)
	}
	return b
}

func (s *state) encodeProcess(b []byte, p *process) []byte {
	b = binary.AppendUvarint(b, uint64(p.life))
	if p.dead {
		return append(b, 'x')
	}
	b = binary.AppendUvarint(p.node.AppendState(b), uint64(p.part))
	for i := p.pc; i < len(p.program); i++ {
		e := &p.program[i]
		b = binary.AppendUvarint(b, uint64(e.Kind)<<8|uint64(e.Log))
		b = binary.AppendUvarint(b, e.New)
		b = binary.AppendUvarint(b, e.Seq<<8|uint64(e.Region.Host))
	}
	for _, ev := range []*protocol.Event{p.abort, p.next} {
		if b = append(b, '|'); ev != nil {
			b = binary.AppendUvarint(b, uint64(ev.Kind))
			b = binary.AppendUvarint(b, ev.Word)
		}
	}
	for i := range p.inbox {
		b = binary.AppendUvarint(b, uint64(p.inbox[i].Kind)<<16|uint64(p.inbox[i].Core)<<8|uint64(p.inbox[i].Incarnation))
	}
	b = append(b, '|')
	for i := range p.running {
		b = fmt.Appendf(b, "%d.%d.%v,", p.running[i].id.N, p.running[i].token, p.running[i].sent)
	}
	return b
}
