package mirrorcost

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/coreplica/coreplica/bpf"
	"github.com/coreplica/coreplica/mirrorcost/report"
	"github.com/coreplica/coreplica/mirrorcost/stage"
	"github.com/coreplica/coreplica/mirrorcost/stats"
)

// charge says whether a context belongs to the cost of a write to a leg with
// that table of rules.
func charge(table *stage.Table, context string) stage.Charge {
	class, name, _ := strings.Cut(context, "/")
	switch class {
	case "load", "softirq", "hardirq":
		return stage.Charge{Charged: true}
	case "worker":
		return table.Worker(name)
	case "kthread":
		return table.KThread(name)
	}
	return stage.Charge{}
}

// division says how a context divides into stages.
type division struct {
	share map[stage.Stage]float64
	// samples that the shares stand on; 0 where a rule decides.
	samples uint64
	counts  map[stage.Stage]uint64
}

// decided is the stage of a context that samples cannot divide: user mode has no
// kernel stack, and the sampler's clock cannot fire inside a hardirq.
func decided(context string) (stage.Stage, bool) {
	if context == bpf.LoadUser {
		return stage.User, true
	}
	line, ok := strings.CutPrefix(context, "hardirq/")
	switch {
	case !ok:
		return "", false
	case slices.Contains([]string{"local_timer", "reschedule", "call_function", "call_function_single", "irq_work"}, line):
		return stage.Scheduling, true
	}
	return stage.Completion, true
}

// presumed is the stage of a context that no sample fell into.
func presumed(context string, c stage.Charge) stage.Stage {
	class, name, _ := strings.Cut(context, "/")
	switch {
	case c.Substrate:
		return stage.Substrate
	case class == "softirq" && (name == "BLOCK" || name == "IRQ_POLL"):
		return stage.Completion
	case class == "softirq" && slices.Contains([]string{"TIMER", "HRTIMER", "SCHED"}, name):
		return stage.Scheduling
	}
	return stage.Other
}

// usable reports whether a sample tells anything about the writes: those in the
// probes themselves do not.
func (a *analysis) usable(s sample) bool {
	if _, ok := decided(s.context); ok {
		return false
	}
	return len(s.stack) > 0 && !stage.IsProbe(functions(s.stack))
}

// divide works out how each charged context of a leg divides into stages.
func (a *analysis) divide(leg int) map[string]division {
	divisions := map[string]division{}
	for context := range a.totals[leg].ns {
		if a.charge(leg, context).Charged {
			divisions[context] = division{share: map[stage.Stage]float64{}, counts: map[stage.Stage]uint64{}}
		}
	}
	for _, s := range a.sampled.samples {
		d, ok := divisions[s.context]
		if !ok || s.leg != leg || !a.usable(s) {
			continue
		}
		d.samples += s.count
		d.counts[a.stageOf(s)] += s.count
		divisions[s.context] = d
	}
	for context, d := range divisions {
		if only, ok := decided(context); ok {
			d.share[only] = 1
		} else if d.samples == 0 {
			d.share[presumed(context, a.charge(leg, context))] = 1
		}
		for stage, n := range d.counts {
			d.share[stage] = float64(n) / float64(d.samples)
		}
	}
	return divisions
}

func (a *analysis) stageOf(s sample) stage.Stage {
	return a.legs[s.leg].table.Classify(functions(s.stack), s.context)
}

// stages divides the cost of a write. The interval joins the spread over quads
// with the binomial error of the samples.
func (a *analysis) stages(leg int) (stages []report.Stage) {
	perWrite := a.contextCosts(leg)
	for _, name := range stage.Stages() {
		share := func(context string, _ stage.Charge) float64 { return a.split[leg][context].share[name] }
		var variance float64
		var samples uint64
		for _, context := range slices.Sorted(maps.Keys(a.split[leg])) {
			d := a.split[leg][context]
			samples += d.counts[name]
			if d.samples > 0 {
				se := perWrite[context] * stats.ShareSE(float64(d.counts[name]), float64(d.samples))
				variance += se * se
			}
		}
		ci := stats.Widen(stats.MeanCI(a.costs(leg, share)), sqrt(variance))
		stages = append(stages, report.Stage{Stage: string(name), NsPerWrite: ci.Mean, Low: ci.Low, High: ci.High, Samples: samples})
	}
	return stages
}

// contextCosts is the mean cost of each context, in ns per write.
func (a *analysis) contextCosts(leg int) map[string]float64 {
	costs := map[string]float64{}
	for context := range a.totals[leg].ns {
		costs[context] = a.net(a.totals[leg], context) / float64(max(a.writes[leg], 1))
	}
	return costs
}

// contexts lists all of a leg's ledger: the charged ones first, the dearest
// first.
func (a *analysis) contexts(leg int) (rows []report.Context) {
	costs := a.contextCosts(leg)
	for context, ns := range a.totals[leg].ns {
		c := a.charge(leg, context)
		rows = append(rows, report.Context{
			Context: context, Ns: ns, NsPerWrite: costs[context],
			Charged: c.Charged, Shared: c.Shared, Substrate: c.Substrate,
		})
	}
	slices.SortFunc(rows, func(x, y report.Context) int {
		if x.Charged != y.Charged {
			if x.Charged {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(y.Ns, x.Ns), cmp.Compare(x.Context, y.Context))
	})
	return rows
}

// samples hands the stacks on, each with its part of the ledger's time.
func (a *analysis) samples() (samples []report.Sample) {
	costs := [2]map[string]float64{a.contextCosts(baseline), a.contextCosts(mirrored)}
	for _, s := range a.sampled.samples {
		if !a.usable(s) {
			continue
		}
		out := report.Sample{
			Leg: legNames[s.leg], Context: s.context, Stage: string(a.stageOf(s)),
			Device: strings.Join(a.legs[s.leg].devices, "+"), Stack: s.stack, Count: int64(s.count),
		}
		if d := a.split[s.leg][s.context]; d.samples > 0 {
			out.Ns = costs[s.leg][s.context] * float64(s.count) / float64(d.samples)
		}
		samples = append(samples, out)
	}
	return append(samples, a.unsampled(costs)...)
}

// unsampled stands for the charged contexts that no stack divides, so that a
// flame graph is as wide as the cost of a write.
func (a *analysis) unsampled(costs [2]map[string]float64) (samples []report.Sample) {
	for leg := range costs {
		for _, context := range slices.Sorted(maps.Keys(a.split[leg])) {
			d := a.split[leg][context]
			if d.samples > 0 || costs[leg][context] <= 0 {
				continue
			}
			for name := range d.share { // exactly one
				samples = append(samples, report.Sample{
					Leg: legNames[leg], Context: context, Stage: string(name),
					Device: strings.Join(a.legs[leg].devices, "+"),
					Ns:     costs[leg][context],
				})
			}
		}
	}
	return samples
}

func functions(stack []report.Frame) []string {
	names := make([]string, len(stack))
	for i, frame := range stack {
		names[i] = frame.Function
	}
	return names
}
