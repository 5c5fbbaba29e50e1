package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// otherStage is where all goes that no rule names; it stands last.
const otherStage = "other"

// StageRow is a stage in both legs. A leg that does not have it has zero.
type StageRow struct {
	Name             string
	Baseline, Mirror Stage
}

// Difference is what the mirror costs more in this stage, per write.
func (s StageRow) Difference() float64 { return s.Mirror.NsPerWrite - s.Baseline.NsPerWrite }

// Overlap reports whether the intervals of the legs overlap, in which case the
// difference may be chance.
func (s StageRow) Overlap() bool {
	return s.Baseline.Low <= s.Mirror.High && s.Mirror.Low <= s.Baseline.High
}

// StageRows returns the stages of both legs side by side, the one that costs
// the mirror most first and "other" last.
func (r *Report) StageRows() []StageRow {
	var rows []StageRow
	index := map[string]int{}
	row := func(name string) *StageRow {
		i, ok := index[name]
		if !ok {
			i = len(rows)
			index[name] = i
			rows = append(rows, StageRow{Name: name})
		}
		return &rows[i]
	}
	for _, s := range r.Baseline.Stages {
		row(s.Stage).Baseline = s
	}
	for _, s := range r.Mirror.Stages {
		row(s.Stage).Mirror = s
	}
	slices.SortStableFunc(rows, func(a, b StageRow) int {
		return cmp.Or(
			boolCompare(a.Name == otherStage, b.Name == otherStage),
			cmp.Compare(b.Mirror.NsPerWrite, a.Mirror.NsPerWrite),
			cmp.Compare(b.Baseline.NsPerWrite, a.Baseline.NsPerWrite),
			cmp.Compare(a.Name, b.Name))
	})
	return rows
}

// ContextRow is a context of the ledger in both legs.
type ContextRow struct {
	Name             string
	Baseline, Mirror Context
	// BaselineShare and MirrorShare are shares of the machine's CPU time in
	// the leg's blocks, from 0 to 1.
	BaselineShare, MirrorShare float64
}

// Charged reports whether the context counts towards the cost of a write in
// either leg.
func (c ContextRow) Charged() bool { return c.Baseline.Charged || c.Mirror.Charged }

// Difference is what the mirror costs more in this context, per write.
func (c ContextRow) Difference() float64 { return c.Mirror.NsPerWrite - c.Baseline.NsPerWrite }

// ContextRows returns the ledger of both legs side by side: charged contexts
// first, those that cost the mirror most ahead, then the rest by its time.
func (r *Report) ContextRows() []ContextRow {
	var rows []ContextRow
	index := map[string]int{}
	row := func(name string) *ContextRow {
		i, ok := index[name]
		if !ok {
			i = len(rows)
			index[name] = i
			rows = append(rows, ContextRow{Name: name})
		}
		return &rows[i]
	}
	baseline, mirror := r.Baseline.WallNs(), r.Mirror.WallNs()
	for _, c := range r.Baseline.Contexts {
		into := row(c.Context)
		into.Baseline, into.BaselineShare = c, share(float64(c.Ns), baseline)
	}
	for _, c := range r.Mirror.Contexts {
		into := row(c.Context)
		into.Mirror, into.MirrorShare = c, share(float64(c.Ns), mirror)
	}
	slices.SortStableFunc(rows, func(a, b ContextRow) int {
		order := boolCompare(!a.Charged(), !b.Charged())
		if order == 0 && a.Charged() {
			order = cmp.Compare(b.Mirror.NsPerWrite, a.Mirror.NsPerWrite)
		}
		return cmp.Or(order,
			cmp.Compare(b.MirrorShare+b.BaselineShare, a.MirrorShare+a.BaselineShare),
			cmp.Compare(a.Name, b.Name))
	})
	return rows
}

// WallNs is the machine's whole time in the ledger: wall time times CPUs.
func (l *Leg) WallNs() float64 {
	var sum float64
	for _, c := range l.Contexts {
		sum += float64(c.Ns)
	}
	return sum
}

func share(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return part / whole
}

// boolCompare puts false before true.
func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// Headline returns the verdict, or says in one sentence what the intervals say
// where the run left none.
func (r *Report) Headline() string {
	if r.Verdict != "" {
		return r.Verdict
	}
	t, b, m := r.Tax.CPUNsPerWrite, r.Baseline.CPUNsPerWrite, r.Mirror.CPUNsPerWrite
	if t.SpansZero() || math.IsNaN(t.Mean) {
		return fmt.Sprintf("CPU cost of a write: %s between %s (%s) and %s (%s).", NoDifference,
			r.Baseline.Name, FormatNs(b.Mean), r.Mirror.Name, FormatNs(m.Mean))
	}
	more := "more"
	if t.Mean < 0 {
		more, t = "less", Interval{-t.Mean, -t.High, -t.Low}
	}
	return fmt.Sprintf("A write to %s costs %s of CPU, %s %s than one to %s.",
		r.Mirror.Name, FormatNs(m.Mean), FormatNsInterval(t), more, r.Baseline.Name)
}

// Describe says in one line what both legs were asked to do.
func (l *Load) Describe() string {
	parts := []string{
		fmt.Sprintf("%s %s writes of %s", l.Mode, l.Pattern, FormatBytes(l.SizeBytes)),
		plural(l.Threads, "thread"),
	}
	switch {
	case l.Saturated:
		parts = append(parts, "as fast as it can")
	case l.RatePerSecond > 0:
		parts = append(parts, "at "+FormatRate(l.RatePerSecond))
	}
	if l.FsyncEvery > 0 {
		parts = append(parts, fmt.Sprintf("fdatasync every %d", l.FsyncEvery))
	}
	if l.Batch > 1 {
		parts = append(parts, fmt.Sprintf("batches of %d", l.Batch))
	}
	if l.Csum {
		parts = append(parts, "data checksums on")
	} else {
		parts = append(parts, "data checksums off")
	}
	if l.SpinNs > 0 {
		parts = append(parts, "spin "+FormatNs(float64(l.SpinNs)))
	}
	if l.Substrate != "" {
		parts = append(parts, "substrate "+l.Substrate)
	}
	return strings.Join(parts, ", ")
}

// Describe says in one line where the figures were measured.
func (m *Machine) Describe() string {
	parts := []string{"Linux " + m.Kernel}
	if m.CPUModel != "" {
		parts = append(parts, m.CPUModel)
	}
	parts = append(parts, plural(m.CPUs, "CPU"))
	if m.Virtual {
		parts = append(parts, "virtual")
	}
	return strings.Join(parts, ", ")
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
