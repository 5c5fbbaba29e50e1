package load

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/coreplica/coreplica/internal/testkit"
)

// inProcess makes the child's parts in this process, and gives them back.
func inProcess(t testing.TB, s Spec) (*thread, *leg) {
	t.Helper()
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
	l, err := openLeg(&s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, lane := range l.lanes {
			for _, f := range lane.files {
				if err := unix.Close(f.fd); err != nil {
					t.Error(err)
				}
			}
			if lane.ring != nil {
				if err := lane.ring.Close(); err != nil {
					t.Error(err)
				}
			}
			if err := unix.Munmap(lane.memory); err != nil {
				t.Error(err)
			}
		}
	})
	return &thread{latencies: newRecorder()}, l
}

func TestTheHotLoopDoesNotAllocate(t *testing.T) {
	for _, uring := range []bool{false, true} {
		for _, rate := range []float64{0, 1e6} {
			t.Run(fmt.Sprintf("uring %v rate %g", uring, rate), func(t *testing.T) {
				s := spec(t, 1, 2)
				s.Pattern, s.FsyncEvery, s.SpinIterations = PatternRand, 50, 10
				if uring {
					testkit.Need(t, testkit.IOUring)
					s.Uring, s.Batch = true, 8
				}
				th, l := inProcess(t, s)
				var stop atomic.Bool
				writes := uint64(0)
				allocs := testing.AllocsPerRun(5, func() {
					th.outcome = outcome{}
					th.order = newOrder(&Block{Writes: 101, RatePerSecond: rate}, l, 0, &stop)
					th.run()
					writes += th.acknowledged
				})
				if allocs != 0 || th.err != nil || writes != 6*101 {
					t.Errorf("%v allocations in %d writes, %v", allocs, writes, th.err)
				}
			})
		}
	}
}

// However many threads there are, the shares add up and differ by one at most,
// and the turns of all threads together are evenly spaced.
func TestOrdersSplitABlock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 64).Draw(t, "threads")
		b := Block{Writes: rapid.Uint64Range(1, 1<<40).Draw(t, "writes"), RatePerSecond: rapid.Float64Range(1, 1e6).Draw(t, "rate")}
		l := &leg{spec: &Spec{CPUs: []int{4, 5, 6}}, lanes: make([]*lane, n)}
		sum, least, most := uint64(0), uint64(math.MaxUint64), uint64(0)
		for i := range n {
			o := newOrder(&b, l, i, nil)
			sum, least, most = sum+o.share, min(least, o.share), max(most, o.share)
			if o.cpu != 4+i%3 {
				t.Fatalf("thread %d on CPU %d", i, o.cpu)
			}
			if want := float64(i) * 1e9 / b.RatePerSecond; math.Abs(o.phaseNs-want) > 1e-6*want {
				t.Fatalf("thread %d begins after %g ns, want %g", i, o.phaseNs, want)
			}
		}
		if sum != b.Writes || most-least > 1 {
			t.Fatalf("%d writes became %d, from %d to %d each", b.Writes, sum, least, most)
		}
	})
}

// The deadlines go to the kernel by its own clock.
func TestTheEpochIsTheKernels(t *testing.T) {
	off := int64(math.MaxInt64)
	for range 100 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		off = min(off, max(monotonicEpoch+now()-ts.Nano(), 0))
	}
	if off > int64(20*time.Microsecond) || monotonicEpoch+now() < off {
		t.Errorf("the clocks differ by %d ns", off)
	}
}

// memoryTarget is a file on tmpfs where there is one: a device's time would
// hide the loop's.
func memoryTarget(b *testing.B) string {
	b.Helper()
	dir := "/dev/shm"
	if _, err := os.Stat(dir); err != nil {
		dir = b.TempDir()
	}
	f, err := os.CreateTemp(dir, "coreplica-load-bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.Remove(f.Name()); err != nil {
			b.Error(err)
		}
	})
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	return f.Name()
}

// BenchmarkWrite is the load's loop; what it has above BenchmarkBarePwrite of
// the same mode is its own.
func BenchmarkWrite(b *testing.B) {
	for _, mode := range []string{ModeBuffered, ModeDsync, ModeDirect, "uring1", "uring16"} {
		b.Run(mode, func(b *testing.B) {
			s := Spec{Targets: [][]string{{memoryTarget(b)}}, FileBytes: 1 << 20, SizeBytes: 4096, Mode: mode, Pattern: PatternSeq}
			switch mode {
			case "uring1":
				s.Mode, s.Uring, s.Batch = ModeBuffered, true, 1
			case "uring16":
				s.Mode, s.Uring, s.Batch = ModeBuffered, true, 16
			}
			th, l := inProcess(b, s)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var stop atomic.Bool
			th.order = newOrder(&Block{Writes: 256}, l, 0, &stop) // Fill the file.
			th.run()
			th.outcome = outcome{}
			th.order.share = uint64(b.N)
			b.ReportAllocs()
			b.ResetTimer()
			th.run()
			if th.err != nil || th.acknowledged != uint64(b.N) {
				b.Errorf("%d of %d, %v", th.acknowledged, b.N, th.err)
			}
		})
	}
}

// BenchmarkBarePwrite is the system call and nothing else.
func BenchmarkBarePwrite(b *testing.B) {
	for _, mode := range []string{ModeBuffered, ModeDsync, ModeDirect} {
		b.Run(mode, func(b *testing.B) {
			s := Spec{Targets: [][]string{{memoryTarget(b)}}, FileBytes: 1 << 20, SizeBytes: 4096, Mode: mode, Pattern: PatternSeq}
			_, l := inProcess(b, s)
			fd, memory := uintptr(l.lanes[0].files[0].fd), l.lanes[0].memory
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			at := uintptr(0)
			for range b.N {
				if n, _, errno := unix.RawSyscall6(unix.SYS_PWRITE64, fd, uintptr(unsafe.Pointer(&memory[0])), 4096, at, 0, 0); errno != 0 || n != 4096 {
					b.Fatal(n, errno)
				}
				if at += 4096; at == 1<<20 {
					at = 0
				}
			}
		})
	}
}
