package mirrorcost

import (
	"maps"
	"math"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/coreplica/coreplica/bpf"
	"github.com/coreplica/coreplica/mirrorcost/report"
	"github.com/coreplica/coreplica/mirrorcost/stage"
	"github.com/coreplica/coreplica/mirrorcost/stats"
)

// analysis is what is worked out of the observations on the way to a report.
type analysis struct {
	*observations
	kept []quad
	// idleRate of each context, in ns per ns of wall time.
	idleRate map[string]float64
	// totals of each leg over the kept quads, and split how its contexts
	// divide into stages.
	totals [2]*window
	writes [2]uint64
	split  [2]map[string]division
}

// analyse turns what was observed into a report. It is a pure function.
func (o *observations) analyse() *Report {
	a := &analysis{observations: o, idleRate: rates(o.ledger.idle)}
	dropped := a.discard()
	for leg := range a.totals {
		a.totals[leg] = new(window)
		for _, b := range a.blocks(leg) {
			a.totals[leg].add(b.total())
			a.writes[leg] += b.writes
		}
		a.split[leg] = a.divide(leg)
	}
	r := &Report{
		Schema:  report.Schema,
		Seed:    o.plan.Seed,
		Machine: a.machine(),
		Load:    a.load(),
		Quads: report.Quads{
			Used: len(a.kept), Discarded: dropped, Voided: o.ledger.voided,
			StealThresholdPercent: 100 * stealThreshold,
		},
		Instruments: o.ledger.instruments,
		Baseline:    a.leg(baseline),
		Mirror:      a.leg(mirrored),
		ProbeCost:   a.probeCost(),
	}
	r.Tax = a.tax(r)
	r.Samples = a.samples()
	r.Warnings = a.warnings(r)
	r.Verdict = a.verdict(r)
	return r
}

// discard leaves out the quads in which too much was stolen, a quarter of them
// at most.
func (a *analysis) discard() (dropped int) {
	var steal []float64
	for _, q := range a.observations.ledger.quads {
		steal = append(steal, q.stolen())
	}
	for i, drop := range stats.Discard(steal, stealThreshold, maxDiscarded) {
		if drop {
			dropped++
		} else {
			a.kept = append(a.kept, a.observations.ledger.quads[i])
		}
	}
	return dropped
}

// blocks are the kept blocks of a leg.
func (a *analysis) blocks(leg int) (blocks []*block) {
	for _, q := range a.kept {
		blocks = append(blocks, q.of(leg)...)
	}
	return blocks
}

func (q quad) of(leg int) (blocks []*block) {
	for _, b := range q {
		if b.leg == leg {
			blocks = append(blocks, b)
		}
	}
	return blocks
}

// rates returns how fast each context runs while nobody writes.
func rates(idle []*window) map[string]float64 {
	all := sum(idle...)
	rates := map[string]float64{}
	for name, ns := range all.ns {
		rates[name] = float64(ns) / float64(max(all.wall, 1))
	}
	return rates
}

// charge says whether a context belongs to the cost of a leg's writes.
func (a *analysis) charge(leg int, context string) stage.Charge {
	return charge(a.legs[leg].table, context)
}

// net is what a window holds of a context beyond what it would hold idle. It is
// not clamped: noise around zero must be able to cancel.
func (a *analysis) net(w *window, context string) float64 {
	return float64(w.ns[context]) - a.idleRate[context]*float64(w.wall)
}

// costs returns the cost of a write in each kept quad, in ns, over the contexts
// that count takes, each weighted by weight.
func (a *analysis) costs(leg int, weight func(context string, c stage.Charge) float64) []float64 {
	return a.perQuad(leg, (*block).total, weight)
}

func (a *analysis) perQuad(leg int, part func(*block) *window, weight func(string, stage.Charge) float64) (costs []float64) {
	for _, q := range a.kept {
		var ns float64
		var writes uint64
		for _, b := range q.of(leg) {
			w := part(b)
			writes += b.writes
			// A fixed order makes the sum, and so the report, the same
			// each time.
			for _, context := range slices.Sorted(maps.Keys(w.ns)) {
				if c := a.charge(leg, context); c.Charged {
					ns += weight(context, c) * a.net(w, context)
				}
			}
		}
		costs = append(costs, ns/float64(max(writes, 1)))
	}
	return costs
}

// Weights of [analysis.costs].
func whole(string, stage.Charge) float64 { return 1 }

func withoutSubstrate(_ string, c stage.Charge) float64 {
	if c.Substrate {
		return 0
	}
	return 1
}

func withoutShared(_ string, c stage.Charge) float64 {
	if c.Shared {
		return 0
	}
	return 1
}

func (a *analysis) leg(leg int) report.Leg {
	facts, total := a.legs[leg], a.totals[leg]
	writes := float64(max(a.writes[leg], 1))
	l := report.Leg{
		Name: facts.kind, EffectiveMode: facts.mode, Copies: facts.copies,
		LedgerWrites:       a.writes[leg],
		CPUNsPerWrite:      interval(stats.MeanCI(a.costs(leg, whole))),
		DeferredNsPerWrite: interval(stats.MeanCI(a.perQuad(leg, func(b *block) *window { return b.after }, whole))),
		Stages:             a.stages(leg),
		Contexts:           a.contexts(leg),
		ClosureError:       closure(total),
		Unattributed:       float64(total.ns[bpf.Unattributed]) / float64(max(total.wall, 1)),
		StolenPercent:      100 * float64(total.ns[bpf.Stolen]) / float64(max(total.wall, 1)),
		SwitchesPerWrite:   float64(total.events["sched_switch"]) / writes,
		// A work makes two events, its start and its end.
		WorkExecutionPerWrite: float64(total.events["work"]) / writes,
		Drops:                 a.sampled.dropped[leg],
	}
	a.count(leg, &l)
	a.latency(leg, &l)
	var smeared, all uint64
	for _, s := range a.sampled.samples {
		if s.leg == leg && a.usable(s) && a.charge(leg, s.context).Charged {
			all += s.count
			if stage.Smeared(functions(s.stack)) {
				smeared += s.count
			}
		}
	}
	l.Samples = all
	l.SmearedPercent = 100 * float64(smeared) / float64(max(all, 1))
	return l
}

// closure is how far the contexts are from adding up to the wall time.
func closure(w *window) float64 {
	var all int64
	for _, ns := range w.ns {
		all += ns
	}
	return math.Abs(float64(all)-float64(w.wall)) / float64(max(w.wall, 1))
}

// count fills in what the counted pass saw.
func (a *analysis) count(leg int, l *report.Leg) {
	c := a.counted
	l.Writes, l.Acknowledged, l.Bytes = c.asked, c.acknowledged[leg], c.bytes[leg]
	l.BiosDataPerDevice, l.BiosMetadataPerDevice = map[string]uint64{}, map[string]uint64{}
	l.FlushesPerDevice, l.MergesPerDevice = map[string]uint64{}, map[string]uint64{}
	l.RequestsPerDevice, l.DeviceLatency = map[string]uint64{}, map[string]report.Histogram{}
	for _, name := range a.legs[leg].devices {
		d := c.devices[name]
		l.BiosDataPerDevice[name], l.BiosMetadataPerDevice[name] = d.BiosData, d.BiosMetadata
		l.FlushesPerDevice[name], l.MergesPerDevice[name] = d.Flushes, d.Merges
		l.RequestsPerDevice[name] = d.Requests
		l.DeviceLatency[name] = log2Histogram(d.Latency[:])
		l.Drops += d.Drops
	}
}

// log2Histogram drops the empty buckets at both ends.
func log2Histogram(counts []uint64) (h report.Histogram) {
	first, last := 0, len(counts)-1
	for first < last && counts[first] == 0 {
		first++
	}
	for last > first && counts[last] == 0 {
		last--
	}
	for i := first; i <= last; i++ {
		h.UpperNs = append(h.UpperNs, 1<<i)
		h.Count = append(h.Count, counts[i])
	}
	return h
}

// latency fills in how long the kept blocks' writes took, and how fast they
// came.
func (a *analysis) latency(leg int, l *report.Leg) {
	all := hdrhistogram.New(1, 60e9, 3)
	var seconds float64
	for _, b := range a.blocks(leg) {
		if b.latencies != nil {
			all.Merge(b.latencies)
		}
		seconds += b.elapsed.Seconds()
	}
	l.LatencyNs = report.Latency{P50: all.ValueAtQuantile(50), P99: all.ValueAtQuantile(99), P999: all.ValueAtQuantile(99.9)}
	l.LatencyHist = quarterOctaves(all)
	if seconds > 0 {
		l.WritesPerSecond = float64(a.writes[leg]) / seconds
	}
}

// quarterOctaves puts a fine histogram into buckets that grow by 2^(1/4), which
// is as fine as a picture shows.
func quarterOctaves(fine *hdrhistogram.Histogram) (h report.Histogram) {
	for _, bar := range fine.Distribution() {
		if bar.Count == 0 {
			continue
		}
		upper := uint64(math.Ceil(math.Exp2(math.Ceil(4*math.Log2(float64(bar.To+1))) / 4)))
		if n := len(h.UpperNs); n == 0 || h.UpperNs[n-1] != upper {
			h.UpperNs, h.Count = append(h.UpperNs, upper), append(h.Count, 0)
		}
		h.Count[len(h.Count)-1] += uint64(bar.Count)
	}
	return h
}

// tax compares the legs.
func (a *analysis) tax(r *Report) (t report.Tax) {
	all := a.pair(whole, 0)
	t.CPUNsPerWrite, t.Ratio = all.CPUNsPerWrite, all.Ratio
	t.WithoutSubstrate = a.pair(withoutSubstrate, 0)
	t.Lower = a.pair(withoutShared, 0)
	t.Corrected = a.pair(whole, 1)
	t.Shown = !t.CPUNsPerWrite.SpansZero()
	rate := a.pace.rate
	if rate == 0 || r.Mirror.WritesPerSecond < rate {
		rate = r.Mirror.WritesPerSecond
	}
	t.UtilisationPercent = 100 * rate * t.CPUNsPerWrite.Mean / (1e9 * float64(max(a.observations.machine.CPUs, 1)))
	return t
}

// pair compares the legs over some contexts, less so many times what the probes
// cost.
func (a *analysis) pair(weight func(string, stage.Charge) float64, correction float64) report.Pair {
	var costs [2][]float64
	for leg := range costs {
		costs[leg] = a.costs(leg, weight)
		for i, q := range a.kept {
			costs[leg][i] -= correction * a.probeNs(q.of(leg))
		}
	}
	// The idle rate is the same for both legs, so its error only matters to
	// the difference where the legs took unequal time. At saturation they do.
	var wall [2]float64
	for leg := range wall {
		wall[leg] = float64(a.totals[leg].wall) / float64(max(a.writes[leg], 1))
	}
	diff := stats.DiffCI(costs[mirrored], costs[baseline])
	return report.Pair{
		CPUNsPerWrite: interval(stats.Widen(diff, a.idleError()*math.Abs(wall[mirrored]-wall[baseline]))),
		Ratio:         interval(stats.RatioCI(costs[mirrored], costs[baseline], a.plan.Seed)),
	}
}

// idleError is the standard error of the idle rate of all charged contexts, over
// the idle blocks.
func (a *analysis) idleError() float64 {
	var xs []float64
	for _, w := range a.observations.ledger.idle {
		var ns float64
		for context := range w.ns {
			if a.charge(mirrored, context).Charged {
				ns += float64(w.ns[context])
			}
		}
		xs = append(xs, ns/float64(max(w.wall, 1)))
	}
	if len(xs) < 2 {
		return 0
	}
	ci := stats.MeanCI(xs)
	return (ci.High - ci.Low) / (2 * 1.96)
}

// probeNs is what the ledger's own events cost a write in these blocks, above
// what they would have cost idle.
func (a *analysis) probeNs(blocks []*block) float64 {
	if a.probe == nil {
		return 0
	}
	idle := sum(a.observations.ledger.idle...)
	var ns float64
	var writes uint64
	for _, b := range blocks {
		w := b.total()
		writes += b.writes
		for event, each := range a.probe.nsPerEvent {
			rate := float64(idle.events[event]) / float64(max(idle.wall, 1))
			ns += each * (float64(w.events[event]) - rate*float64(w.wall))
		}
	}
	return ns / float64(max(writes, 1))
}

func (a *analysis) probeCost() *report.ProbeCost {
	if a.probe == nil {
		return nil
	}
	c := &report.ProbeCost{
		LedgerPercent:   interval(stats.MeanCI(a.probe.ledgerPercent)),
		AllPercent:      interval(stats.MeanCI(a.probe.allPercent)),
		NsPerWrite:      a.probeNs(a.blocks(baseline)),
		NsPerEvent:      a.probe.nsPerEvent,
		EventsPerWrite:  map[string]float64{},
		BlocksOfEach:    2 * len(a.probe.ledgerPercent),
		CorrectedNotice: "corrected_for_probes takes events per write times ns per event off each leg; it is a model, and the interval is of the measurement alone",
	}
	for event, n := range a.totals[baseline].events {
		c.EventsPerWrite[event] = float64(n) / float64(max(a.writes[baseline], 1))
	}
	return c
}

func interval(i stats.Interval) report.Interval {
	return report.Interval{Mean: i.Mean, Low: i.Low, High: i.High}
}
