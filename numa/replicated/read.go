package replicated

import (
	"context"
	"unsafe"
)

// Read calls fn with the replica of the calling thread's node. The read is
// linearizable: fn sees every write that returned before Read was called, and
// what fn sees is seen by every read that begins after Read has returned. It
// returns [ErrPoisoned] if there is no sound replica, and no other error.
//
// fn must not change the structure, keep it, or call into the same Replicated,
// and should be short: a reader that stays for longer than
// [Options.DetachAfter] costs its node the replica. Read allocates nothing.
func (x *Replicated[S, Op, Res]) Read(fn func(S)) error {
	_, err := x.read(x.here(), 0, 0, fn)
	return err
}

// View is [Replicated.Read] for many reads under one entry: it spreads the cost
// of entering, about that of one map look-up, and all that fn reads belongs to
// one moment.
func (x *Replicated[S, Op, Res]) View(fn func(S)) error { return x.Read(fn) }

// ReadStale is [Replicated.Read] without the wait for the newest writes: fn may
// miss up to maxLag of the operations that were completed when ReadStale was
// called. Use [Handle.ReadStale] where a goroutine must not see time go backwards.
func (x *Replicated[S, Op, Res]) ReadStale(maxLag uint64, fn func(S)) error {
	_, err := x.read(x.here(), maxLag, 0, fn)
	return err
}

// read runs fn on the home replica of the actor's node once it has applied the
// log up to maxLag before the completed tail, and up to the position atLeast. It
// returns a position that fn's view is not older than.
func (x *Replicated[S, Op, Res]) read(by actor, maxLag, atLeast uint64, fn func(S)) (seen uint64, err error) {
	var w waiter
	for {
		r, need := x.current(by, maxLag, atLeast)
		seen = r.applied.Load()
		x.touch(by.node, unsafe.Pointer(&r.applied), false)
		if seen < need && x.guarded(guardTailCheck) {
			if err := x.catchUp(by, r, need, &w); err != nil {
				return 0, err
			}
			continue
		}
		slot := &r.readers[int(by.slot)&(len(r.readers)-1)]
		slot.readers.Add(1)
		x.at(stepEntered, r.node)
		if r.gate.Load()&(writeBit|retiredBit) == 0 {
			x.at(stepInside, r.node)
			inside(slot, r.data, fn)
			return seen, nil
		}
		slot.readers.Add(-1)
		if err := x.waitAtGate(r, &w); err != nil {
			return 0, err
		}
	}
}

// current returns the home replica and the position that it must have applied.
func (x *Replicated[S, Op, Res]) current(by actor, maxLag, atLeast uint64) (*replica[S, Op, Res], uint64) {
	// The tail comes after the membership: a replica that left before this
	// read began is behind, or marked as retired.
	r := x.members.Load().home[by.node]
	need := x.log.completed.Load()
	x.touch(by.node, unsafe.Pointer(&x.log.completed), false)
	x.at(stepSawTail, r.node)
	return r, max(need-min(need, maxLag), atLeast)
}

// inside runs fn and leaves the slot, also if fn panics.
func inside[S any](slot *readerSlot, data S, fn func(S)) {
	defer slot.readers.Add(-1)
	fn(data)
}

// waitAtGate waits a little for a replica that is shut. If that lasts, the
// replica is suspected.
func (x *Replicated[S, Op, Res]) waitAtGate(r *replica[S, Op, Res], w *waiter) error {
	if x.poisoned.Load() {
		return ErrPoisoned
	}
	var s stalls[S, Op, Res]
	for r.gate.Load()&(writeBit|retiredBit) == writeBit {
		if w.pause() {
			if x.poisoned.Load() {
				return ErrPoisoned
			}
			x.watch(&s, r, ownersPatience)
		}
	}
	return nil
}

// catchUp brings a replica up to a position, or lets the holder of its lock do
// so. It returns after some progress; the caller looks again.
func (x *Replicated[S, Op, Res]) catchUp(by actor, r *replica[S, Op, Res], need uint64, w *waiter) error {
	var s stalls[S, Op, Res]
	for r.applied.Load() < need && !r.retired() {
		if x.poisoned.Load() {
			return ErrPoisoned
		}
		if r.tryLock() {
			x.at(stepLocked, r.node)
			x.applyTo(by, r, need, need) // Readers ask for what is completed.
			r.unlock()
			x.at(stepUnlocked, r.node)
			return nil
		}
		if w.pause() {
			x.watch(&s, r, ownersPatience)
		}
	}
	return nil
}

// Handle is a goroutine's own way to a structure: it remembers node and slot, so
// that reads need not find out, and the position up to which the goroutine has
// seen the log, so that its stale reads never go back in time and see its own
// writes. A handle must not be used by two goroutines at once.
type Handle[S Sequential[Op, Res], Op, Res any] struct {
	x    *Replicated[S, Op, Res]
	by   actor
	seen uint64
	// home is the node's replica as long as the membership is this one, and
	// slot one of its slots.
	members *membership[S, Op, Res]
	home    *replica[S, Op, Res]
	slot    *readerSlot
}

// Handle returns a handle on the calling thread's node.
func (x *Replicated[S, Op, Res]) Handle() *Handle[S, Op, Res] { return x.HandleOn(x.here().node) }

// HandleOn returns a handle on a node, which must be in [0, nodes).
func (x *Replicated[S, Op, Res]) HandleOn(node int) *Handle[S, Op, Res] {
	if node < 0 || node >= x.nodes {
		panic("replicated: node out of range")
	}
	return &Handle[S, Op, Res]{x: x, by: actor{node, x.handles.Add(1) - 1}}
}

// Read is [Replicated.Read] through the handle.
func (h *Handle[S, Op, Res]) Read(fn func(S)) error {
	x := h.x
	// The straight way through Replicated.read, in one function: a call costs
	// as much as an atomic operation that nobody contends for.
	if x.members.Load() == h.members && x.probe == nil {
		r, need := h.home, x.log.completed.Load()
		if seen := r.applied.Load(); seen >= need {
			slot := h.slot
			slot.readers.Add(1)
			if r.gate.Load()&(writeBit|retiredBit) == 0 {
				defer slot.readers.Add(-1)
				h.seen = max(h.seen, seen)
				fn(r.data)
				return nil
			}
			slot.readers.Add(-1)
		}
	}
	return h.readSlowly(fn)
}

func (h *Handle[S, Op, Res]) readSlowly(fn func(S)) error {
	if m := h.x.members.Load(); m != h.members {
		h.members, h.home = m, m.home[h.by.node]
		h.slot = &h.home.readers[int(h.by.slot)&(len(h.home.readers)-1)]
	}
	seen, err := h.x.read(h.by, 0, 0, fn)
	h.seen = max(h.seen, seen)
	return err
}

// View is [Replicated.View] through the handle.
func (h *Handle[S, Op, Res]) View(fn func(S)) error { return h.Read(fn) }

// ReadStale is [Replicated.ReadStale], but never misses what this handle has
// read or written before.
func (h *Handle[S, Op, Res]) ReadStale(maxLag uint64, fn func(S)) error {
	seen, err := h.x.read(h.by, maxLag, h.seen, fn)
	h.seen = max(h.seen, seen)
	return err
}

// Write is [Replicated.Write] through the handle.
func (h *Handle[S, Op, Res]) Write(ctx context.Context, op Op) (Res, error) {
	res, end, err := h.x.writeOne(ctx, h.by, op)
	h.seen = max(h.seen, end)
	return res, err
}

// WriteBatch is [Replicated.WriteBatch] through the handle.
func (h *Handle[S, Op, Res]) WriteBatch(ctx context.Context, ops []Op) ([]Res, error) {
	res, end, err := h.x.writeMany(ctx, h.by, ops)
	h.seen = max(h.seen, end)
	return res, err
}

// peek begins a read that stores nothing, of a structure made of atomic words. The
// read counts if stands reports afterwards that the replica was not changed. If
// the replica is behind or being changed, peek fails, and [Replicated.read] is the
// way.
func (x *Replicated[S, Op, Res]) peek(node int) (r *replica[S, Op, Res], gate uint64, ok bool) {
	r = x.members.Load().home[node]
	need := x.log.completed.Load()
	if x.probe != nil {
		x.touch(node, unsafe.Pointer(&x.log.completed), false)
		x.at(stepSawTail, r.node)
	}
	if r.applied.Load() < need {
		return r, 0, false
	}
	gate = r.gate.Load() &^ lockBit
	if x.probe != nil {
		x.at(stepPeeked, r.node)
	}
	return r, gate, gate&(writeBit|retiredBit) == 0
}

// stands reports whether what was read since peek belongs to one moment.
func (x *Replicated[S, Op, Res]) stands(r *replica[S, Op, Res], gate uint64) bool {
	return r.gate.Load()&^lockBit == gate || !x.guarded(guardStands)
}

// peeks is how often a read that stores nothing is tried while writers come in
// between. Then it takes a slot, for which they wait.
const peeks = 4
