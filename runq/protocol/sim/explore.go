package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/protocol"
)

// ErrUsage is returned for a system that cannot be.
var ErrUsage = errors.New("no such system")

// ExploreOptions say which state space to walk.
type ExploreOptions struct {
	Cores, K, Tasks, Failures int
	// Zombies is how many failures may be cores that are taken for dead, and
	// live.
	Zombies int
	// AllLogs gives each core a log, as in production. Without it the walk
	// follows one log, that of core 0: logs share no memory, so what another
	// one does to this one is that its owner acts later, or is killed by who
	// takes the other log over. The walk lets a core that was suspected die at
	// any time for that.
	AllLogs bool
	// Full walks every interleaving of single effects, without the reduction
	// that [state.settle] explains.
	Full bool
	// MaxStates ends the walk early; 0 means no limit.
	MaxStates int
	// Workers walk at the same time; 0 means one a CPU.
	Workers int
	Prepare func(*protocol.Node)

	// fields counts how many values each part of the states takes.
	fields bool
	// hasty reduces too much, as a control: what is published is answered at once.
	hasty bool
	// end is called with each state in which nothing can happen any more.
	end func(*state)
}

// Explored is what a walk saw.
type Explored struct {
	States      int            `json:"states"`
	Transitions int            `json:"transitions"`
	Ends        int            `json:"ends"` // States in which nothing can happen any more.
	Depth       int            `json:"depth"`
	Complete    bool           `json:"complete"`
	Actions     map[string]int `json:"actions"`

	fields map[string]map[string]struct{}
}

// explorer walks states depth first. Time stands still: what a lease would
// decide, a failure decides.
type explorer struct {
	opts ExploreOptions
	ctx  context.Context
	seen *set

	mu      sync.Mutex
	more    *sync.Cond
	stack   []*state // For workers that have none.
	busy    int
	hungry  atomic.Int32
	stopped atomic.Bool
	cut     bool
	err     error
	out     Explored
}

// state is a world and what may still happen in it.
type state struct {
	w        *world
	tasks    int // Submitted so far.
	failures int
	zombies  int
	doomed   uint64 // Cores that may be killed, and have not exited.
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
	x := &explorer{opts: opts, seen: newSet(), ctx: ctx, out: Explored{Actions: map[string]int{}, fields: map[string]map[string]struct{}{}}}
	x.more = sync.NewCond(&x.mu)
	first, err := opts.first()
	if err != nil {
		return x.out, err
	}
	x.stack = []*state{first}
	workers := opts.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(x.work)
	}
	wg.Wait()
	x.out.States = x.seen.len()
	x.out.Complete = x.err == nil && !x.cut
	return x.out, x.err
}

// first returns the state in which all cores are up and nothing was submitted.
func (opts *ExploreOptions) first() (*state, error) {
	cfg := protocol.Config{
		Geometry: protocol.Geometry{Cores: opts.Cores, Slots: protocol.MinSlots, Cells: 4}, Run: 1, K: opts.K, MinInSync: 1,
		Lease: clock.Lease{Length: time.Second}, Retry: time.Hour,
	}
	if _, err := protocol.NewNode(cfg, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	if !opts.AllLogs {
		cfg.Cores++ // The owner of all other logs: it is never born, so nobody takes it for dead.
		if _, err := protocol.NewNode(cfg, 0); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUsage, err)
		}
	}
	w := newWorld(cfg)
	w.prepare, w.check.counts = opts.Prepare, nil
	if nobody := protocol.Core(opts.Cores); !opts.AllLogs {
		for log := 1; log <= opts.Cores; log++ {
			w.arbiters[log] = protocol.ArbiterWord{Phase: protocol.Active, Epoch: 1, Owner: nobody, ActiveEpoch: 1, ActiveOwner: nobody, Mask: 1}.Pack()
		}
	}
	s := &state{w: w}
	s.hook()
	for core := range opts.Cores {
		w.boot(protocol.Core(core))
	}
	s.calm()
	return s, nil
}

// hook binds the world's hooks to a state. Messages are all lost: the walk is
// about what is in shared memory.
func (s *state) hook() {
	w := s.w
	w.onSend = func(*process, protocol.Message) {}
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
	c.hook()
	return &c
}

// calm lets all cores come up, which every run begins with.
func (s *state) calm() {
	for range 4 {
		for _, p := range s.w.procs {
			if p == nil {
				continue
			}
			for s.busy(p) || len(p.inbox) > 0 {
				s.advance(p)
			}
			s.w.step(p, protocol.Event{Kind: protocol.EventTick})
			for s.busy(p) {
				s.advance(p)
			}
		}
	}
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

// work takes states from a stack of its own until no worker has any.
func (x *explorer) work() {
	own := tally{actions: map[string]int{}}
	var stack []*state
	for {
		if len(stack) == 0 {
			if stack = x.wait(&own); stack == nil {
				return
			}
		}
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if next, err := x.visit(s, &own); err != nil {
			x.stop(err)
		} else {
			stack = append(stack, next...)
		}
		if x.stopped.Load() {
			stack = nil
		}
		if len(stack) > 1 && x.hungry.Load() > 0 { // The oldest lead to the most.
			half := len(stack) / 2
			x.mu.Lock()
			x.stack = append(x.stack, stack[:half]...)
			x.mu.Unlock()
			x.more.Broadcast()
			stack = slices.Clone(stack[half:])
		}
	}
}

// tally is what a worker counts by itself.
type tally struct {
	transitions, ends, depth int
	actions                  map[string]int
	working                  bool
	buf                      []byte
	parts                    []part
}

// wait hands over what a worker has counted, and waits for states or the end.
func (x *explorer) wait(own *tally) []*state {
	x.mu.Lock()
	defer x.mu.Unlock()
	if own.working {
		x.busy--
		own.working = false
	}
	x.hungry.Add(1)
	defer x.hungry.Add(-1)
	for len(x.stack) == 0 && x.busy > 0 {
		x.more.Wait()
	}
	if len(x.stack) == 0 || x.stopped.Load() {
		x.out.Transitions += own.transitions
		x.out.Ends += own.ends
		x.out.Depth = max(x.out.Depth, own.depth)
		for name, n := range own.actions {
			x.out.Actions[name] += n
		}
		x.stack = nil
		x.more.Broadcast()
		return nil
	}
	last := len(x.stack) - 1
	s := x.stack[last]
	x.stack = x.stack[:last]
	x.busy++
	own.working = true
	return []*state{s}
}

func (x *explorer) stop(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cut = x.cut || errors.Is(err, errLimit)
	if x.err == nil && !errors.Is(err, errLimit) {
		x.err = err
	}
	x.stopped.Store(true)
	x.more.Broadcast()
}

// errLimit ends a walk that has seen as many states as it may.
var errLimit = errors.New("enough states")

// visit checks a state and returns those that it leads to.
func (x *explorer) visit(s *state, own *tally) ([]*state, error) {
	if err := x.ctx.Err(); err != nil {
		return nil, err
	}
	if x.opts.MaxStates > 0 && x.seen.len() >= x.opts.MaxStates {
		return nil, errLimit
	}
	if err := s.w.check.err; err != nil {
		return nil, fmt.Errorf("%w\nafter %v", err, s.path)
	}
	var parts *[]part
	if x.opts.fields {
		own.parts = own.parts[:0]
		parts = &own.parts
	}
	own.buf = s.encode(own.buf[:0], parts)
	if !x.seen.add(own.buf) {
		return nil, nil
	}
	x.countFields(own)
	own.depth = max(own.depth, s.depth)
	next := x.successors(s)
	own.transitions += len(next)
	for _, c := range next {
		kind, _, _ := strings.Cut(c.path.action, " ")
		own.actions[kind]++
	}
	if len(next) == 0 {
		own.ends++
		if x.opts.end != nil {
			x.mu.Lock()
			x.opts.end(s)
			x.mu.Unlock()
		}
		if err := s.settledEnd(); err != nil {
			return nil, fmt.Errorf("%w\nafter %v", err, s.path)
		}
	}
	return next, nil
}

// countFields counts the values of each part of a state apart: the parts with
// many values are those that multiply.
func (x *explorer) countFields(own *tally) {
	if !x.opts.fields {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	from, place := 0, map[string]int{}
	for _, p := range own.parts {
		name := p.name
		if place[name]++; place[name] > 1 {
			name = fmt.Sprintf("%s %d", name, place[name]-1)
		}
		if x.out.fields[name] == nil {
			x.out.fields[name] = map[string]struct{}{}
		}
		x.out.fields[name][string(own.buf[from:p.end])] = struct{}{}
		from = p.end
	}
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
