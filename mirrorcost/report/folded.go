package report

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// The names of the legs in [Sample].
const (
	BaselineLeg = "baseline"
	MirrorLeg   = "mirror"
)

// scaled returns a sample's CPU time in whole nanoseconds of its leg's ledger
// pass. Over all samples of a leg it adds up to what the leg was charged.
func (r *Report) scaled(s *Sample) int64 { return int64(math.Round(s.Ns * r.writesOf(s.Leg))) }

// writesOf is what a leg's figures per write are to be multiplied with. It is
// never zero, so that a report without writes can still be written.
func (r *Report) writesOf(leg string) float64 {
	l := &r.Baseline
	if leg == MirrorLeg {
		l = &r.Mirror
	}
	return float64(max(l.LedgerWrites, 1))
}

// writeFolded writes a line a stack: leg, context, stage and functions from
// the root to the leaf, then nanoseconds. Stacks of the same line are added
// up. What costs nothing is left out: flamegraph.pl cannot draw less than
// nothing either.
func writeFolded(w io.Writer, r *Report) error {
	if err := r.Check(); err != nil {
		return err
	}
	sums := map[string]int64{}
	var order []string
	for i := range r.Samples {
		s := &r.Samples[i]
		line := foldedStack(s)
		if _, seen := sums[line]; !seen {
			order = append(order, line)
		}
		sums[line] += r.scaled(s)
	}
	slices.Sort(order)
	out := bufio.NewWriter(w)
	for _, line := range order {
		if sums[line] > 0 {
			fmt.Fprintf(out, "%s %d\n", line, sums[line])
		}
	}
	return out.Flush()
}

func foldedStack(s *Sample) string {
	parts := []string{foldedName(s.Leg), foldedName(s.Context), foldedName(s.Stage)}
	for _, frame := range slices.Backward(s.Stack) {
		parts = append(parts, foldedName(frame.Function))
	}
	return strings.Join(parts, ";")
}

// foldedName keeps a name from being taken for two: a semicolon parts frames
// and a line's end parts stacks.
func foldedName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch r {
		case ';':
			return ':'
		case '\n', '\r', '\u0085', '\u2028', '\u2029', '\v', '\f':
			return ' '
		}
		return r
	}, name)
	if strings.TrimSpace(name) == "" {
		return "[unknown]"
	}
	return name
}
