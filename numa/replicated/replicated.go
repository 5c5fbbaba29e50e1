package replicated

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Sequential is a structure that one thread at a time changes. See the package
// comment for what Apply must keep to.
type Sequential[Op, Res any] interface {
	// Apply changes the structure and returns the operation's result.
	Apply(op Op) Res
}

// Cloner makes a copy that shares nothing with the original that either may
// change. With it, or with [Snapshotter], replicas can be rebuilt and added.
type Cloner[S any] interface{ Clone() S }

// Snapshotter writes the structure and reads it back into a fresh one.
type Snapshotter interface {
	Snapshot(w io.Writer) error
	Restore(r io.Reader) error
}

// Hasher returns a number that is equal on structures with equal content, on
// whichever path they came to it. [Replicated.Verify] compares it.
type Hasher interface{ Hash() uint64 }

// The errors of this package. Those that an operation returns may be wrapped.
var (
	// ErrUnknown means that the context ended while the operation was being
	// applied: it may or may not take effect. Where the context ended earlier,
	// the operation is withdrawn, has no effect, and its error does not wrap
	// ErrUnknown.
	ErrUnknown = errors.New("outcome unknown: the operation was being applied when its context ended")
	// ErrPoisoned means that Apply panicked and left no sound replica to clone.
	// [Replicated.Restore] starts anew.
	ErrPoisoned = errors.New("the structure is poisoned: Apply panicked and there is no clean replica to clone")
	// ErrNotCloneable means that the structure implements neither [Cloner] nor
	// [Snapshotter], so that no replica can be made of another.
	ErrNotCloneable = errors.New("the structure implements neither Clone nor Snapshot and Restore")
	// ErrLastReplica means that the replica cannot go, since it is the only one.
	ErrLastReplica = errors.New("the last replica cannot be removed")
	// ErrReplicaExists means that the node has a replica already.
	ErrReplicaExists = errors.New("the node has a replica already")
	// ErrBatchTooLarge means that a batch exceeds a quarter of the log.
	ErrBatchTooLarge = errors.New("the batch is larger than a quarter of the log")
	// ErrDiverged means that replicas differ after the same operations: Apply is
	// not deterministic, or memory went bad.
	ErrDiverged = errors.New("replicas differ after the same operations")
	// ErrClosed means that [Replicated.Close] was called.
	ErrClosed = errors.New("the structure is closed")
)

// PanicError is the error of an operation whose Apply panicked.
type PanicError struct {
	// Value is what it panicked with.
	Value any
	// Stack is where, as debug.Stack prints it.
	Stack []byte
	// poisoned is set where the panic cost a replica that cannot be rebuilt.
	poisoned bool
}

func (e *PanicError) Error() string { return fmt.Sprintf("apply operation: panic: %v", e.Value) }

// Is reports whether the panic also cost a replica for good.
func (e *PanicError) Is(target error) bool { return target == ErrPoisoned && e.poisoned }

// Options say how a structure is replicated. The zero value is ready to use.
type Options struct {
	// Topology is the machine. Without one, the machine is a single node.
	Topology Topology
	// LogSize is the number of operations that the log holds, a power of two of
	// at least 16. 0 means 4,096: large enough that a node may sleep for a
	// millisecond before others work for it, small enough to stay in a cache.
	LogSize int
	// DetachAfter is how long a thread waits for another that makes no
	// progress before the replica that the other holds is given up. 0 means
	// 100 ms, well above the pauses that a scheduler or collector makes.
	DetachAfter time.Duration
	// Shards splits ready-made maps and sets over that many logs by a hash of
	// the key, so that writes to different shards proceed side by side. What
	// spans shards (Len, Range, Clear) is then no longer atomic. 0 means 1.
	Shards int
	// CountTransfers counts the cache lines that move between nodes, by the
	// model of [Stats.Transfers]. It makes everything many times slower.
	CountTransfers bool
}

// The defaults, and the bounds that keep a mistake from becoming a surprise.
const (
	defaultLogSize     = 4096
	minLogSize         = 16
	maxLogSize         = 1 << 24
	defaultDetachAfter = 100 * time.Millisecond
	maxShards          = 256
)

func (o Options) filled() (Options, error) {
	if o.Topology == nil {
		o.Topology = Simulated(1, runtime.NumCPU())
	}
	if o.LogSize == 0 {
		o.LogSize = defaultLogSize
	}
	if o.DetachAfter == 0 {
		o.DetachAfter = defaultDetachAfter
	}
	if o.Shards == 0 {
		o.Shards = 1
	}
	switch {
	case o.LogSize < minLogSize || o.LogSize > maxLogSize || o.LogSize&(o.LogSize-1) != 0:
		return o, fmt.Errorf("replicated: LogSize must be a power of two from %d to %d, got %d", minLogSize, maxLogSize, o.LogSize)
	case o.DetachAfter < 0:
		return o, fmt.Errorf("replicated: DetachAfter must not be negative, got %v", o.DetachAfter)
	case o.Shards < 1 || o.Shards > maxShards:
		return o, fmt.Errorf("replicated: Shards must be in [1, %d], got %d", maxShards, o.Shards)
	case o.Topology.Nodes() < 1 || o.Topology.Nodes() > maxIDs/2:
		return o, fmt.Errorf("replicated: the topology must have 1 to %d nodes, got %d", maxIDs/2, o.Topology.Nodes())
	}
	return o, nil
}

// Replicated is a structure with a replica on each node. All its methods may be
// called by many goroutines at once.
type Replicated[S Sequential[Op, Res], Op, Res any] struct {
	log     *sharedLog[S, Op, Res]
	members atomic.Pointer[membership[S, Op, Res]]
	topo    Topology
	nodes   int
	fill    int    // bytes behind each request, see fillFor
	probe   *probe // nil but in tests and where transfers are counted

	build       func(site) S
	clone       func(S) (S, error) // nil if there is no way
	detachAfter time.Duration
	directory   *directory // nil unless transfers are counted

	// poisoned is set when no replica is sound. It is read by whoever waits,
	// and by writers.
	poisoned atomic.Bool
	closed   atomic.Bool
	handles  atomic.Uint32 // deals slots to handles

	// admin orders rebuilding, adding, removing and restoring. Neither reads
	// nor writes take it.
	admin      sync.Mutex
	nextID     atomic.Uint32
	byID       [maxIDs]atomic.Pointer[replica[S, Op, Res]] // who is meant by a state
	wanted     []atomic.Bool                               // by node: a replica that is lost is rebuilt
	rebuilding atomic.Int64                                // rebuilds under way
	adopt      func(r *replica[S, Op, Res], data S)        // puts other content into a replica
	count      counters
}

// New builds a structure on each node of the topology by calling build there.
// Each call must return an equal structure, since no operation makes up for a
// difference. Close it after use.
func New[S Sequential[Op, Res], Op, Res any](build func() S, opts Options) (*Replicated[S, Op, Res], error) {
	return newAt(func(site) S { return build() }, opts)
}

// newAt is [New] for structures that choose their memory.
func newAt[S Sequential[Op, Res], Op, Res any](build func(site) S, opts Options) (*Replicated[S, Op, Res], error) {
	opts, err := opts.filled()
	if err != nil {
		return nil, err
	}
	x := &Replicated[S, Op, Res]{
		log:         newLog[S, Op, Res](opts.LogSize),
		topo:        opts.Topology,
		nodes:       opts.Topology.Nodes(),
		fill:        fillFor(unsafe.Sizeof(request[S, Op, Res]{})),
		build:       build,
		detachAfter: opts.DetachAfter,
		wanted:      make([]atomic.Bool, opts.Topology.Nodes()),
		adopt:       func(r *replica[S, Op, Res], data S) { r.data = data },
	}
	if opts.CountTransfers {
		x.directory = newDirectory()
		x.probe = &probe{touch: x.directory.touch}
	}
	m := &membership[S, Op, Res]{home: make([]*replica[S, Op, Res], x.nodes)}
	for node := range x.nodes {
		var r *replica[S, Op, Res]
		// The replica's slots belong to its node as much as its content.
		x.topo.Run(node, func() { r = x.newReplica(node, build(siteOf(x.topo, node))) })
		m.attached = append(m.attached, r)
		m.home[node] = r
		x.wanted[node].Store(true)
	}
	x.members.Store(m)
	x.clone = cloneBy[S](any(m.attached[0].data), func() S { return build(site{}) })
	return x, nil
}

// newReplica makes a replica and numbers it.
func (x *Replicated[S, Op, Res]) newReplica(node int, data S) *replica[S, Op, Res] {
	id := (x.nextID.Add(1) - 1) % maxIDs
	r := newReplica[S, Op, Res](id, node, len(x.topo.CPUs(node)), data)
	x.byID[id].Store(r)
	return r
}

// Close stops rebuilding replicas and waits for a rebuild that is under way. The
// structure stays usable, except for what changes its replicas. It is idempotent.
func (x *Replicated[S, Op, Res]) Close() error {
	x.closed.Store(true)
	var w waiter
	for x.rebuilding.Load() != 0 {
		w.pause()
	}
	return nil
}

// actor is the thread that acts: on which node it runs, and which slots it
// tries first.
type actor struct {
	node int
	slot uint32
}

// here returns the calling goroutine as an actor.
func (x *Replicated[S, Op, Res]) here() actor {
	if x.nodes == 1 {
		return actor{0, stackHint()}
	}
	// A topology may answer for a machine that has changed since.
	return actor{x.topo.Current() % x.nodes, stackHint()}
}

// single reports whether r is the only replica and no thread can still be at
// work on another, so that the log need not be asked. The caller holds r's lock.
func (x *Replicated[S, Op, Res]) single(r *replica[S, Op, Res]) bool {
	m := x.members.Load()
	if len(m.attached) != 1 || m.attached[0] != r {
		return false
	}
	return m.quiet.Load() || m.settle()
}

// fillEntry fills the entry of a batch that the tail names.
func (x *Replicated[S, Op, Res]) fillEntry(by actor, b *request[S, Op, Res]) {
	at, filled := x.log.fill(b)
	if at != nil {
		x.touch(by.node, at, filled)
	}
}

// touchRequest records an access to the part of a request that replicas share.
func (x *Replicated[S, Op, Res]) touchRequest(by actor, req *request[S, Op, Res], write bool) {
	if x.directory == nil {
		return
	}
	first, last := uintptr(unsafe.Pointer(req)), uintptr(unsafe.Pointer(&req.res))-1
	for l := first / lineBytes; l <= last/lineBytes; l++ {
		x.directory.touchLine(by.node, l, write)
	}
}

// lastBatch loads the tail and sees to it that the ring holds what it names.
func (x *Replicated[S, Op, Res]) lastBatch(by actor) *request[S, Op, Res] {
	t := x.log.tail.Load()
	x.touch(by.node, unsafe.Pointer(&x.log.tail), false)
	x.touchRequest(by, t, false)
	x.fillEntry(by, t)
	return t
}
