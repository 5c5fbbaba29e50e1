package vswitch

import (
	"maps"

	"github.com/coreplica/coreplica/internal/lab/vswitch/faults"
)

// Counters account for the frames of one link. After all is delivered,
//
//	Frames + Duplicated = Delivered + Dropped + Cut + Overflow + Absent
//
// and before that the difference is what still waits, [Counters.Queued].
type Counters struct {
	Frames     uint64 // offered to the link
	Bytes      uint64 // of these frames
	Delivered  uint64 // copies that the guest's socket took
	Dropped    uint64 // lost by a drop rule
	Duplicated uint64 // sent a second time
	Delayed    uint64 // frames that had to wait by a delay rule
	Reordered  uint64 // frames held for others to overtake them
	Cut        uint64 // kept apart by a cut or a partition
	Overflow   uint64 // copies that found the queue full
	Absent     uint64 // copies for a guest whose socket did not exist or refused them
}

// Queued returns how many copies wait.
func (c Counters) Queued() uint64 {
	return c.Frames + c.Duplicated - c.Delivered - c.Dropped - c.Cut - c.Overflow - c.Absent
}

// decided counts a frame that was offered to a link.
func (c *Counters) decided(d faults.Decision, accepted, bytes int) {
	c.Frames++
	c.Bytes += uint64(bytes)
	switch {
	case d.Cut:
		c.Cut++
	case d.Drop:
		c.Dropped++
	default:
		c.Duplicated += uint64(d.Copies - 1)
		c.Overflow += uint64(d.Copies - accepted)
		if d.Delay > 0 {
			c.Delayed++
		}
		if d.Gap > 0 {
			c.Reordered++
		}
	}
}

// PortCounters account for what came in by a port.
type PortCounters struct {
	Received  uint64 // datagrams from the guest
	Malformed uint64 // of these, shorter than 14 bytes or longer than MaxFrame
	Local     uint64 // of these, for a station behind the same port
}

// Stats are the counters of a switch since its ports were added.
type Stats struct {
	Links map[Link]Counters
	Ports map[string]PortCounters
}

// Total returns the sum over all links.
func (s Stats) Total() Counters {
	var sum Counters
	for c := range maps.Values(s.Links) {
		sum.Frames += c.Frames
		sum.Bytes += c.Bytes
		sum.Delivered += c.Delivered
		sum.Dropped += c.Dropped
		sum.Duplicated += c.Duplicated
		sum.Delayed += c.Delayed
		sum.Reordered += c.Reordered
		sum.Cut += c.Cut
		sum.Overflow += c.Overflow
		sum.Absent += c.Absent
	}
	return sum
}
