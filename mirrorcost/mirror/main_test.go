package mirror

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/internal/testkit"
)

// rootName is in the path of all that these tests make.
const rootName = "coreplica-mirror-test"

func TestMain(m *testing.M) {
	if os.Getenv(victimEnv) != "" {
		victim()
	}
	testkit.Main(m, testkit.Loops(rootName), testkit.Mounts(rootName), testkit.Files(os.TempDir(), rootName))
}

// newRun opens a run in a folder of its own, and checks at the end of the test
// that nothing of it is left.
func newRun(t *testing.T) *cleanup.Run {
	t.Helper()
	run, _ := newRunIn(t)
	return run
}

func newRunIn(t *testing.T) (*cleanup.Run, string) {
	t.Helper()
	root, err := os.MkdirTemp("", rootName)
	if err != nil {
		t.Fatal(err)
	}
	run, err := cleanup.Open(t.Context(), cleanup.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := run.Close(); err != nil {
			t.Errorf("close run: %v", err)
		}
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	return run, root
}

// traces lists what is left of a run, but for its own empty folder: mounts, loop
// devices, files, and zram devices with one of its marks.
func traces(t *testing.T, id string, zramLimits ...uint64) []string {
	t.Helper()
	var found []string
	for _, check := range []testkit.Check{testkit.Loops(id), testkit.Mounts(id), testkit.Files(os.TempDir(), id)} {
		list, err := check.List()
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range list {
			if base := filepath.Base(key); base == id || base == "journal" || base == "lock" {
				continue // A run that is not closed has these.
			}
			found = append(found, check.Name+" "+key+" "+value)
		}
	}
	stats, err := filepath.Glob("/sys/block/zram*/mm_stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // Removed by another test while we looked.
		}
		for _, limit := range zramLimits {
			if strings.Contains(string(text), " "+strconv.FormatUint(limit, 10)+" ") {
				found = append(found, path)
			}
		}
	}
	return found
}

// limits returns the marks of the zram devices that a leg may have.
func limits(run *cleanup.Run, leg string, devices int) []uint64 {
	var all []uint64
	for i := range devices {
		all = append(all, run.ZramLimit(fmt.Sprintf("%s-%d", leg, i)))
	}
	return all
}

// needs skips where the machine cannot bring up the options.
func needs(t *testing.T, o Options) {
	t.Helper()
	features := []testkit.Feature{testkit.Root, testkit.Btrfs}
	if !strings.HasPrefix(o.Kind, "btrfs") {
		features[1] = testkit.Ext4
	}
	if kind, err := kindNamed(o.Kind); err == nil && kind.Array != "" {
		features = append(features, testkit.MD)
	}
	if o.Substrate == "zram" {
		features = append(features, testkit.Zram)
	} else {
		features = append(features, testkit.Loop)
	}
	testkit.Need(t, features...)
}

// small are options that come up quickly.
func small(kind, substrate string) Options {
	return Options{Kind: kind, Substrate: substrate, DeviceBytes: 320 << 20, FileBytes: 8 << 20, Files: 2}
}

func bring(t *testing.T, run *cleanup.Run, o Options) *Up {
	t.Helper()
	needs(t, o)
	up, err := Bring(t.Context(), run, o)
	if err != nil {
		t.Fatalf("bring up %s on %s: %v", o.Kind, o.Substrate, err)
	}
	t.Cleanup(func() {
		if err := up.Down(context.Background()); err != nil {
			t.Errorf("take down: %v", err)
		}
	})
	return up
}

// writeDirect writes n blocks of 4 KiB of a byte to the start of a file.
func writeDirect(t *testing.T, path string, n int, fill byte) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	data, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(data); err != nil {
			t.Error(err)
		}
	}()
	copy(data, bytes.Repeat([]byte{fill}, len(data)))
	for i := range n {
		if got, err := unix.Pwrite(fd, data, int64(i)*4096); err != nil || got != len(data) {
			t.Fatalf("write %d: %d bytes, %v", i, got, err)
		}
	}
}
