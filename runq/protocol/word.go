package protocol

import (
	"fmt"

	"github.com/coreplica/coreplica/replica/epoch"
	"github.com/coreplica/coreplica/replica/quorum"
)

// CommitWord is a region's fence: epoch:20 | sealed:1 | tail:43. Records below
// Tail are published. The zero word is a region that is not there: epochs start
// at 1.
type CommitWord struct {
	Epoch  uint32
	Sealed bool
	Tail   uint64
}

// Pack returns the word as it stands in memory.
func (w CommitWord) Pack() uint64 {
	word := uint64(w.Epoch)<<44 | w.Tail&MaxTail
	if w.Sealed {
		word |= 1 << 43
	}
	return word
}

// UnpackCommit reads a commit word. Every value of the word means something.
func UnpackCommit(word uint64) CommitWord {
	return CommitWord{uint32(word >> 44), word>>43&1 == 1, word & MaxTail}
}

func (w CommitWord) String() string {
	sealed := ""
	if w.Sealed {
		sealed = " sealed"
	}
	return fmt.Sprintf("{epoch %d%s tail %d}", w.Epoch, sealed, w.Tail)
}

// Phase is what the owner of a log is doing.
type Phase uint8

const (
	// Vacant is a log that nobody ever owned. It is the zero Phase.
	Vacant Phase = iota
	// Recovering says that Owner is copying the log out of the regions of
	// ActiveEpoch. Whoever comes after it starts from those too.
	Recovering
	// Active says that Owner serves the log under Epoch, which is ActiveEpoch.
	Active
	// Handed is Recovering after the owner of ActiveEpoch gave the log away: it
	// writes no more, none of its attempts are open, and it need not die.
	Handed
)

func (p Phase) String() string {
	switch p {
	case Vacant:
		return "VACANT"
	case Recovering:
		return "RECOVERING"
	case Active:
		return "ACTIVE"
	case Handed:
		return "HANDED"
	}
	return fmt.Sprintf("Phase(%d)", uint8(p))
}

// ringBits is the width of the in-sync mask. It counts neighbours of the active
// owner around the ring of cores, so that it is the same width for 64 cores as
// for 4; a copy is never farther away than this.
const ringBits = 8

// ArbiterWord is who owns a log: phase:2 | epoch:20 | owner:6 | active epoch:20
// | active owner:6 | in-sync mask:8. Until the phase is Active, the active fields
// tell where the last served state lies.
type ArbiterWord struct {
	Phase       Phase
	Epoch       uint32
	Owner       Core
	ActiveEpoch uint32
	ActiveOwner Core
	// Mask has bit i set where the i-th core after ActiveOwner around the ring
	// holds a region of ActiveEpoch. Bit 0 is ActiveOwner itself.
	Mask uint8
}

// Pack returns the word as it stands in memory.
func (w ArbiterWord) Pack() uint64 {
	return uint64(w.Phase&3)<<60 | uint64(w.Epoch&MaxEpoch)<<40 | uint64(w.Owner&63)<<34 |
		uint64(w.ActiveEpoch&MaxEpoch)<<14 | uint64(w.ActiveOwner&63)<<8 | uint64(w.Mask)
}

// UnpackArbiter reads an arbiter word.
func UnpackArbiter(word uint64) ArbiterWord {
	return ArbiterWord{
		Phase(word >> 60 & 3), uint32(word >> 40 & MaxEpoch), Core(word >> 34 & 63),
		uint32(word >> 14 & MaxEpoch), Core(word >> 8 & 63), uint8(word),
	}
}

// InSync returns the cores that hold regions of the active epoch in a ring of
// so many cores.
func (w ArbiterWord) InSync(cores int) quorum.Set {
	var s quorum.Set
	for i := range ringBits {
		if w.Mask>>i&1 == 1 {
			s = s.With((int(w.ActiveOwner) + i) % cores)
		}
	}
	return s
}

// take returns the word of a new owner that starts to recover. A log that was
// handed over stays so until it is served again.
func (w ArbiterWord) take(owner Core, limit uint32) (ArbiterWord, error) {
	next, err := epoch.Next(w.Epoch, limit)
	if w.Phase != Handed {
		w.Phase = Recovering
	}
	w.Epoch, w.Owner = next, owner
	return w, err
}

// activate returns the word of an owner that has copied the log into regions at
// the given cores.
func (w ArbiterWord) activate(members []Core, cores int) ArbiterWord {
	w.Phase, w.ActiveEpoch, w.ActiveOwner, w.Mask = Active, w.Epoch, w.Owner, 0
	for _, member := range members {
		w.Mask |= 1 << ringDistance(w.Owner, member, cores)
	}
	return w
}

func (w ArbiterWord) String() string {
	return fmt.Sprintf("{%v epoch %d owner %d, active epoch %d owner %d mask %b}", w.Phase, w.Epoch, w.Owner, w.ActiveEpoch, w.ActiveOwner, w.Mask)
}

// ringDistance returns how many steps around the ring lead from one core to
// another.
func ringDistance(from, to Core, cores int) int {
	return (int(to) - int(from) + cores) % cores
}

// HeartbeatWord is a core's sign of life: incarnation:32 | counter:32. The
// counter wraps; watchers look for changes only.
type HeartbeatWord struct {
	Incarnation, Counter uint32
}

// Pack returns the word as it stands in memory.
func (w HeartbeatWord) Pack() uint64 { return uint64(w.Incarnation)<<32 | uint64(w.Counter) }

// UnpackHeartbeat reads a heartbeat word.
func UnpackHeartbeat(word uint64) HeartbeatWord {
	return HeartbeatWord{uint32(word >> 32), uint32(word)}
}

// DirectoryWord says which region occupies an area of shared memory, and who
// writes it: writer:6 | epoch:20 | incarnation:32. The zero word is a free area.
type DirectoryWord struct {
	Writer      Core
	Epoch       uint32
	Incarnation uint32
}

// Pack returns the word as it stands in memory.
func (w DirectoryWord) Pack() uint64 {
	return uint64(w.Writer&63)<<52 | uint64(w.Epoch&MaxEpoch)<<32 | uint64(w.Incarnation)
}

// UnpackDirectory reads a directory word.
func UnpackDirectory(word uint64) DirectoryWord {
	return DirectoryWord{Core(word >> 52 & 63), uint32(word >> 32 & MaxEpoch), uint32(word)}
}
