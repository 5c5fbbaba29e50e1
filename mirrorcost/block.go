package mirrorcost

import (
	"context"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/coreplica/coreplica/bpf"
	"github.com/coreplica/coreplica/mirrorcost/load"
	"github.com/coreplica/coreplica/mirrorcost/mirror"
)

// block is one measured stretch of writes on one leg.
type block struct {
	leg     int
	writes  uint64
	bytes   uint64
	elapsed time.Duration
	// during is from the first write to the last acknowledgement; after is
	// from there until the file systems are synced and the queues are empty.
	during, after *window
	// stolen is the share of the machine that the hypervisor gave away.
	stolen float64
	// voided is true when the other leg's devices were written to.
	voided bool
	// spin is what the known cost of a write was by the threads' own clocks,
	// and spinMean the same with the interrupts that hit it.
	spin      time.Duration
	spinMean  time.Duration
	latencies *hdrhistogram.Histogram
}

// total is the charged window: the writes and what they put off.
func (b *block) total() *window { return sum(b.during, b.after) }

// measure runs one block under the ledger.
func (s *session) measure(ctx context.Context, leg int, writes uint64, rate float64) (*block, error) {
	b := &block{leg: leg}
	resting := s.legs[1-leg].Devices
	before, err := mirror.WriteCounters(resting)
	if err != nil {
		return nil, err
	}
	start, err := s.ledger.Snapshot()
	if err != nil {
		return nil, err
	}
	result, err := s.process.Run(ctx, load.Block{Leg: legNames[leg], Writes: writes, RatePerSecond: rate})
	if err != nil {
		return nil, fmt.Errorf("write to %s: %w", s.legs[leg].Kind, err)
	}
	written, err := s.ledger.Snapshot()
	if err != nil {
		return nil, err
	}
	if err := s.settle(ctx, leg); err != nil {
		return nil, err
	}
	end, err := s.ledger.Snapshot()
	if err != nil {
		return nil, err
	}
	after, err := mirror.WriteCounters(resting)
	if err != nil {
		return nil, err
	}
	b.voided = !maps.Equal(before, after)
	b.writes, b.bytes, b.elapsed = result.Acknowledged, result.Bytes, result.Elapsed
	b.spin, b.spinMean = result.Spin, result.SpinMean
	if b.latencies, err = load.DecodeLatencies(result.Latencies); err != nil {
		return nil, err
	}
	during, err := written.Since(start)
	if err != nil {
		return nil, err
	}
	put, err := end.Since(written)
	if err != nil {
		return nil, err
	}
	b.during, b.after = s.window(during), s.window(put)
	if all := b.total(); all.wall > 0 {
		b.stolen = float64(max(all.ns[bpf.Stolen], 0)) / float64(all.wall)
	}
	return b, nil
}

// settle makes a leg durable and waits until its devices rest.
func (s *session) settle(ctx context.Context, leg int) error {
	if err := s.process.Sync(ctx, legNames[leg]); err != nil {
		return fmt.Errorf("sync %s: %w", s.legs[leg].Kind, err)
	}
	if err := mirror.Drained(ctx, s.legs[leg].Devices); err != nil {
		return fmt.Errorf("drain %s: %w", s.legs[leg].Kind, err)
	}
	return nil
}

// plain runs a block without reading the ledger, for passes that count
// something else. It returns how long the leg was kept busy: buffered writes are
// acknowledged long before they are done.
func (s *session) plain(ctx context.Context, leg int, b load.Block) (result load.Result, busy time.Duration, err error) {
	b.Leg = legNames[leg]
	result, err = s.process.Run(ctx, b)
	if err != nil {
		return result, 0, fmt.Errorf("write to %s: %w", s.legs[leg].Kind, err)
	}
	start := time.Now()
	err = s.settle(ctx, leg)
	busy = result.Elapsed
	if s.plan.Mode == "buffered" {
		busy += time.Since(start)
	}
	return result, busy, err
}

// room is the number of writes that fit between two syncs of a leg. Beyond it,
// copy-on-write would commit in the middle of a block.
func (s *session) room(leg int) uint64 {
	if s.legs[leg].HeadroomBytes == 0 {
		return math.MaxUint64
	}
	const margin = 0.8 // for metadata and for the extents that overlap
	return max(uint64(margin*float64(s.legs[leg].HeadroomBytes)/float64(s.plan.SizeBytes)), 1)
}

// limited is a block of that time, cut short where the leg's room ends.
func (s *session) limited(leg int, d time.Duration, rate float64) load.Block {
	b := load.Block{For: d, RatePerSecond: rate}
	if room := s.room(leg); room != math.MaxUint64 {
		b.Writes = room
	}
	return b
}

// rest measures a stretch in which nobody writes.
func (s *session) rest(ctx context.Context, d time.Duration) (*window, error) {
	start, err := s.ledger.Snapshot()
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(d):
	}
	end, err := s.ledger.Snapshot()
	if err != nil {
		return nil, err
	}
	delta, err := end.Since(start)
	if err != nil {
		return nil, err
	}
	return s.window(delta), nil
}
