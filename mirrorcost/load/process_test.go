package load

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/internal/testkit"
)

// parentEnv makes the test binary a parent that starts a load in the folder it
// says, keeps it writing, and waits to be killed.
const parentEnv = "COREPLICA_TEST_LOAD_PARENT"

func parent() {
	s := Spec{Targets: [][]string{{os.Getenv(parentEnv)}}, FileBytes: 1 << 20, SizeBytes: 4096, Mode: ModeBuffered, Pattern: PatternSeq}
	p, err := Start(context.Background(), map[string]Spec{"x": s}, StartOptions{})
	if err == nil {
		fmt.Println(p.Pid())
		_, err = p.Run(context.Background(), Block{Leg: "x", For: time.Hour, RatePerSecond: 1000})
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// prime is no multiple of any number of threads, files or batches.
const prime = 20011

func TestCountsAreExact(t *testing.T) {
	for _, tt := range []struct {
		threads, files, batch, fsync int
		uring                        bool
		mode, pattern                string
		cpus                         []int
	}{
		{threads: 1, files: 1, mode: ModeBuffered, pattern: PatternSeq},
		{threads: 3, files: 1, mode: ModeBuffered, pattern: PatternRand},
		{threads: 3, files: 2, mode: ModeBuffered, pattern: PatternSeq, cpus: []int{0}},
		{threads: 1, files: 3, batch: 7, uring: true, mode: ModeBuffered, pattern: PatternSeq},
		{threads: 3, files: 2, batch: 64, uring: true, mode: ModeBuffered, pattern: PatternRand},
		{threads: 2, files: 2, fsync: 1000, mode: ModeBuffered, pattern: PatternSeq},
		{threads: 1, files: 1, fsync: 1000, batch: 16, uring: true, mode: ModeBuffered, pattern: PatternSeq},
	} {
		t.Run(fmt.Sprintf("%d threads %d files batch %d %s", tt.threads, tt.files, tt.batch, tt.pattern), func(t *testing.T) {
			if tt.uring {
				testkit.Need(t, testkit.IOUring)
			}
			s := spec(t, tt.threads, tt.files)
			s.Batch, s.Uring, s.FsyncEvery, s.Pattern, s.CPUs = tt.batch, tt.uring, tt.fsync, tt.pattern, tt.cpus
			p := start(t, map[string]Spec{"x": s})
			before := writtenBy(t, p.Pid())
			r := run(t, p, Block{Leg: "x", Writes: prime})
			if r.Acknowledged != prime || r.Bytes != prime*4096 {
				t.Errorf("acknowledged %d writes, %d bytes; want %d", r.Acknowledged, r.Bytes, prime)
			}
			// The kernel's own count of what the process wrote; some of it
			// is the answer. What a ring writes is not in it: there the
			// stamps below speak.
			want := prime * 4096 * int64(tt.files)
			if got := writtenBy(t, p.Pid()) - before; !tt.uring && (got < want || got > want+1<<20) {
				t.Errorf("the kernel saw %d bytes, want %d and a message", got, want)
			}
			h, err := DecodeLatencies(r.Latencies)
			if err != nil || h.TotalCount() != prime || h.Min() <= 0 || h.Max() < h.Min() {
				t.Errorf("histogram of %d, %d to %d ns, %v", h.TotalCount(), h.Min(), h.Max(), err)
			}
			if r.Elapsed <= 0 || r.ThreadCPUNs == 0 || r.ThreadCPUNs > uint64(r.Elapsed)*uint64(tt.threads)*11/10 {
				t.Errorf("%v elapsed, %v of CPU", r.Elapsed, time.Duration(r.ThreadCPUNs))
			}
			checkStamps(t, &s)
		})
	}
}

// writtenBy is the number of bytes that a process has written, by wchar.
func writtenBy(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "wchar: "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no wchar")
	return 0
}

// checkStamps reads the files back: every slot that was written says its own
// offset, the newest stamp is the last write's, all files of a thread are the
// same, and of "seq" no slot is left out.
func checkStamps(t *testing.T, s *Spec) {
	t.Helper()
	total := uint64(0)
	for i, files := range s.Targets {
		var first []byte
		for j, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if j == 0 {
				first = data
			} else if string(first) != string(data) {
				t.Errorf("thread %d: %s is no copy", i, path)
			}
		}
		if int64(len(first)) > s.FileBytes {
			t.Errorf("thread %d wrote past the end: %d bytes", i, len(first))
		}
		newest, empty := uint64(0), 0
		for at := 0; at+s.SizeBytes <= len(first); at += s.SizeBytes {
			stamp, offset := binary.LittleEndian.Uint64(first[at:]), binary.LittleEndian.Uint64(first[at+8:])
			if stamp == 0 {
				empty++
			} else if offset != uint64(at) {
				t.Errorf("thread %d: the slot at %d says %d", i, at, offset)
			}
			newest = max(newest, stamp)
		}
		if empty > 0 && s.Pattern == PatternSeq || int64(len(first)) != s.FileBytes && s.Pattern == PatternSeq {
			t.Errorf("thread %d: %d slots are empty, the file has %d bytes", i, empty, len(first))
		}
		total += newest
	}
	if total != prime {
		t.Errorf("the newest stamps add up to %d writes, want %d", total, prime)
	}
}

// Direct and durable writes are what the kernel makes of the flags, so the flags
// are looked at where the kernel shows them.
func TestModes(t *testing.T) {
	for mode, want := range map[string]int64{ModeDirect: unix.O_DIRECT, ModeDsync: unix.O_DSYNC, ModeBuffered: 0} {
		t.Run(mode, func(t *testing.T) {
			s := spec(t, 1, 1)
			s.Mode = mode
			if mode == ModeDirect {
				f, err := unix.Open(s.Targets[0][0], unix.O_WRONLY|unix.O_DIRECT, 0)
				if err != nil {
					t.Skip(testkit.SkipLine("odirect", err.Error()))
				}
				if err := unix.Close(f); err != nil {
					t.Fatal(err)
				}
			}
			p := start(t, map[string]Spec{"x": s})
			if r := run(t, p, Block{Leg: "x", Writes: 101}); r.Acknowledged != 101 {
				t.Errorf("acknowledged %d", r.Acknowledged)
			}
			flags := flagsOf(t, p.Pid(), s.Targets[0][0])
			if flags&(unix.O_DIRECT|unix.O_DSYNC) != want {
				t.Errorf("the file is open with %#o, want %#o in it", flags, want)
			}
			if err := p.Sync(t.Context(), "x"); err != nil {
				t.Error(err)
			}
		})
	}
}

// flagsOf finds a file among a process's descriptors.
func flagsOf(t *testing.T, pid int, path string) int64 {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || to != path {
			continue
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, filepath.Base(link)))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(info)) {
			if value, ok := strings.CutPrefix(line, "flags:"); ok {
				flags, err := strconv.ParseInt(strings.TrimSpace(value), 8, 64)
				if err != nil {
					t.Fatal(err)
				}
				return flags
			}
		}
	}
	t.Fatalf("process %d has not opened %s", pid, path)
	return 0
}

func TestRandomIsRepeatable(t *testing.T) {
	contents := func(seed uint64) string {
		s := spec(t, 1, 1)
		s.Pattern, s.Seed = PatternRand, seed
		run(t, start(t, map[string]Spec{"x": s}), Block{Leg: "x", Writes: 101})
		data, err := os.ReadFile(s.Targets[0][0])
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if one, again, other := contents(1), contents(1), contents(2); one != again || one == other {
		t.Errorf("same seed same %v, other seed same %v", one == again, one == other)
	}
}

func TestThreadsArePinned(t *testing.T) {
	testkit.Need(t, testkit.TwoCPUs)
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	free, bound := spec(t, 2, 1), spec(t, 2, 1)
	bound.CPUs = []int{1, 0}
	p := start(t, map[string]Spec{"free": free, "bound": bound})
	if len(p.Threads()) != 2 || p.Threads()[0] == p.Pid() {
		t.Fatalf("threads %v of process %d", p.Threads(), p.Pid())
	}
	for _, leg := range []string{"bound", "free", "bound"} {
		run(t, p, Block{Leg: leg, Writes: 10})
		for i, tid := range p.Threads() {
			var set unix.CPUSet
			if err := unix.SchedGetaffinity(tid, &set); err != nil {
				t.Fatal(err)
			}
			want := all
			if leg == "bound" {
				want.Zero()
				want.Set(bound.CPUs[i])
			}
			if set != want {
				t.Errorf("%s: thread %d may run on %x, want %x", leg, i, set, want)
			}
		}
	}
	bound.CPUs = []int{maxCPUs - 1}
	p = start(t, map[string]Spec{"x": bound})
	if _, err := p.Run(t.Context(), Block{Leg: "x", Writes: 10}); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "online") {
		t.Errorf("a CPU that is not there: %v", err)
	}
}

func TestTheRateIsHeld(t *testing.T) {
	s := spec(t, 2, 1)
	p := start(t, map[string]Spec{"x": s})
	const rate = 997
	testkit.Quiet(t, 6, func() string {
		r := run(t, p, Block{Leg: "x", Writes: 2 * rate, RatePerSecond: rate})
		got := float64(r.Acknowledged) / r.Elapsed.Seconds()
		if r.Acknowledged != 2*rate || got < 0.98*rate || got > 1.02*rate || r.Late > rate/10 {
			return fmt.Sprintf("%d writes in %v are %.1f per second, want %d; %d were late", r.Acknowledged, r.Elapsed, got, rate, r.Late)
		}
		return ""
	})
	// A rate that nobody can hold: all but each thread's first are late.
	if r := run(t, p, Block{Leg: "x", Writes: 1000, RatePerSecond: maxRate}); r.Late < 990 || r.Late > 1000 {
		t.Errorf("%d of 1000 writes were late", r.Late)
	}
}

func TestTheTimeIsHeld(t *testing.T) {
	s := spec(t, 1, 1)
	p := start(t, map[string]Spec{"x": s})
	const limit = 200 * time.Millisecond
	for name, b := range map[string]Block{
		"time alone":       {Leg: "x", For: limit},
		"time comes first": {Leg: "x", For: limit, Writes: 1 << 50},
		"asleep":           {Leg: "x", For: limit, RatePerSecond: 2},
	} {
		testkit.Quiet(t, 6, func() string {
			began := time.Now()
			r := run(t, p, b)
			took := time.Since(began)
			if took < limit || took > limit+100*time.Millisecond || r.Acknowledged == 0 || r.Elapsed > limit+50*time.Millisecond {
				return fmt.Sprintf("%s: %d writes in %v, took %v", name, r.Acknowledged, r.Elapsed, took)
			}
			return ""
		})
	}
	if r := run(t, p, Block{Leg: "x", For: time.Hour, Writes: 11}); r.Acknowledged != 11 {
		t.Errorf("%d writes, want 11", r.Acknowledged)
	}
}

// Between blocks the process does nothing.
func TestIdleCostsNothing(t *testing.T) {
	p := start(t, map[string]Spec{"x": spec(t, 2, 1)})
	run(t, p, Block{Leg: "x", Writes: 100})
	time.Sleep(100 * time.Millisecond) // The runtime's watchdog goes to sleep.
	testkit.Quiet(t, 6, func() string {
		before := cpuOf(t, p.Pid())
		time.Sleep(500 * time.Millisecond)
		if used := cpuOf(t, p.Pid()) - before; used > 500*time.Microsecond {
			return fmt.Sprintf("half a second of rest cost %v", used)
		}
		return ""
	})
}

// cpuOf adds up the threads' schedstat.
func cpuOf(t *testing.T, pid int) (sum time.Duration) {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

func TestThePlaceIsKept(t *testing.T) {
	root := filepath.Join(t.TempDir(), "runs")
	r, err := cleanup.Open(t.Context(), cleanup.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(t.Context(), map[string]Spec{"x": spec(t, 1, 1)}, StartOptions{Run: r})
	if err != nil {
		t.Fatal(err)
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.Pid()))
	if err != nil || !strings.Contains(string(environ), r.Env()) || !strings.Contains(string(environ), "asyncpreemptoff=1") {
		t.Errorf("the child's environment is not marked: %v", err)
	}
	// The run ends the load where nobody else did.
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Run(t.Context(), Block{Leg: "x", Writes: 1}); !errors.Is(err, ErrDied) {
		t.Errorf("run after the end of all = %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheLoadDiesWithItsParent(t *testing.T) {
	target := targets(t, 1, 1)[0][0]
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), parentEnv+"="+target)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	pid, atoiErr := strconv.Atoi(strings.TrimSpace(line))
	fd, openErr := -1, error(nil)
	if atoiErr == nil {
		fd, openErr = unix.PidfdOpen(pid, 0)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // It was killed, so it has an error to tell.
	if err := errors.Join(readErr, atoiErr, openErr); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 3000); err != nil || n != 1 {
		t.Errorf("the load %d outlives its parent: %d, %v", pid, n, err)
		_ = unix.Kill(pid, unix.SIGKILL) // It is ours, and would write for an hour.
	}
}
