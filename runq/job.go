package runq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/coreplica/coreplica/runq/protocol"
)

// ID names a task for ever. The zero ID is no task.
type ID = protocol.TaskID

// ParseID reads what [ID].String wrote.
func ParseID(text string) (ID, error) {
	run, rest, ok := strings.Cut(text, "/")
	parts := strings.Split(rest, ".")
	if !ok || len(parts) != 3 {
		return ID{}, fmt.Errorf("parse ID %q: want run/core.incarnation.number", text)
	}
	var id ID
	var core, incarnation uint64
	var errs [4]error
	id.Run, errs[0] = strconv.ParseUint(run, 16, 64)
	core, errs[1] = strconv.ParseUint(parts[0], 10, 8)
	incarnation, errs[2] = strconv.ParseUint(parts[1], 10, 32)
	id.N, errs[3] = strconv.ParseUint(parts[2], 10, 48)
	if err := errors.Join(errs[:]...); err != nil {
		return ID{}, fmt.Errorf("parse ID %q: %w", text, err)
	}
	id.Stream = protocol.Stream{Core: protocol.Core(core), Incarnation: uint32(incarnation)}
	return id, nil
}

// Mode says what is promised about a task's handler.
type Mode = protocol.Mode

// The modes. The zero Mode is AtLeastOnce.
const (
	AtLeastOnce  = protocol.AtLeastOnce
	AtMostOnce   = protocol.AtMostOnce
	OnceRecorded = protocol.OnceRecorded
)

// Job is what Submit takes.
type Job struct {
	// Name is that of a registered handler.
	Name    string
	Payload []byte
	Mode    Mode
	// Priority is from 0 to 63; larger runs first.
	Priority int
	// Deadline orders tasks of the same priority, and ends the handler's
	// context. A task that is not started by then fails with
	// [context.DeadlineExceeded]. The zero time is none.
	Deadline time.Time
	// Delay is how long the task waits before it may run.
	Delay time.Duration
	// Affinity is where it should run; the zero Affinity is anywhere.
	Affinity Affinity
	Retry    Retry
	// Detached tasks have no one who waits: their result is dropped at once.
	Detached bool
}

// Affinity is where a task should run. It goes elsewhere when the worker there
// is gone.
type Affinity struct {
	kind   affinityKind
	number int
}

type affinityKind uint8

const (
	anywhere affinityKind = iota
	onWorker
	onCPU
	onNode
)

// OnWorker wants the worker of that number, counted from 0.
func OnWorker(n int) Affinity { return Affinity{onWorker, n} }

// OnCPU wants the worker that is bound to a CPU.
func OnCPU(cpu int) Affinity { return Affinity{onCPU, cpu} }

// OnNode wants a worker on a memory node.
func OnNode(node int) Affinity { return Affinity{onNode, node} }

// Retry says what happens after a handler's error. The death of a worker takes
// nothing from it.
type Retry struct {
	// Attempts is how often the handler may fail in all; 0 means 1, so that
	// its first error is the result.
	Attempts int
	// Backoff is the time before the second attempt; each further one waits
	// twice as long as the one before, a minute at most.
	Backoff time.Duration
}

// maxBackoff bounds the doubling: past it a failing task costs nothing worth
// saving.
const maxBackoff = time.Minute

// after returns how long to wait after so many failures.
func (r Retry) after(failures int) time.Duration {
	d := r.Backoff
	for i := 1; i < failures && d < maxBackoff; i++ {
		d *= 2
	}
	return min(d, maxBackoff)
}

// Result is how a task ended.
type Result struct {
	// Payload is what the handler returned.
	Payload []byte
	// Err is nil, a [*HandlerError], a [*LostError], [ErrCancelled],
	// [ErrNoHandler] or [context.DeadlineExceeded].
	Err error
	// Attempts is how many attempts began that no worker's death cut short.
	Attempts int
	// Worker is the one that recorded the result.
	Worker int
}

// State is where a task stands.
type State uint8

const (
	// Unknown is the zero State: no answer.
	Unknown State = iota
	// Absent was never accepted, and never will be.
	Absent
	// Ready waits for a worker, or for its time.
	Ready
	// Running has an attempt under way.
	Running
	// Done has a result, which may be an error.
	Done
	// Cancelled was cancelled before a result was recorded.
	Cancelled
	// Lost may not be run again; its result is a [*LostError].
	Lost
	// Ended is all that is known of a task whose result was handed over.
	Ended
)

var stateNames = []string{"unknown", "absent", "ready", "running", "done", "cancelled", "lost", "ended"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Task is an attempt as its handler sees it. It is valid until the handler
// returns, and so is its Payload.
type Task struct {
	ID      ID
	Name    string
	Payload []byte
	Mode    Mode
	// Attempt counts from 1. An attempt that a worker's death cut short is not
	// counted.
	Attempt int
	// Token is larger than that of every attempt before it. For OnceRecorded
	// tasks it was replicated before the handler was called, so whatever the
	// handler writes to can refuse smaller ones.
	Token uint32
	// Deadline is the job's, or zero.
	Deadline time.Time
	// Worker is the number of the worker.
	Worker int
}

// Handler executes tasks. Its error, or its panic, is retried as the job says and
// is the result at last. ctx ends when the task is cancelled, when its deadline
// passes and when the worker stops.
type Handler func(ctx context.Context, t *Task) ([]byte, error)
