package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"
	"golang.org/x/perf/benchfmt"

	"github.com/coreplica/coreplica/internal/testkit"
)

func TestParseFormat(t *testing.T) {
	for _, f := range Formats() {
		if got, err := ParseFormat(string(f)); err != nil || got != f {
			t.Errorf("ParseFormat(%q) = %q, %v", f, got, err)
		}
		if writers[f] == nil {
			t.Errorf("%s has no writer", f)
		}
	}
	if len(writers) != len(Formats()) {
		t.Errorf("%d writers for %d formats", len(writers), len(Formats()))
	}
	_, err := ParseFormat("yaml")
	if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), `"yaml"; known are table, json, jsonl, csv, folded, pprof, bench`) {
		t.Errorf("error of an unknown format: %v", err)
	}
	if err := Write(new(bytes.Buffer), &Report{}, "yaml"); !errors.Is(err, ErrUsage) {
		t.Errorf("Write of an unknown format: %v", err)
	}
}

// An empty report is what a caller has before the first block; no format may
// fall over it.
func TestEveryFormatOfAnEmptyReport(t *testing.T) {
	for _, f := range Formats() {
		if text := written(t, &Report{}, f); text == "" && f != Folded {
			t.Errorf("%s wrote nothing", f)
		}
	}
}

func TestNumbersThatAreNotFinite(t *testing.T) {
	for field, spoil := range map[string]func(*Report){
		"baseline.cpu_ns_per_write.mean": func(r *Report) { r.Baseline.CPUNsPerWrite.Mean = math.NaN() },
		"mirror.stages[1].ci95_high":     func(r *Report) { r.Mirror.Stages[1].High = math.Inf(1) },
		"tax.lower_bound.ratio.ci95_low": func(r *Report) { r.Tax.Lower.Ratio.Low = math.Inf(-1) },
		`probe_cost.ns_per_event["irq"]`: func(r *Report) { r.ProbeCost.NsPerEvent["irq"] = math.NaN() },
		"samples[3].ns":                  func(r *Report) { r.Samples[3].Ns = math.NaN() },
		"baseline.latency_histogram":     func(r *Report) { r.Baseline.LatencyHist.UpperNs = nil },
	} {
		r := exampleReport(t)
		spoil(r)
		for _, f := range Formats() {
			var buf bytes.Buffer
			err := Write(&buf, r, f)
			if f == Table {
				if err != nil || buf.Len() == 0 {
					t.Errorf("%s: the table must show what there is: %v", field, err)
				}
				continue
			}
			var wrong *FieldError
			if !errors.As(err, &wrong) || wrong.Field != field {
				t.Errorf("%s as %s: error %v, want one that names the field", field, f, err)
			}
			if buf.Len() > 0 {
				t.Errorf("%s as %s: wrote %d bytes before the error", field, f, buf.Len())
			}
		}
	}
	r := exampleReport(t)
	r.Baseline.CPUNsPerWrite = Interval{math.NaN(), math.Inf(-1), math.Inf(1)}
	if text := written(t, r, Table); !strings.Contains(text, "n/a ns [n/a, n/a]") {
		t.Errorf("the table does not say n/a:\n%s", text)
	}
}

func TestJSONLIsOneLine(t *testing.T) {
	r := exampleReport(t)
	text := written(t, r, JSONL)
	if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
		t.Errorf("jsonl has %d line ends", strings.Count(text, "\n"))
	}
	var line, indented any
	if err := errors.Join(json.Unmarshal([]byte(text), &line), json.Unmarshal([]byte(written(t, r, JSON)), &indented)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(indented, line); diff != "" {
		t.Errorf("json and jsonl differ:\n%s", diff)
	}
}

func TestCSV(t *testing.T) {
	r := exampleReport(t)
	rows, err := csv.NewReader(strings.NewReader(written(t, r, CSV))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(csvHeader, rows[0]); diff != "" {
		t.Errorf("header:\n%s", diff)
	}
	found := map[string]string{}
	for _, row := range rows[1:] {
		key := strings.Join(row[:3], "/")
		if _, twice := found[key]; twice && row[1] != "text" {
			t.Errorf("%s stands twice", key)
		}
		found[key] = strings.Join(row[3:], ",")
	}
	for key, want := range map[string]string{
		"mirror/bios_data/loop2":                       "20011,,,count",
		"run/quads/used":                               "16,,,count",
		"run/probe_cost/ledger_percent":                "4.8,3.9,5.7,percent",
		"baseline/text/effective_mode":                 "direct,,,",
		"mirror/context_charged_per_write/softirq/RCU": "420,,,ns/write",
		"baseline/context/stolen":                      "672000000,,,ns",
	} {
		if found[key] != want {
			t.Errorf("%s = %q, want %q", key, found[key], want)
		}
	}
	if stage := found["mirror/stage/metadata checksum"]; !strings.HasPrefix(stage, "430,") || !strings.HasSuffix(stage, ",ns/write") {
		t.Errorf("stage = %q", stage)
	}
}

// foldedLine is what flamegraph.pl takes: frames between semicolons, a space,
// a number.
var foldedLine = regexp.MustCompile(`^(baseline|mirror);[^;]+;[^;]+(;[^;]+)* [1-9][0-9]*$`)

func TestFolded(t *testing.T) {
	r := exampleReport(t)
	r.Samples = append(r.Samples,
		Sample{Leg: MirrorLeg, Context: "a;b", Stage: "", Ns: 1000, Stack: []Frame{{"le af\n", 1}, {"", 2}, {"ro;ot", 3}}},
		Sample{Leg: MirrorLeg, Context: "load/kernel", Stage: "less", Ns: -5})
	sums := map[string]float64{}
	text := strings.TrimSuffix(written(t, r, Folded), "\n")
	for _, line := range strings.Split(text, "\n") {
		if !foldedLine.MatchString(line) {
			t.Errorf("line %q is not folded", line)
		}
		stack, value, _ := strings.Cut(line, " ")
		leg, _, _ := strings.Cut(stack, ";")
		n, err := strconv.ParseFloat(value[strings.LastIndexByte(value, ' ')+1:], 64)
		if err != nil {
			t.Error(err)
		}
		sums[leg] += n
	}
	if want := "mirror;a:b;[unknown];ro:ot;[unknown];le af  60000000"; !strings.Contains(text, want) {
		t.Errorf("folded stacks lack %q", want)
	}
	want := map[string]float64{
		BaselineLeg: r.Baseline.CPUNsPerWrite.Mean * exampleWrites, MirrorLeg: (r.Mirror.CPUNsPerWrite.Mean + 1000) * exampleWrites,
	}
	for leg := range want {
		if math.Abs(sums[leg]-want[leg]) > 100 {
			t.Errorf("%s adds up to %.0f ns, want %.0f", leg, sums[leg], want[leg])
		}
	}
}

func TestProfileAddsUp(t *testing.T) {
	r := exampleReport(t)
	p, err := Profile(r)
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]int64{}
	for _, s := range p.Sample {
		sums[s.Label["leg"][0]] += s.Value[1]
	}
	for leg, l := range map[string]*Leg{BaselineLeg: &r.Baseline, MirrorLeg: &r.Mirror} {
		if want := l.CPUNsPerWrite.Mean * exampleWrites; math.Abs(float64(sums[leg])-want) > 100 {
			t.Errorf("%s: %d ns, want %.0f", leg, sums[leg], want)
		}
	}
}

func TestDiffProfile(t *testing.T) {
	r := exampleReport(t)
	p, err := DiffProfile(r)
	if err != nil {
		t.Fatal(err)
	}
	if p.DefaultSampleType != "cpu_per_1000_writes" {
		t.Errorf("default type %q", p.DefaultSampleType)
	}
	var sum int64
	by := map[string]int64{}
	for _, s := range p.Sample {
		sum += s.Value[1]
		leaf := s.Location[0].Line[0].Function.Name
		by[s.Label["context"][0]+" "+leaf] += s.Value[1]
	}
	if want := (r.Mirror.CPUNsPerWrite.Mean - r.Baseline.CPUNsPerWrite.Mean) * 1000; math.Abs(float64(sum)-want) > 100 {
		t.Errorf("the difference adds up to %d, want %.0f", sum, want)
	}
	for leaf, want := range map[string]int64{
		"load/user [load/user]":                  20_000,
		"load/kernel bio_clone_blkg_association": 460_000,
		"softirq/BLOCK __blk_mq_end_request":     -390_000,
	} {
		if by[leaf] != want {
			t.Errorf("%s differs by %d, want %d", leaf, by[leaf], want)
		}
	}
}

// The go command's own pprof must read what we write.
func TestGoToolPprof(t *testing.T) {
	if testing.Short() {
		t.Skip(testkit.SkipLine("short", "the race detector sees nothing of another process"))
	}
	testkit.Need(t, testkit.GoCommand)
	dir := t.TempDir()
	r := exampleReport(t)
	file := filepath.Join(dir, "p.pb.gz")
	if err := os.WriteFile(file, []byte(written(t, r, Pprof)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"-top"}, []string{"Type: cpu", "try_to_wake_up", "[hardirq/call_function_single]"}},
		{[]string{"-raw"}, []string{"leg:[mirror]", "context:[worker/loop_workfn]", "stage:[copy]", "device:[loop1+loop2]", "[kernel.kallsyms]"}},
		{[]string{"-top", "-tagfocus=leg=mirror", "-sample_index=samples"}, []string{"Type: samples", "btrfs_clone_write_end_io"}},
	} {
		cmd := exec.Command("go", append(append([]string{"tool", "pprof", "-symbolize=none"}, tt.args...), file)...)
		cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
		for _, want := range tt.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%v lacks %q:\n%.3000s", tt.args, want, out)
			}
		}
	}
}

func TestProfileParsesBack(t *testing.T) {
	p, err := profile.ParseData([]byte(written(t, exampleReport(t), Pprof)))
	if err != nil {
		t.Fatal(err)
	}
	if p.TimeNanos == 0 || p.DurationNanos != 71.5e9 || len(p.Comments) != 2 {
		t.Errorf("time %d, duration %d, comments %q", p.TimeNanos, p.DurationNanos, p.Comments)
	}
}

func TestBenchReadsBack(t *testing.T) {
	r := exampleReport(t)
	r.Mirror.EffectiveMode = "a b/c=d\n"
	reader := benchfmt.NewReader(strings.NewReader(written(t, r, Bench)), "bench")
	got := map[string]float64{}
	for reader.Scan() {
		switch rec := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			t.Errorf("benchfmt: %v", rec)
		case *benchfmt.Result:
			if rec.Iters != exampleWrites {
				t.Errorf("%s: %d iterations", rec.Name, rec.Iters)
			}
			if rec.GetConfig("cpu") != "Example CPU" || rec.GetConfig("kernel") != "6.18.0-example" {
				t.Errorf("%s: configuration %v", rec.Name, rec.Config)
			}
			for _, value := range rec.Values {
				unit, v := value.Unit, value.Value
				if value.OrigUnit != "" {
					unit, v = value.OrigUnit, value.OrigValue
				}
				got[string(rec.Name)+" "+unit] = v
			}
		}
	}
	if err := reader.Err(); err != nil {
		t.Fatal(err)
	}
	const leg = "/leg=baseline/kind=btrfs-single/size=4096/mode=direct"
	for name, want := range map[string]float64{
		"MirrorWrite" + leg + "-2 ns/write":                                                 r.Baseline.CPUNsPerWrite.Mean,
		"MirrorWrite" + leg + "-2 data-bios/write":                                          1,
		"MirrorStage" + leg + "/stage=copy-2 ns/write":                                      1830,
		"MirrorWrite/leg=mirror/kind=btrfs-raid1/size=4096/mode=a_b_c_d_-2 data-bios/write": 2,
	} {
		if got[name] != want {
			t.Errorf("%s = %v, want %v", name, got[name], want)
		}
	}
}
