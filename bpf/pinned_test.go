package bpf

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/kernelfs"
	"github.com/coreplica/coreplica/internal/testkit"
)

// bpftool loads and pins every object as it is shipped. What it pinned works as
// the embedded objects do, in each form.
func TestPinned(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.BTF, testkit.BPF, testkit.BPFFS, testkit.Bpftool)
	dir := t.TempDir()
	for name, object := range Objects() {
		if err := os.WriteFile(filepath.Join(dir, name), object, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, form := range AttachTypes() {
		t.Run(string(form), func(t *testing.T) {
			pins := pinAll(t, dir, form)
			o := LedgerOptions{Pinned: pins}
			l := openLedger(t, o)
			if at := l.Attached(); at["ledger"] != string(form) {
				t.Errorf("attached as %v, want %s", at, form)
			}
			if err := l.Start(0, os.Getpid()); err != nil {
				t.Fatal(err)
			}
			stacks, err := OpenStacks(l, DefaultFrequency, o)
			if err != nil {
				t.Fatal(err)
			}
			defer stacks.Close()
			blockio, err := OpenBlockIO(nil, o)
			if err != nil {
				t.Fatal(err)
			}
			defer blockio.Close()
			if err := stacks.Attach(); err != nil {
				t.Fatal(err)
			}
			named, d := observe(t, l, func() { callFor(100 * time.Millisecond) })
			// In a translated guest the books were off by 0.7 ms once, and nobody
			// knows why. Probes that count into the void are off each time.
			for try := 0; try < 2 && d.SumNs() != int64(d.WallNs); try++ {
				t.Logf("books of %d for %d ns, once more", d.SumNs(), d.WallNs)
				named, d = observe(t, l, func() { callFor(100 * time.Millisecond) })
			}
			if err := stacks.Detach(); err != nil {
				t.Fatal(err)
			}
			if d.Events["sched_switch"] == 0 || named[Self] < 50e6 || d.SumNs() != int64(d.WallNs) {
				t.Errorf("%d switches, %d ns of our own, books of %d for %d ns", d.Events["sched_switch"], named[Self], d.SumNs(), d.WallNs)
			}
			samples, err := stacks.Drain()
			if err != nil {
				t.Fatal(err)
			}
			var taken uint64
			for _, s := range samples {
				taken += s.Count
			}
			if taken < 30 {
				t.Errorf("%d samples in 100 ms at %d Hz", taken, DefaultFrequency)
			}
		})
	}
}

// A probe that was pinned with maps of its own would count into the void; it is
// refused, and so are pins that are not there.
func TestPinnedRefused(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.BTF, testkit.BPF, testkit.BPFFS, testkit.Bpftool)
	if _, err := OpenLedger(LedgerOptions{Pinned: "/sys/fs/bpf/coreplica-test-absent"}); err == nil || !strings.Contains(err.Error(), "bpftool prog loadall") {
		t.Errorf("absent pins: %v, want the command that makes them", err)
	}
	dir := t.TempDir()
	for name, object := range Objects() {
		if err := os.WriteFile(filepath.Join(dir, name), object, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pins := pinFolder(t)
	loadAll(t, dir, pins, "ledger", TPBTF)
	loadAll(t, dir, pins, "stacks", "perf_event")
	l := openLedger(t, LedgerOptions{Pinned: pins})
	if s, err := OpenStacks(l, DefaultFrequency, LedgerOptions{Pinned: pins}); err == nil {
		_ = s.Close()
		t.Error("a sampler with a ledger of its own was accepted")
	} else if !strings.Contains(err.Error(), "map name cpus pinned") {
		t.Errorf("error %v does not say the fix", err)
	}
}

func pinAll(t *testing.T, dir string, form AttachType) (pins string) {
	pins = pinFolder(t)
	shared := []string{"map", "name", "cpus", "pinned", filepath.Join(pins, "ledger-maps", "cpus")}
	loadAll(t, dir, pins, "ledger", form)
	loadAll(t, dir, pins, "blockio", form)
	loadAll(t, dir, pins, "stacks", "perf_event", shared...)
	if _, err := os.Stat(filepath.Join(dir, "coreplica-vectors-"+string(form)+".bpf.o")); err == nil {
		loadAll(t, dir, pins, "vectors", form, shared...)
	}
	return pins
}

func pinFolder(t *testing.T) string {
	t.Helper()
	testkit.Mount(t, kernelfs.BPFFS)
	pins, err := os.MkdirTemp("/sys/fs/bpf", "coreplica-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(pins); err != nil {
			t.Error(err)
		}
	})
	return pins
}

func loadAll(t *testing.T, dir, pins, name string, form AttachType, more ...string) {
	t.Helper()
	object := filepath.Join(dir, "coreplica-"+name+"-"+string(form)+".bpf.o")
	args := append([]string{"prog", "loadall", object, filepath.Join(pins, name)}, more...)
	args = append(args, "pinmaps", filepath.Join(pins, name+"-maps"))
	if out, err := exec.Command("bpftool", args...).CombinedOutput(); err != nil {
		t.Fatalf("bpftool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
