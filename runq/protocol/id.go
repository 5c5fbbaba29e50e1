package protocol

import (
	"cmp"
	"errors"
	"fmt"
)

// Limits of the words in shared memory. Each is as wide as its bit field.
const (
	MaxCores = 64        // Members of an in-sync set and owners are 6-bit numbers.
	MaxEpoch = 1<<20 - 1 // At a takeover a second, twelve days; then [epoch.ErrExhausted].
	MaxTail  = 1<<43 - 1 // At 3 million records a second, a month of one epoch.
	MaxN     = 1<<48 - 1 // Tasks of one stream.
	MaxHop   = 1<<12 - 1 // Moves of one task; past it the task stays where it is.
	MaxPrio  = 1<<6 - 1  // Larger runs first.
	MaxTime  = 1<<48 - 1 // Microseconds since the run began: nine years.
)

// Core numbers a worker, and the log that is its queue. Logs keep their number
// when another core owns them.
type Core uint8

// noCore is no core at all.
const noCore Core = 0xff

// Stream is a source of task numbers: a core's log and an incarnation, which is
// drawn from the log's counter in the control page. No two processes, and no two
// lives of one core, share a stream, so no number is ever given out twice.
type Stream struct {
	Core        Core
	Incarnation uint32
}

func (s Stream) compare(o Stream) int {
	return cmp.Or(cmp.Compare(s.Core, o.Core), cmp.Compare(s.Incarnation, o.Incarnation))
}

// TaskID names a task for ever. The submitter allocates it before it publishes
// anything, so that it can ask what became of the task whatever happens; Core is
// the log that it submits to. N starts at 1 in each stream.
type TaskID struct {
	// Run is random and drawn once for all queues of a run.
	Run uint64
	Stream
	N uint64
}

// at returns the ID of a later task of the stream.
func (id TaskID) at(i int) TaskID {
	id.N += uint64(i)
	return id
}

// precedes reports whether next comes right after the ID and the more next ones of
// its stream.
func (id TaskID) precedes(more uint16, next TaskID) bool {
	return next.N == id.N+uint64(more)+1 && next.Stream == id.Stream && next.Run == id.Run
}

func (id TaskID) String() string {
	return fmt.Sprintf("%x/%d.%d.%d", id.Run, id.Core, id.Incarnation, id.N)
}

// Mode says what is promised about a task's body. The zero Mode is AtLeastOnce.
type Mode uint8

const (
	// AtLeastOnce runs the body one time or more. A claim may become durable
	// after the body started, which is the cheapest.
	AtLeastOnce Mode = iota
	// AtMostOnce replicates the claim before the body starts. A task whose
	// core fails in between is reported as lost and never run again.
	AtMostOnce
	// OnceRecorded runs the body one time or more and accepts one result. Each
	// attempt gets a fencing token, replicated before the body starts, that is
	// larger than those of all attempts before it.
	OnceRecorded
	modes
)

func (m Mode) String() string {
	switch m {
	case AtLeastOnce:
		return "at-least-once"
	case AtMostOnce:
		return "at-most-once"
	case OnceRecorded:
		return "once-recorded"
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// Errors of decoding and configuration.
var (
	ErrCorrupt = errors.New("record is corrupt")
	ErrConfig  = errors.New("configuration makes no sense")
)
