package report

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestSaveNewEmptyAndAgain(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "new", "run")
	r := exampleReport(t)
	page := map[string][]byte{HTMLFile: []byte("<p>")}
	if err := Save(dir, r, page); err != nil {
		t.Fatal(err)
	}
	want := []string{"bench.txt", "difference.pb.gz", "profile.pb.gz", "report.csv", "report.html", "report.json", "stacks.folded", "table.txt"}
	if diff := cmp.Diff(want, names(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	r.Seed = 77
	if err := Save(dir, r, nil); err != nil {
		t.Fatalf("save over an older run: %v", err)
	}
	got, err := Open(dir)
	if err != nil || got.Seed != 77 {
		t.Errorf("seed %d, %v after the second save", got.Seed, err)
	}
	if slices.Contains(names(t, dir), HTMLFile) {
		t.Error("the older run's page is still there, beside another run's figures")
	}
	empty := filepath.Join(parent, "empty")
	if err := errors.Join(os.Mkdir(empty, 0o755), Save(empty, r, nil)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"empty", "new"}, names(t, parent)); diff != "" {
		t.Errorf("left beside the runs:\n%s", diff)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestSaveFollowsALink(t *testing.T) {
	parent := t.TempDir()
	dir, link := filepath.Join(parent, "dir"), filepath.Join(parent, "link")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Symlink(dir, link), Save(link, exampleReport(t), nil)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link became %v, %v", info.Mode(), err)
	}
	if _, err := Open(dir); err != nil {
		t.Error(err)
	}
}

func TestSaveRefusesWhatIsNotARun(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"no report":        {"thesis.tex": "years of work"},
		"another's report": {"report.json": `{"schema": "elsewhere/1"}`, "table.txt": ""},
		"a report and more": {
			"report.json": `{"schema": "coreplica.mirrorcost/1"}`, "notes.md": "mine",
		},
	} {
		dir := t.TempDir()
		for file, content := range files {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err := Save(dir, exampleReport(t), nil)
		if !errors.Is(err, ErrForeignDir) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
		for file, content := range files {
			if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != content {
				t.Errorf("%s: %s is now %q, %v", name, file, got, err)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Save(file, exampleReport(t), nil); err == nil {
		t.Error("saved over a file")
	}
}

func TestSaveRefusesNamesOutsideTheFolder(t *testing.T) {
	for _, name := range []string{"../x", "a/b", "", ".hidden", "/etc/x"} {
		dir := filepath.Join(t.TempDir(), "run")
		if err := Save(dir, exampleReport(t), map[string][]byte{name: nil}); !errors.Is(err, ErrUsage) {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: the folder was made", name)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct{ path, want string }{
		{filepath.Join(dir, "absent"), "no such file"},
		{t.TempDir(), "is it a folder that `--save` made?"},
		{write("a", `{"schema": "coreplica.mirrorcost/9"}`), `its schema is "coreplica.mirrorcost/9" and this version reads "coreplica.mirrorcost/1"`},
		{write("b", `{"x": 1}`), "names no schema"},
		{write("c", "GIF89a"), "parse report"},
		{write("d", `{"schema": "coreplica.mirrorcost/1"} {}`), "something follows the report"},
		{write("e", `{"schema": "coreplica.mirrorcost/1", "mirror": {"latency_histogram": {"upper_ns": [1]}}}`), "mirror.latency_histogram has 1 bounds and 0 counts"},
	} {
		if _, err := Open(tt.path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", filepath.Base(tt.path), err, tt.want)
		}
	}
	var schema *SchemaError
	if _, err := Open(filepath.Join(dir, "a")); !errors.As(err, &schema) || schema.Got != "coreplica.mirrorcost/9" {
		t.Errorf("error %v is no SchemaError", err)
	}
	if r, err := Open(write("report.json", `{"schema": "coreplica.mirrorcost/1", "new_field": []}`)); err != nil || r.Samples != nil {
		t.Errorf("a report without a profile: %v", err)
	}
	write(profileFile, "no profile")
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "open stacks from") {
		t.Errorf("a broken profile: %v", err)
	}
}

func TestLimits(t *testing.T) {
	if _, err := readAll(strings.NewReader("12345"), 5, "x"); err != nil {
		t.Error(err)
	}
	if _, err := readAll(strings.NewReader("123456"), 5, "x"); err == nil {
		t.Error("read more than the limit")
	}
}

// genReport draws reports of any content that Save accepts.
func genReport(t *rapid.T) *Report {
	number := rapid.Float64Range(-1e12, 1e12)
	text := rapid.StringN(0, 12, -1)
	interval := rapid.Custom(func(t *rapid.T) Interval {
		return Interval{number.Draw(t, "mean"), number.Draw(t, "low"), number.Draw(t, "high")}
	})
	counts := rapid.MapOfN(text, rapid.Uint64(), 0, 3)
	leg := rapid.Custom(func(t *rapid.T) Leg {
		return Leg{
			Name: text.Draw(t, "name"), EffectiveMode: text.Draw(t, "mode"),
			Writes: rapid.Uint64().Draw(t, "writes"), Acknowledged: rapid.Uint64Range(0, 1<<40).Draw(t, "acknowledged"),
			LedgerWrites:      rapid.Uint64Range(0, 1e6).Draw(t, "ledger writes"),
			BiosDataPerDevice: counts.Draw(t, "bios"), CPUNsPerWrite: interval.Draw(t, "cpu"),
			Stages: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Stage {
				i := interval.Draw(t, "stage")
				return Stage{text.Draw(t, "name"), i.Mean, i.Low, i.High, rapid.Uint64().Draw(t, "samples")}
			}), 0, 3).Draw(t, "stages"),
			Contexts: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Context {
				return Context{Context: text.Draw(t, "context"), Ns: rapid.Int64().Draw(t, "ns"), Charged: rapid.Bool().Draw(t, "charged"), NsPerWrite: number.Draw(t, "each")}
			}), 0, 3).Draw(t, "contexts"),
			LatencyHist: Histogram{UpperNs: []uint64{rapid.Uint64().Draw(t, "upper")}, Count: []uint64{rapid.Uint64().Draw(t, "count")}},
		}
	})
	return &Report{
		Schema: Schema, Version: text.Draw(t, "version"), Seed: rapid.Uint64().Draw(t, "seed"),
		StartedAt:      time.Unix(rapid.Int64Range(-6e10, 2e11).Draw(t, "started"), 0).UTC(),
		ElapsedSeconds: number.Draw(t, "elapsed"),
		Command:        rapid.SliceOfN(text, 0, 3).Draw(t, "command"),
		Baseline:       leg.Draw(t, "baseline"), Mirror: leg.Draw(t, "mirror"),
		Tax:      Tax{CPUNsPerWrite: interval.Draw(t, "tax"), Ratio: interval.Draw(t, "ratio")},
		Verdict:  text.Draw(t, "verdict"),
		Warnings: rapid.SliceOfN(text, 0, 3).Draw(t, "warnings"),
		Samples: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Sample {
			return Sample{
				Leg:     rapid.SampledFrom([]string{BaselineLeg, MirrorLeg}).Draw(t, "leg"),
				Context: text.Draw(t, "context"), Stage: text.Draw(t, "stage"), Device: text.Draw(t, "device"),
				Count: rapid.Int64().Draw(t, "count"), Ns: number.Draw(t, "ns"),
				Stack: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Frame {
					return Frame{text.Draw(t, "function"), rapid.Uint64().Draw(t, "address")}
				}), 0, 5).Draw(t, "stack"),
			}
		}), 0, 5).Draw(t, "samples"),
	}
}

// What is saved is what is read back, whatever it is; and a report that can be
// saved can be written in every format.
func TestSaveAndOpenAreInverse(t *testing.T) {
	parent := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		r := genReport(t)
		n++
		dir := filepath.Join(parent, fmt.Sprint(n))
		if err := Save(dir, r, nil); err != nil {
			t.Fatal(err)
		}
		got, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got, equal(r)...); diff != "" {
			t.Fatalf("read back (-saved +read):\n%s", diff)
		}
	})
}

func FuzzParse(f *testing.F) {
	example, err := os.ReadFile("testdata/run/report.json")
	if err != nil {
		f.Fatal(err)
	}
	stacks, err := os.ReadFile("testdata/run/profile.pb.gz")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example, stacks)
	f.Add([]byte(`{"schema":"coreplica.mirrorcost/1","baseline":{"stages":[{"stage":"x","ns_per_write":-1e308}]}}`), []byte{})
	f.Add([]byte(`{"schema":"coreplica.mirrorcost/1","command":null,"warnings":[""]}`), []byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, report, stacks []byte) {
		r, err := Parse(report)
		if err != nil {
			return
		}
		if samples, err := parseSamples(stacks, r); err == nil {
			r.Samples = samples
		}
		// What was accepted can be shown.
		for _, format := range Formats() {
			if err := Write(discard{}, r, format); err != nil && !refused(err) {
				t.Errorf("%s: %v", format, err)
			}
		}
	})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// refused reports whether an error is one that names its field.
func refused(err error) bool {
	var field *FieldError
	return errors.As(err, &field)
}
