package replicated

import (
	"runtime/debug"
	"unsafe"
)

// lost reports whether nothing may be applied to a replica any more.
func (x *Replicated[S, Op, Res]) lost(r *replica[S, Op, Res]) bool {
	return r.retired() || x.poisoned.Load()
}

// strideOps is after how many operations a replica shows that it gets on.
const strideOps = 64

// applyTo brings a replica up to a position of the log. The caller holds the
// lock. It fails if the replica is lost.
//
// The order at the end carries the proof: the completed tail advances before
// readers enter. Otherwise a reader could see an operation here, and one that
// begins later on another node could miss it. What is known to be completed needs
// no look at that line, which a replica that only follows would fetch for nothing.
func (x *Replicated[S, Op, Res]) applyTo(by actor, r *replica[S, Op, Res], upto, known uint64) bool {
	pos := r.applied.Load()
	x.touch(by.node, unsafe.Pointer(&r.applied), false)
	if x.lost(r) {
		return false
	}
	if pos >= upto {
		return true
	}
	r.shut()
	x.at(stepShut, r.node)
	pos, ok := x.applyRange(by, r, pos, upto)
	if !ok {
		// The structure may be half changed, so its readers stay shut out. Who
		// detached it may not have marked it yet.
		if !x.poisoned.Load() {
			x.lose(r)
		}
		return false
	}
	r.applied.Store(pos)
	x.touch(by.node, unsafe.Pointer(&r.applied), true)
	x.at(stepCaughtUp, r.node)
	switch {
	case pos <= known:
		r.open()
	case x.guarded(guardCompletedTail):
		x.complete(by, pos)
		x.at(stepCompleted, r.node)
		r.open()
	default:
		r.open()
		x.at(stepOpened, r.node)
		x.complete(by, pos)
	}
	x.at(stepOpened, r.node)
	return true
}

// applyRange applies batches from a position on, until it has reached another.
func (x *Replicated[S, Op, Res]) applyRange(by actor, r *replica[S, Op, Res], pos, upto uint64) (uint64, bool) {
	if !x.drain(by, r) {
		return pos, false
	}
	x.at(stepDrained, r.node)
	for shown := pos; pos < upto; {
		next, ok := x.applyBatch(by, r, pos)
		if !ok {
			return pos, false
		}
		if pos = next; pos-shown >= strideOps {
			r.applied.Store(pos)
			shown = pos
		}
	}
	return pos, true
}

// applyBatch applies the batch that begins at a position and returns the
// position after it.
func (x *Replicated[S, Op, Res]) applyBatch(by actor, r *replica[S, Op, Res], pos uint64) (next uint64, ok bool) {
	b := x.log.at(pos)
	if b == nil {
		// The thread that reserved the place may have stalled before it
		// filled the entry.
		x.lastBatch(by)
		if b = x.log.at(pos); b == nil {
			// The ring went past a replica that is not attached any more.
			return pos, false
		}
	}
	x.touch(by.node, unsafe.Pointer(&x.log.ring[pos&x.log.mask]), false)
	for req := b; req != nil; req = req.next {
		x.touchRequest(by, req.original(), false)
		if !x.execute(by, r, req.original(), pos) {
			return pos, false
		}
		pos += req.count()
	}
	return pos, true
}

// drain waits until no reader is inside. New ones are kept out. It fails if the
// replica is lost.
func (x *Replicated[S, Op, Res]) drain(by actor, r *replica[S, Op, Res]) bool {
	if !x.guarded(guardReaderSlot) {
		return true
	}
	for i := range r.readers {
		if r.readers[i].readers.Load() == 0 {
			continue
		}
		var w waiter
		for r.readers[i].readers.Load() != 0 {
			if !w.pause() {
				continue
			}
			if x.lost(r) {
				return false
			}
			if w.waited() > x.detachAfter && x.leaveReaders(r) {
				return false
			}
		}
	}
	return true
}

// leaveReaders leaves a replica to a reader that does not come out, and reports
// whether another one takes its place. The reader keeps what it reads.
func (x *Replicated[S, Op, Res]) leaveReaders(r *replica[S, Op, Res]) bool {
	if x.detach(r) {
		return true
	}
	if x.clone == nil {
		return false
	}
	// There is no peer to rebuild from, but the structure is whole: nobody
	// changes it while its lock is held here.
	r.borrowed.Store(true)
	defer r.borrowed.Store(false)
	next, err := x.copyTo(r.node, r)
	if err != nil {
		return false
	}
	return x.replace(r, next)
}

// execute applies a request at a position of the log, in agreement with all
// other replicas. It fails if the replica is lost.
func (x *Replicated[S, Op, Res]) execute(by actor, r *replica[S, Op, Res], req *request[S, Op, Res], pos uint64) bool {
	var w waiter
	var s stalls[S, Op, Res]
	for {
		state := req.state.Load()
		st := statusOf(state)
		if st != undecided && st != withdrawn && positionOf(state) != pos && x.guarded(guardDuplicates) {
			return true // The log holds the request twice, and the first one counts.
		}
		switch st {
		case undecided:
			claim := stateOf(trying, r.id, pos)
			if req.state.CompareAndSwap(state, claim) {
				return x.try(r, req, claim)
			}
			continue
		case applied, appliedOutcome:
			return x.follow(r, req)
		case skipped, withdrawn:
			return true
		case suspect:
			claim := stateOf(secondOpinion, r.id, pos)
			if req.state.CompareAndSwap(state, claim) {
				return x.tryOnClone(r, req, claim)
			}
			continue
		}
		// Another replica tries. Its verdict is worth waiting for unless it
		// is detached, now or because of this wait.
		canary := x.byID[idOf(state)].Load()
		if !x.members.Load().has(canary) {
			claim := stateOf(tryingAgain, r.id, pos)
			if st == secondOpinion {
				claim = stateOf(suspect, r.id, pos)
			}
			if req.state.CompareAndSwap(state, claim) && st != secondOpinion {
				r.strides.Add(1)
				return x.try(r, req, claim)
			}
			continue
		}
		if w.pause() {
			if x.lost(r) {
				return false
			}
			x.watch(&s, canary, 1)
		}
	}
}

// try applies a request as its canary. The claim is the request's state.
func (x *Replicated[S, Op, Res]) try(r *replica[S, Op, Res], req *request[S, Op, Res], claim uint64) bool {
	x.at(stepClaimed, r.node)
	var perr *PanicError
	verdict := applied
	switch first := statusOf(claim) == trying; {
	case req.extra == nil && first:
		req.res, perr = runOne(r.data, req.op)
	case first:
		perr = x.runExtra(r, req, req.extra.results)
	default:
		verdict = appliedOutcome
		out := &outcome[Res]{}
		out.res, out.results, perr = x.runFor(r.data, r, req)
		if perr == nil {
			req.outcome.CompareAndSwap(nil, out)
		}
	}
	x.at(stepTried, r.node)
	if perr != nil {
		x.failed(r, req, claim, perr)
		return false
	}
	if !req.state.CompareAndSwap(claim, stateOf(verdict, r.id, positionOf(claim))) {
		return false // This replica was detached, and another one decides.
	}
	x.at(stepDecided, r.node)
	return true
}

// failed is the end of a replica on which an operation panicked: its structure
// may be half changed. Whether the operation or the replica is to blame, a
// second one finds out on a clone. Where nothing can be cloned, the others skip
// the operation so as to stay whole.
func (x *Replicated[S, Op, Res]) failed(r *replica[S, Op, Res], req *request[S, Op, Res], claim uint64, perr *PanicError) {
	x.count.panics.Add(1)
	pos := positionOf(claim)
	if x.clone != nil && len(x.members.Load().attached) > 1 {
		req.state.CompareAndSwap(claim, stateOf(suspect, r.id, pos))
	} else {
		perr.poisoned = true
		req.outcome.CompareAndSwap(nil, &outcome[Res]{err: perr})
		req.state.CompareAndSwap(claim, stateOf(skipped, r.id, pos))
	}
	x.lose(r)
}

// tryOnClone decides about an operation that made its canary panic.
func (x *Replicated[S, Op, Res]) tryOnClone(r *replica[S, Op, Res], req *request[S, Op, Res], claim uint64) bool {
	out := &outcome[Res]{}
	r.borrowed.Store(true)
	trial, err := x.clone(r.data)
	r.borrowed.Store(false)
	if err != nil {
		out.err = err
	} else if res, results, perr := x.runFor(trial, r, req); perr != nil {
		out.err = perr
	} else {
		out.res, out.results = res, results
	}
	// Whoever comes first decides, should this replica have been detached
	// meanwhile.
	req.outcome.CompareAndSwap(nil, out)
	verdict := appliedOutcome
	if req.outcome.Load().err != nil {
		verdict = skipped
	}
	if !req.state.CompareAndSwap(claim, stateOf(verdict, r.id, positionOf(claim))) {
		return false
	}
	return verdict == skipped || x.follow(r, req)
}

// follow applies a request that another replica, or a clone, was sound with.
func (x *Replicated[S, Op, Res]) follow(r *replica[S, Op, Res], req *request[S, Op, Res]) bool {
	var perr *PanicError
	if req.extra == nil {
		_, perr = runOne(r.data, req.op)
	} else {
		perr = x.runExtra(r, req, nil)
	}
	if perr != nil {
		x.count.panics.Add(1)
		x.lose(r)
		return false
	}
	return true
}

// lose gives up a replica whose structure is not sound.
func (x *Replicated[S, Op, Res]) lose(r *replica[S, Op, Res]) {
	if !x.detach(r) {
		x.poisoned.Store(true)
	}
}

// runFor applies a request to data and returns its results without touching the
// request, which another thread may be writing to.
func (x *Replicated[S, Op, Res]) runFor(data S, r *replica[S, Op, Res], req *request[S, Op, Res]) (res Res, results []Res, perr *PanicError) {
	switch {
	case req.extra == nil:
		res, perr = runOne(data, req.op)
	case req.extra.each != nil:
		perr = x.runExtra(r, req, nil)
	default:
		results = make([]Res, len(req.extra.ops))
		perr = runMany(data, req.extra.ops, results)
	}
	return res, results, perr
}

// runExtra applies a batch, or what is done on each replica. Results may be nil.
func (x *Replicated[S, Op, Res]) runExtra(r *replica[S, Op, Res], req *request[S, Op, Res], results []Res) (perr *PanicError) {
	if req.extra.each == nil {
		return runMany(r.data, req.extra.ops, results)
	}
	defer recoverTo(&perr)
	req.extra.each(r)
	return nil
}

func runOne[S Sequential[Op, Res], Op, Res any](data S, op Op) (res Res, perr *PanicError) {
	defer recoverTo(&perr)
	return data.Apply(op), nil
}

func runMany[S Sequential[Op, Res], Op, Res any](data S, ops []Op, results []Res) (perr *PanicError) {
	defer recoverTo(&perr)
	for i, op := range ops {
		res := data.Apply(op)
		if results != nil {
			results[i] = res
		}
	}
	return nil
}

// recoverTo turns a panic of Apply into an error. It is called deferred.
func recoverTo(perr **PanicError) {
	if value := recover(); value != nil {
		*perr = &PanicError{Value: value, Stack: debug.Stack()}
	}
}
