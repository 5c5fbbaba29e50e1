package mirror

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
)

// Each kind comes up on each made substrate, takes direct writes that really
// reach as many devices as it has copies, and goes without a trace.
func TestBring(t *testing.T) {
	for _, substrate := range []string{"loop", "zram"} {
		for _, kind := range Kinds() {
			t.Run(substrate+"/"+kind.Name, func(t *testing.T) {
				run := newRun(t)
				o := small(kind.Name, substrate)
				up := bring(t, run, o)
				if len(up.Devices) != kind.Devices || up.Copies != kind.Copies || len(up.Targets) != o.Files {
					t.Errorf("%d devices, %d copies, %d targets", len(up.Devices), up.Copies, len(up.Targets))
				}
				if cow := kind.Filesystem == "btrfs"; cow != (up.HeadroomBytes > 0) {
					t.Errorf("headroom of %d bytes", up.HeadroomBytes)
				}
				wantWritesOnAll(t, up)
				checkMount(t, up, kind)
				if err := up.Down(context.Background()); err != nil {
					t.Fatal(err)
				}
				if left := traces(t, run.ID(), limits(run, "leg", kind.Devices)...); len(left) > 0 {
					t.Errorf("left %q", left)
				}
				if err := up.Down(context.Background()); err != nil {
					t.Errorf("second Down: %v", err)
				}
			})
		}
	}
}

// wantWritesOnAll writes to each target and sees the counter of each device
// move by at least as much.
func wantWritesOnAll(t *testing.T, up *Up) {
	t.Helper()
	if err := Drained(t.Context(), up.Devices); err != nil {
		t.Fatal(err)
	}
	before, err := WriteCounters(up.Devices)
	if err != nil {
		t.Fatal(err)
	}
	const writes = 101
	for _, path := range up.Targets[0] {
		writeDirect(t, path, writes, 0x5a)
	}
	if err := Drained(t.Context(), up.Devices); err != nil {
		t.Fatal(err)
	}
	after, err := WriteCounters(up.Devices)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range up.Devices {
		if got := after[d.Name] - before[d.Name]; got < writes {
			t.Errorf("%s completed %d writes, want at least %d", d.Name, got, writes)
		}
	}
}

func checkMount(t *testing.T, up *Up, kind KindInfo) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	wants := []string{"noatime", "commit=300"}
	if kind.Filesystem == "btrfs" {
		wants = append(wants, "nodatasum")
	}
	for line := range strings.Lines(string(mounts)) {
		if !strings.Contains(line, filepath.Dir(up.Targets[0][0])+" ") {
			continue
		}
		options := strings.Split(strings.Fields(line)[3], ",")
		for _, want := range wants {
			if !slices.Contains(options, want) {
				t.Errorf("mounted with %q, want %s in it", options, want)
			}
		}
		if slices.Contains(options, "discard") || slices.Contains(options, "discard=async") || slices.Contains(options, "nodatacow") {
			t.Errorf("mounted with %q", options)
		}
		return
	}
	t.Errorf("no mount holds %s", up.Targets[0][0])
}

// RAID1 must really have two copies, and a single device one: a pattern that is
// nowhere else is found on the devices themselves.
func TestCopiesAreOnTheDevices(t *testing.T) {
	for kind, want := range map[string]int{"btrfs-single": 1, "btrfs-raid1": 2, "btrfs-raid1c3": 3} {
		t.Run(kind, func(t *testing.T) {
			up := bring(t, newRun(t), small(kind, "loop"))
			pattern := bytes.Repeat([]byte("a pattern that is nowhere else: "), 4096/32)
			f, err := os.OpenFile(up.Targets[0][0], os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(pattern, 8192); err != nil {
				t.Fatal(err)
			}
			if err := syncfs(filepath.Dir(up.Targets[0][0])); err != nil {
				t.Fatal(err)
			}
			found := 0
			for _, d := range up.Devices {
				found += occurrences(t, d.Path, pattern)
			}
			if found != want {
				t.Errorf("the block is on the devices %d times, want %d", found, want)
			}
		})
	}
}

func occurrences(t *testing.T, device string, block []byte) int {
	t.Helper()
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found, buffer := 0, make([]byte, 1<<20)
	for {
		n, err := f.Read(buffer)
		for at := 0; at+len(block) <= n; at += len(block) {
			if bytes.Equal(buffer[at:at+len(block)], block) {
				found++
			}
		}
		if err != nil || n == 0 {
			return found
		}
	}
}

func TestLoopWithDirectIO(t *testing.T) {
	run := newRun(t)
	o := small("btrfs-raid1", "loop-dio")
	o.Dir = t.TempDir()
	up := bring(t, run, o)
	for _, d := range up.Devices {
		if !usesDirect(d.Name) {
			t.Errorf("%s does not use direct I/O", d.Name)
		}
	}
	if err := up.Down(context.Background()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
}

// The headroom is real: that much can be written without a sync between.
func TestHeadroom(t *testing.T) {
	o := small("btrfs-raid1", "loop")
	o.DeviceBytes, o.Files = 400<<20, 1
	up := bring(t, newRun(t), o)
	blocks := int(o.FileBytes / 4096)
	for written := int64(0); written < up.HeadroomBytes*9/10; written += o.FileBytes {
		writeDirect(t, up.Targets[0][0], blocks, 1)
	}
}

// steps brings a mirror up and returns the names of all steps.
func steps(t *testing.T, o Options) []string {
	t.Helper()
	var names []string
	o.hook = func(step string) error { names = append(names, step); return nil }
	run := newRun(t)
	up := bring(t, run, o)
	if err := up.Down(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		names[i] = strings.ReplaceAll(name, run.ID(), "ID")
	}
	return names
}

// unfinished are mirrors that together pass every step.
func unfinished(t *testing.T) map[string]Options {
	onFiles := small("files", "loop-dio")
	onFiles.Dir = t.TempDir()
	all := map[string]Options{
		"raid1 on loop": small("btrfs-raid1", "loop"),
		"raid1 on zram": small("btrfs-raid1", "zram"),
		"files on dio":  onFiles,
	}
	for name, o := range all {
		// As small as can be: all of it is made again for each step.
		o.FileBytes, o.Files, o.DeviceBytes = 1<<20, 1, 72<<20
		if o.Kind == "btrfs-raid1" {
			o.DeviceBytes = 258 << 20
		}
		all[name] = o
	}
	return all
}

var errInjected = errors.New("injected")

// Whatever step fails, and wherever Ctrl-C strikes, nothing is left.
func TestFailureAtEachStep(t *testing.T) {
	for name, o := range unfinished(t) {
		for n := range len(steps(t, o)) {
			run := newRun(t)
			ctx, cancel := context.WithCancel(t.Context())
			at, want := 0, errInjected
			var where string
			o.hook = func(step string) error {
				if at++; at-1 != n {
					return nil
				}
				where = step
				if n%2 == 0 {
					return errInjected
				}
				want = context.Canceled
				cancel()
				return nil
			}
			up, err := Bring(ctx, run, o)
			cancel()
			if up != nil || !errors.Is(err, want) {
				t.Errorf("%s: failed at %q: %v, %v", name, where, up, err)
			}
			if left := traces(t, run.ID(), limits(run, "leg", 2)...); len(left) > 0 {
				t.Errorf("%s: failed at %q and left %q", name, where, left)
			}
			if err := run.Close(); err != nil {
				t.Error(err)
			}
			if left := traces(t, run.ID(), limits(run, "leg", 2)...); len(left) != 0 {
				t.Errorf("%s: failed at %q and left after Close %q", name, where, left)
			}
		}
	}
}

// A leg's name tells it apart; two of one name in a run would share a folder.
func TestTwoLegsOfOneRun(t *testing.T) {
	run := newRun(t)
	o := small("btrfs-single", "loop")
	o.Name = "baseline"
	a := bring(t, run, o)
	if _, err := Bring(t.Context(), run, o); err == nil {
		t.Error("a second leg of the same name came up")
	}
	o.Name = "mirror"
	b := bring(t, run, o)
	if a.Devices[0] == b.Devices[0] || a.Targets[0][0] == b.Targets[0][0] {
		t.Errorf("the legs share %v and %v", a.Devices, b.Targets)
	}
}

func TestBringWithCancelledContext(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.Btrfs, testkit.Loop)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Bring(ctx, newRun(t), small("btrfs-single", "loop")); !errors.Is(err, context.Canceled) {
		t.Errorf("Bring = %v, want context.Canceled", err)
	}
}

// Close of the run is the net below Down.
func TestCloseTakesDownWhatDownDidNot(t *testing.T) {
	o := small("btrfs-raid1", "loop")
	needs(t, o)
	run := newRun(t)
	up, err := Bring(t.Context(), run, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if left := traces(t, run.ID()); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	if err := up.Down(context.Background()); err != nil {
		t.Errorf("Down after Close: %v", err)
	}
}
