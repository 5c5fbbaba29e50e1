package blockserver

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
)

// qemuIO returns qemu-io with commands. It runs with a write-back cache: by
// default each of its writes would have forced unit access.
func qemuIO(s *Server, commands ...string) *exec.Cmd {
	args := []string{"-f", "raw", "-t", "writeback", s.URI()}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	return exec.Command("qemu-io", args...)
}

// holds reports whether all of a range holds a byte, as qemu-io reads it.
func holds(t *testing.T, s *Server, b byte, offset, length int) bool {
	t.Helper()
	out, err := qemuIO(s, fmt.Sprintf("read -P %d %d %d", b, offset, length)).CombinedOutput()
	if !strings.Contains(string(out), fmt.Sprintf("read %d/%d bytes", length, length)) {
		t.Fatalf("qemu-io did not read: %v\n%s", err, out)
	}
	differs := strings.Contains(string(out), "Pattern verification failed")
	if differs != (err != nil) {
		t.Fatalf("qemu-io contradicts itself: %v\n%s", err, out)
	}
	return !differs
}

func TestQEMUReadsWhatItWrote(t *testing.T) {
	testkit.Need(t, testkit.QEMUIO)
	s := newServer(t, Options{SizeBytes: 8 << 20})
	info, err := exec.Command("qemu-img", "info", "-f", "raw", s.URI()).CombinedOutput()
	if err != nil || !strings.Contains(string(info), "virtual size: 8 MiB") {
		t.Errorf("qemu-img info: %v\n%s", err, info)
	}
	out, err := qemuIO(s, "write -P 0x11 0 1M", "write -f -P 0x22 1M 4096", "write -P 0x33 1000000 777", "flush",
		"write -z 2M 64k", "write -z -u 3M 64k", "discard 4M 1M", "aio_write -P 0x44 5M 2M", "aio_flush").CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-io: %v\n%s", err, out)
	}
	for _, want := range []struct {
		b              byte
		offset, length int
	}{
		{0x11, 0, 1000000}, {0x33, 1000000, 777}, {0x11, 1000777, 1<<20 - 1000777}, {0x22, 1 << 20, 4096},
		{0, 1<<20 + 4096, 4<<20 - 4096}, {0x44, 5 << 20, 2 << 20},
	} {
		if !holds(t, s, want.b, want.offset, want.length) {
			t.Errorf("%d bytes at %d are not all %#x", want.length, want.offset, want.b)
		}
	}
	if holds(t, s, 0x12, 0, 4096) { // The control of the check.
		t.Error("qemu-io finds any pattern")
	}
	if stats := s.Stats(); stats.Failed != 0 || stats.Writes == 0 || stats.Flushes == 0 || stats.Zeroes == 0 || stats.Trims == 0 {
		t.Errorf("%+v: want each kind of request, and none that failed", stats)
	}
}

// The claim, with a client that others wrote: over twenty seeds a flushed write
// always stays, one that was not vanishes at least once, and KeepAll loses none.
func TestPowerCutUnderQEMU(t *testing.T) {
	testkit.Need(t, testkit.QEMUIO)
	seeds := uint64(20)
	if testing.Short() {
		seeds = 6
	}
	vanished, survived := 0, 0
	for seed := range seeds {
		for _, keepAll := range []bool{false, true} {
			s := newServer(t, Options{Seed: seed, KeepAll: keepAll})
			left := cutUnderQEMU(t, s)
			small := left[512<<10]
			// What stands in the image is what a client reads that comes later.
			out, err := qemuIO(s, "read -P 0x11 0 64k", "read -P 0x33 128k 64k", fmt.Sprintf("read -P %d 512k 512", small)).CombinedOutput()
			if err != nil || strings.Count("\n"+string(out), "\nread ") != 3 {
				t.Errorf("seed %d: a write that was flushed is gone, or the image is not what is read: %v\n%s", seed, err, out)
			}
			if bytes.Count(left[512<<10:][:512], []byte{small}) != 512 || small != 0 && small != 0x44 {
				t.Errorf("seed %d: a sector is torn", seed)
			}
			switch {
			case keepAll:
				if small == 0 || bytes.Count(left[64<<10:128<<10], []byte{0x22}) != 64<<10 {
					t.Errorf("seed %d: KeepAll lost a write", seed)
				}
			case small == 0:
				vanished++
			default:
				survived++
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if vanished == 0 || survived == 0 {
		t.Errorf("a write that was not flushed vanished %d times of %d and survived %d times: want both", vanished, seeds, survived)
	}
	t.Logf("a sector that was not flushed vanished for %d of %d seeds", vanished, seeds)
}

// cutUnderQEMU cuts the power while qemu-io runs, and returns the image.
func cutUnderQEMU(t *testing.T, s *Server) []byte {
	t.Helper()
	// It sleeps at the end, for when it ends in peace it flushes.
	q := qemuIO(s, "write -P 0x11 0 64k", "flush", "write -P 0x22 64k 64k", "write -f -P 0x33 128k 64k", "write -P 0x44 512k 512", "sleep 600000")
	if err := q.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = q.Process.Kill() // It may have ended with its disk.
		_ = q.Wait()
	}()
	// Only after the last write are that many sectors volatile.
	for deadline := time.Now().Add(time.Minute); s.Stats().VolatileSectors != 129; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v: qemu-io has not written, or has flushed by itself", s.Stats())
		}
	}
	if cut, err := s.PowerCut(); err != nil || cut.Volatile != 129 {
		t.Fatalf("%+v, %v", cut, err)
	}
	return image(t, s)
}
