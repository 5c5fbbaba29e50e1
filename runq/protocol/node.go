package protocol

import (
	"fmt"
	"slices"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/replica/quorum"
)

// Config is what all nodes of a run agree on.
type Config struct {
	Geometry
	// Run is random, drawn once for the run.
	Run uint64
	// K is how many copies a log has, the owner's included.
	K int
	// MinInSync is how many it must have to take tasks; 0 means K.
	MinInSync int
	// Domain has the failure domain of each core; nil makes each its own.
	Domain []int
	// AllowSharedDomain places copies in one domain where there are too few.
	AllowSharedDomain bool
	// Lease is a core's right to its queues.
	Lease clock.Lease
	// Stagger is how much longer each farther neighbour waits, so that the
	// nearest takes over alone.
	Stagger time.Duration
	// KillDeadline is how long a victim may take to exit.
	KillDeadline time.Duration
	// Retry is how often unanswered messages are sent again.
	Retry time.Duration
	// MaxCrashes is how many workers may die of a task; 0 means 3.
	MaxCrashes int
	// MaxExceptions bounds the gaps that a log remembers; 0 means 64.
	MaxExceptions int
	// EpochLimit is the last epoch; 0 means [MaxEpoch].
	EpochLimit uint32
}

// withDefaults returns the configuration that is used, or what makes no sense.
func (c Config) withDefaults() (Config, error) {
	if err := c.Geometry.Validate(); err != nil {
		return c, err
	}
	if c.Domain == nil {
		for i := range c.Cores {
			c.Domain = append(c.Domain, i)
		}
	}
	orDefault(&c.MinInSync, c.K)
	orDefault(&c.MaxCrashes, 3)
	orDefault(&c.MaxExceptions, 64)
	if c.EpochLimit == 0 {
		c.EpochLimit = MaxEpoch
	}
	distinct := slices.Compact(slices.Sorted(slices.Values(c.Domain)))
	switch {
	case len(c.Domain) != c.Cores:
		return c, fmt.Errorf("%d failure domains are given for %d cores: %w", len(c.Domain), c.Cores, ErrConfig)
	case c.K < 1 || c.K > min(4, c.Cores):
		return c, fmt.Errorf("%d copies are not within 1 to 4 and the %d cores: %w", c.K, c.Cores, ErrConfig)
	case c.K > len(distinct) && !c.AllowSharedDomain:
		return c, fmt.Errorf("%d copies need as many failure domains, and there are %d; allow shared domains, or take fewer copies: %w", c.K, len(distinct), ErrConfig)
	case c.MinInSync < 1 || c.MinInSync > c.K:
		return c, fmt.Errorf("at least %d of %d copies makes no sense: %w", c.MinInSync, c.K, ErrConfig)
	case c.EpochLimit > MaxEpoch:
		return c, fmt.Errorf("epoch limit %d is above %d: %w", c.EpochLimit, MaxEpoch, ErrConfig)
	case c.Lease.Length <= 0 || c.Lease.Epsilon < 0 || c.Lease.Epsilon >= c.Lease.Length || c.Lease.Drift < 0 || c.Lease.Drift > 1e5:
		return c, fmt.Errorf("lease %+v is not longer than its margin: %w", c.Lease, ErrConfig)
	}
	return c, nil
}

func orDefault(n *int, value int) {
	if *n == 0 {
		*n = value
	}
}

// mutations switch rules of the protocol off, for the tests that must notice.
type mutations uint32

const (
	mutAckEarly       mutations = 1 << iota // Answer before the last copy is published.
	mutNoSeal                               // Read the regions without sealing them.
	mutReuseStream                          // Keep the incarnation of the life before.
	mutTimeTombstones                       // Forget IDs with their tombstones.
	mutShortestLog                          // Recover the lowest sealed tail.
	mutClaimAsync                           // Start AtMostOnce bodies before the claim is replicated.
	mutNoDedupe                             // Take every offer.
	mutTruncate                             // Stop at the first record that the best copy lacks.
	mutReadRecovering                       // Recover from the epoch of a taker that never became active.
	mutTokenAsync                           // Start OnceRecorded bodies before the token is replicated.
	mutStaleDone                            // Accept the end of any attempt.
	mutNoVector                             // Leave the version vector out of snapshots.
	mutReuseCells                           // Give cells back before the record that frees them is published.
	mutFreeEarly                            // Free old regions without waiting for their writer.
	mutPayloadOnce                          // Store payloads in the first copy only.
	mutCountKills                           // Count takeover kills as crashes.
	mutMoveClaimed                          // Offer claimed tasks too.
	mutIgnoreFence                          // Go on as if a publish that failed had succeeded.
	mutAbsentUnlogged                       // Answer absent without a tombstone.
	mutHopless                              // Tell offers apart by ID alone.
	mutHandClaimed                          // Hand logs over while attempts are under way.
	mutKeepLeft                             // Go on serving without a CPU.
	mutForgetStored                         // Drop the payloads that stood behind a publish that failed.
)

// life is where a node stands in its own life.
type life uint8

const (
	unborn life = iota
	alive
	exited
)

// peer is what a node knows of another core.
type peer struct {
	incarnation uint32
	watch       clock.Watch
	exited      bool
	suspect     bool
	since       clock.Instant // When exited or suspect was learnt.
	lost        uint32        // The last life whose memory is gone.
	crashed     uint32        // The last life that ended by itself.
}

// view is what a node has seen of a log's arbiter word, with the incarnations
// that its owners can have had at most.
type view struct {
	word                  ArbiterWord
	ownerLife, activeLife uint32
	mine                  uint32 // The first epoch that this life swapped in, or was given.
	drawn                 uint32 // Streams of the log that were given out.
	known                 bool
	formerly              bool          // We served it and gave it away.
	exhausted             bool          // It was said that no epoch is left.
	asked                 clock.Instant // When a hand-back was asked for last.
}

// Node is one worker's part of the protocol. It is deterministic: the same
// events give the same effects. It is not safe for concurrent use; it belongs to
// the worker's scheduling loop.
type Node struct {
	cfg         Config
	mut         mutations
	core        Core
	incarnation uint32
	life        life
	draining    bool
	away        quorum.Set // The cores whose CPU is offline.
	now         clock.Instant
	beat        uint32
	renewed     clock.Instant
	held        clock.Instant // Until when this node may act as an owner.
	retried     clock.Instant
	allocated   uint64
	peers       []peer
	views       []view
	logs        []*log
	closed      map[Stream]bool // Streams whose submitter is known to be gone.
	risen       bool            // The life before ended by itself.
	births      bool            // A core was seen in a new life.
	asking      Core            // The log that waits for a result, or noCore.
	out, post   []Effect
	refs        []Ref    // What begins of this program refer to.
	scratch     *Scratch // Nil for none.
}

// NewNode returns the node of a core that is not born yet: EventStart is next.
func NewNode(cfg Config, core Core) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if int(core) >= cfg.Cores {
		return nil, fmt.Errorf("there is no core %d of %d: %w", core, cfg.Cores, ErrConfig)
	}
	return &Node{
		cfg: cfg, core: core, asking: noCore,
		peers: make([]peer, cfg.Cores), views: make([]view, cfg.Cores), logs: make([]*log, cfg.Cores),
		closed: map[Stream]bool{},
	}, nil
}

// Core returns the node's core, and Incarnation its life: 0 until the first
// effect was answered.
func (n *Node) Core() Core { return n.core }

// Incarnation returns which life of the core this is.
func (n *Node) Incarnation() uint32 { return n.incarnation }

// Exited reports whether the node has ended; it ignores events from then on.
func (n *Node) Exited() bool { return n.life == exited }

// Serves reports whether the node is the active owner of a log.
func (n *Node) Serves(log Core) bool { l := n.logs[log]; return l != nil && l.stage == serving }

// Ready returns how many tasks wait in the logs that the node serves, delayed
// ones included.
func (n *Node) Ready() int {
	ready := 0
	for l := range n.owned {
		ready += l.q.waiting
	}
	return ready
}

// Expiry returns when the first lease of another core runs out if nothing is heard
// of it until then: the next tick should not come later.
func (n *Node) Expiry(now clock.Instant) (at clock.Instant, ok bool) {
	for i := range n.peers {
		p := &n.peers[i]
		if Core(i) == n.core || p.incarnation == 0 || p.exited || p.suspect {
			continue
		}
		if left := n.cfg.Lease.Patience() - p.watch.Silent(now); left > 0 && (!ok || now.Add(left) < at) {
			at, ok = now.Add(left), true
		}
	}
	return at, ok
}

// Allocate returns a fresh ID for a task of the node's own core. It is to be
// called by the scheduling loop, before the EventSubmit.
func (n *Node) Allocate() TaskID {
	n.allocated++
	return TaskID{n.cfg.Run, Stream{n.core, n.incarnation}, n.allocated}
}

// Step takes an event and appends to buf what is to be done, in order. Effects
// of the step before must have been performed, or their rest handed back with
// EventAborted; buf must not overlap with Rest.
func (n *Node) Step(ev *Event, buf []Effect) []Effect {
	n.out, n.post = buf, n.post[:0]
	n.now = max(n.now, ev.Now)
	switch {
	case n.life == exited:
	case n.life == unborn && ev.Kind == EventStart:
		n.risen = ev.Crashed
		n.ask(n.core, Effect{Kind: EffectDraw, Log: n.core})
	case n.life == unborn && ev.Kind == EventResult:
		n.born(ev)
	case n.life == alive:
		n.settle(ev)
		n.handle(ev)
		n.flushAll()
		n.advance()
	}
	out := n.out
	n.out = nil
	return out
}

// StepAll takes several events at once, none of them EventStart, EventResult or
// EventAborted, and publishes what they append together: one compare-and-swap a
// copy for all of them.
func (n *Node) StepAll(evs []Event, buf []Effect) []Effect {
	n.out, n.post = buf, n.post[:0]
	for i := range evs {
		n.now = max(n.now, evs[i].Now)
		if n.life != alive {
			break
		}
		if i == 0 {
			n.settle(&evs[i])
		}
		n.handle(&evs[i])
	}
	if n.life == alive {
		n.flushAll()
		n.advance()
	}
	out := n.out
	n.out = nil
	return out
}

func (n *Node) handle(ev *Event) {
	switch ev.Kind {
	case EventTick:
		n.tick(ev)
	case EventExited:
		n.exitedPeer(ev)
	case EventSuspect:
		n.suspectPeer(ev.Core)
	case EventSubmit:
		n.submit(ev)
	case EventCancel:
		n.cancel(ev)
	case EventResolve:
		n.resolve(ev)
	case EventCollect:
		n.collect(ev)
	case EventIdle:
		n.claim(ev.Count)
	case EventFinished:
		n.finish(ev)
	case EventSteal:
		n.steal(ev)
	case EventMessage:
		n.message(ev.Message)
	case EventStreamClosed:
		n.closed[Stream{ev.Core, ev.Incarnation}] = true
	case EventDrain:
		n.draining = true
	case EventCPUs:
		n.cpus(ev)
	case EventResult:
		n.result(ev)
	case EventAborted:
		n.aborted(ev)
	}
}

// born takes the incarnation and starts to live.
func (n *Node) born(ev *Event) {
	n.asking = noCore
	n.incarnation = uint32(ev.Word)
	if n.mut&mutReuseStream != 0 && n.incarnation > 1 {
		n.incarnation--
	}
	n.life = alive
	n.renew()
}

// renew raises the heartbeat. The clock was read before the store, so the lease
// ends for us before it ends for those who watch.
func (n *Node) renew() {
	n.renewed = n.now
	n.held = n.cfg.Lease.HeldUntil(n.now)
	n.pulse()
}

// pulse shows that the scheduling loop goes on. It stands in long programs too,
// where it makes others wait and gives us no right to act any longer.
func (n *Node) pulse() {
	n.beat++
	n.emit(Effect{Kind: EffectHeartbeat, Core: n.core, New: HeartbeatWord{n.incarnation, n.beat}.Pack()})
}

// emit appends an effect to the program at once.
func (n *Node) emit(e Effect) { n.out = append(n.out, e) }

// add appends an effect to a program, to be filled in where it stands: effects are
// long, and these are the most frequent ones.
func add(program *[]Effect, kind EffectKind, log Core) *Effect {
	p := *program
	if len(p) == cap(p) {
		p = slices.Grow(p, 1)
	}
	p = p[:len(p)+1]
	*program = p
	e := &p[len(p)-1]
	*e = Effect{}
	e.Kind, e.Log = kind, log
	return e
}

// later appends an effect behind the publication of what this step appended.
func (n *Node) later(e Effect) { n.post = append(n.post, e) }

// ask ends the program with an effect that will be answered.
func (n *Node) ask(log Core, e Effect) {
	n.asking = log
	n.emit(e)
}

func (n *Node) answer(log Core, id TaskID, code Code) { n.tell(log, id, 0, code, 0, 0) }

// tell answers about a task and the more next ones of its stream, together with
// those before them where the same is to be said of all: batches come in the order
// of their numbers, and so do their answers.
func (n *Node) tell(log Core, id TaskID, more uint16, code Code, attempt uint16, token uint32) {
	if last := len(n.post) - 1; last >= 0 {
		e := &n.post[last]
		if e.Kind == EffectAnswer && e.Code == code && e.Log == log && e.precedes(id) && e.Attempt == attempt && e.Token == token &&
			e.Seq == 0 && e.Ref.Bytes == 0 && uint32(e.More)+uint32(more) < 1<<16-1 {
			e.More += more + 1
			return
		}
	}
	e := add(&n.post, EffectAnswer, log)
	e.ID, e.More, e.Code, e.Attempt, e.Token = id, more, code, attempt, token
}

// settle notes that the program before was performed: all that was published in
// it is in every copy.
func (n *Node) settle(ev *Event) {
	if ev.Kind == EventAborted {
		return
	}
	n.refs = n.refs[:0]
	for _, l := range n.logs {
		if l != nil && l.stage == serving {
			l.words, l.sent, l.data = l.words[:0], 0, l.data[:0]
			l.published = l.next
			n.collectGarbage(l)
		}
	}
}

// owned yields the logs that the node serves, its own first.
func (n *Node) owned(yield func(*log) bool) {
	for i := range n.logs {
		l := n.logs[(int(n.core)+i)%len(n.logs)]
		if l != nil && l.stage == serving && !yield(l) {
			return
		}
	}
}

// exit ends this node: another one has fenced it off, or is about to.
func (n *Node) exit() {
	if n.life == exited {
		return
	}
	n.life = exited
	n.emit(Effect{Kind: EffectExit, Core: n.core, Incarnation: n.incarnation})
}
