package report

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
)

// Columns of the table's parts, in characters. Each part adds up to
// [tableWidth] at most.
const (
	labelColumn = 23
	legColumn   = 37

	stageColumn = 18
	valueColumn = 9
	ciColumn    = 16
	barColumn   = 9
	diffColumn  = 12

	contextColumn = 59
	markColumn    = 18
	costColumn    = 13
)

// table collects lines. Nothing is written before all of it is there, so a
// reader never sees half a table.
type table struct{ bytes.Buffer }

func writeTable(w io.Writer, r *Report) error {
	t := new(table)
	t.headline(r)
	t.legs(r)
	t.stages(r)
	t.contexts(r)
	t.tax(r)
	t.method(r)
	t.warnings(r)
	_, err := w.Write(t.Bytes())
	return err
}

// line writes a line without spaces at its end.
func (t *table) line(format string, args ...any) {
	t.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " "))
	t.WriteByte('\n')
}

func (t *table) section(name string) { t.line("\n%s", name) }

func (t *table) headline(r *Report) {
	for _, line := range wrap(r.Headline(), tableWidth) {
		t.line("%s", line)
	}
	t.line("")
	t.line("load     %s", clip(r.Load.Describe(), tableWidth-9))
	t.line("machine  %s", clip(r.Machine.Describe(), tableWidth-9))
}

// side writes a row of the part that puts the legs side by side. A cell of
// several parts continues below where they do not fit on a line.
func (t *table) side(label string, baseline, mirror []string) {
	left, right := fill(baseline, legColumn-2), fill(mirror, legColumn-2)
	for i := range max(len(left), len(right)) {
		t.line("  %s %s  %s", pad(label, labelColumn), pad(at(left, i), legColumn-2), at(right, i))
		label = ""
	}
}

// fill joins parts to lines that fit into a width.
func fill(parts []string, width int) []string {
	var lines []string
	for _, part := range parts {
		part = clip(part, width)
		if n := len(lines); n > 0 && len([]rune(lines[n-1]))+2+len([]rune(part)) <= width {
			lines[n-1] += "  " + part
			continue
		}
		lines = append(lines, part)
	}
	return lines
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

func (t *table) legs(r *Report) {
	t.section(pad("LEGS", labelColumn+3) + pad("baseline", legColumn-1) + " mirror")
	for _, row := range LegRows(r) {
		t.side(row.Label, row.Baseline, row.Mirror)
	}
}

// LegRow is a fact of both legs, in words. A cell may have several parts.
type LegRow struct {
	Label            string
	Baseline, Mirror []string
}

// LegRows returns what the legs are and did, side by side.
func LegRows(r *Report) []LegRow {
	var rows []LegRow
	row := func(label string, cell func(l *Leg) []string) {
		rows = append(rows, LegRow{label, cell(&r.Baseline), cell(&r.Mirror)})
	}
	one := func(cell func(l *Leg) string) func(l *Leg) []string {
		return func(l *Leg) []string { return []string{cell(l)} }
	}
	row("", one(func(l *Leg) string { return l.Name }))
	row("CPU a write", one(func(l *Leg) string { return FormatNsInterval(l.CPUNsPerWrite) }))
	row("  of it deferred", one(func(l *Leg) string { return FormatNsInterval(l.DeferredNsPerWrite) }))
	row("writes/s", one(func(l *Leg) string { return FormatRate(l.WritesPerSecond) }))
	row("latency p50 p99 p99.9", func(l *Leg) []string {
		return []string{
			FormatNs(float64(l.LatencyNs.P50)), FormatNs(float64(l.LatencyNs.P99)), FormatNs(float64(l.LatencyNs.P999)),
		}
	})
	row("effective mode", one(func(l *Leg) string { return l.EffectiveMode }))
	row("acknowledged writes", one(func(l *Leg) string {
		if l.Acknowledged == l.Writes {
			return FormatCount(l.Acknowledged)
		}
		return FormatCount(l.Acknowledged) + " of " + FormatCount(l.Writes)
	}))
	row("data bios a write", func(l *Leg) []string { return multiples(l, l.BiosDataPerDevice) })
	row("metadata bios a write", func(l *Leg) []string { return multiples(l, l.BiosMetadataPerDevice) })
	row("flushes a write", func(l *Leg) []string { return multiples(l, l.FlushesPerDevice) })
	row("switches, works a write", one(func(l *Leg) string {
		return fixed(l.SwitchesPerWrite, 2) + ", " + fixed(l.WorkExecutionPerWrite, 2)
	}))
	return rows
}

// multiples says what each device saw, as a multiple of the writes.
func multiples(l *Leg, counts map[string]uint64) []string {
	if len(counts) == 0 {
		return []string{"no device"}
	}
	var parts []string
	for _, device := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, device+" "+FormatMultiple(counts[device], l.Acknowledged))
	}
	return parts
}

func (t *table) stages(r *Report) {
	rows := r.StageRows()
	if len(rows) == 0 {
		return
	}
	t.section(pad("STAGES of a write", stageColumn+2) +
		pad(padLeft("baseline", valueColumn), valueColumn+ciColumn+barColumn) +
		pad(padLeft("mirror", valueColumn), valueColumn+ciColumn+barColumn) + padLeft("difference", diffColumn))
	var largest float64
	for _, row := range rows {
		largest = max(largest, finite(row.Baseline.NsPerWrite), finite(row.Mirror.NsPerWrite))
	}
	overlap := false
	for _, row := range rows {
		difference := FormatSignedNs(row.Difference())
		if row.Overlap() {
			difference, overlap = "("+difference+")", true
		}
		t.line("  %s%s%s%s", pad(clip(row.Name, stageColumn), stageColumn),
			stageCells(row.Baseline, largest), stageCells(row.Mirror, largest), padLeft(difference, diffColumn))
	}
	t.line("  %s%s%s%s", pad("all", stageColumn), totalCells(r.Baseline.CPUNsPerWrite), totalCells(r.Mirror.CPUNsPerWrite),
		padLeft(taxCell(r.Tax.CPUNsPerWrite), diffColumn))
	if overlap {
		t.line("  (in brackets: the intervals of the two legs overlap)")
	}
}

// taxCell is the difference of the totals, whose interval is known.
func taxCell(tax Interval) string {
	if tax.SpansZero() {
		return "(" + FormatSignedNs(tax.Mean) + ")"
	}
	return FormatSignedNs(tax.Mean)
}

func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

func stageCells(s Stage, largest float64) string {
	if s == (Stage{}) {
		return padLeft("–", valueColumn) + pad("", ciColumn+barColumn)
	}
	return intervalCells(Interval{s.NsPerWrite, s.Low, s.High}) + pad(bar(s.NsPerWrite, largest, barColumn-1), barColumn)
}

func totalCells(i Interval) string { return intervalCells(i) + pad("", barColumn) }

// intervalCells formats an interval so that the means stand under each other.
func intervalCells(i Interval) string {
	s := scaleOf(i.Mean)
	return padLeft(s.in(i.Mean)+" "+s.unit, valueColumn) + pad(fmt.Sprintf(" [%s, %s]", s.in(i.Low), s.in(i.High)), ciColumn)
}

func (t *table) contexts(r *Report) {
	rows := r.ContextRows()
	if len(rows) == 0 {
		return
	}
	header := "CONTEXTS that are charged, CPU a write"
	t.section(pad(header, contextColumn+2) + columns("baseline", "mirror", "difference"))
	rest := 0
	for i, row := range rows {
		if !row.Charged() {
			rest = i
			break
		}
		rest = i + 1
		name := pad(clip(row.Name, contextColumn-markColumn), contextColumn-markColumn) + marks(row)
		t.line("  %s%s", pad(name, contextColumn), columns(
			costCell(row.Baseline), costCell(row.Mirror), FormatSignedNs(row.Difference())))
	}
	if rest == len(rows) {
		return
	}
	t.section(pad("OTHER CONTEXTS, share of the machine's time", contextColumn+2) + columns("baseline", "mirror", "difference"))
	for _, row := range rows[rest:] {
		t.line("  %s%s", pad(clip(row.Name, contextColumn-1), contextColumn), columns(
			FormatPercent(100*row.BaselineShare), FormatPercent(100*row.MirrorShare),
			fmt.Sprintf("%+.1f pp", 100*(row.MirrorShare-row.BaselineShare))))
	}
}

func columns(cells ...string) string {
	var b strings.Builder
	for _, cell := range cells {
		b.WriteString(padLeft(cell, costColumn))
	}
	return b.String()
}

func costCell(c Context) string {
	if c.Context == "" {
		return "–"
	}
	return FormatNs(c.NsPerWrite)
}

// marks says what a context is besides charged.
func marks(c ContextRow) string {
	var marks []string
	if c.Baseline.Substrate || c.Mirror.Substrate {
		marks = append(marks, "substrate")
	}
	if c.Baseline.Shared || c.Mirror.Shared {
		marks = append(marks, "shared")
	}
	return " " + strings.Join(marks, ",")
}
