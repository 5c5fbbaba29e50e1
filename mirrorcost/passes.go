package mirrorcost

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/coreplica/coreplica/bpf"
	"github.com/coreplica/coreplica/mirrorcost/load"
	"github.com/coreplica/coreplica/mirrorcost/stats"
)

const (
	saturationTime   = 400 * time.Millisecond
	saturationRounds = 3
	idleTime         = 500 * time.Millisecond
	// stealThreshold is the share of the machine that may be stolen during a
	// quad; set before the run, so that no result chooses it.
	stealThreshold = 0.10
	// maxDiscarded is the largest share of quads that steal may discard.
	maxDiscarded = 0.25
	// maxVoided bounds how many quads may be repeated because the resting
	// leg was written to, per quad asked for.
	maxVoided = 0.5
)

// saturate finds out how fast each leg goes, in writes a second, without
// probes. The first round only warms up.
func (s *session) saturate(ctx context.Context) (rates [2]float64, err error) {
	if err := s.ledger.Detach(); err != nil {
		return rates, err
	}
	var writes [2]uint64
	var elapsed [2]time.Duration
	for round := range saturationRounds {
		for leg := range rates {
			r, busy, err := s.plain(ctx, leg, s.limited(leg, saturationTime, 0))
			if err != nil {
				return rates, err
			}
			if round > 0 {
				writes[leg] += r.Acknowledged
				elapsed[leg] += busy
			}
		}
	}
	for leg := range rates {
		if writes[leg] == 0 {
			return rates, fmt.Errorf("find the rate of %s: no write was acknowledged in %s; try a smaller --size", s.legs[leg].Kind, elapsed[leg])
		}
		rates[leg] = float64(writes[leg]) / elapsed[leg].Seconds()
	}
	if err := s.ledger.Attach(); err != nil {
		return rates, err
	}
	return rates, s.startLedger()
}

// pace is how fast and how much the blocks of a run write.
type pace struct {
	// rate is 0 when the load saturates.
	rate float64
	// saturated rates of the legs.
	saturated [2]float64
	// ledgerWrites and countedWrites of each leg in these passes, the latter
	// in so many blocks.
	ledgerWrites, countedWrites uint64
	countedBlocks               int
	// cut is true when the ledger blocks are shorter than asked for, because
	// more does not fit between two syncs.
	cut bool
}

// choosePace takes half of what the slower leg can do, so that both legs do the
// same work in the same time and neither queues.
func (s *session) choosePace(saturated [2]float64) (pace, error) {
	p := &s.plan
	slower := math.Min(saturated[baseline], saturated[mirrored])
	c := pace{saturated: saturated, rate: slower / 2}
	expect := c.rate
	switch {
	case p.Saturate:
		c.rate, expect = 0, slower
	case p.RatePerSecond > 0:
		c.rate, expect = p.RatePerSecond, math.Min(p.RatePerSecond, slower)
	}
	blocks := uint64(2 * p.Quads)
	room := min(s.room(baseline), s.room(mirrored))
	if p.Count > 0 {
		c.ledgerWrites, c.countedWrites = p.Count, p.Count
		if per := quota(p.Count, 0, int(blocks)); per > room {
			return c, fmt.Errorf("%w: --count %d makes blocks of %d writes and only %d fit between two syncs; raise --quads or --device-size", ErrUsage, p.Count, per, room)
		}
	} else {
		c.ledgerWrites = max(uint64(expect*p.Duration.Seconds()/2), blocks)
		if c.ledgerWrites/blocks > room {
			c.ledgerWrites, c.cut = room*blocks, true
		}
		c.countedWrites = max(uint64(expect*countedTime.Seconds()), countedBlocks)
	}
	c.countedBlocks = max(countedBlocks, int(c.countedWrites/room)+1)
	return c, nil
}

// quad is four blocks, ABBA or BAAB.
type quad [4]*block

// ledgerPass measures the quads that set the totals, and the idle blocks
// between them.
func (s *session) ledgerPass(ctx context.Context, c pace, p *progress) (o ledgerObservation, err error) {
	start, err := s.instruments()
	if err != nil {
		return o, err
	}
	order := stats.Order(s.plan.Seed, s.plan.Quads)
	per := s.plan.Quads / 4
	for tries, repeat := 0, 0; len(o.quads) < s.plan.Quads; tries++ {
		i := len(o.quads)
		if i%max(per, 1) == 0 && len(o.idle) <= i/max(per, 1) {
			idle, err := s.rest(ctx, idleTime)
			if err != nil {
				return o, err
			}
			o.idle = append(o.idle, idle)
		}
		q, err := s.measureQuad(ctx, c, i, order[i])
		if err != nil {
			return o, err
		}
		if q.voided() {
			o.voided++
			if repeat++; float64(repeat) > 1+maxVoided*float64(s.plan.Quads) {
				return o, errors.New("measure: the resting leg kept being written to; is something else using its devices?")
			}
			continue
		}
		o.quads = append(o.quads, q)
		p.step(float64(len(o.quads)) / float64(s.plan.Quads))
	}
	idle, err := s.rest(ctx, idleTime)
	if err != nil {
		return o, err
	}
	o.idle = append(o.idle, idle)
	end, err := s.instruments()
	if err != nil {
		return o, err
	}
	if err := s.steady(start.ledger, end.ledger); err != nil {
		return o, err
	}
	o.overflow = end.ledger.Overflow() - start.ledger.Overflow()
	o.instruments, err = s.compare(start, end)
	return o, err
}

// steady returns an error if a CPU went offline between two snapshots, even if it
// is back: the kernel's threads for that have run.
func (s *session) steady(start, end *bpf.Snapshot) error {
	d, err := end.Since(start)
	if err != nil {
		return err
	}
	if ns := s.window(d).ns[bpf.Hotplug]; ns > 0 {
		return fmt.Errorf("measure: %w (CPU hotplug took %d ns)", bpf.ErrCPUsChanged, ns)
	}
	return nil
}

func (s *session) measureQuad(ctx context.Context, c pace, i int, flip bool) (q quad, err error) {
	legs := [4]int{baseline, mirrored, mirrored, baseline}
	if flip {
		legs = [4]int{mirrored, baseline, baseline, mirrored}
	}
	var seen [2]int
	for j, leg := range legs {
		writes := quota(c.ledgerWrites, 2*i+seen[leg], 2*s.plan.Quads)
		seen[leg]++
		if q[j], err = s.measure(ctx, leg, writes, c.rate); err != nil {
			return q, err
		}
	}
	return q, nil
}

func (q quad) voided() bool {
	for _, b := range q {
		if b.voided {
			return true
		}
	}
	return false
}

func (q quad) stolen() float64 {
	var sum float64
	for _, b := range q {
		sum += b.stolen / 4
	}
	return sum
}

const (
	// countedTime is what the counted pass takes a leg, unless a number of
	// writes was asked for.
	countedTime   = 1500 * time.Millisecond
	countedBlocks = 4
	sampledBlocks = 4
)

// sampledTime of a leg: the default plan's six seconds give some four thousand
// samples, and a stage of 5 % is then known to a seventh of itself.
func sampledTime(p *Plan) time.Duration { return p.Duration / 5 }

// countedPass counts bios with the block probe attached.
func (s *session) countedPass(ctx context.Context, c pace) (o countedObservation, err error) {
	if err := s.blockio.Attach(); err != nil {
		return o, err
	}
	before, err := s.blockio.Read()
	if err != nil {
		return o, err
	}
	for i := range c.countedBlocks {
		for j := range 2 {
			leg := (i + j) % 2
			writes := quota(c.countedWrites, i, c.countedBlocks)
			if writes == 0 {
				continue
			}
			result, _, err := s.plain(ctx, leg, load.Block{Writes: writes, RatePerSecond: c.rate})
			if err != nil {
				return o, err
			}
			o.acknowledged[leg] += result.Acknowledged
			o.bytes[leg] += result.Bytes
		}
	}
	if err := s.blockio.Detach(); err != nil {
		return o, err
	}
	after, err := s.blockio.Read()
	if err != nil {
		return o, err
	}
	o.devices = map[string]bpf.DeviceCounts{}
	for name, counts := range after {
		o.devices[name] = counts.Since(before[name])
	}
	o.asked = c.countedWrites
	return o, nil
}

// sampledPass samples stacks.
func (s *session) sampledPass(ctx context.Context, c pace, p *progress) (o sampledObservation, err error) {
	symbols, err := bpf.LoadSymbols()
	if err != nil {
		o.warning = "kernel symbols are hidden, so the stages are not known: " + err.Error()
		return o, nil
	}
	_, _, dropped, err := s.stacks.Counts()
	if err != nil {
		return o, err
	}
	for i := range sampledBlocks {
		for j := range 2 {
			leg := (i + j) % 2
			if err := s.sampleBlock(ctx, leg, c, &o, symbols); err != nil {
				return o, err
			}
			now, err := s.dropped(dropped)
			if err != nil {
				return o, err
			}
			o.dropped[leg] += now - o.dropped[baseline] - o.dropped[mirrored]
			p.step(float64(2*i+j+1) / (2 * sampledBlocks))
		}
	}
	return o, nil
}

func (s *session) dropped(since uint64) (uint64, error) {
	_, _, dropped, err := s.stacks.Counts()
	return dropped - since, err
}

func (s *session) sampleBlock(ctx context.Context, leg int, c pace, o *sampledObservation, symbols *bpf.Symbols) error {
	if err := s.stacks.Attach(); err != nil {
		return err
	}
	for left := sampledTime(&s.plan) / sampledBlocks; left > 0; {
		result, _, err := s.plain(ctx, leg, s.limited(leg, left, c.rate))
		if err != nil {
			return err
		}
		left -= max(result.Elapsed, time.Millisecond)
	}
	if err := s.stacks.Detach(); err != nil {
		return err
	}
	samples, err := s.stacks.Drain()
	if err != nil {
		return err
	}
	for _, sample := range samples {
		o.samples = append(o.samples, newSample(leg, sample, s.ledger, symbols))
	}
	return nil
}
