package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// writeBench writes lines in the Go benchmark format: one for the whole of
// each leg and one for each of its stages. A run is one measurement to
// benchstat, which learns the spread from several runs:
//
//	benchstat -filter '.name:MirrorWrite' -row /size -col /leg runs.txt
//
// The intervals of a single run are in the other formats.
func writeBench(w io.Writer, r *Report) error {
	if err := r.Check(); err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	key := func(name, value string) {
		if value != "" {
			fmt.Fprintf(out, "%s: %s\n", name, oneLine(value))
		}
	}
	key("pkg", "github.com/coreplica/coreplica/mirrorcost")
	key("goos", "linux")
	key("cpu", r.Machine.CPUModel)
	key("kernel", r.Machine.Kernel)
	key("coreplica", r.Version)
	key("substrate", r.Load.Substrate)
	for _, unit := range []string{"ns/write", "deferred-ns/write", "p50-ns", "p99-ns", "p999-ns", "data-bios/write", "metadata-bios/write", "flushes/write"} {
		fmt.Fprintf(out, "Unit %s better=lower\n", unit)
	}
	fmt.Fprint(out, "Unit writes/s better=higher\n\n")
	benchLeg(out, r, BaselineLeg, &r.Baseline)
	benchLeg(out, r, MirrorLeg, &r.Mirror)
	return out.Flush()
}

func benchLeg(out io.Writer, r *Report, leg string, l *Leg) {
	// benchfmt takes a number after the last dash for GOMAXPROCS.
	config := fmt.Sprintf("leg=%s/kind=%s/size=%d/mode=%s", leg, benchName(l.Name), r.Load.SizeBytes, benchName(l.EffectiveMode))
	cpus := fmt.Sprintf("-%d", max(r.Machine.CPUs, 1))
	n := max(l.LedgerWrites, 1)
	fmt.Fprintf(out, "BenchmarkMirrorWrite/%s%s %d %s ns/write %s deferred-ns/write %s writes/s %d p50-ns %d p99-ns %d p999-ns",
		config, cpus, n, plain(l.CPUNsPerWrite.Mean), plain(l.DeferredNsPerWrite.Mean), plain(l.WritesPerSecond),
		l.LatencyNs.P50, l.LatencyNs.P99, l.LatencyNs.P999)
	if l.Acknowledged > 0 {
		per := func(counts map[string]uint64) string { return plain(float64(total(counts)) / float64(l.Acknowledged)) }
		fmt.Fprintf(out, " %s data-bios/write %s metadata-bios/write %s flushes/write",
			per(l.BiosDataPerDevice), per(l.BiosMetadataPerDevice), per(l.FlushesPerDevice))
	}
	fmt.Fprintln(out)
	for _, s := range l.Stages {
		fmt.Fprintf(out, "BenchmarkMirrorStage/%s/stage=%s%s %d %s ns/write\n", config, benchName(s.Stage), cpus, n, plain(s.NsPerWrite))
	}
}

// benchName makes one word of a name, without the signs that benchfmt gives a
// meaning.
func benchName(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) || r == '/' || r == '=' {
			return '_'
		}
		return r
	}, name)
	if name == "" {
		return "unknown"
	}
	return name
}

// oneLine keeps a value of several lines from passing for lines of its own.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func total(counts map[string]uint64) (sum uint64) {
	for _, n := range counts {
		sum += n
	}
	return sum
}
