package serve

import (
	"fmt"
	"slices"
	"strings"

	"github.com/coreplica/coreplica/mirrorcost/report"
)

// ledger shows where the machine's time went in each leg.
type ledger struct {
	Rows   []ledgerRow
	Bars   []ledgerBar
	Groups []key
}

type ledgerRow struct {
	Name, Class, Marks           string
	Charged                      bool
	Baseline, Mirror, Difference string
	BaselineShare, MirrorShare   string
	Less                         bool
}

type ledgerBar struct {
	Name, Leg string
	Segments  []segment
}

// segment is a context in a stacked bar.
type segment struct{ Class, X, Width, Label string }

// groups are the kinds of context, in the order in which a bar stacks them:
// what a write causes first, then the rest, idle last.
var groups = []key{
	{"g-load", "load"},
	{"g-worker", "kernel workers"},
	{"g-kthread", "kernel threads"},
	{"g-softirq", "softirq"},
	{"g-hardirq", "hardirq"},
	{"g-programs", "other programs"},
	{"g-self", "coreplica"},
	{"g-stolen", "stolen"},
	{"g-unattributed", "unattributed"},
	{"g-idle", "idle"},
}

// groupOf returns the index of a context's group.
func groupOf(context string) int {
	class, _, _ := strings.Cut(context, "/")
	class = strings.Fields(class + " ?")[0]
	for i, prefix := range []string{"load", "worker", "kthread", "softirq", "hardirq", "other", "coreplica", "stolen", "unattributed", "idle"} {
		if class == prefix {
			return i
		}
	}
	return 2 // A kernel thread by another name.
}

func newLedger(r *report.Report) (l ledger) {
	rows := r.ContextRows()
	used := map[int]bool{}
	for _, row := range rows {
		group := groupOf(row.Name)
		used[group] = true
		out := ledgerRow{
			Name: row.Name, Class: groups[group].Class, Charged: row.Charged(), Marks: marks(row),
			BaselineShare: report.FormatPercent(100 * row.BaselineShare), MirrorShare: report.FormatPercent(100 * row.MirrorShare),
		}
		if out.Charged {
			out.Baseline, out.Mirror = cost(row.Baseline), cost(row.Mirror)
			out.Difference, out.Less = report.FormatSignedNs(row.Difference()), row.Difference() < 0
		}
		l.Rows = append(l.Rows, out)
	}
	for i, group := range groups {
		if used[i] {
			l.Groups = append(l.Groups, group)
		}
	}
	slices.SortStableFunc(rows, func(a, b report.ContextRow) int { return groupOf(a.Name) - groupOf(b.Name) })
	l.Bars = []ledgerBar{
		newLedgerBar("baseline", r.Baseline.Name, rows, func(c report.ContextRow) float64 { return c.BaselineShare }),
		newLedgerBar("mirror", r.Mirror.Name, rows, func(c report.ContextRow) float64 { return c.MirrorShare }),
	}
	return l
}

func newLedgerBar(leg, name string, rows []report.ContextRow, share func(report.ContextRow) float64) ledgerBar {
	bar := ledgerBar{Name: name, Leg: leg}
	var x float64
	for _, row := range rows {
		width := max(share(row), 0)
		if width == 0 {
			continue
		}
		bar.Segments = append(bar.Segments, segment{
			groups[groupOf(row.Name)].Class, percent(x), percent(width),
			fmt.Sprintf("%s: %s of the machine's time, %s", row.Name, report.FormatPercent(100*width), leg),
		})
		x += width
	}
	return bar
}

func cost(c report.Context) string {
	if c.Context == "" {
		return "–"
	}
	return report.FormatNs(c.NsPerWrite)
}

func marks(row report.ContextRow) string {
	var marks []string
	if row.Baseline.Substrate || row.Mirror.Substrate {
		marks = append(marks, "substrate")
	}
	if row.Baseline.Shared || row.Mirror.Shared {
		marks = append(marks, "shared")
	}
	return strings.Join(marks, ", ")
}
