package protocol

import (
	"fmt"

	"github.com/coreplica/coreplica/replica/clock"
)

// EventKind is what happened to a node.
type EventKind uint8

const (
	// EventStart begins a worker's life. It comes first, once. Crashed says
	// that the life before ended, neither by a takeover nor by EffectExit.
	EventStart EventKind = iota + 1
	// EventTick brings the time and a reading of the control page: arbiter
	// words first, then heartbeats, so that a heartbeat is never older than an
	// owner. It comes from the scheduling loop, several times a renewal.
	EventTick
	// EventExited says that the process (Core, Incarnation) has exited, as its
	// pidfd tells. Crashed says that neither a takeover nor EffectExit ended it.
	EventExited
	// EventSuspect says that a core should be taken for hung without waiting
	// for its lease.
	EventSuspect
	// EventSubmit brings Task, whose ID must be allocated already, and the More next
	// tasks of its stream, which are like it but for their payloads. Those are of
	// one length and lie in Payload, one behind the other.
	EventSubmit
	// EventCancel asks to cancel ID in Log.
	EventCancel
	// EventResolve asks what became of ID in Log.
	EventResolve
	// EventCollect hands the results of ID in Log and of the More next tasks of
	// its stream over, and lets them be dropped.
	EventCollect
	// EventIdle says that Count handlers are free.
	EventIdle
	// EventFinished says how an attempt ended, and that the attempts of the same
	// number and token of the More next tasks of its stream ended alike.
	EventFinished
	// EventSteal asks for half of the queue Log.
	EventSteal
	// EventMessage brings a message from another node, or from this one.
	EventMessage
	// EventStreamClosed says that the submitter of Stream is gone.
	EventStreamClosed
	// EventDrain refuses new tasks from now on.
	EventDrain
	// EventResult answers the effect that ended the last program. It may come
	// after other events, but not twice.
	EventResult
	// EventAborted says that an effect failed; Rest begins with it. Nothing of
	// Rest was performed. It is the very next event.
	EventAborted
	// EventCPUs says which cores have no CPU of their own, because it is
	// offline: bit c of Word is core c. It is for all nodes alike.
	EventCPUs
	eventKinds
)

var eventNames = [eventKinds]string{"", "start", "tick", "exited", "suspect", "submit", "cancel", "resolve", "collect", "idle",
	"finished", "steal", "message", "stream-closed", "drain", "result", "aborted", "cpus"}

func (k EventKind) String() string {
	if k < eventKinds {
		return eventNames[k]
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// Outcome is how an attempt ended.
type Outcome uint8

const (
	// OutcomeDone brings a result in Payload; a failure that will not be
	// retried is a result too.
	OutcomeDone Outcome = iota
	// OutcomeRetry wants another attempt from NotBefore on. An AtMostOnce task
	// does not get one: it ends with Payload as its result.
	OutcomeRetry
)

// Control is a reading of the control page, one word a core.
type Control struct {
	Arbiters, Incarnations, Heartbeats []uint64
}

// Event is something that happened. Kind says which fields mean something.
type Event struct {
	Kind        EventKind
	Core        Core
	Log         Core
	Outcome     Outcome
	Crashed     bool
	OK          bool
	More        uint16
	Attempt     uint16
	Incarnation uint32
	Token       uint32
	Now         clock.Instant // Nanoseconds since the run began, by this core's clock; on every event.
	ID          TaskID
	Task        Record
	NotBefore   uint64
	Payload     []byte
	Count       int
	Control     *Control
	Message     *Message
	Word        uint64
	Slots       []uint64 // Result of a read: the ring, then the arena.
	Arena       []byte
	Rest        []Effect `json:"-"`
}

// Joins lets an event speak of the next task of the stream too, if next says of
// that one what the event says of those before: that it is to be collected, that it
// ended without a result, or that it is submitted with a payload that lies right
// behind theirs.
func (ev *Event) Joins(next *Event) bool {
	if ev.Kind != next.Kind || ev.Log != next.Log || next.More > 0 || ev.More == 1<<16-1 {
		return false
	}
	switch ev.Kind {
	case EventCollect:
		if !ev.ID.precedes(ev.More, next.ID) {
			return false
		}
	case EventFinished:
		if !ev.ID.precedes(ev.More, next.ID) || ev.Attempt != next.Attempt || ev.Token != next.Token || ev.Outcome != next.Outcome ||
			ev.NotBefore != next.NotBefore || len(ev.Payload) > 0 || len(next.Payload) > 0 {
			return false
		}
	case EventSubmit:
		if !ev.Task.ID.precedes(ev.More, next.Task.ID) || !ev.Task.likens(&next.Task) || !ev.extends(next.Payload) {
			return false
		}
		ev.Payload = ev.Payload[:len(ev.Payload)+len(next.Payload)]
	default:
		return false
	}
	ev.More++
	return true
}

// Join appends an event, or lets the last one speak of its task too.
func Join(evs []Event, ev *Event) []Event {
	if last := len(evs) - 1; last >= 0 && evs[last].Joins(ev) {
		return evs
	}
	return append(evs, *ev)
}

// AppendFinished is Join for the end of an attempt without a result, which is what
// most of them are where there are many.
func AppendFinished(evs []Event, log Core, id TaskID, attempt uint16, token uint32) []Event {
	if last := len(evs) - 1; last >= 0 {
		ev := &evs[last]
		if ev.Kind == EventFinished && ev.ID.precedes(ev.More, id) && ev.Log == log && ev.Attempt == attempt && ev.Token == token &&
			ev.Outcome == OutcomeDone && len(ev.Payload) == 0 && ev.More < 1<<16-1 {
			ev.More++
			return evs
		}
	}
	return append(evs, Event{Kind: EventFinished, Log: log, ID: id, Attempt: attempt, Token: token})
}

// extends reports whether a payload is as long as those of the event, and lies right
// behind them.
func (ev *Event) extends(payload []byte) bool {
	have, one := len(ev.Payload), len(payload)
	if have != one*(int(ev.More)+1) {
		return false
	}
	return one == 0 || cap(ev.Payload) > have && &ev.Payload[:have+1][have] == &payload[0]
}

// Each yields the event once for each task that it speaks of.
func (ev *Event) Each(yield func(*Event) bool) {
	one := *ev
	one.More = 0
	size := ev.size()
	for i := range int(ev.More) + 1 {
		one.ID.N = ev.ID.N + uint64(i)
		if ev.Kind == EventSubmit {
			one.Task.ID.N, one.Payload = ev.Task.ID.N+uint64(i), ev.Payload[i*size:(i+1)*size]
		}
		if !yield(&one) {
			return
		}
	}
}

// size is how long the payload of each submitted task is.
func (ev *Event) size() int { return len(ev.Payload) / (int(ev.More) + 1) }

// MessageKind is what a message wants.
type MessageKind uint8

const (
	// MessageSteal asks ToLog for up to Count tasks for FromLog.
	MessageSteal MessageKind = iota + 1
	// MessageOffer offers Task of FromLog to ToLog.
	MessageOffer
	// MessageAccept says that FromLog has taken, or had taken, an offer.
	MessageAccept
	// MessageRefuse says that FromLog will never take this offer.
	MessageRefuse
	// MessageQuery asks ToLog whether a task that moved there has ended.
	MessageQuery
	// MessageEnded answers yes. There is no answer no.
	MessageEnded
	// MessageHandBack asks the owner of ToLog to give it to its own core, which
	// has its CPU again or lives again.
	MessageHandBack
	// MessageFloor publishes the low watermark in Task.ID.
	MessageFloor
	messageKinds
)

var messageNames = [messageKinds]string{"", "steal", "offer", "accept", "refuse", "query", "ended", "hand-back", "floor"}

func (k MessageKind) String() string {
	if k < messageKinds {
		return messageNames[k]
	}
	return fmt.Sprintf("MessageKind(%d)", uint8(k))
}

// Message is what nodes tell each other about hand-offs. It goes to whoever
// owns ToLog, and it may be lost, repeated, late and out of order.
type Message struct {
	Kind           MessageKind
	FromLog, ToLog Core
	From           Core
	Count          int
	Task           Record // Its ID and Hop name the hand-off.
	Payload        []byte
}

// EffectKind is what an executor shall do.
type EffectKind uint8

const (
	// EffectHeartbeat stores New into the core's heartbeat word.
	EffectHeartbeat EffectKind = iota + 1
	// EffectStoreCells stores Data at the cell Seq of Region's arena and those
	// after it. It is one store a cell, and may be cut off between two.
	EffectStoreCells
	// EffectStoreSlots stores Words, which are whole records, at the place of
	// Seq in Region's ring and those after it, which do not go beyond the
	// ring's end. It is one store a record, and may be cut off between two.
	EffectStoreSlots
	// EffectPublish swaps Region's commit word from Old to New. If it was not
	// Old, the program is aborted with the word that was there, 0 for a region
	// that is not there.
	EffectPublish
	// EffectOpen finds Region an area, clears it and writes its directory word
	// New and commit word; a region of the same name is cleared again. If its
	// host's memory is gone or full, the program is aborted with Word 0.
	EffectOpen
	// EffectFreeBelow frees the areas of Log whose epoch is below Epoch, and
	// not Old, and whose writer has exited or is this process.
	EffectFreeBelow
	// EffectAnswer tells whoever asked about ID, and about the More next tasks of
	// its stream.
	EffectAnswer
	// EffectBegin starts an attempt with the payload Ref, to be read from any
	// valid copy in Members of (Log, Epoch), and attempts of the same number and
	// token at the More next tasks of its stream, with the payloads Refs.
	EffectBegin
	// EffectStop asks an attempt to stop: its task was cancelled.
	EffectStop
	// EffectReject says that the end of an attempt was not accepted.
	EffectReject
	// EffectSend sends Message, with the payload Ref attached as for a begin.
	EffectSend
	// EffectReport says that a task (or, with a zero ID, records of Log) is
	// lost.
	EffectReport
	// EffectForget says that the tombstones of ID, and of the More next tasks of
	// its stream, are gone.
	EffectForget
	// EffectResetAffinity lets the process (Core, Incarnation) run anywhere: a
	// victim pinned under a real-time hog would not get to die.
	EffectResetAffinity
	// EffectKill kills it. EventExited follows when it is gone.
	EffectKill
	// EffectUnkillable says that it did not go within the deadline.
	EffectUnkillable
	// EffectExit ends this process: it was fenced off.
	EffectExit

	// The effects below end a program and are answered by EventResult.

	// EffectDraw adds one to Log's stream counter; Word is the new value.
	EffectDraw
	// EffectArbiter swaps Log's arbiter word from Old to New; OK says whether,
	// and Word what is there now.
	EffectArbiter
	// EffectSeal sets the sealed bit of Region's commit word if it is of
	// Epoch, by compare-and-swap until it holds; Word is the word then. Not OK
	// is a region that is not there.
	EffectSeal
	// EffectRead reads Region: Slots, Arena and its commit Word.
	EffectRead
	effectKinds
)

var effectNames = [effectKinds]string{"", "heartbeat", "store-cells", "store-slots", "publish", "open", "free-below", "answer", "begin",
	"stop", "reject", "send", "report", "forget", "reset-affinity", "kill", "unkillable", "exit", "draw", "arbiter", "seal", "read"}

func (k EffectKind) String() string {
	if k < effectKinds {
		return effectNames[k]
	}
	return fmt.Sprintf("EffectKind(%d)", uint8(k))
}

// Asks reports whether the effect ends a program and is answered.
func (k EffectKind) Asks() bool { return k >= EffectDraw }

// Effect is one thing to do. Words, Data and Refs belong to the node and change with
// its next Step; Kind says which fields mean something.
type Effect struct {
	Kind        EffectKind
	Code        Code
	Mode        Mode
	Log         Core
	Core        Core
	Attempt     uint16
	More        uint16
	Incarnation uint32
	Token       uint32
	Epoch       uint32
	Region      RegionID
	Ref         Ref
	Seq         uint64
	Old, New    uint64
	ID          TaskID
	Words       []uint64
	Data        []byte
	Refs        []Ref // Of a begin: the payloads of the More next tasks.
	Members     []Core
	Message     *Message
}

// Task returns the ID and the payload of one of the tasks that the effect speaks of.
func (e *Effect) Task(i int) (TaskID, Ref) {
	if i > 0 && len(e.Refs) > 0 {
		return e.ID.at(i), e.Refs[i-1]
	}
	return e.ID.at(i), e.Ref
}

// Each yields the effect once for each task that it speaks of.
func (e *Effect) Each(yield func(*Effect) bool) {
	if e.More == 0 {
		yield(e)
		return
	}
	one := *e
	one.More, one.Refs = 0, nil
	for i := range int(e.More) + 1 {
		if one.ID, one.Ref = e.Task(i); !yield(&one) {
			return
		}
	}
}

// precedes reports whether the next task that the effect could speak of is id.
func (e *Effect) precedes(id TaskID) bool { return e.ID.precedes(e.More, id) && e.More < 1<<16-1 }

// Code is an answer.
type Code uint8

const (
	// CodeAccepted says that every in-sync copy has the task and its payload.
	CodeAccepted Code = iota + 1
	// CodeKnown says that the ID was submitted before; Seq has its [TaskState],
	// StateNone when it ended and was forgotten.
	CodeKnown
	// CodeAbsent says that the ID was never accepted and never will be.
	CodeAbsent
	// CodeCancelled says that the task will not start any more.
	CodeCancelled
	// CodeCancelAsked says that an attempt is under way and was asked to stop.
	CodeCancelAsked
	// CodeMoved says to ask the log Core instead.
	CodeMoved
	// CodeResult hands the result over, in Ref.
	CodeResult
	// CodeDone says that a result was accepted.
	CodeDone
	// CodeRetry says that the task will be attempted again.
	CodeRetry
	// CodeNotOwner says to ask Core, who owns the log.
	CodeNotOwner
	// CodeBusy says to ask again: the log is being copied, or a hand-off is
	// open.
	CodeBusy
	// CodeFull says that the log or its arena has no room.
	CodeFull
	// CodeDegraded says that there are fewer in-sync copies than promised.
	CodeDegraded
	// CodeTooLarge says that a payload would not fit an empty arena.
	CodeTooLarge
	// CodeOtherRun says that the ID is of another run.
	CodeOtherRun
	// CodeDraining says that no tasks are taken any more.
	CodeDraining
	// CodeUnknown says that the outcome is not known: resolve the ID.
	CodeUnknown
	// CodeClosed says that the ID's stream is closed.
	CodeClosed
	// CodeInvalid says that the task makes no sense.
	CodeInvalid
	codes
)

var codeNames = [codes]string{"", "accepted", "known", "absent", "cancelled", "cancel-asked", "moved", "result", "done", "retry", "not-owner",
	"busy", "full", "degraded", "too-large", "other-run", "draining", "unknown", "closed", "invalid"}

func (c Code) String() string {
	if c < codes {
		return codeNames[c]
	}
	return fmt.Sprintf("Code(%d)", uint8(c))
}

// Reasons of a loss, in Seq of an EffectReport.
const (
	LossInFlight = iota + 1 // An AtMostOnce attempt was under way when its core failed.
	LossPoison              // More than MaxCrashes workers died of it.
	LossPayload             // No copy of the payload is valid.
	LossRecord              // No copy of a record is valid, with Seq in Token.
	LossLog                 // No copy of the log is left.
	LossEpochs              // The log has run out of epochs and cannot be taken over.
)
