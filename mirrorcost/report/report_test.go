package report

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var rewrite = flag.Bool("rewrite", false, "write the golden files instead of comparing with them")

func written(t *testing.T, r *Report, f Format) string {
	t.Helper()
	var buf bytes.Buffer
	if err := Write(&buf, r, f); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// compareGolden compares text with a file of testdata, line by line.
func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; `go test ./mirrorcost/report -rewrite` makes it", err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s is not what is written now (-golden +now); -rewrite accepts it:\n%s", path, diff)
	}
}

// The example run lies in testdata/run in the form that Save gives it, which
// also proves that what an earlier version saved is still read.
func TestExampleRun(t *testing.T) {
	r := exampleReport(t)
	dir := filepath.Join("testdata", "run")
	if *rewrite {
		if err := Save(dir, r, nil); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got, equal(r)...); diff != "" {
		t.Errorf("read back (-example +read):\n%s", diff)
	}
	for name, format := range map[string]Format{tableFile: Table, csvFile: CSV, benchFile: Bench, foldedFile: Folded, jsonFile: JSON} {
		compareGolden(t, filepath.Join("run", name), written(t, r, format))
	}
}

// equal lets reports differ in what the saved form does not keep: whether an
// empty list is there, and less than half a nanosecond over a whole leg.
func equal(r *Report) []cmp.Option {
	most := 1 / float64(max(1, min(r.Baseline.LedgerWrites, r.Mirror.LedgerWrites)))
	return []cmp.Option{
		cmpopts.EquateEmpty(),
		cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "Samples.Ns" }, cmpopts.EquateApprox(1e-9, most)),
	}
}

func TestTableStaysWithinItsWidth(t *testing.T) {
	r := exampleReport(t)
	long := strings.Repeat("a very long word-", 30)
	noSpace := strings.Repeat("x", 250)
	r.Verdict, r.Warnings = long, []string{long, noSpace}
	r.Baseline.Name, r.Mirror.EffectiveMode = noSpace, noSpace
	r.Machine.Kernel, r.Load.Mode, r.Command = noSpace, noSpace, []string{noSpace}
	r.Baseline.Contexts[0].Context, r.Baseline.Stages[0].Stage = noSpace, noSpace
	r.Mirror.BiosDataPerDevice = map[string]uint64{"nvme0n1": 20011, "nvme1n1": 20012, "nvme2n1": 40022, "nvme3n1": 3}
	for i, line := range strings.Split(written(t, r, Table), "\n") {
		if n := utf8.RuneCountInString(line); n > tableWidth {
			t.Errorf("line %d has %d columns: %s", i+1, n, line)
		}
		if strings.TrimRight(line, " ") != line {
			t.Errorf("line %d ends in spaces: %q", i+1, line)
		}
	}
}

// What comes from the kernel or a file must not move the cursor.
func TestTableHasNoControlCharacters(t *testing.T) {
	r := exampleReport(t)
	evil := "a\x1b[31mb\x00c\rd\u009be"
	r.Verdict, r.Warnings, r.Command = evil, []string{evil}, []string{evil}
	r.Baseline.Name, r.Mirror.EffectiveMode, r.Machine.Kernel, r.Version = evil, evil, evil, evil
	r.Baseline.Contexts[0].Context, r.Baseline.Stages[0].Stage = evil, evil
	r.Machine.AttachTypes[evil] = evil
	for _, c := range written(t, r, Table) {
		if c < ' ' && c != '\n' || c >= 0x7f && c < 0xa0 {
			t.Fatalf("the table has the control character %q", c)
		}
	}
}

func TestAnIntervalOverZeroReadsNoDifference(t *testing.T) {
	r := exampleReport(t)
	r.Verdict = ""
	if shown := written(t, r, Table); strings.Contains(shown, NoDifference) {
		t.Fatalf("a clear difference reads %q:\n%s", NoDifference, shown)
	}
	r.Tax.CPUNsPerWrite = Interval{300, -400, 1000}
	text := written(t, r, Table)
	for _, want := range []string{
		"with the substrate      no difference shown: 300 ns [-400, 1000]",
		"utilisation             no difference shown of 2 CPUs",
		"CPU cost of a write: no difference shown between btrfs-single",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
}

func TestHeadlineOfAMirrorThatCostsLess(t *testing.T) {
	r := exampleReport(t)
	r.Verdict = ""
	r.Tax.CPUNsPerWrite = Interval{-2000, -3000, -1000}
	if got, want := r.Headline(), "2.00 µs [1.00, 3.00] less than one to btrfs-single"; !strings.Contains(got, want) {
		t.Errorf("headline %q lacks %q", got, want)
	}
}

func TestStageRows(t *testing.T) {
	r := &Report{}
	r.Baseline.Stages = []Stage{{Stage: "other", NsPerWrite: 900}, {Stage: "copy", NsPerWrite: 10, Low: 9, High: 11}, {Stage: "gone", NsPerWrite: 5, Low: 4, High: 6}}
	r.Mirror.Stages = []Stage{{Stage: "copy", NsPerWrite: 12, Low: 10.5, High: 13.5}, {Stage: "new", NsPerWrite: 30, Low: 29, High: 31}}
	type row struct {
		Name       string
		Difference float64
		Overlap    bool
	}
	var got []row
	for _, s := range r.StageRows() {
		got = append(got, row{s.Name, s.Difference(), s.Overlap()})
	}
	want := []row{{"new", 30, false}, {"copy", 2, true}, {"gone", -5, false}, {"other", -900, true}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestContextRows(t *testing.T) {
	r := &Report{}
	r.Baseline.Contexts = []Context{{Context: "idle", Ns: 75}, {Context: "load/kernel", Ns: 25, Charged: true, NsPerWrite: 5}}
	r.Mirror.Contexts = []Context{{Context: "idle", Ns: 50}, {Context: "load/kernel", Ns: 30, Charged: true, NsPerWrite: 6}, {Context: "worker/x", Ns: 20, Charged: true, NsPerWrite: 9}}
	type row struct {
		Name                      string
		Difference, Before, After float64
	}
	var got []row
	for _, c := range r.ContextRows() {
		got = append(got, row{c.Name, c.Difference(), c.BaselineShare, c.MirrorShare})
	}
	want := []row{{"worker/x", 9, 0, 0.2}, {"load/kernel", 1, 0.25, 0.3}, {"idle", 0, 0.75, 0.5}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}
