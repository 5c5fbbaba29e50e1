package gotest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/lab"
	"github.com/coreplica/coreplica/internal/lab/guest"
	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) {
	guest.Main()
	testkit.Main(m, testkit.Children())
}

func TestParse(t *testing.T) {
	got, err := Parse(Marker + ` kernel=6.1,6.12	topology=2x2 modules="loop; brd rd_nr=3" tools=mdadm run="A|B C" expect=root,md short=true timeout=90s`)
	want := Directive{
		Kernels: []string{"6.1", "6.12"}, Topology: "2x2", Modules: []string{"loop", "brd rd_nr=3"}, Tools: []string{"mdadm"},
		Run: "A|B C", Expect: []string{"root", "md"}, Short: true, Timeout: 90 * time.Second,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if d, err := Parse(Marker); err != nil || !reflect.DeepEqual(d, Directive{}) {
		t.Errorf("the bare marker: %+v, %v", d, err)
	}
	for _, bad := range []string{
		"", "//coreplica:guests", Marker + "x", Marker + " kernel", Marker + " speed=9", Marker + ` run="open`, Marker + " short=perhaps",
		Marker + " timeout=soon", Marker + " topology=0x0", Marker + ` run="a"b`,
	} {
		if _, err := Parse(bad); !errors.Is(err, ErrDirective) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Marker + ` kernel=6.1 modules="loop;brd rd_nr=3"`)
	f.Add(Marker + ` run="\x41" short=1`)
	f.Fuzz(func(t *testing.T, line string) {
		d, err := Parse(line)
		if err != nil {
			if !errors.Is(err, ErrDirective) {
				t.Errorf("%q: %v", line, err)
			}
			return
		}
		if _, err := lab.ParseTopology(d.Topology); err != nil {
			t.Errorf("%q gives a topology that is none: %v", line, err)
		}
	})
}

func TestOverride(t *testing.T) {
	d := Directive{Kernels: []string{"6.1"}, Modules: []string{"loop"}, Run: "A", Timeout: time.Second}
	got := d.with(Directive{Kernels: []string{"7"}, Topology: "4x1", Short: true})
	want := Directive{Kernels: []string{"7"}, Topology: "4x1", Modules: []string{"loop"}, Run: "A", Short: true, Timeout: time.Second}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if got := (Directive{}).with(Directive{}); !reflect.DeepEqual(got.Kernels, []string{DefaultKernel}) {
		t.Errorf("without a kernel: %v", got.Kernels)
	}
}

// module makes a module with one package of tests and returns it.
func module(t *testing.T, test string) []Package {
	t.Helper()
	testkit.Need(t, testkit.GoCommand)
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.com/m\n\ngo 1.24\n", "m_test.go": test, "testdata/word": "found"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	found, err := Find(t.Context(), []string{"./..."})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

const mixed = `package m

import (
	"os"
	"runtime"
	"testing"
)

//coreplica:guest kernel=6.1 topology=3x1

func TestGood(t *testing.T) {
	text, err := os.ReadFile("testdata/word")
	if err != nil || string(text) != "found" || runtime.NumCPU() != 3 {
		t.Errorf("%q, %v, %d CPUs", text, err, runtime.NumCPU())
	}
}

func TestBad(t *testing.T) { t.Error("said by the bad test") }

func BenchmarkOne(b *testing.B) {
	for b.Loop() {
	}
}
`

// The tests of a package of somebody else run in a guest of the shape that the
// package asks for, in the package's folder; one that fails is told apart from one
// that passes, in text and in events.
func TestInAGuest(t *testing.T) {
	if testing.Short() {
		t.Skip(testkit.SkipLine("short", "a guest takes seconds, and the race detector sees nothing of it"))
	}
	testkit.Need(t, testkit.QEMU)
	packages := module(t, mixed)
	var out bytes.Buffer
	if err := Test(t.Context(), packages, Options{}, &out); !errors.Is(err, ErrFailed) {
		t.Errorf("got %v", err)
	}
	for text, want := range map[string]bool{"said by the bad test": true, "--- FAIL: TestBad": true, "TestGood": false, "FAIL\texample.com/m@6.1": true, "3x1": true} {
		if strings.Contains(out.String(), text) != want {
			t.Errorf("%q is %t in the output:\n%s", text, !want, &out)
		}
	}
	out.Reset()
	if err := Test(t.Context(), packages, Options{JSON: true, Override: Directive{Run: "TestGood"}}, &out); err != nil {
		t.Errorf("the good test: %v\n%s", err, &out)
	}
	for _, event := range []string{`"Action":"pass","Package":"example.com/m@6.1","Test":"TestGood"`, `"Action":"pass","Package":"example.com/m@6.1","Elapsed"`} {
		if !strings.Contains(out.String(), event) {
			t.Errorf("no event %s in\n%s", event, &out)
		}
	}
	out.Reset()
	if err := Bench(t.Context(), packages, Options{Override: Directive{Kernels: []string{"6.1"}}, Bench: ".", BenchArgs: []string{"-test.benchtime=1x"}}, &out); err != nil {
		t.Errorf("bench: %v", err)
	}
	if text := out.String(); !strings.Contains(text, "BenchmarkOne") || strings.Contains(text, "accel: tcg") != strings.Contains(text, "not speed") {
		t.Errorf("bench printed:\n%s", text)
	}
}

func TestNoTests(t *testing.T) {
	testkit.Need(t, testkit.GoCommand)
	if _, err := Find(t.Context(), []string{"errors/..."}); !errors.Is(err, ErrNoTests) {
		t.Errorf("got %v", err)
	}
	if _, err := Find(t.Context(), []string{"./nonesuch"}); err == nil {
		t.Error("a package that is not there")
	}
}
