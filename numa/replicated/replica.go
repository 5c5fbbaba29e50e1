package replicated

import (
	"sync/atomic"
)

// The gate of a replica is one word. Combiners take its lock bit, readers look
// at the write and retired bits, and readers that take no slot compare its
// version: it is a sequence lock too.
const (
	lockBit    = 1 << 0 // A thread combines, helps or clones.
	writeBit   = 1 << 1 // The structure is being changed, or a change was broken off.
	retiredBit = 1 << 2 // The replica has left for good.
	version    = 1 << 3
)

// readerSlot counts the readers that entered through it. A reader leaves
// through the slot by which it came, so a thread that moves to another CPU
// meanwhile loses time and nothing else.
type readerSlot struct {
	readers atomic.Int64
	_       [line - 8]byte
}

// writeSlot hands a request to the replica's combiner.
type writeSlot[S Sequential[Op, Res], Op, Res any] struct {
	request atomic.Pointer[request[S, Op, Res]]
	_       [line - 8]byte
}

// replica is one copy of the structure. A replica that was detached is never
// used again: its node gets a new one.
type replica[S Sequential[Op, Res], Op, Res any] struct {
	id   uint32
	node int
	data S
	// borrowed is set while the lock's holder clones the structure, which may
	// take longer than anybody waits for a stalled thread.
	borrowed atomic.Bool

	_ pad // The gate is written by combiners.
	// gate guards data: who changes it holds lock and write, and waits until
	// the reader slots are empty.
	gate atomic.Uint64
	// applied is the position up to which data holds the log, the paper's
	// local tail. It is written under the lock.
	applied atomic.Uint64
	// strides counts slow steps that made progress, for those who wait.
	strides atomic.Uint64
	batches batchCounters
	// carried are the requests that the lock's holder has collected and not yet
	// put into the log. It is guarded by the lock.
	carried chain[S, Op, Res]
	// full is set while the log has no room for them.
	full atomic.Bool
	_    pad

	readers []readerSlot
	writers []writeSlot[S, Op, Res]
}

// minSlots keeps goroutines of a node with one CPU from meeting in one slot;
// maxSlots bounds what a combiner has to look through.
const (
	minSlots = 4
	maxSlots = 64
)

// slotsFor returns two slots a CPU, rounded up to a power of two.
func slotsFor(cpus int) int {
	n := minSlots
	for n < 2*cpus && n < maxSlots {
		n *= 2
	}
	return n
}

func newReplica[S Sequential[Op, Res], Op, Res any](id uint32, node, cpus int, data S) *replica[S, Op, Res] {
	n := slotsFor(cpus)
	return &replica[S, Op, Res]{id: id, node: node, data: data,
		readers: make([]readerSlot, n), writers: make([]writeSlot[S, Op, Res], n)}
}

// tryLock takes the lock of a replica that has not retired.
func (r *replica[S, Op, Res]) tryLock() bool {
	g := r.gate.Load()
	return g&(lockBit|retiredBit) == 0 && r.gate.CompareAndSwap(g, g|lockBit)
}

func (r *replica[S, Op, Res]) unlock() { r.gate.Add(^uint64(lockBit - 1)) }

func (r *replica[S, Op, Res]) retired() bool { return r.gate.Load()&retiredBit != 0 }
func (r *replica[S, Op, Res]) retire()       { r.gate.Or(retiredBit) }

// shut keeps new readers out; open lets them in and tells those without a slot
// that the structure has changed.
func (r *replica[S, Op, Res]) shut() { r.gate.Add(writeBit) }
func (r *replica[S, Op, Res]) open() { r.gate.Add(version - writeBit) }

// publish puts a request into a free slot, the hinted one first.
func (r *replica[S, Op, Res]) publish(hint uint32, req *request[S, Op, Res]) bool {
	for i := range r.writers {
		slot := &r.writers[(int(hint)+i)&(len(r.writers)-1)]
		if slot.request.Load() == nil && slot.request.CompareAndSwap(nil, req) {
			return true
		}
	}
	return false
}

// progress is what those who wait for a replica compare: it changes whenever
// the replica gets on.
type progress struct{ gate, applied, strides uint64 }

func (r *replica[S, Op, Res]) progress() progress {
	return progress{r.gate.Load(), r.applied.Load(), r.strides.Load()}
}
