package kernelfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/kernelfs"
	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// What was not mounted before is not mounted after, and what was stays.
func TestMountLeavesAsFound(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.Tracefs, testkit.BPFFS)
	for fs, sign := range map[kernelfs.FS]string{kernelfs.Tracefs: "events", kernelfs.BPFFS: ""} {
		before := fs.Mounted()
		release, err := fs.Mount()
		if err != nil {
			t.Fatal(err)
		}
		if !fs.Mounted() {
			t.Errorf("%s is not mounted", fs)
		}
		if _, err := os.Stat(filepath.Join(fs.String(), sign)); err != nil {
			t.Error(err)
		}
		again, err := fs.Mount()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(again(), release()); err != nil {
			t.Error(err)
		}
		if fs.Mounted() != before {
			t.Errorf("%s: mounted %t before and %t after", fs, before, fs.Mounted())
		}
	}
}

// Somebody else's open file keeps the mount, and that is no failure.
func TestBusyMountStays(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.Tracefs)
	if kernelfs.Tracefs.Mounted() {
		t.Log("tracefs is mounted by the system: there is nothing to take away")
	}
	release, err := kernelfs.Tracefs.Mount()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(kernelfs.Tracefs.String(), "events"))
	if err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Errorf("a mount in use: %v", err)
	}
	if !kernelfs.Tracefs.Mounted() {
		t.Error("the mount went away under an open file")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := release(); err != nil && !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
}
