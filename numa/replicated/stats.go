package replicated

import (
	"math/bits"
	"sync/atomic"
)

// batchBuckets are the buckets of a batch histogram: sizes 1, 2–3, 4–7, and so on
// up to 4,095.
const batchBuckets = sizeBits

// counters count what is rare. Batches are counted in the replica that appended
// them, so that no line of counters moves between nodes with each write.
type counters struct {
	retries, withdrawn, panics          atomic.Uint64
	helped, detached, rebuilt           atomic.Uint64
	rebuildFailures, verified, diverged atomic.Uint64
}

// batchCounters are written by a replica's combiner.
type batchCounters [batchBuckets]atomic.Uint64

func (b *batchCounters) add(size uint64) { b[bits.Len64(size)-1].Add(1) }

// ReplicaStats describe one replica.
type ReplicaStats struct {
	// Node is where it lives.
	Node int
	// Lag is the number of completed operations that it has not applied yet.
	Lag uint64
	// Batches counts the batches that its combiners appended, by size: bucket i
	// holds those of 2^i to 2^(i+1)-1 operations.
	Batches [batchBuckets]uint64
}

// Stats describe a structure since it was made. They are not taken at one moment.
type Stats struct {
	// Replicas describes the attached ones, by node.
	Replicas []ReplicaStats
	// Operations counts what went through the log.
	Operations uint64
	// Helped counts how often a writer applied the log for another replica, and
	// Detached and Rebuilt how many replicas were given up and made anew.
	// RebuildFailures counts clones that failed: their nodes have no replica.
	Helped, Detached, Rebuilt, RebuildFailures uint64
	// Resubmitted counts writes that went through another replica after theirs
	// was lost, Withdrawn those whose context ended in time.
	Resubmitted, Withdrawn uint64
	// Panics counts the times that Apply panicked, on any replica.
	Panics uint64
	// Verified and Diverged count the comparisons of [Replicated.Verify], and
	// those that found a difference.
	Verified, Diverged uint64
	// Transfers counts cache lines whose content moved from one node to
	// another, and Upgrades lines that a node held and had to take away from
	// others before it wrote, by a directory that watches the lines that nodes
	// share. Both are zero unless [Options.CountTransfers] is set.
	Transfers, Upgrades uint64
}

// Stats returns the present figures.
func (x *Replicated[S, Op, Res]) Stats() Stats {
	s := Stats{
		Operations:      x.log.tail.Load().span.end(),
		Helped:          x.count.helped.Load(),
		Detached:        x.count.detached.Load(),
		Rebuilt:         x.count.rebuilt.Load(),
		RebuildFailures: x.count.rebuildFailures.Load(),
		Resubmitted:     x.count.retries.Load(),
		Withdrawn:       x.count.withdrawn.Load(),
		Panics:          x.count.panics.Load(),
		Verified:        x.count.verified.Load(),
		Diverged:        x.count.diverged.Load(),
	}
	m := x.members.Load()
	for _, node := range x.Replicas() {
		r := m.home[node]
		if r.node != node {
			continue // It came or went just now.
		}
		rs := ReplicaStats{Node: node}
		completed := x.log.completed.Load()
		rs.Lag = completed - min(completed, r.applied.Load())
		for i := range rs.Batches {
			rs.Batches[i] = r.batches[i].Load()
		}
		s.Replicas = append(s.Replicas, rs)
	}
	if x.directory != nil {
		s.Transfers, s.Upgrades = x.directory.counts()
	}
	return s
}
