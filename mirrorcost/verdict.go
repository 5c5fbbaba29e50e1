package mirrorcost

import (
	"fmt"
	"math"
	"strings"

	"github.com/coreplica/coreplica/bpf"
	"github.com/coreplica/coreplica/mirrorcost/report"
	"github.com/coreplica/coreplica/mirrorcost/stats"
)

const (
	// quietShare of the CPUs may be used by others on a quiet machine.
	quietShare = 0.05
	// unequal metadata or flushes per device make a comparison of paths
	// that differ in more than the number of copies.
	unequal = 0.10
	// rareBios is the number of metadata bios a write below which their
	// inequality cannot matter.
	rareBios = 0.001
	// The limits beyond which the ledger itself is not to be believed.
	closureLimit, unattributedLimit, instrumentLimit = 0.001, 0.005, 0.02
	// dropLimit is the share of samples beyond which what is missing could
	// matter to a stage.
	dropLimit = 0.02
	// autocorrelated quads make an interval too narrow.
	autocorrelated = 0.5
)

func (a *analysis) machine() report.Machine {
	m := a.observations.machine
	all := sum(a.totals[baseline], a.totals[mirrored])
	wall := float64(max(all.wall, 1))
	others := float64(all.ns[bpf.OtherPrograms]) / wall
	m.OtherProgramsPercent, m.Quiet = 100*others, others <= quietShare
	m.StolenPercent = 100 * float64(all.ns[bpf.Stolen]) / wall
	m.AttachTypes = a.attached
	return m
}

func (a *analysis) load() report.Load {
	p := a.plan
	var spin, spinMean float64
	for _, b := range a.blocks(mirrored) {
		share := float64(b.writes) / float64(max(a.writes[mirrored], 1))
		spin += float64(b.spin) * share
		spinMean += float64(b.spinMean) * share
	}
	return report.Load{
		SizeBytes: p.SizeBytes, Mode: p.Mode, Pattern: p.Pattern, Threads: p.Threads,
		FsyncEvery: p.FsyncEvery, Batch: p.Batch, Csum: p.csum() != "",
		RatePerSecond: a.pace.rate, Saturated: a.pace.rate == 0,
		Substrate: p.Substrate, SpinNs: p.Spin.Nanoseconds(), SpinMeasuredNs: spin, SpinMeanNs: spinMean,
	}
}

// verdict is the answer in one sentence, with what would make it misleading in
// the same breath.
func (a *analysis) verdict(r *Report) string {
	var s strings.Builder
	what := fmt.Sprintf("a %s %s write", report.FormatBytes(a.plan.SizeBytes), a.plan.Mode)
	if !r.Tax.Shown {
		fmt.Fprintf(&s, "No difference shown: %s to %s costs %s of CPU, to %s %s, and the interval of the difference spans zero (%s to %s)",
			what, r.Mirror.Name, report.FormatNs(r.Mirror.CPUNsPerWrite.Mean), r.Baseline.Name, report.FormatNs(r.Baseline.CPUNsPerWrite.Mean),
			report.FormatNs(r.Tax.CPUNsPerWrite.Low), report.FormatNs(r.Tax.CPUNsPerWrite.High))
	} else {
		more, ns := "more", r.Tax.CPUNsPerWrite
		if ns.Mean < 0 {
			more, ns = "less", report.Interval{Mean: -ns.Mean, Low: -ns.High, High: -ns.Low}
		}
		fmt.Fprintf(&s, "%s to %s costs %s %s CPU than to %s: %.2f times [%.2f, %.2f]",
			strings.ToUpper(what[:1])+what[1:], r.Mirror.Name, report.FormatNsInterval(ns), more,
			r.Baseline.Name, r.Tax.Ratio.Mean, r.Tax.Ratio.Low, r.Tax.Ratio.High)
		fmt.Fprintf(&s, ", or %.1f %% of this machine's %d CPUs at %.0f writes/s", math.Abs(r.Tax.UtilisationPercent), r.Machine.CPUs, r.Mirror.WritesPerSecond)
	}
	for _, but := range a.unequalPaths(r) {
		s.WriteString("; but " + but)
	}
	if !r.Machine.Quiet {
		fmt.Fprintf(&s, "; the machine was not quiet: other programs used %.0f %% of it", r.Machine.OtherProgramsPercent)
	}
	return s.String() + "."
}

// unequalPaths says how the legs differ besides the number of copies.
func (a *analysis) unequalPaths(r *Report) (buts []string) {
	if r.Baseline.EffectiveMode != r.Mirror.EffectiveMode {
		buts = append(buts, fmt.Sprintf("the kernel wrote %s to %s and %s to %s, which is part of the difference",
			r.Baseline.EffectiveMode, r.Baseline.Name, r.Mirror.EffectiveMode, r.Mirror.Name))
	}
	for _, c := range []struct {
		what        string
		left, right float64
	}{
		{"metadata bios", perDevice(r.Baseline.BiosMetadataPerDevice, r.Baseline), perDevice(r.Mirror.BiosMetadataPerDevice, r.Mirror)},
		{"flushes", perDevice(r.Baseline.FlushesPerDevice, r.Baseline), perDevice(r.Mirror.FlushesPerDevice, r.Mirror)},
	} {
		most := max(c.left, c.right)
		if most > rareBios && math.Abs(c.left-c.right) > unequal*most {
			buts = append(buts, fmt.Sprintf("the %s per device differ (%.3g a write on %s, %.3g on %s)", c.what, c.left, r.Baseline.Name, c.right, r.Mirror.Name))
		}
	}
	return buts
}

// perDevice is the mean count of a device, per write.
func perDevice(counts map[string]uint64, l report.Leg) float64 {
	var all uint64
	for _, n := range counts {
		all += n
	}
	return float64(all) / float64(max(len(counts), 1)) / float64(max(l.Acknowledged, 1))
}

// warnings are what a reader must know before quoting the result.
func (a *analysis) warnings(r *Report) []string {
	w := []string{}
	say := func(when bool, format string, args ...any) {
		if when {
			w = append(w, fmt.Sprintf(format, args...))
		}
	}
	for _, leg := range a.legs {
		w = append(w, leg.warnings...)
	}
	if a.sampled.warning != "" {
		w = append(w, a.sampled.warning)
	}
	say(!r.Machine.Quiet, "the machine was not quiet: other programs used %.1f %% of the CPUs, and they move a write's cost, since they change where its parts run", r.Machine.OtherProgramsPercent)
	say(!a.knowsStolen, "stolen time is not known with these attach types: it is billed to whatever it interrupted")
	say(a.attached["vectors"] == "", "this kernel shows no interrupt vectors: timer and inter-processor interrupts are billed to what they interrupted")
	say(r.Quads.Used < MinQuads, "only %d quads were used; below %d an interval says little", r.Quads.Used, MinQuads)
	say(r.Quads.Discarded > 0, "%d of %d quads were left out because more than %.0f %% of the machine was stolen", r.Quads.Discarded, r.Quads.Used+r.Quads.Discarded, r.Quads.StealThresholdPercent)
	say(r.Quads.Voided > 0, "%d quads were measured again because the resting leg was written to", r.Quads.Voided)
	say(a.pace.cut, "the blocks are shorter than asked for, because only so much fits between two syncs; a larger --device-size makes them longer")
	asked, slower := a.pace.rate, min(r.Baseline.WritesPerSecond, r.Mirror.WritesPerSecond)
	say(asked > 0 && slower < 0.95*asked, "the load kept up %.0f of the %.0f writes/s that were asked for", slower, asked)
	for _, leg := range []report.Leg{r.Baseline, r.Mirror} {
		say(leg.ClosureError > closureLimit, "%s: the contexts miss the wall time by %.2f %%: do not believe this run", leg.Name, 100*leg.ClosureError)
		say(leg.Unattributed > unattributedLimit, "%s: %.2f %% of the time could not be attributed", leg.Name, 100*leg.Unattributed)
		say(float64(leg.Drops) > dropLimit*float64(leg.Samples), "%s: %d of %d samples were dropped", leg.Name, leg.Drops, leg.Samples)
		say(leg.Acknowledged != leg.Writes, "%s: %d of %d writes were acknowledged in the counted pass", leg.Name, leg.Acknowledged, leg.Writes)
	}
	say(a.observations.ledger.overflow > 0, "%d contexts found no slot; their time is unattributed", a.observations.ledger.overflow)
	for _, i := range r.Instruments {
		say(math.Abs(i.LedgerNs-i.OtherNs) > instrumentLimit*math.Max(i.OtherNs, 1), "%s: the ledger says %s and the kernel %s", i.Name, report.FormatNs(i.LedgerNs), report.FormatNs(i.OtherNs))
	}
	diffs := a.costs(mirrored, whole)
	for i, c := range a.costs(baseline, whole) {
		diffs[i] -= c
	}
	say(len(diffs) >= MinQuads/2 && stats.LagOne(diffs) > autocorrelated, "quads resemble their neighbours (lag-1 autocorrelation %.2f), so the intervals are too narrow; use more or longer quads", stats.LagOne(diffs))
	return w
}

func sqrt(x float64) float64 { return math.Sqrt(max(x, 0)) }
