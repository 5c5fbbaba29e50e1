package report

import (
	"encoding/csv"
	"io"
	"maps"
	"slices"
	"strconv"
)

// csvHeader names the columns. One value stands in one row, so that a program
// that knows nothing of this project can filter and pivot.
var csvHeader = []string{"leg", "kind", "name", "value", "ci95_low", "ci95_high", "unit"}

// csvRows collects rows; the csv writer keeps the first error to itself until
// it is flushed.
type csvRows struct {
	*csv.Writer
	leg string
}

func writeCSV(w io.Writer, r *Report) error {
	if err := r.Check(); err != nil {
		return err
	}
	rows := &csvRows{Writer: csv.NewWriter(w)}
	_ = rows.Write(csvHeader) // Flush keeps the error.
	rows.leg = "baseline"
	rows.side(&r.Baseline)
	rows.leg = "mirror"
	rows.side(&r.Mirror)
	rows.leg = "difference"
	rows.tax(&r.Tax)
	rows.leg = "run"
	rows.run(r)
	rows.Flush()
	return rows.Error()
}

func (c *csvRows) row(kind, name, value, low, high, unit string) {
	_ = c.Write([]string{c.leg, kind, name, value, low, high, unit})
}

func (c *csvRows) text(name, value string) { c.row("text", name, value, "", "", "") }
func (c *csvRows) number(kind, name string, v float64, unit string) {
	c.row(kind, name, plain(v), "", "", unit)
}
func (c *csvRows) interval(kind, name string, i Interval, unit string) {
	c.row(kind, name, plain(i.Mean), plain(i.Low), plain(i.High), unit)
}

func (c *csvRows) counts(name string, perDevice map[string]uint64) {
	for _, device := range slices.Sorted(maps.Keys(perDevice)) {
		c.row(name, device, strconv.FormatUint(perDevice[device], 10), "", "", "count")
	}
}

func (c *csvRows) histogram(kind, name string, h Histogram) {
	for i := range min(len(h.UpperNs), len(h.Count)) {
		bucket := name + "<" + strconv.FormatUint(h.UpperNs[i], 10)
		c.row(kind, bucket, strconv.FormatUint(h.Count[i], 10), "", "", "count")
	}
}

func (c *csvRows) side(l *Leg) {
	c.text("name", l.Name)
	c.text("effective_mode", l.EffectiveMode)
	for _, count := range []struct {
		name string
		n    uint64
	}{
		{"writes", l.Writes}, {"acknowledged", l.Acknowledged}, {"ledger_writes", l.LedgerWrites},
		{"samples", l.Samples}, {"drops", l.Drops}, {"bytes", l.Bytes},
	} {
		c.row("count", count.name, strconv.FormatUint(count.n, 10), "", "", "count")
	}
	c.interval("total", "cpu_ns_per_write", l.CPUNsPerWrite, "ns/write")
	c.interval("total", "deferred_ns_per_write", l.DeferredNsPerWrite, "ns/write")
	for _, s := range l.Stages {
		c.interval("stage", s.Stage, Interval{s.NsPerWrite, s.Low, s.High}, "ns/write")
	}
	for _, context := range l.Contexts {
		kind := "context"
		if context.Charged {
			kind = "context_charged"
		}
		c.row(kind, context.Context, strconv.FormatInt(context.Ns, 10), "", "", "ns")
		c.number(kind+"_per_write", context.Context, context.NsPerWrite, "ns/write")
	}
	c.counts("bios_data", l.BiosDataPerDevice)
	c.counts("bios_metadata", l.BiosMetadataPerDevice)
	c.counts("flushes", l.FlushesPerDevice)
	c.counts("merges", l.MergesPerDevice)
	c.counts("requests", l.RequestsPerDevice)
	c.number("latency", "p50", float64(l.LatencyNs.P50), "ns")
	c.number("latency", "p99", float64(l.LatencyNs.P99), "ns")
	c.number("latency", "p999", float64(l.LatencyNs.P999), "ns")
	c.histogram("latency_histogram", "", l.LatencyHist)
	for _, device := range slices.Sorted(maps.Keys(l.DeviceLatency)) {
		c.histogram("device_latency", device, l.DeviceLatency[device])
	}
	c.number("rate", "writes_per_second", l.WritesPerSecond, "1/s")
	c.number("method", "closure_error", l.ClosureError, "share")
	c.number("method", "unattributed", l.Unattributed, "share")
	c.number("method", "stolen_percent", l.StolenPercent, "percent")
	c.number("method", "smeared_percent", l.SmearedPercent, "percent")
	c.number("rate", "switches_per_write", l.SwitchesPerWrite, "1/write")
	c.number("rate", "work_executions_per_write", l.WorkExecutionPerWrite, "1/write")
}

func (c *csvRows) tax(t *Tax) {
	for _, pair := range []struct {
		name string
		Pair
	}{
		{"tax", Pair{t.CPUNsPerWrite, t.Ratio}},
		{"tax_without_substrate", t.WithoutSubstrate},
		{"tax_lower_bound", t.Lower},
		{"tax_corrected_for_probes", t.Corrected},
	} {
		c.interval(pair.name, "cpu_ns_per_write", pair.CPUNsPerWrite, "ns/write")
		c.interval(pair.name, "ratio", pair.Ratio, "ratio")
	}
	c.number("tax", "utilisation_percent", t.UtilisationPercent, "percent")
}

func (c *csvRows) run(r *Report) {
	c.text("schema", Schema)
	c.text("version", r.Version)
	c.text("kernel", r.Machine.Kernel)
	c.text("cpu_model", r.Machine.CPUModel)
	c.number("machine", "cpus", float64(r.Machine.CPUs), "count")
	c.number("machine", "other_programs_percent", r.Machine.OtherProgramsPercent, "percent")
	c.number("machine", "stolen_percent", r.Machine.StolenPercent, "percent")
	c.number("quads", "used", float64(r.Quads.Used), "count")
	c.number("quads", "discarded", float64(r.Quads.Discarded), "count")
	c.number("quads", "voided", float64(r.Quads.Voided), "count")
	if p := r.ProbeCost; p != nil {
		c.interval("probe_cost", "ledger_percent", p.LedgerPercent, "percent")
		c.interval("probe_cost", "all_percent", p.AllPercent, "percent")
		c.number("probe_cost", "ns_per_write", p.NsPerWrite, "ns/write")
	}
	c.text("verdict", r.Headline())
	for _, warning := range r.Warnings {
		c.text("warning", warning)
	}
}

// plain formats a number for programs.
func plain(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
