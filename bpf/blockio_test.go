package bpf

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/testkit"
)

// All three forms count the same writes, exactly: a prime number of direct ones
// of which each is a bio, and flushes apart from them.
func TestBlockIOCounts(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.BTF, testkit.BPF, testkit.Loop)
	device, file := loopDevice(t)
	probes := map[AttachType]*BlockIO{}
	for _, form := range AttachTypes() {
		b, err := OpenBlockIO([]BlockDevice{device}, LedgerOptions{Forms: []AttachType{form}})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		probes[form] = b
	}
	const writes, flushes = 1009, 7
	block, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(block) }()
	for i := range writes {
		if n, err := unix.Pwrite(int(file.Fd()), block, int64(i)*4096); err != nil || n != 4096 {
			t.Fatalf("write %d: %d bytes, %v", i, n, err)
		}
		if i < flushes {
			if err := file.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, b := range probes {
		if err := b.Detach(); err != nil {
			t.Fatal(err)
		}
	}
	// Detached, they count nothing more.
	if _, err := unix.Pwrite(int(file.Fd()), block, 0); err != nil {
		t.Fatal(err)
	}
	for form, b := range probes {
		counts, err := b.Read()
		if err != nil {
			t.Fatal(err)
		}
		got := counts[device.Name]
		var timed uint64
		for _, n := range got.Latency {
			timed += n
		}
		want := DeviceCounts{BiosData: writes, Flushes: flushes, Requests: writes + flushes, BytesData: writes * 4096, Latency: got.Latency}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", form, diff)
		}
		if timed != writes+flushes {
			t.Errorf("%s: %d writes and flushes were timed, want %d", form, timed, writes+flushes)
		}
	}
}

// loopDevice makes a loop device over a file in memory and opens it for direct
// writes.
func loopDevice(t *testing.T) (BlockDevice, *os.File) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "coreplica-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	backing := filepath.Join(dir, "backing")
	if err := os.WriteFile(backing, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", backing).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	path := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", path).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", path, err, out)
		}
	})
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return BlockDevice{Name: filepath.Base(path), Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}, file
}
