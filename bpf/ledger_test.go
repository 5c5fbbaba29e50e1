package bpf

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cilium/ebpf"
	"github.com/coreplica/coreplica/internal/testkit"
)

// eachForm runs a test with each way to attach.
func eachForm(t *testing.T, test func(t *testing.T, l *Ledger)) {
	testkit.Need(t, testkit.Root, testkit.BTF, testkit.BPF)
	for _, form := range AttachTypes() {
		t.Run(string(form), func(t *testing.T) {
			l := openLedger(t, LedgerOptions{Forms: []AttachType{form}})
			for probe, got := range l.Attached() {
				if got != string(form) {
					t.Errorf("%s is attached as %s, want %s", probe, got, form)
				}
			}
			test(t, l)
		})
	}
}

// The books close: all contexts together gain what the clock moved. A probe
// that forgets an interval breaks this; see also the instruments below, since a
// ledger that bills everything to idle closes too.
func TestClosure(t *testing.T) {
	eachForm(t, func(t *testing.T, l *Ledger) {
		if err := l.Start(0, os.Getpid()); err != nil {
			t.Fatal(err)
		}
		named, d := observe(t, l, func() { time.Sleep(1500 * time.Millisecond) })
		cpus, err := OnlineCPUs()
		if err != nil {
			t.Fatal(err)
		}
		if least := uint64(len(cpus)) * 1500e6; d.WallNs < least || d.WallNs > 2*least {
			t.Errorf("%d CPUs have %d ns of wall time in 1.5 s", len(cpus), d.WallNs)
		}
		if off := math.Abs(float64(d.SumNs())-float64(d.WallNs)) / float64(d.WallNs); off > 0.001 {
			t.Errorf("the contexts miss the wall time by %.4f %%: %v", 100*off, named)
		}
		if share := float64(named[Unattributed]) / float64(d.WallNs); share > 0.005 {
			t.Errorf("%.3f %% is unattributed", 100*share)
		}
	})
}

// A foreign hog lands in "other programs", as much as the scheduler says of all
// foreign programs, and nowhere else. The hog runs before the ledger starts: the
// task on each CPU must be known before the first switch.
func TestForeignHog(t *testing.T) {
	testkit.Need(t, testkit.Timing)
	eachForm(t, func(t *testing.T, l *Ledger) {
		off := foreignError(t, l, startHog(t), func() {})
		if math.Abs(off) > 0.02 {
			t.Errorf("other programs are off by %.2f %% of their own schedstat", 100*off)
		}
	})
}

// The control: a ledger that does not know the running task at its start, as an
// earlier design of it did, must be seen to be wrong by the same check.
func TestForeignHogControl(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.BTF, testkit.BPF, testkit.Timing)
	l := openLedger(t, LedgerOptions{})
	var onlyCPU unix.CPUSet
	onlyCPU.Set(l.cpus[len(l.cpus)-1])
	hog := startHog(t)
	if err := unix.SchedSetaffinity(hog, &onlyCPU); err != nil {
		t.Fatal(err)
	}
	delete(l.main.programs, "ledger_sched_switch")
	if err := l.Detach(); err != nil {
		t.Fatal(err)
	}
	if err := l.Attach(); err != nil {
		t.Fatal(err)
	}
	off := foreignError(t, l, hog, func() {
		// What a ledger knows that only learns from switches: nothing.
		states := make([]cpuState, ebpf.MustPossibleCPU())
		if err := l.main.maps["cpus"].Lookup(uint32(0), &states); err != nil {
			t.Fatal(err)
		}
		for i := range states {
			states[i].Task = ctxIdle
		}
		if err := l.main.maps["cpus"].Put(uint32(0), states); err != nil {
			t.Fatal(err)
		}
	})
	if math.Abs(off) < 0.5 {
		t.Errorf("a blind ledger is off by only %.1f %%; the check is too weak", 100*off)
	}
}

// foreignError is how far "other programs" is from the scheduler's own account
// of all programs but us, as a share of the latter. The hog's account is read
// close to the snapshots; the others use little.
func foreignError(t *testing.T, l *Ledger, hog int, started func()) float64 {
	t.Helper()
	if err := l.Start(0, os.Getpid()); err != nil {
		t.Fatal(err)
	}
	started()
	programs := schedstats(t)
	var foreign, idle int64
	named, d := observe(t, l, func() {
		foreign, idle = -schedstat(t, hog), -idleNs(t)
		time.Sleep(1500 * time.Millisecond)
		foreign += schedstat(t, hog)
		idle += idleNs(t)
	})
	for pid, ns := range schedstats(t) {
		if pid != os.Getpid() && pid != hog {
			foreign += ns - programs[pid]
		}
	}
	if foreign < 1e9 {
		t.Fatalf("the hog did not run: all programs used %d ns", foreign)
	}
	if off := float64(named[Idle]-idle) / float64(d.WallNs); math.Abs(off) > 0.02 {
		t.Logf("idle is off by %.2f %% of the machine from /proc/stat", 100*off)
	}
	if n := named[LoadUser] + named[LoadKernel]; n != 0 {
		t.Errorf("%d ns were billed to a load that does not exist", n)
	}
	// The scheduler bills interrupts to the task that they hit.
	got := named[OtherPrograms] + int64(d.IRQInOtherNs)
	if l.irqTime {
		got = named[OtherPrograms]
	}
	t.Logf("other programs: ledger %d, schedstat %d; stolen %d, idle %d, /proc/stat %d", got, foreign, named[Stolen], named[Idle], idle)
	return float64(got-foreign) / float64(foreign)
}

// schedstats is the time on the CPU of every process with a program.
func schedstats(t *testing.T) map[int]int64 {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	times := map[int]int64{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil {
			continue // A kernel thread has no program.
		}
		times[pid] = schedstat(t, pid)
	}
	return times
}

// schedstat is the time on the CPU of a process's threads, or 0 if it ended.
func schedstat(t *testing.T, pid int) (sum int64) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		first, _, _ := bytes.Cut(text, []byte(" "))
		ns, err := strconv.ParseInt(string(first), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += ns
	}
	return sum
}

// idleNs is idle and iowait of /proc/stat.
func idleNs(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text))
	var ticks int64
	for _, f := range fields[4:6] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return ticks * 10_000_000
}

// Our own work is ours, in user mode and in system calls, and a load's is the
// load's.
func TestSelfAndLoad(t *testing.T) {
	testkit.Need(t, testkit.Timing)
	eachForm(t, func(t *testing.T, l *Ledger) {
		const burn = 200 * time.Millisecond
		if err := l.Start(0, os.Getpid()); err != nil {
			t.Fatal(err)
		}
		named, _ := observe(t, l, func() { spinFor(burn) })
		if got := time.Duration(named[Self]); got < burn*9/10 || got > burn*3/2 {
			t.Errorf("coreplica used %s, want about %s", got, burn)
		}
		// Now as the load: half in user mode, half in the kernel.
		if err := l.Start(os.Getpid(), 0); err != nil {
			t.Fatal(err)
		}
		named, _ = observe(t, l, func() { spinFor(burn); callFor(burn) })
		user, kernel := time.Duration(named[LoadUser]), time.Duration(named[LoadKernel])
		if user < burn*9/10 || kernel < burn/4 || user+kernel < burn*18/10 || user+kernel > 3*burn {
			t.Errorf("the load used %s in user mode and %s in the kernel: %v", user, kernel, named)
		}
		if named[Self] != 0 {
			t.Errorf("%d ns were billed to ourselves, who are the load", named[Self])
		}
	})
}

func spinFor(d time.Duration) {
	for start := threadTime(); threadTime()-start < d; {
		for n := range 100_000 {
			_ = n
		}
	}
}

func callFor(d time.Duration) {
	buf := make([]byte, 1<<20)
	zero, err := os.Open("/dev/zero")
	if err != nil {
		panic(err)
	}
	defer zero.Close()
	for start := threadTime(); threadTime()-start < d; {
		if _, err := zero.Read(buf); err != nil {
			panic(err)
		}
	}
}

func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

// A detached ledger counts nothing, and one that is attached again goes on.
func TestDetach(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.BTF, testkit.BPF)
	l := openLedger(t, LedgerOptions{})
	for range 3 {
		if err := l.Start(0, os.Getpid()); err != nil {
			t.Fatal(err)
		}
		_, d := observe(t, l, func() { time.Sleep(20 * time.Millisecond) })
		if d.Events["sched_switch"] == 0 {
			t.Error("no switch in 20 ms while attached")
		}
		if err := l.Detach(); err != nil {
			t.Fatal(err)
		}
		_, d = observe(t, l, func() { time.Sleep(20 * time.Millisecond) })
		if len(d.Events) != 0 {
			t.Errorf("events while detached: %v", d.Events)
		}
		if err := l.Attach(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}

// A snapshot before the start says so instead of returning zeros.
func TestNotStarted(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.BTF, testkit.BPF)
	l := openLedger(t, LedgerOptions{})
	if _, err := l.Snapshot(); err == nil || !strings.Contains(err.Error(), "not started") {
		t.Errorf("snapshot of a ledger that was not started: %v", err)
	}
}

// Refusals list each form with its reason and the fix.
func TestRefused(t *testing.T) {
	_, err := open("ledger", loadOptions{forms: []AttachType{"no such form"}})
	if err == nil || !strings.Contains(err.Error(), "no such form") || !strings.Contains(err.Error(), "coreplica doctor") {
		t.Errorf("error %v", err)
	}
}
