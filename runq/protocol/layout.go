package protocol

import (
	"fmt"
	"hash/crc32"
)

// CellBytes is the unit in which payloads are stored.
const CellBytes = 64

// lineWords pads words that different cores write: 128 bytes, two cache lines,
// because the adjacent-line prefetcher of x86 pulls them in pairs.
const lineWords = 16

// SpareAreas is how many regions of one log fit into one core's memory. A
// takeover writes fresh ones while the old ones are kept until their writer is
// known to be gone; a third and a fourth are for a taker that died as well.
const SpareAreas = 4

// RegionID names one copy of one log in one epoch.
type RegionID struct {
	Log, Host Core
	Epoch     uint32
}

func (r RegionID) String() string {
	return fmt.Sprintf("log %d at %d epoch %d", r.Log, r.Host, r.Epoch)
}

// Geometry is the shape of the shared memory. All offsets are in 64-bit words
// from the start of a control page or a region.
type Geometry struct {
	Cores int
	// Slots is how many records a region's ring holds: a power of two.
	Slots uint64
	// Cells is how many payload cells a region's arena holds.
	Cells uint32
}

// MinSlots is the smallest ring: room for a snapshot of a few tasks twice.
const MinSlots = 32

// Validate says what makes no sense.
func (g Geometry) Validate() error {
	switch {
	case g.Cores < 1 || g.Cores > MaxCores:
		return fmt.Errorf("%d cores are not within 1 to %d: %w", g.Cores, MaxCores, ErrConfig)
	case g.Slots < MinSlots || g.Slots&(g.Slots-1) != 0 || g.Slots > 1<<24:
		return fmt.Errorf("%d slots are not a power of two from %d to 2^24: %w", g.Slots, MinSlots, ErrConfig)
	case g.Cells > 1<<26:
		return fmt.Errorf("%d cells are more than 2^26: %w", g.Cells, ErrConfig)
	}
	return nil
}

// The control page: for each core a line of its own words, then the directory.
// The arbiter word and the counter are compare-and-swapped by anyone, the
// heartbeat is stored by its core.
const (
	arbiterAt     = 0
	incarnationAt = 1
	heartbeatAt   = lineWords // On a line of its own: it changes all the time.
	controlWords  = 2 * lineWords
)

// ArbiterOffset is where a log's arbiter word stands in the control page.
func (g Geometry) ArbiterOffset(log Core) int { return int(log)*controlWords + arbiterAt }

// IncarnationOffset is where the counter of a log's streams stands.
func (g Geometry) IncarnationOffset(log Core) int { return int(log)*controlWords + incarnationAt }

// HeartbeatOffset is where a core's heartbeat word stands.
func (g Geometry) HeartbeatOffset(core Core) int { return int(core)*controlWords + heartbeatAt }

// DirectoryOffset is where the word of an area stands: one of SpareAreas for
// each log in each core's memory.
func (g Geometry) DirectoryOffset(log, host Core, area int) int {
	return g.Cores*controlWords + (int(log)*g.Cores+int(host))*SpareAreas + area
}

// ControlWords is the size of the control page.
func (g Geometry) ControlWords() int { return g.Cores*controlWords + g.Cores*g.Cores*SpareAreas }

// CommitOffset is where a region's commit word stands.
func (g Geometry) CommitOffset() int { return 0 }

// SlotOffset is where the record with a sequence number stands in a region.
func (g Geometry) SlotOffset(seq uint64) int {
	return lineWords + int(seq&(g.Slots-1))*RecordWords
}

// ArenaOffset is where a region's payload cells begin.
func (g Geometry) ArenaOffset() int { return lineWords + int(g.Slots)*RecordWords }

// RegionWords is the size of a region.
func (g Geometry) RegionWords() int { return g.ArenaOffset() + int(g.Cells)*CellBytes/8 }

// MetadataBytes is what a copy holds for each task of a full queue, its payload
// apart: a queue is full when a snapshot of it fills half the ring.
func (g Geometry) MetadataBytes() int { return int(g.Slots) * RecordWords * 8 / int(g.capacity()) }

// capacity is how many records a snapshot may have. The other half of the ring
// is for what happens until the next one.
func (g Geometry) capacity() uint64 { return g.Slots / 2 }

// PayloadCRC returns the checksum that a [Ref] carries.
func PayloadCRC(payload []byte) uint32 { return crc32.Checksum(payload, castagnoli) }

// Read returns the bytes of a ref if they are valid in an arena.
func (r Ref) Read(arena []byte) ([]byte, bool) {
	from := uint64(r.Cell) * CellBytes
	to := from + uint64(r.Bytes)
	if to > uint64(len(arena)) || PayloadCRC(arena[from:to]) != r.CRC {
		return nil, false
	}
	return arena[from:to], true
}

// cells returns how many cells so many bytes take.
func cells(bytes int) uint32 { return uint32((bytes + CellBytes - 1) / CellBytes) }
