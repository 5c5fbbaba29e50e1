package perfcheck

import (
	"cmp"
	"maps"
	"math"
	"slices"
)

// Counts is the number of samples in each stage.
type Counts map[string]uint64

// Total is the number of all samples.
func (c Counts) Total() (n uint64) {
	for _, count := range c {
		n += count
	}
	return n
}

// share of a stage, and its standard error: binomial.
func (c Counts) share(stage string) (share, err float64) {
	n := float64(max(c.Total(), 1))
	share = float64(c[stage]) / n
	return share, math.Sqrt(share * (1 - share) / n)
}

// Shares counts the samples of the writes by stage. The load is a process
// number.
func Shares(samples []Sample, load int) Counts {
	counts := Counts{}
	for _, s := range samples {
		if s.charged(load) {
			counts[Stage(s.Stack)]++
		}
	}
	return counts
}

// Limits of [Row.Disagree].
const (
	smallStage = 0.05 // stages below it are not compared
	maxErrors  = 3    // combined standard errors
	maxOther   = 0.10
)

// Row compares one stage.
type Row struct {
	Stage        string
	Ours, Theirs float64 // shares
	// Errors is the difference in combined standard errors.
	Errors float64
}

// Compare sets two instruments side by side, the larger stages first.
func Compare(ours, theirs Counts) (rows []Row) {
	stages := maps.Clone(ours)
	maps.Copy(stages, theirs)
	for stage := range stages {
		row := Row{Stage: stage}
		var a, b float64
		row.Ours, a = ours.share(stage)
		row.Theirs, b = theirs.share(stage)
		if both := math.Hypot(a, b); both > 0 {
			row.Errors = math.Abs(row.Ours-row.Theirs) / both
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(x, y Row) int {
		return cmp.Or(cmp.Compare(y.Ours, x.Ours), cmp.Compare(x.Stage, y.Stage))
	})
	return rows
}

// Disagree reports whether the instruments contradict each other.
func (r Row) Disagree() bool {
	if r.Stage == "other" {
		return max(r.Ours, r.Theirs) > maxOther
	}
	return max(r.Ours, r.Theirs) > smallStage && r.Errors > maxErrors
}
