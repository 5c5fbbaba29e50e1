package protocol

import (
	"fmt"
	"hash/crc32"
	"unsafe"
)

// RecordWords is the size of a record in 64-bit words: one cache line. Words are
// little-endian, as on every machine that the queue runs on.
const RecordWords = 8

// Kind is what a record does to the queue.
type Kind uint8

const (
	// KindNone is no record: memory that was never written.
	KindNone Kind = iota
	// KindEnqueue makes a task ready.
	KindEnqueue
	// KindClaim starts an attempt and raises the task's fencing token.
	KindClaim
	// KindDone ends a task with a result and leaves a tombstone.
	KindDone
	// KindRetry makes a claimed task ready again, from NotBefore on.
	KindRetry
	// KindCancel ends a ready task, or asks a claimed one to stop. For an ID
	// that was never seen it is the tombstone that makes "absent" true.
	KindCancel
	// KindLost ends a task that may not be run again.
	KindLost
	// KindMoveOut offers a ready task to the log Arg.
	KindMoveOut
	// KindMoveIn takes an offered task.
	KindMoveIn
	// KindRefuse says that an offered task will not be taken with this Hop.
	KindRefuse
	// KindMoved says that the log Arg took the task: what stays is where to ask.
	KindMoved
	// KindMoveBack makes a task ready again that was refused.
	KindMoveBack
	// KindRetire drops the forwarding entry of a task that ended elsewhere.
	KindRetire
	// KindCollect says that the result was handed over.
	KindCollect
	// KindFloor says that all streams of the core before this one are closed:
	// everything in them ended everywhere; or by its Arg, that this stream
	// ended up to N, or that earlier streams were lost with all copies.
	KindFloor
	// KindSnapBegin opens a snapshot of Arg2 further records and its end.
	KindSnapBegin
	// KindSnapTask is a task in the state Arg2.
	KindSnapTask
	// KindSnapSeen says that everything of a stream up to N was seen; with Arg2
	// set, that just N was.
	KindSnapSeen
	// KindSnapEnd closes a snapshot: the log may start at its begin.
	KindSnapEnd
	// KindTakeover says that the log goes on from the epoch in N.
	KindTakeover
	kinds
)

// What a KindFloor says, in its Arg.
const (
	floorClosed = iota
	floorLow
	floorLost
)

// retryFree in the Arg of a KindRetry says that the attempt ended with its worker
// and is not counted.
const retryFree = 1

var kindNames = [kinds]string{
	"NONE", "ENQ", "CLAIM", "DONE", "RETRY", "CANCEL", "LOST", "MOVE_OUT", "MOVE_IN", "REFUSE", "MOVED", "MOVE_BACK",
	"RETIRE", "COLLECT", "FLOOR", "SNAP_BEGIN", "SNAP_TASK", "SNAP_SEEN", "SNAP_END", "TAKEOVER",
}

func (k Kind) String() string {
	if k < kinds {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Kinds returns all kinds of record that a log may hold.
func Kinds() []Kind {
	var all []Kind
	for k := KindNone + 1; k < kinds; k++ {
		all = append(all, k)
	}
	return all
}

// Ref is where a payload lies in a region's arena, the same place in each copy.
// The zero Ref is no payload.
type Ref struct {
	Cell  uint32 // The first cell, in units of [CellBytes].
	Bytes uint32
	CRC   uint32 // Castagnoli, of the payload.
}

// Record is one step of a log. Fields that a kind does not use are zero.
type Record struct {
	Seq       uint64 // Its place in the log of its epoch, from 0.
	ID        TaskID
	NotBefore uint64 // Microseconds since the run began.
	Deadline  uint64 // The same; 0 is none.
	Payload   Ref
	Epoch     uint32
	Token     uint32
	Hop       uint16
	Attempt   uint16
	Arg       uint16
	Arg2      uint16
	Kind      Kind
	Mode      Mode
	Prio      uint8
	Crashes   uint8 // Deaths of workers that ran it, takeover kills apart.
	Flags     Flags
	Affinity  Core // The core it should run on plus one; 0 is any.
}

// spans reports whether one record of this kind may speak of several tasks: what
// befalls whole batches alike, and brings nothing of its own to each.
func (k Kind) spans() bool { return k == KindClaim || k == KindDone || k == KindCollect }

// joins reports whether r says the same of the next task of the stream as the
// record says of the one before, so that one record can say it of both.
func (span *Record) joins(r *Record) bool {
	return span.Kind == r.Kind && span.Kind != KindNone && r.ID.N == span.ID.N+uint64(span.Arg2)+1 && r.ID.Stream == span.ID.Stream &&
		r.Attempt == span.Attempt && r.Token == span.Token && r.Mode == span.Mode && r.Payload.Bytes == 0 && span.Payload.Bytes == 0 && span.Arg2 < 1<<16-1
}

// likens reports whether submitting r is submitting another task like it.
func (r *Record) likens(o *Record) bool {
	return r.Mode == o.Mode && r.Prio == o.Prio && r.Flags == o.Flags && r.NotBefore == o.NotBefore && r.Deadline == o.Deadline && r.Affinity == o.Affinity
}

// Each yields the record once for each task that it speaks of: a claim, a done
// and a collect hold for the Arg2 next ones of the stream too.
func (r *Record) Each(yield func(*Record) bool) {
	one := *r
	if !r.Kind.spans() {
		yield(&one)
		return
	}
	one.Arg2 = 0
	for i := range uint64(r.Arg2) + 1 {
		if one.ID.N = r.ID.N + i; !yield(&one) {
			return
		}
	}
}

// Flags are properties of a task that its submitter chose or asked for later.
type Flags uint8

const (
	// Detached tasks have no one who waits: their result is dropped at once.
	Detached Flags = 1 << iota
	// CancelAsked is a claimed task that should stop.
	CancelAsked
	flagsEnd
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum covers a record but for the half word that holds it, and the run: a
// record that another run left in the same memory is not one of ours. The
// payload's checksum stands in the other half of the same word. It goes in as the
// value to start from, which a checksum passes on one to one, so that one pass
// over the words before does. It reads the words where they lie, since a copy would
// be an allocation for each record.
func checksum(words []uint64, run uint64) uint32 {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), RecordWords*8-8)
	start := uint32(run) ^ uint32(run>>32)*0x9e3779b1 ^ uint32(words[RecordWords-1]>>32)*0x85ebca6b
	return crc32.Update(start, castagnoli, b)
}

// Encode writes r into the first RecordWords words of dst:
//
//	0  seq:43 | kind:5 | mode:2 | prio:6 | crashes:8
//	1  epoch:20 | hop:12 | attempt:16 | arg:16
//	2  n:48 | core:8 | flags:8
//	3  incarnation:32 | token:32
//	4  payload cell:32 | payload bytes:32
//	5  not before:48 | affinity:16
//	6  deadline:48 | arg2:16
//	7  payload CRC:32 | CRC:32
func (r *Record) Encode(dst []uint64) {
	_ = dst[RecordWords-1]
	dst[0] = r.Seq<<21 | uint64(r.Kind)<<16 | uint64(r.Mode)<<14 | uint64(r.Prio)<<8 | uint64(r.Crashes)
	dst[1] = uint64(r.Epoch)<<44 | uint64(r.Hop)<<32 | uint64(r.Attempt)<<16 | uint64(r.Arg)
	dst[2] = r.ID.N<<16 | uint64(r.ID.Core)<<8 | uint64(r.Flags)
	dst[3] = uint64(r.ID.Incarnation)<<32 | uint64(r.Token)
	dst[4] = uint64(r.Payload.Cell)<<32 | uint64(r.Payload.Bytes)
	dst[5] = r.NotBefore<<16 | uint64(r.Affinity)
	dst[6] = r.Deadline<<16 | uint64(r.Arg2)
	dst[7] = uint64(r.Payload.CRC) << 32
	dst[7] |= uint64(checksum(dst, r.ID.Run))
}

// Decode reads a record of a run. It returns [ErrCorrupt] for words that Encode
// did not write for that run.
func Decode(words []uint64, run uint64) (Record, error) {
	if len(words) < RecordWords {
		return Record{}, fmt.Errorf("decode %d words: %w", len(words), ErrCorrupt)
	}
	if uint32(words[7]) != checksum(words, run) {
		return Record{}, fmt.Errorf("checksum differs: %w", ErrCorrupt)
	}
	r := Record{
		Kind: kindOf(words[0]), Epoch: uint32(words[1] >> 44), Seq: words[0] >> 21,
		ID:   TaskID{run, Stream{Core(words[2] >> 8), uint32(words[3] >> 32)}, words[2] >> 16},
		Mode: Mode(words[0] >> 14 & 3), Prio: prioOf(words[0]), Crashes: uint8(words[0]),
		Hop: uint16(words[1] >> 32 & MaxHop), Attempt: uint16(words[1] >> 16), Token: uint32(words[3]),
		Arg: uint16(words[1]), Arg2: uint16(words[6]), Flags: Flags(words[2]),
		Payload:   Ref{uint32(words[4] >> 32), uint32(words[4]), uint32(words[7] >> 32)},
		NotBefore: words[5] >> 16, Deadline: words[6] >> 16, Affinity: Core(words[5]),
	}
	if r.Kind == KindNone || r.Kind >= kinds || r.Mode >= modes || r.Flags >= flagsEnd || uint16(words[5]) > MaxCores {
		return Record{}, fmt.Errorf("%v holds values that have no meaning: %w", r.Kind, ErrCorrupt)
	}
	return r, nil
}

// kindOf and prioOf look at the first word of a record that may not be one.
func kindOf(word uint64) Kind { return Kind(word >> 16 & 31) }

func prioOf(word uint64) uint8 { return uint8(word >> 8 & 63) }

// decodeAt reads the record that belongs at a place of a log, or says why the
// words there are not it.
func decodeAt(words []uint64, run uint64, epoch uint32, seq uint64) (Record, error) {
	r, err := Decode(words, run)
	if err == nil && (r.Epoch != epoch || r.Seq != seq) {
		err = fmt.Errorf("record of epoch %d and sequence %d stands at %d and %d: %w", r.Epoch, r.Seq, epoch, seq, ErrCorrupt)
	}
	return r, err
}
