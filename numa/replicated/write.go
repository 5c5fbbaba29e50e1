package replicated

import (
	"context"
	"fmt"
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
	req := newRequest[S, Op, Res](x.fill)
	req.op = op
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
//
// A thread never holds the locks of two replicas: it helps others when it has
// given back its own. So a thread that stalls costs one replica at most.
func (x *Replicated[S, Op, Res]) submitTo(ctx context.Context, by actor, r *replica[S, Op, Res], req, try *request[S, Op, Res]) (done bool, end uint64, err error) {
	taken := false // The request is in a slot, in the log, or carried by the replica.
	if r.tryLock() {
		x.at(stepLocked, r.node)
		taken = x.combine(by, r, try)
	}
	var w waiter
	var s stalls[S, Op, Res]
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
		if !taken {
			if taken = r.publish(by.slot, try); taken {
				x.at(stepPublished, r.node)
			}
		}
		x.help(by, r)
		if r.tryLock() {
			x.at(stepLocked, r.node)
			if taken {
				x.combine(by, r, nil)
			} else {
				taken = x.combine(by, r, try)
			}
			if !r.full.Load() {
				continue
			}
		}
		if !w.pause() {
			continue
		}
		if ctx.Err() != nil {
			end, err := x.giveUp(by, req, context.Cause(ctx))
			return true, end, err
		}
		x.suspect(r, &s)
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
// It reports whether own was taken: it is in the log, or will be in the next
// batch.
func (x *Replicated[S, Op, Res]) combine(by actor, r *replica[S, Op, Res], own *request[S, Op, Res]) (taken bool) {
	taken = x.collect(r, own)
	end := uint64(0)
	if size := r.carried.size; size > 0 {
		x.at(stepCollected, r.node)
		reserved := false
		if end, reserved = x.reserve(by, r); reserved {
			r.batches.add(size)
		}
	} else {
		end = x.lastBatch(by).span.end()
	}
	x.applyTo(by, r, end, 0)
	r.unlock()
	x.at(stepUnlocked, r.node)
	return taken
}

// chain is a batch in the making.
type chain[S Sequential[Op, Res], Op, Res any] struct {
	head, last *request[S, Op, Res]
	size       uint64
}

func (c *chain[S, Op, Res]) add(req *request[S, Op, Res], n uint64) {
	if c.head == nil {
		c.head = req
	} else {
		c.last.next = req
	}
	c.last = req
	c.size += n
}

// collect adds requests to those that the replica carries, as long as they fit
// in a batch. It reports whether own is among them.
func (x *Replicated[S, Op, Res]) collect(r *replica[S, Op, Res], own *request[S, Op, Res]) (taken bool) {
	limit := uint64(x.batchLimit())
	if own != nil {
		if n := own.count(); r.carried.size+n <= limit {
			r.carried.add(own, n)
			taken = true
		}
	}
	for i := range r.writers {
		slot := &r.writers[i].request
		req := slot.Load()
		if req == nil {
			continue
		}
		n := req.count()
		if r.carried.size+n > limit {
			continue
		}
		slot.Store(nil)
		// What was withdrawn, or done through another replica, stays out.
		if statusOf(req.original().state.Load()) == undecided {
			r.carried.add(req, n)
		}
	}
	return taken
}

// reserve appends what the replica carries to the log: the compare-and-swap on the
// tail publishes all of it, since the tail names the batch and not only its end.
// It returns the position up to which to apply. If the ring is full, the replica
// goes on carrying the batch.
func (x *Replicated[S, Op, Res]) reserve(by actor, r *replica[S, Op, Res]) (end uint64, reserved bool) {
	head, size := r.carried.head, r.carried.size
	for {
		t := x.lastBatch(by)
		base := t.span.end()
		if !x.room(by, r, base+size) {
			r.full.Store(true)
			return base, false
		}
		head.span = spanOf(base, size)
		for req := head; req != nil; req = req.next {
			x.touchRequest(by, req, true)
		}
		if x.log.tail.CompareAndSwap(t, head) {
			x.touch(by.node, unsafe.Pointer(&x.log.tail), true)
			r.carried = chain[S, Op, Res]{}
			if r.full.Load() {
				r.full.Store(false)
			}
			x.at(stepReserved, r.node)
			x.fillEntry(by, head)
			x.at(stepFilled, r.node)
			return base + size, true
		}
	}
}
