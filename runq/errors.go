package runq

import (
	"errors"
	"fmt"

	"github.com/coreplica/coreplica/runq/protocol"
)

// Errors. What is more to say about one is wrapped around it.
var (
	// ErrFull says that there was no room in time: wait for results, or open
	// the queue with more slots, a larger arena or a higher MaxPending.
	ErrFull = errors.New("queue is full")
	// ErrDegraded says that there are fewer copies than MinInSync; a worker is
	// being restarted.
	ErrDegraded = errors.New("queue has fewer copies than promised")
	// ErrDraining says that no more tasks are taken.
	ErrDraining = errors.New("queue is draining")
	// ErrUnknown is what an [*UnknownError] wraps.
	ErrUnknown = errors.New("outcome is unknown")
	// ErrOtherRun says that an ID is of another run of a queue.
	ErrOtherRun = errors.New("ID is of another run")
	// ErrTooLarge says that a payload is larger than MaxPayload.
	ErrTooLarge = errors.New("payload is too large")
	// ErrControlLost says that the page with the owners of the logs is damaged.
	ErrControlLost = errors.New("control page is lost")
	// ErrOwnerUnkillable says that a worker did not die within KillDeadline.
	ErrOwnerUnkillable = errors.New("worker does not die")
	// ErrNameTaken says that a queue of this name is open.
	ErrNameTaken = errors.New("name is taken")
	// ErrClosed says that the queue is closed.
	ErrClosed = errors.New("queue is closed")
	// ErrNoHandler says that no handler of the name was registered before Main.
	ErrNoHandler = errors.New("no such handler")
	// ErrCancelled is the result of a cancelled task.
	ErrCancelled = errors.New("task was cancelled")
	// ErrInvalid says that a job or options make no sense.
	ErrInvalid = errors.New("makes no sense")
)

// UnknownError says that nobody knows yet what became of a task: ask
// [Queue.Resolve].
type UnknownError struct {
	ID    ID
	Cause error
}

func (e *UnknownError) Error() string {
	text := fmt.Sprintf("outcome of %v is unknown: ask Resolve", e.ID)
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}
func (e *UnknownError) Unwrap() []error { return []error{ErrUnknown, e.Cause} }

// LostError is the result of a task that may not be run again, or cannot be.
type LostError struct {
	ID     ID
	Reason LossReason
}

func (e *LostError) Error() string { return fmt.Sprintf("task %v is lost: %v", e.ID, e.Reason) }

// LossReason says why.
type LossReason uint8

// The reasons.
const (
	LostInFlight LossReason = protocol.LossInFlight // An AtMostOnce attempt was under way when its worker failed.
	LostPoison   LossReason = protocol.LossPoison   // More than MaxCrashes workers died of it.
	LostPayload  LossReason = protocol.LossPayload  // No copy of its payload was left.
	LostRecord   LossReason = protocol.LossRecord   // No copy of a record of it was left.
	LostLog      LossReason = protocol.LossLog      // No copy of its queue was left.
	LostEpochs   LossReason = protocol.LossEpochs   // Its queue ran out of epochs.
)

func (r LossReason) String() string {
	switch r {
	case LostInFlight:
		return "an at-most-once attempt was under way when its worker failed"
	case LostPoison:
		return "too many workers died of it"
	case LostPayload:
		return "no copy of its payload is left"
	case LostRecord:
		return "no copy of one of its records is left"
	case LostLog:
		return "no copy of its queue is left"
	case LostEpochs:
		return "its queue has run out of epochs"
	}
	return fmt.Sprintf("LossReason(%d)", uint8(r))
}

// HandlerError is the result of a task whose handler failed as often as it may.
type HandlerError struct {
	Text string
	// Stack is where it panicked, empty where it returned an error.
	Stack string
}

func (e *HandlerError) Error() string {
	if e.Stack != "" {
		return "handler panicked: " + e.Text
	}
	return e.Text
}
