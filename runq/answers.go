package runq

import (
	"fmt"

	"github.com/coreplica/coreplica/runq/protocol"
)

// answer takes an answer about a task of this table, under its lock.
func (t *table) answer(n *notice) {
	e := t.find(n.id)
	if e == nil || e.state == ended {
		t.stray(e, n)
		return
	}
	if n.code != protocol.CodeDone {
		e.asked = max(e.asked-1, 0)
	}
	e.full = n.code == protocol.CodeFull
	switch n.code {
	case protocol.CodeBusy, protocol.CodeNotOwner, protocol.CodeUnknown, protocol.CodeFull:
		t.askLater(e)
		return
	}
	t.pause = askAgain
	switch n.code {
	case protocol.CodeDone, protocol.CodeResult:
		payload, err := openResult(e.id, append([]byte(nil), n.payload...))
		t.end(e, Result{payload, err, int(n.attempt), int(n.core)}, n.log)
	case protocol.CodeAccepted:
		if e.state == submitting {
			t.accept(e)
			if len(e.askers) > 0 {
				t.ask(e)
			}
		}
	default:
		switch e.state {
		case submitting:
			t.answerSubmit(e, n)
		case burying:
			t.remove(e) // Whatever it says, the number is known now.
		case accepted:
			t.answerAsk(e, n)
		}
	}
}

// stray takes what comes twice. A result that is still in the log is to be
// dropped there.
func (t *table) stray(e *entry, n *notice) {
	if n.code == protocol.CodeResult && (e == nil || !e.detached) {
		t.collect(n.id, n.log)
	}
}

func (t *table) answerSubmit(e *entry, n *notice) {
	switch n.code {
	case protocol.CodeKnown, protocol.CodeMoved:
		t.accept(e)
		t.answerAsk(e, n)
	case protocol.CodeClosed:
		if e.resent {
			// Nobody knows what the owner before had made of it.
			t.end(e, Result{Err: &LostError{e.id, LostLog}, Worker: int(n.log)}, n.log)
			return
		}
		t.renumber(e)
	default:
		t.refuse(e, n.code)
	}
}

// renumber submits a task anew in another stream: the log lost all its copies,
// and takes none of the numbers any more that it may have known.
func (t *table) renumber(old *entry) {
	if old.id.Stream == t.stream {
		t.stream, t.next = t.q.mem.Draw(t.log), 0
	}
	moved := *old
	t.remove(old)
	e := t.allocate()
	id := e.id
	*e = moved
	e.id, e.where, e.due = id, t.log, false
	e.batch.evs[e.at].Task.ID, e.batch.evs[e.at].ID = id, id
	t.ask(e)
}

// answerAsk takes news about a task that was accepted.
func (t *table) answerAsk(e *entry, n *notice) {
	switch n.code {
	case protocol.CodeMoved:
		e.where, e.denied = n.core, 0
		t.ask(e)
	case protocol.CodeCancelled:
		t.end(e, Result{Err: ErrCancelled, Worker: int(n.log)}, n.log)
	case protocol.CodeCancelAsked:
		e.cancelAsked = true
		t.reply(e, Running)
	case protocol.CodeAbsent:
		// It was there when it was accepted.
		t.end(e, Result{Err: &LostError{e.id, LostRecord}, Worker: int(n.log)}, n.log)
	case protocol.CodeKnown:
		t.known(e, n)
	case protocol.CodeOtherRun, protocol.CodeInvalid:
		t.reply(e, Unknown)
	default:
		t.askLater(e)
	}
}

// known takes the state of a task in one log.
func (t *table) known(e *entry, n *notice) {
	switch state := protocol.TaskState(n.seq); state {
	case protocol.StateReady, protocol.StateMoving:
		t.reply(e, Ready)
	case protocol.StateClaimed:
		t.reply(e, Running)
	case protocol.StateCancelled:
		t.end(e, Result{Err: ErrCancelled, Worker: int(n.log)}, n.log)
	case protocol.StateLost:
		t.end(e, Result{Err: &LostError{e.id, LostLog}, Worker: int(n.log)}, n.log)
	case protocol.StateNone, protocol.StateRefused:
		t.forgotten(e, n)
	default:
		t.askLater(e)
	}
}

// forgotten takes that a log knows the number and no task. When the log that it was
// submitted to says so, the task has ended; but it may have ended in a log that it
// moved to, and its result lies there.
func (t *table) forgotten(e *entry, n *notice) {
	if e.denied |= 1 << n.log; e.denied>>t.log&1 == 0 {
		e.where = t.log
		t.askLater(e)
		return
	}
	if e.detached {
		t.end(e, Result{Worker: int(n.log)}, n.log)
		return
	}
	for log := range protocol.Core(len(t.q.tables)) {
		if e.denied>>log&1 == 0 {
			e.where = log
			t.askLater(e)
			return
		}
	}
	err := ErrCancelled
	if !e.cancelAsked {
		err = fmt.Errorf("result of %v is gone: %w", e.id, ErrUnknown)
	}
	t.end(e, Result{Err: err, Worker: int(n.log)}, n.log)
}

// reply answers those who asked.
func (t *table) reply(e *entry, s State) {
	for _, a := range e.askers {
		a.reply <- s
	}
	e.askers = nil
}

// lost takes the report of a loss.
func (t *table) lost(n *notice) {
	e := t.find(n.id)
	if e == nil || e.state == ended || e.state == burying {
		return
	}
	t.end(e, Result{Err: &LostError{n.id, LossReason(n.seq)}, Attempts: int(n.attempt), Worker: int(n.core)}, n.log)
}
