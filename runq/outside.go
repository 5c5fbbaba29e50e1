package runq

import (
	"context"
	"slices"

	"github.com/coreplica/coreplica/runq/internal/trial"
	"github.com/coreplica/coreplica/runq/protocol"
)

// Do performs what an effect wants outside of the memory. It implements
// [shm.Outside].
func (w *worker) Do(e *protocol.Effect) {
	switch e.Kind {
	case protocol.EffectAnswer:
		w.answered(e)
	case protocol.EffectReject:
		w.settle(e)
	case protocol.EffectBegin:
		w.one = *e
		for i := range int(e.More) + 1 {
			w.one.ID, w.one.Ref = e.Task(i)
			w.begin(&w.one)
		}
	case protocol.EffectStop:
		for _, r := range w.active {
			if r.task.ID == e.ID && r.token == e.Token {
				w.pool.stop(r)
			}
		}
	case protocol.EffectSend:
		w.send(e)
	case protocol.EffectReport:
		w.note(notice{kind: noteReport, core: w.core, log: e.Log, id: e.ID, attempt: e.Attempt, seq: e.Seq})
	case protocol.EffectResetAffinity:
		w.note(notice{kind: noteReset, core: e.Core, incarnation: e.Incarnation})
		w.flush()
	case protocol.EffectKill:
		w.note(notice{kind: noteStep, step: VictimKilled, core: w.core, log: e.Log, incarnation: w.node.Incarnation()})
		w.note(notice{kind: noteKill, core: e.Core, incarnation: e.Incarnation})
		w.flush()
	case protocol.EffectUnkillable:
		w.note(notice{kind: noteUnkillable, core: e.Core, incarnation: e.Incarnation, log: e.Log})
	case protocol.EffectForget, protocol.EffectExit:
		// Nobody asks about what is forgotten, and the loop sees that it ends.
	}
}

// answered settles an attempt of ours, or passes an answer on.
func (w *worker) answered(e *protocol.Effect) {
	ours := e.Code == protocol.CodeDone || e.Code == protocol.CodeRetry || e.Attempt > 0 && (e.Code == protocol.CodeBusy || e.Code == protocol.CodeFull)
	if ours {
		for one := range e.Each {
			w.settle(one)
		}
		return
	}
	n := notice{kind: noteAnswer, code: e.Code, log: e.Log, core: e.Core, id: e.ID, seq: e.Seq, attempt: e.Attempt, more: e.More}
	if e.Code == protocol.CodeResult {
		n.core = w.core
		payload, ok := w.exec.Payload(nil, e)
		if !ok {
			payload = appendResult(nil, endPayload, "")
		}
		n.payload = payload
	}
	w.note(n)
}

// settle takes the answer to the end of an attempt. Answers come in the order in
// which the ends were told, but for those that were held back.
func (w *worker) settle(e *protocol.Effect) {
	for i := w.sentHead; i < len(w.sent); i++ {
		r := w.sent[i]
		if r == nil || r.task.ID != e.ID || r.attempt != e.Attempt || r.token != e.Token {
			continue
		}
		w.sent[i] = nil
		for w.sentHead < len(w.sent) && w.sent[w.sentHead] == nil {
			w.sentHead++
		}
		if w.sentHead == len(w.sent) {
			w.sent, w.sentHead = w.sent[:0], 0
		}
		w.settled(e, r)
		return
	}
}

func (w *worker) settled(e *protocol.Effect, r *run) {
	if e.Kind == protocol.EffectAnswer {
		switch e.Code {
		case protocol.CodeBusy, protocol.CodeFull:
			w.again = append(w.again, r)
			return
		case protocol.CodeDone:
			if h := trial.Hooks.Accepted; h != nil {
				h(r.task.Payload, r.attempt, r.token)
			}
			w.note(notice{kind: noteAnswer, code: e.Code, log: e.Log, core: w.core, id: e.ID, attempt: e.Attempt, payload: r.out})
		case protocol.CodeRetry:
			if w.stopped(r) {
				// It ended as cancelled; whoever waits has to ask for that.
				w.note(notice{kind: noteAnswer, code: protocol.CodeUnknown, log: e.Log, core: w.core, id: e.ID})
			}
		}
	}
	last := len(w.active) - 1
	w.active[r.at] = w.active[last]
	w.active[r.at].at = r.at
	w.active[last] = nil
	w.active = w.active[:last]
	w.spent = append(w.spent, r)
}

// recycle lets runs be used again that were settled and told.
func (w *worker) recycle() {
	w.spare = append(w.spare, w.spent...)
	clear(w.spent)
	w.spent = w.spent[:0]
}

// begin starts an attempt. Its payload is copied out now: the log may lie
// elsewhere by the time its handler begins.
func (w *worker) begin(e *protocol.Effect) {
	var r *run
	if n := len(w.spare); n > 0 {
		r, w.spare = w.spare[n-1], w.spare[:n-1]
	} else {
		r = &run{}
	}
	if !r.fresh || r.ctx.Err() != nil {
		r.ctx = &attemptContext{}
	}
	in, ok := w.exec.Payload(r.in[:0], e)
	*r = run{log: e.Log, token: e.Token, attempt: e.Attempt, in: in, out: r.out[:0], ctx: r.ctx, fresh: true, began: w.ticked, at: len(w.active)}
	r.task.ID, r.task.Mode = e.ID, e.Mode
	if !ok {
		r.out = appendResult(r.out, endPayload, "")
	}
	w.active = append(w.active, r)
	w.begun = append(w.begun, r)
	w.running++
	if w.inherited[e.Log] {
		w.inherited[e.Log] = false
		w.note(notice{kind: noteStep, step: FirstClaim, core: w.core, log: e.Log, incarnation: w.node.Incarnation(), id: e.ID})
	}
}

// send passes a message on, with the payload that it carries.
func (w *worker) send(e *protocol.Effect) {
	m := *e.Message
	if e.Ref.Bytes > 0 {
		payload, ok := w.exec.Payload(nil, e)
		if !ok {
			return // It is sent again, and what is lost for good is found by a takeover.
		}
		m.Payload = payload
	}
	w.note(notice{kind: noteMessage, core: w.core, message: &m})
}

// watch notes which step of a takeover a program ends with, before it is
// performed.
func (w *worker) watch(program []protocol.Effect) {
	w.question = protocol.Effect{}
	if n := len(program); n > 0 && program[n-1].Kind.Asks() {
		w.question = program[n-1]
	}
}

// stepped tells of a step of a takeover that was performed.
func (w *worker) stepped(ev *protocol.Event) {
	if !ev.OK {
		return
	}
	n := notice{kind: noteStep, core: w.core, log: w.question.Log, incarnation: w.node.Incarnation()}
	switch w.question.Kind {
	case protocol.EffectSeal:
		n.step, n.seq = RegionSealed, uint64(w.question.Region.Epoch)
	case protocol.EffectArbiter:
		before, after := protocol.UnpackArbiter(w.question.Old), protocol.UnpackArbiter(w.question.New)
		n.seq = uint64(after.Epoch)
		self := slices.Contains(w.served, n.log)
		switch {
		case after.Phase == protocol.Handed && after.Owner != w.core:
			w.served = slices.DeleteFunc(w.served, func(c protocol.Core) bool { return c == n.log })
			return
		case after.Phase == protocol.Active:
			if n.step = QueueServed; self {
				return // The owner has its copies elsewhere now.
			}
			w.served = append(w.served, n.log)
			w.inherited[n.log] = before.ActiveEpoch > 0
			n.changed = w.inherited[n.log]
			w.heir = true
		case !self && before.Phase != protocol.Vacant:
			n.step = TakeoverBegan
		}
	}
	if n.step != 0 {
		w.note(n)
	}
}

// stop ends an attempt's context because its task was cancelled.
func (p *pool) stop(r *run) {
	p.mu.Lock()
	r.stopped = true
	ctx := r.ctx
	p.mu.Unlock()
	ctx.end(context.Canceled)
}

// stopped reports whether it was.
func (w *worker) stopped(r *run) bool {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	return r.stopped
}

// waiting reports whether the loop should look at results before it sleeps.
func (p *pool) waiting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.done) > p.hold || len(p.done) > 0 && p.head == len(p.todo)
}
