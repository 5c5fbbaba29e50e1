package serve

import (
	"fmt"
	"math"

	"github.com/coreplica/coreplica/mirrorcost/report"
)

// Charts are drawn in percent of their box, so that they fit every width
// without a script.

// percent formats a share of the box.
func percent(share float64) string { return fmt.Sprintf("%.3f%%", 100*share) }

// tick is a line across a chart. The label of a minor one is left out where
// there is little room.
type tick struct {
	X, Label string
	Minor    bool
}

// axis maps values from low to high onto the box.
type axis struct{ low, high float64 }

func (a axis) at(v float64) float64 {
	if a.high <= a.low {
		return 0
	}
	return math.Min(1, math.Max(0, (v-a.low)/(a.high-a.low)))
}

// ticks are at round values, about four of them.
func (a axis) ticks() (ticks []tick) {
	span := a.high - a.low
	if !(span > 0) {
		return nil
	}
	step := math.Pow(10, math.Floor(math.Log10(span/4)))
	for _, m := range []float64{5, 2} {
		if span/(step*m) >= 3 {
			step *= m
			break
		}
	}
	for v := math.Ceil(a.low/step) * step; v <= a.high-0.02*span; v += step {
		if math.Abs(v) < step/2 {
			v = 0
		}
		ticks = append(ticks, tick{X: percent(a.at(v)), Label: tickLabel(v)})
	}
	return ticks
}

func tickLabel(ns float64) string {
	for _, s := range []struct {
		ns   float64
		unit string
	}{{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}} {
		if math.Abs(ns) >= s.ns {
			return fmt.Sprintf("%.4g %s", ns/s.ns, s.unit)
		}
	}
	if ns == 0 {
		return "0"
	}
	return fmt.Sprintf("%.4g ns", ns)
}

// mark is a bar with its interval, or a point with it.
type mark struct {
	Present          bool
	Width            string
	Low, High        string
	Mean, Bounds     string
	Description      string
	MeanX, ZeroX     string
	NoDifferenceSeen bool
}

func newMark(a axis, i report.Interval, what string) mark {
	m := mark{
		Present: true, Width: percent(a.at(i.Mean)), MeanX: percent(a.at(i.Mean)), ZeroX: percent(a.at(0)),
		Low: percent(a.at(i.Low)), High: percent(a.at(i.High)),
		NoDifferenceSeen: i.SpansZero(),
	}
	m.Mean, m.Bounds = split(report.FormatNsInterval(i))
	m.Description = what + " " + report.FormatNsInterval(i)
	return m
}

// stageRow is a stage in both legs.
type stageRow struct {
	Name, Class      string
	Baseline, Mirror mark
	Difference       string
	Overlap          bool
	Less             bool
}

func stageRows(r *report.Report, stages []string) (rows []stageRow, total stageRow, ticks []tick, overlap bool) {
	var a axis
	for _, row := range r.StageRows() {
		a.high = max(a.high, row.Baseline.NsPerWrite, row.Mirror.NsPerWrite, row.Baseline.High, row.Mirror.High)
	}
	a.high *= 1.02
	class := map[string]string{}
	for i, name := range stages {
		class[name] = stageClass(i)
	}
	for _, row := range r.StageRows() {
		out := stageRow{
			Name: row.Name, Class: class[row.Name], Overlap: row.Overlap(),
			Difference: report.FormatSignedNs(row.Difference()), Less: row.Difference() < 0,
		}
		for _, leg := range []struct {
			s    report.Stage
			into *mark
			name string
		}{{row.Baseline, &out.Baseline, "baseline"}, {row.Mirror, &out.Mirror, "mirror"}} {
			if leg.s.Stage != "" {
				*leg.into = newMark(a, report.Interval{Mean: leg.s.NsPerWrite, Low: leg.s.Low, High: leg.s.High}, row.Name+", "+leg.name)
			}
		}
		overlap = overlap || out.Overlap
		rows = append(rows, out)
	}
	total = stageRow{
		Baseline: newMark(a, r.Baseline.CPUNsPerWrite, ""), Mirror: newMark(a, r.Mirror.CPUNsPerWrite, ""),
		Difference: report.FormatSignedNs(r.Tax.CPUNsPerWrite.Mean), Overlap: r.Tax.CPUNsPerWrite.SpansZero(),
		Less: r.Tax.CPUNsPerWrite.Mean < 0,
	}
	return rows, total, a.ticks(), overlap
}

// taxRow is one way of counting the tax.
type taxRow struct {
	Name, About string
	Mark        mark
	Ratio       string
	RatioBounds string
}

// taxRows shows the ways of counting on one axis that has zero on it, since
// zero is what an interval is read against.
func taxRows(r *report.Report) (rows []taxRow, ticks []tick, zero string) {
	t := &r.Tax
	pairs := []struct {
		name, about string
		report.Pair
	}{
		{"With substrate", "all that a write costs", report.Pair{CPUNsPerWrite: t.CPUNsPerWrite, Ratio: t.Ratio}},
		{"Without substrate", "less the device below the mirror", t.WithoutSubstrate},
		{"Lower bound", "less work that other file systems share", t.Lower},
	}
	if r.ProbeCost != nil {
		pairs = append(pairs, struct {
			name, about string
			report.Pair
		}{"Corrected", "less what the probes cost, by a model", t.Corrected})
	}
	var a axis
	for _, p := range pairs {
		a.low, a.high = min(a.low, p.CPUNsPerWrite.Low), max(a.high, p.CPUNsPerWrite.High)
	}
	margin := 0.02 * (a.high - a.low)
	a.high += margin
	if a.low < 0 {
		a.low -= margin
	}
	for _, p := range pairs {
		row := taxRow{Name: p.name, About: p.about, Mark: newMark(a, p.CPUNsPerWrite, p.name)}
		row.Ratio, row.RatioBounds = split(report.FormatRatio(p.Ratio))
		rows = append(rows, row)
	}
	return rows, a.ticks(), percent(a.at(0))
}
