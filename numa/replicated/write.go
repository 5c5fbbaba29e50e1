package replicated

import (
	"context"
	"fmt"
	"time"
	"unsafe"
)

// Write applies an operation to all replicas and returns its result, the same on
// each. It returns once every read that begins afterwards, on any node, sees the
// operation.
//
// If ctx ends first, the error wraps its cause: alone, if the operation had no
// effect and never will; with [ErrUnknown], if it was under way. An operation
// that panicked returns a [PanicError], and has no effect.
func (x *Replicated[S, Op, Res]) Write(ctx context.Context, op Op) (Res, error) {
	res, _, err := x.writeOne(ctx, x.here(), op)
	return res, err
}

// WriteBatch applies operations as one: no read and no other write comes between
// them, and if one of them panics none has an effect. It returns their results in
// order.
func (x *Replicated[S, Op, Res]) WriteBatch(ctx context.Context, ops []Op) ([]Res, error) {
	res, _, err := x.writeMany(ctx, x.here(), ops)
	return res, err
}

// writeOne also returns the position after the operation, or 0 where the log was
// bypassed.
func (x *Replicated[S, Op, Res]) writeOne(ctx context.Context, by actor, op Op) (Res, uint64, error) {
	if r := x.lockAlone(by); r != nil {
		res, perr := runOne(r.data, op)
		x.unlockAlone(r, perr)
		if perr != nil {
			return res, 0, perr
		}
		return res, 0, nil
	}
	req := &request[S, Op, Res]{op: op}
	end, err := x.submit(ctx, by, req)
	if err != nil {
		var none Res
		return none, end, err
	}
	if statusOf(req.state.Load()) == appliedOutcome {
		return req.outcome.Load().res, end, nil
	}
	return req.res, end, nil
}

func (x *Replicated[S, Op, Res]) writeMany(ctx context.Context, by actor, ops []Op) ([]Res, uint64, error) {
	switch {
	case len(ops) == 0:
		return nil, 0, nil
	case len(ops) > x.batchLimit():
		return nil, 0, fmt.Errorf("write %d operations at once, at most %d: %w", len(ops), x.batchLimit(), ErrBatchTooLarge)
	}
	results := make([]Res, len(ops))
	if r := x.lockAlone(by); r != nil {
		perr := runMany(r.data, ops, results)
		x.unlockAlone(r, perr)
		if perr != nil {
			return nil, 0, perr
		}
		return results, 0, nil
	}
	// The caller may reuse its slice after an unknown outcome, and the log
	// keeps the operations longer than that.
	req := &request[S, Op, Res]{extra: &extra[S, Op, Res]{ops: append([]Op(nil), ops...), results: results}}
	end, err := x.submit(ctx, by, req)
	if err != nil {
		return nil, end, err
	}
	if statusOf(req.state.Load()) == appliedOutcome {
		return req.outcome.Load().results, end, nil
	}
	return results, end, nil
}

// lockAlone locks the only replica for changes that bypass the log, or returns
// nil where there are more replicas, the log holds what the replica has not
// applied, or the lock does not come soon.
func (x *Replicated[S, Op, Res]) lockAlone(by actor) *replica[S, Op, Res] {
	var w waiter
	for len(x.members.Load().attached) == 1 {
		r := x.members.Load().attached[0]
		g := r.gate.Load()
		if g&(lockBit|writeBit|retiredBit) == 0 && r.gate.CompareAndSwap(g, g|lockBit|writeBit) {
			if x.single(r) && !x.poisoned.Load() && x.log.tail.Load().span.end() == r.applied.Load() && x.drain(by, r) {
				return r
			}
			r.gate.Add(^uint64(lockBit + writeBit - 1))
			return nil
		}
		if x.poisoned.Load() || w.pause() {
			return nil
		}
	}
	return nil
}

// unlockAlone ends what lockAlone began. A panic costs the only replica.
func (x *Replicated[S, Op, Res]) unlockAlone(r *replica[S, Op, Res], perr *PanicError) {
	if perr != nil {
		perr.poisoned = true
		x.lose(r)
		r.unlock()
		return
	}
	r.gate.Add(version - lockBit - writeBit)
}

// batchLimit is the most operations that one batch may have.
func (x *Replicated[S, Op, Res]) batchLimit() int { return min(len(x.log.ring)/4, maxBatch) }

// submit gets a request into the log and returns when it is decided and the
// completed tail has passed it, with the position after it.
func (x *Replicated[S, Op, Res]) submit(ctx context.Context, by actor, req *request[S, Op, Res]) (uint64, error) {
	try := req
	for {
		if x.poisoned.Load() {
			return x.giveUp(by, req, ErrPoisoned)
		}
		r := x.members.Load().home[by.node]
		done, end, err := x.submitTo(ctx, by, r, req, try)
		if done {
			return end, err
		}
		// The replica is lost, perhaps with the request in a stalled
		// combiner's hands. The same request goes through another one; should
		// the log come to hold it twice, the first runs.
		try = req.alias()
		x.count.retries.Add(1)
	}
}

// submitTo is one attempt, through one replica. It is not done if the replica
// retired.
func (x *Replicated[S, Op, Res]) submitTo(ctx context.Context, by actor, r *replica[S, Op, Res], req, try *request[S, Op, Res]) (done bool, end uint64, err error) {
	published := false
	if r.tryLock() {
		x.at(stepLocked, r.node)
		published = x.combine(by, r, try)
	}
	var w waiter
	seen := r.progress()
	for {
		if state := req.state.Load(); statusOf(state).decided() {
			end, err := x.answer(by, req, state)
			return true, end, err
		}
		if x.poisoned.Load() {
			end, err := x.giveUp(by, req, ErrPoisoned)
			return true, end, err
		}
		if r.retired() {
			return false, 0, nil
		}
		if !published {
			if published = r.publish(by.slot, try); published {
				x.at(stepPublished, r.node)
			}
		}
		if r.tryLock() {
			x.at(stepLocked, r.node)
			if published {
				x.combine(by, r, nil)
			} else {
				published = x.combine(by, r, try)
			}
			continue
		}
		if !w.pause() {
			continue
		}
		if err := x.waitSlowly(ctx, r, &w, &seen); err != nil {
			end, err := x.giveUp(by, req, err)
			return true, end, err
		}
	}
}

// waitSlowly is what a writer does between naps: it looks at its context and at
// whether the replica's lock is held by a thread that makes no progress.
func (x *Replicated[S, Op, Res]) waitSlowly(ctx context.Context, r *replica[S, Op, Res], w *waiter, seen *progress) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	x.suspectStall(r, w, seen, ownersPatience)
	return nil
}

// ownersPatience is how many times [Options.DetachAfter] those wait who wait for
// a lock: its holder may itself wait that long for others.
const ownersPatience = 2

// suspectStall detaches a replica whose lock's holder made no progress for long.
func (x *Replicated[S, Op, Res]) suspectStall(r *replica[S, Op, Res], w *waiter, seen *progress, patience int) {
	if now := r.progress(); now != *seen || r.borrowed.Load() {
		*seen = now
		w.again()
		return
	}
	if w.waited() > x.detachAfter*time.Duration(patience) {
		x.detach(r)
		w.again()
	}
}

// answer returns a decided request's error, after the completed tail has passed
// it. Usually the combiner has seen to that.
func (x *Replicated[S, Op, Res]) answer(by actor, req *request[S, Op, Res], state uint64) (uint64, error) {
	if statusOf(state) == withdrawn {
		return 0, ErrPoisoned // Only a restore withdraws the requests of others.
	}
	end := positionOf(state) + req.count()
	if x.guarded(guardCompletedTail) {
		// The verdict comes one by one, the completed tail once a batch: wait
		// a little before doing the combiner's work.
		for range spins {
			if x.log.completed.Load() >= end {
				break
			}
		}
		x.complete(by, end)
	}
	if statusOf(state) == skipped {
		return end, req.outcome.Load().err
	}
	return end, nil
}

// complete advances the completed tail.
func (x *Replicated[S, Op, Res]) complete(by actor, pos uint64) {
	moved := x.log.complete(pos)
	x.touch(by.node, unsafe.Pointer(&x.log.completed), moved)
}

// giveUp withdraws a request that nobody has begun to apply. If somebody has, it
// reports what is known.
func (x *Replicated[S, Op, Res]) giveUp(by actor, req *request[S, Op, Res], cause error) (uint64, error) {
	if req.state.CompareAndSwap(uint64(undecided), uint64(withdrawn)) {
		x.count.withdrawn.Add(1)
		return 0, fmt.Errorf("write withdrawn: %w", cause)
	}
	state := req.state.Load()
	if statusOf(state).decided() {
		return x.answer(by, req, state)
	}
	return 0, fmt.Errorf("%w: %w", ErrUnknown, cause)
}

// combine is the work of a replica's lock holder: it links the requests of the
// write slots, and its own, to a batch, reserves their place in the log by one
// compare-and-swap, and applies the log up to their end. It gives the lock back.
// It reports whether own is in the log.
func (x *Replicated[S, Op, Res]) combine(by actor, r *replica[S, Op, Res], own *request[S, Op, Res]) (logged bool) {
	head, size := x.collect(r, own)
	if head != nil {
		x.at(stepCollected, r.node)
		end, ok := x.reserve(by, r, head, size)
		if !ok {
			r.unlock()
			return false // The replica is lost, and what it collected is resubmitted.
		}
		r.batches.add(size)
		x.applyTo(by, r, end)
	} else {
		x.applyTo(by, r, x.lastBatch(by).span.end())
	}
	r.unlock()
	x.at(stepUnlocked, r.node)
	return own != nil
}

// collect takes requests from the write slots as long as they fit in a batch.
func (x *Replicated[S, Op, Res]) collect(r *replica[S, Op, Res], own *request[S, Op, Res]) (head *request[S, Op, Res], size uint64) {
	last := own
	if head = own; own != nil {
		size = own.count()
	}
	for i := range r.writers {
		slot := &r.writers[i].request
		req := slot.Load()
		if req == nil {
			continue
		}
		n := req.count()
		if size+n > uint64(x.batchLimit()) {
			continue
		}
		slot.Store(nil)
		if statusOf(req.original().state.Load()) != undecided {
			continue // Withdrawn, or done through another replica.
		}
		size += n
		if head == nil {
			head = req
		} else {
			last.next = req
		}
		last = req
	}
	return head, size
}

// reserve appends a batch to the log: the compare-and-swap on the tail publishes
// all of it, since the tail names the batch and not only its end. It fails if the
// replica is lost.
func (x *Replicated[S, Op, Res]) reserve(by actor, r *replica[S, Op, Res], head *request[S, Op, Res], size uint64) (end uint64, ok bool) {
	for {
		t := x.lastBatch(by)
		base := t.span.end()
		if !x.room(by, r, base+size) {
			return 0, false
		}
		head.span = spanOf(base, size)
		x.touch(by.node, unsafe.Pointer(head), true)
		if x.log.tail.CompareAndSwap(t, head) {
			x.touch(by.node, unsafe.Pointer(&x.log.tail), true)
			x.at(stepReserved, r.node)
			x.fill(by, head)
			x.at(stepFilled, r.node)
			return base + size, true
		}
	}
}
