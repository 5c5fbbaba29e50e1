package uring

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func newRing(t testing.TB, entries int) *Ring {
	t.Helper()
	r, err := New(entries)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return r
}

func newFile(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// buffer returns memory that Go does not move or free.
func buffer(t testing.TB, size int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(b); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Many rounds of full batches take both queues around their ends.
func TestBatchesReachTheFile(t *testing.T) {
	testkit.Need(t, testkit.IOUring)
	const batch, size, rounds = 7, 512, 101
	r := newRing(t, batch)
	f := newFile(t, "target")
	memory := buffer(t, batch*size)
	var want []byte
	for round := range rounds {
		for i := range batch {
			buf := memory[i*size : (i+1)*size]
			for j := range buf {
				buf[j] = byte(round + i + j)
			}
			want = append(want, buf...)
			if err := r.PrepareWrite(int(f.Fd()), buf, int64((round*batch+i)*size), uint64(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.SubmitAndWait(batch); err != nil {
			t.Fatal(err)
		}
		seen := map[uint64]int{}
		for range batch {
			c, ok := r.Reap()
			if !ok || c.Result != size || c.Errno() != 0 {
				t.Fatalf("round %d: completion %+v, %v", round, c, ok)
			}
			seen[c.UserData]++
		}
		if _, more := r.Reap(); more || len(seen) != batch || r.Unsubmitted() != 0 {
			t.Fatalf("round %d: more %v, seen %v, unsubmitted %d", round, more, seen, r.Unsubmitted())
		}
	}
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the file does not hold what was written")
	}
}

func TestErrorsComeWithTheirWrite(t *testing.T) {
	testkit.Need(t, testkit.IOUring)
	r := newRing(t, 4)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	good := newFile(t, "good")
	memory := buffer(t, 4096)
	for i, fd := range []int{int(good.Fd()), int(full.Fd()), 1 << 20} {
		if err := r.PrepareWrite(fd, memory, 0, uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.SubmitAndWait(3); err != nil {
		t.Fatal(err)
	}
	want := map[uint64]unix.Errno{0: 0, 1: unix.ENOSPC, 2: unix.EBADF}
	for range want {
		c, ok := r.Reap()
		if errno, known := want[c.UserData]; !ok || !known || c.Errno() != errno {
			t.Errorf("completion %+v = %v, %v", c, c.Errno(), ok)
		}
	}
}

func TestLimits(t *testing.T) {
	testkit.Need(t, testkit.IOUring)
	for _, entries := range []int{-1, 0, MaxEntries + 1} {
		if _, err := New(entries); err == nil || !strings.Contains(err.Error(), "batch") {
			t.Errorf("New(%d) = %v", entries, err)
		}
	}
	r := newRing(t, 3)
	f := newFile(t, "target")
	memory := buffer(t, 4096)
	if err := r.PrepareWrite(int(f.Fd()), nil, 0, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("an empty write = %v", err)
	}
	for i := range r.Entries() {
		if err := r.PrepareWrite(int(f.Fd()), memory, 0, uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.PrepareWrite(int(f.Fd()), memory, 0, 9); !errors.Is(err, ErrFull) || r.Unsubmitted() != r.Entries() {
		t.Errorf("one more than %d = %v", r.Entries(), err)
	}
	if err := r.SubmitAndWait(r.Entries()); err != nil || r.Ready() != r.Entries() {
		t.Errorf("%d ready, %v", r.Ready(), err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.PrepareWrite(int(f.Fd()), memory, 0, 9); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := r.SubmitAndWait(0); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// What was taken back is never written, and the ring goes on.
func TestDiscard(t *testing.T) {
	testkit.Need(t, testkit.IOUring)
	r := newRing(t, 4)
	f := newFile(t, "target")
	memory := buffer(t, 4096)
	for i := range 3 {
		if err := r.PrepareWrite(int(f.Fd()), memory, int64(i)<<20, uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.Discard(); n != 3 || r.Unsubmitted() != 0 || r.Discard() != 0 {
		t.Errorf("took back %d, left %d", n, r.Unsubmitted())
	}
	for range 4 { // All of the queue is there again.
		if err := r.PrepareWrite(int(f.Fd()), memory, 0, 7); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.SubmitAndWait(4); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if c, ok := r.Reap(); !ok || c.UserData != 7 || c.Result != 4096 {
			t.Errorf("completion %+v, %v", c, ok)
		}
	}
	if info, err := f.Stat(); err != nil || info.Size() != 4096 {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
}

func TestRefusalsSayTheFix(t *testing.T) {
	for _, tt := range []struct {
		errno    unix.Errno
		disabled string
		want     string
		is       bool
	}{
		{unix.ENOSYS, "", "another mirror", true},
		{unix.EPERM, "2", "sysctl kernel.io_uring_disabled=0", true},
		{unix.EPERM, "1", "as root", true},
		{unix.EPERM, "0", "seccomp", true},
		{unix.EPERM, "", "seccomp", true},
		{unix.ENOMEM, "0", "ulimit -l", false},
		{unix.EMFILE, "0", "too many open files", false},
	} {
		err := setupError(tt.errno, tt.disabled)
		if !strings.Contains(err.Error(), tt.want) || errors.Is(err, ErrDisabled) != tt.is || !errors.Is(err, tt.errno) {
			t.Errorf("%v with io_uring_disabled=%q: %v", tt.errno, tt.disabled, err)
		}
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	testkit.Need(t, testkit.IOUring)
	r := newRing(t, 8)
	f := newFile(t, "target")
	memory := buffer(t, 4096)
	allocs := testing.AllocsPerRun(100, func() {
		for i := range 8 {
			if err := r.PrepareWrite(int(f.Fd()), memory, int64(i)*4096, uint64(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.SubmitAndWait(8); err != nil {
			t.Fatal(err)
		}
		for range 8 {
			if c, ok := r.Reap(); !ok || c.Result != 4096 {
				t.Fatalf("completion %+v, %v", c, ok)
			}
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a batch", allocs)
	}
}

func BenchmarkBatch(b *testing.B) {
	for _, batch := range []int{1, 16, 64} {
		b.Run(map[int]string{1: "1", 16: "16", 64: "64"}[batch], func(b *testing.B) {
			r := newRing(b, batch)
			f := newFile(b, "target")
			memory := buffer(b, 4096)
			fd := int(f.Fd())
			for done := 0; done < b.N; {
				n := min(batch, b.N-done)
				for i := range n {
					if err := r.PrepareWrite(fd, memory, int64(i)*4096, uint64(i)); err != nil {
						b.Fatal(err)
					}
				}
				if err := r.SubmitAndWait(n); err != nil {
					b.Fatal(err)
				}
				for range n {
					if c, ok := r.Reap(); !ok || c.Result != 4096 {
						b.Fatalf("completion %+v, %v", c, ok)
					}
				}
				done += n
			}
		})
	}
}
