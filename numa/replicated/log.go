package replicated

import (
	"sync/atomic"
	"unsafe"
)

// line is the distance that keeps two hot words from sharing a cache line, and
// from sharing the pair of lines that the adjacent-line prefetcher fetches.
const line = 128

// pad stands between words that different threads write.
type pad [line]byte

// Positions count operations since the log began. A batch occupies as many
// positions as it has operations and one entry of the ring: that of its first.
const (
	sizeBits = 12 // A batch has fewer than 4,096 operations.
	maxBatch = 1<<sizeBits - 1
)

// span packs a batch's first position and its size into one word. 52 bits of
// position last for fourteen years at ten million writes a second.
type span uint64

func spanOf(base, size uint64) span { return span(base<<sizeBits | size) }
func (s span) base() uint64         { return uint64(s) >> sizeBits }
func (s span) size() uint64         { return uint64(s) & maxBatch }
func (s span) end() uint64          { return s.base() + s.size() }

// request is a write on its way: what a writer asks for, and a link of the
// batch that carries it. A combiner links requests to a batch, whose first
// request stands for the batch in the log.
//
// What the replicas of other nodes read comes first: for operations of up to 32
// bytes it is one cache line.
type request[S Sequential[Op, Res], Op, Res any] struct {
	// span is meant in the first request of a batch only. It and next are
	// written by the combiner that holds the request, before the
	// compare-and-swap that publishes the batch, and never again.
	span span
	next *request[S, Op, Res]
	// state decides the request's fate once for all replicas.
	state atomic.Uint64
	extra *extra[S, Op, Res]
	op    Op

	// res is written by the canary before its verdict.
	res Res
	// outcome is the verdict's text where res cannot be used: a second replica
	// decided, or the operation panicked.
	outcome atomic.Pointer[outcome[Res]]
}

// fillFor returns how many bytes behind a request, in steps of 16, make it fall
// into one of the allocator's classes of 64 and 128 bytes, whose objects begin at a
// cache line. Larger requests get none.
func fillFor(size uintptr) int {
	for fill := uintptr(0); fill <= 48; fill += 16 {
		if total := size + fill; total > 48 && total <= 64 || total > 112 && total <= 128 {
			return int(fill)
		}
	}
	return 0
}

// newRequest returns a request that begins at a cache line if it is small.
func newRequest[S Sequential[Op, Res], Op, Res any](fill int) *request[S, Op, Res] {
	switch fill {
	case 16:
		return &new(struct {
			request[S, Op, Res]
			_ [16]byte
		}).request
	case 32:
		return &new(struct {
			request[S, Op, Res]
			_ [32]byte
		}).request
	case 48:
		return &new(struct {
			request[S, Op, Res]
			_ [48]byte
		}).request
	}
	return new(request[S, Op, Res])
}

// extra holds what few requests need.
type extra[S Sequential[Op, Res], Op, Res any] struct {
	// of is the request that this one repeats, because the replica that
	// took it was lost. The log may then hold both; the first one runs.
	of *request[S, Op, Res]
	// ops and results replace op and res in a batch that was written as one.
	ops     []Op
	results []Res
	// each replaces the operation: it is run on every replica, in the log's
	// order, and must not fail on one and succeed on another.
	each func(*replica[S, Op, Res])
}

// outcome is a result that is published by pointer, because two replicas may
// have tried to decide it.
type outcome[Res any] struct {
	res     Res
	results []Res
	err     error
}

// original returns the request that r stands for.
func (r *request[S, Op, Res]) original() *request[S, Op, Res] {
	if r.extra != nil && r.extra.of != nil {
		return r.extra.of
	}
	return r
}

// count returns how many positions the request takes.
func (r *request[S, Op, Res]) count() uint64 {
	o := r.original()
	if o.extra != nil && o.extra.ops != nil {
		return uint64(len(o.extra.ops))
	}
	return 1
}

// alias returns a request that repeats r through another replica.
func (r *request[S, Op, Res]) alias() *request[S, Op, Res] {
	return &request[S, Op, Res]{extra: &extra[S, Op, Res]{of: r.original()}}
}

// status is how far a request has come.
type status uint64

// A request goes from undecided to trying, when a replica, its canary, begins to
// apply it, and on to a verdict, which is one of those from applied on.
const (
	undecided      status = iota
	trying                // by the canary, whose result goes to res
	tryingAgain           // by another canary, since the first one was detached
	suspect               // the canary panicked
	secondOpinion         // a replica tries on a clone
	applied               // the result is in res
	appliedOutcome        // the result is in outcome
	skipped               // the error is in outcome, and no replica applies it
	withdrawn             // by its writer, before anybody began
)

func (s status) decided() bool { return s >= applied }

// A state packs status, replica and position. A replica's number repeats after
// a thousand rebuilds, which could at worst detach one that works; the 50 bits
// of position last for three years at ten million writes a second.
const (
	statusBits  = 4
	replicaBits = 10
	maxIDs      = 1 << replicaBits
)

func stateOf(s status, id uint32, pos uint64) uint64 {
	return pos<<(statusBits+replicaBits) | uint64(id%maxIDs)<<statusBits | uint64(s)
}

func statusOf(state uint64) status { return status(state & (1<<statusBits - 1)) }
func idOf(state uint64) uint32     { return uint32(state>>statusBits) & (maxIDs - 1) }
func positionOf(state uint64) uint64 {
	return state >> (statusBits + replicaBits)
}

// sharedLog is the log of all replicas.
type sharedLog[S Sequential[Op, Res], Op, Res any] struct {
	ring []atomic.Pointer[request[S, Op, Res]]
	mask uint64

	_ pad // tail is written by every combiner.
	// tail is the last batch. Whoever swaps in a batch after it has seen to it
	// that the ring holds it, so at most one entry is unfilled at a time and
	// anybody can fill it.
	tail atomic.Pointer[request[S, Op, Res]]
	_    pad // completed is read by every reader.
	// completed is the completed tail: everything before it has its verdict,
	// and a read that begins now must see it.
	completed atomic.Uint64
	_         pad // head is written once in half a lap.
	// head is a position that all attached replicas are known to have passed.
	head atomic.Uint64
	_    pad
}

func newLog[S Sequential[Op, Res], Op, Res any](size int) *sharedLog[S, Op, Res] {
	l := &sharedLog[S, Op, Res]{
		ring: make([]atomic.Pointer[request[S, Op, Res]], size),
		mask: uint64(size - 1),
	}
	l.tail.Store(new(request[S, Op, Res])) // Of no operations, so that it is in no entry.
	return l
}

// fill puts a batch into its entry unless somebody else has, or the ring has
// gone past it. The entry's lap stamp is the batch's own first position.
func (l *sharedLog[S, Op, Res]) fill(b *request[S, Op, Res]) (at unsafe.Pointer, filled bool) {
	if b.span.size() == 0 {
		return nil, false
	}
	entry := &l.ring[b.span.base()&l.mask]
	for {
		old := entry.Load()
		if old != nil && old.span.base() >= b.span.base() {
			return unsafe.Pointer(entry), false
		}
		if entry.CompareAndSwap(old, b) {
			return unsafe.Pointer(entry), true
		}
	}
}

// at returns the batch that begins at a position, or nil if the ring does not
// hold it: it is the last one and unfilled, or the ring has gone past it.
func (l *sharedLog[S, Op, Res]) at(pos uint64) *request[S, Op, Res] {
	b := l.ring[pos&l.mask].Load()
	if b == nil || b.span.base() != pos {
		return nil
	}
	return b
}

// complete advances the completed tail to a position that has its verdict.
func (l *sharedLog[S, Op, Res]) complete(pos uint64) (moved bool) {
	for {
		old := l.completed.Load()
		if old >= pos {
			return false
		}
		if l.completed.CompareAndSwap(old, pos) {
			return true
		}
	}
}
