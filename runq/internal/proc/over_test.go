package proc

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/numa"
)

// kindCounters hands a worker the page that it counts in.
const kindCounters = "counters"

// spinners is how many threads of a worker count.
const spinners = 3

// counters are on a page that a test and its worker share, a line each.
type counters [spinners]struct {
	n atomic.Uint64
	_ [120]byte
}

func (c *counters) read() (n [spinners]uint64) {
	for i := range c {
		n[i] = c[i].n.Load()
	}
	return n
}

func mapCounters(file *os.File) (*counters, error) {
	page, err := mapKnell(file) // Any page would do.
	return (*counters)(unsafe.Pointer(page)), err
}

// spinningWorker counts until it is killed.
func spinningWorker(s *Started) int {
	m, err := s.Boot.Receive()
	if err != nil || m.Kind != kindCounters {
		return 3
	}
	c, err := mapCounters(m.Files[0])
	if err != nil {
		return 3
	}
	for i := range c {
		go func() {
			runtime.LockOSThread()
			for {
				c[i].n.Add(1)
			}
		}()
	}
	told := make(chan error)
	var tell func()
	tell = func() {
		if runtime.LockOSThread(); unix.Gettid() == unix.Getpid() {
			go tell() // The main thread would not end with this goroutine.
			select {}
		}
		told <- s.TellEnd()
		if os.Getenv(roleEnv) == roleSpin {
			select {}
		}
	}
	go tell()
	if <-told != nil {
		return 3
	}
	select {}
}

// startSpinner returns a worker that counts.
func startSpinner(t *testing.T, role string) (*Worker, *counters) {
	t.Helper()
	t.Setenv(roleEnv, role)
	w, err := Spawn(0, 1, SpawnOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	file, err := newKnell()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c, err := mapCounters(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.MunmapPtr(unsafe.Pointer(c), uintptr(os.Getpagesize())) })
	if err := w.Boot.Send(Message{Kind: kindCounters, Files: []*os.File{file}}); err != nil {
		t.Fatal(err)
	}
	awaitCounting(t, c)
	return w, c
}

// awaitCounting waits until all threads count on.
func awaitCounting(t *testing.T, c *counters) {
	t.Helper()
	before := c.read()
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		now, on := c.read(), 0
		for i := range now {
			if now[i] > before[i] {
				on++
			}
		}
		if on == spinners {
			return
		}
		if time.Since(start) > patience {
			t.Fatalf("%d of %d threads count", on, spinners)
		}
	}
}

// overOf waits until a worker is over.
func overOf(t *testing.T, w *Worker) Exit {
	t.Helper()
	exit := make(chan Exit, 1)
	w.Over(func(e Exit) { exit <- e })
	select {
	case e := <-exit:
		return e
	case <-time.After(patience):
		t.Fatal("the worker is not over")
		return Exit{}
	}
}

// Who listens for ends keeps off the CPU of the worker, and the process may run
// where it could before, also where the goroutine begins on its first thread.
func TestListenersKeepOff(t *testing.T) {
	testkit.Need(t, testkit.TwoCPUs)
	before, err := numa.Affinity(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const listeners = 20
	cpus := before[:1]
	all := make(chan struct{})
	heard := make(chan error, listeners)
	for range listeners {
		go aside(cpus, func() {
			<-all
			got, err := numa.Affinity(0)
			if err == nil && (got.Has(cpus[0]) || len(got) == 0 || unix.Gettid() == os.Getpid()) {
				err = fmt.Errorf("thread %d of process %d listens on CPUs %v, and the worker has %v", unix.Gettid(), os.Getpid(), got, cpus)
			}
			heard <- err
		})
	}
	close(all)
	for range listeners {
		if err := <-heard; err != nil {
			t.Error(err)
		}
	}
	after, err := numa.Affinity(os.Getpid())
	if err != nil || !after.Equal(before) {
		t.Errorf("the process may run on %v, %v, and could on %v", after, err, before)
	}
}

// Once a worker is over, none of its threads stores anything more, though it may
// not be dead yet.
func TestNothingRunsOnceOver(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 3
	}
	var overs, deaths time.Duration
	early := 0
	for range rounds {
		w, c := startSpinner(t, roleSpin)
		start := time.Now()
		if err := Kill(w.Pidfd()); err != nil {
			t.Fatal(err)
		}
		exit := overOf(t, w)
		at, dead := c.read(), Exited(w.Pidfd())
		overs += time.Since(start)
		if want := (Exit{-1, syscall.SIGKILL, false}); exit != want {
			t.Errorf("exit %+v, want %+v", exit, want)
		}
		if !dead {
			early++
		}
		await(t, w.Done(), "the death")
		deaths += time.Since(start)
		if now := c.read(); now != at {
			t.Fatalf("a worker that is over has counted from %v to %v", at, now)
		}
	}
	t.Logf("from SIGKILL, mean of %d: over after %v, dead and waited for after %v; %d were over before they were dead",
		rounds, overs/time.Duration(rounds), deaths/time.Duration(rounds), early)
}

// The bell only says that it is time to look: where its thread alone has ended, the
// worker lives.
func TestEndOfTheLoopIsNoEnd(t *testing.T) {
	w, c := startSpinner(t, roleLoopEnd)
	for start := time.Now(); atomic.LoadUint32(&w.knell.word)&futexDied == 0; time.Sleep(time.Millisecond) {
		if time.Since(start) > patience {
			t.Fatal("the kernel does not tell that the thread has ended")
		}
	}
	for range 20 {
		awaitCounting(t, c)
		select {
		case <-w.over:
			t.Fatal("a worker that counts is told over")
		default:
		}
	}
	if over(w.PID()) {
		t.Error("a worker that counts is over")
	}
	if err := w.Kill(); err != nil {
		t.Fatal(err)
	}
	if exit := overOf(t, w); exit.Signal != syscall.SIGKILL || !exit.Ours {
		t.Errorf("exit %+v of our kill", exit)
	}
}

// A worker that ends in another way than by SIGKILL is over when it is dead, with
// what it left.
func TestOverOfAnOrdinaryEnd(t *testing.T) {
	t.Setenv(roleEnv, rolePrint)
	w, err := Spawn(0, 1, SpawnOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if exit := overOf(t, w); exit != (Exit{}) {
		t.Errorf("exit %+v of one that ended by itself", exit)
	}
	select {
	case <-w.Done():
	default:
		t.Error("it is told over before its exit code is known")
	}
}

// The line of stat is found whatever a thread calls itself, and what is not one is
// not believed.
func TestParseStat(t *testing.T) {
	const rest = " Z 1 5 5 0 -1 4228364 0 0 0 0 1 2 0 0 10 -10 1 0 99 0 0 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 9\n"
	for line, want := range map[string]bool{
		"7 (worker)" + rest:               true,
		"7 (a) R 1 (b))" + rest:           true,
		"7 (worker)" + rest[:len(rest)-3]: false,
		"":                                false,
		"7 (worker) Z":                    false,
	} {
		flags, code, err := parseStat([]byte(line))
		if (err == nil) != want || want && (flags&exiting == 0 || code != 9) {
			t.Errorf("%q: flags %#x, code %d, %v", line, flags, code, err)
		}
	}
	if flags, _, err := threadStat("/proc/self/task", "self"); err == nil {
		t.Errorf("a thread that is not there has flags %#x", flags)
	}
	self := "/proc/self/task"
	flags, code, err := threadStat(self, threadID())
	if err != nil || flags&exiting != 0 || code != 0 {
		t.Errorf("this thread: flags %#x, code %d, %v", flags, code, err)
	}
}

func threadID() string {
	names, err := os.ReadDir("/proc/self/task")
	if err != nil || len(names) == 0 {
		return ""
	}
	return names[0].Name() // The main thread, which stays.
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("7 (w) Z 1 5 5 0 -1 4"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if flags, code, err := parseStat(line); err != nil && (flags != 0 || code != 0) {
			t.Errorf("%d, %d beside %v", flags, code, err)
		}
	})
}
