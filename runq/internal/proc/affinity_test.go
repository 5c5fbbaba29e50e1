package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
	"golang.org/x/sys/unix"
)

// hogTime ends a hog that its test has lost.
const hogTime = 5 * time.Second

// hog keeps a CPU from all ordinary threads: a busy loop under SCHED_FIFO. It
// says so before it starts.
func hog() int {
	runtime.LockOSThread()
	cpu, err := strconv.Atoi(os.Getenv(hogEnv))
	if err != nil {
		return 3
	}
	var set unix.CPUSet
	set.Set(cpu)
	if unix.SchedSetaffinity(0, &set) != nil ||
		unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1}, 0) != nil {
		return 3
	}
	fmt.Println("ready")
	for start := time.Now(); time.Since(start) < hogTime; {
	}
	return 0
}

// startHog returns once the hog spins on its CPU, and how to end it.
func startHog(t *testing.T, cpu int) (end func()) {
	t.Helper()
	fd := -1
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), hogEnv+"="+strconv.Itoa(cpu))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &fd}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pidfd, err := newFile(fd, "hog")
	if err != nil {
		t.Fatal(err)
	}
	died, _, err := Watch(pidfd)
	if err != nil {
		t.Fatal(err)
	}
	end = func() {
		Kill(pidfd)
		<-died // As in reap: Wait would not block.
		cmd.Wait()
		pidfd.Close()
	}
	var said [6]byte
	if _, err := out.Read(said[:]); err != nil || string(said[:]) != "ready\n" {
		end()
		t.Fatalf("the hog said %q, %v", said, err)
	}
	return end
}

// pin moves all threads of a process, those too that it starts meanwhile.
func pin(t *testing.T, pid int, set unix.CPUSet) {
	t.Helper()
	done := map[string]bool{}
	for fresh := true; fresh; {
		fresh = false
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil || len(threads) == 0 {
			t.Fatalf("%v, %d threads", err, len(threads))
		}
		for _, thread := range threads {
			if done[thread] {
				continue
			}
			done[thread], fresh = true, true
			tid, err := strconv.Atoi(filepath.Base(thread))
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
				t.Fatal(err)
			}
		}
	}
}

// All threads are moved, and let go again; a dead process is told as dead.
func TestResetAffinity(t *testing.T) {
	testkit.Need(t, testkit.TwoCPUs)
	all, first, _, _ := twoCPUs(t)
	w, _, _ := startIdle(t, newGroup(t), 1)
	if err := setAffinity(w.Pidfd(), first); err != nil {
		t.Fatal(err)
	}
	if got := threadCPUs(t, w); len(got) != 1 || !got[first] {
		t.Fatalf("its threads may run on %v, want %v", got, first)
	}
	if err := ResetAffinity(w.Pidfd()); err != nil {
		t.Fatal(err)
	}
	if got := threadCPUs(t, w); len(got) != 1 || !got[all] {
		t.Fatalf("its threads may run on %v, want %v", got, all)
	}
	if err := w.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, w.Done(), "the death")
	for name, do := range map[string]func(*os.File) error{"reset": ResetAffinity, "move": moveHere} {
		if err := do(w.Pidfd()); !errors.Is(err, ErrExited) {
			t.Errorf("%s of a dead process: %v", name, err)
		}
	}
}

// threadCPUs returns the affinities that a worker's threads have.
func threadCPUs(t *testing.T, w *Worker) map[unix.CPUSet]bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", w.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("%v, %d threads", err, len(threads))
	}
	seen := map[unix.CPUSet]bool{}
	for _, thread := range threads {
		tid, err := strconv.Atoi(filepath.Base(thread))
		var set unix.CPUSet
		if err == nil {
			err = unix.SchedGetaffinity(tid, &set)
		}
		if err != nil {
			t.Fatal(err)
		}
		seen[set] = true
	}
	return seen
}

// twoCPUs returns this process's CPUs, and the first and the last of them.
func twoCPUs(t *testing.T) (all, first, last unix.CPUSet, busy int) {
	t.Helper()
	if err := unix.SchedGetaffinity(os.Getpid(), &all); err != nil {
		t.Fatal(err)
	}
	const cpus = 1024 // As many as a CPUSet has.
	for cpu := range cpus {
		if all.IsSet(cpu) {
			if first.Count() == 0 {
				first.Set(cpu)
			}
			last.Zero()
			last.Set(cpu)
			busy = cpu
		}
	}
	return all, first, last, busy
}

// Two workers are pinned to a CPU that a real-time thread keeps. The kill that
// takes its victim elsewhere first ends it at once; the plain one leaves its
// victim, which is the control, until the kernel takes the CPU from the hog.
func TestKillReachesStarvedWorker(t *testing.T) {
	testkit.Need(t, testkit.TwoCPUs, testkit.SchedFIFO)
	all, first, last, busy := twoCPUs(t)
	pin(t, os.Getpid(), first)
	defer pin(t, os.Getpid(), all)
	testkit.Quiet(t, 5, func() (complaint string) {
		g := newGroup(t)
		plain, _, _ := startIdle(t, g, 1)
		moved, _, _ := startIdle(t, g, 2)
		for _, w := range []*Worker{plain, moved} {
			pin(t, w.cmd.Process.Pid, last)
		}
		plainDied, stopPlain, err := Watch(plain.Pidfd())
		if err != nil {
			t.Fatal(err)
		}
		defer stopPlain()
		movedDied, stopMoved, err := Watch(moved.Pidfd())
		if err != nil {
			t.Fatal(err)
		}
		defer stopMoved()
		end := startHog(t, busy)
		plainStart := time.Now()
		if err := Kill(plain.Pidfd()); err != nil {
			t.Error(err)
		}
		movedStart := time.Now()
		if err := moved.Kill(); err != nil {
			t.Error(err)
		}
		await(t, movedDied, "the moved worker's death")
		movedTime := time.Since(movedStart)
		still := "was dead too"
		if !Exited(plain.Pidfd()) {
			still = "still lived"
		}
		await(t, plainDied, "the pinned worker's death")
		plainTime := time.Since(plainStart)
		end()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		t.Logf("SIGKILL to death beside a SCHED_FIFO loop: %v moved, %v pinned, which %s then", movedTime, plainTime, still)
		if still != "still lived" || plainTime < 5*movedTime {
			return fmt.Sprintf("%v moved, %v pinned", movedTime, plainTime)
		}
		return ""
	})
}

// A process that binds itself takes all of its threads along, also those to come,
// and lets them all go again.
func TestBindTakesAllThreads(t *testing.T) {
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	cpu := -1
	for i := range 8 * len(before) * 8 {
		if before.IsSet(i) {
			cpu = i
		}
	}
	bound := func() (on, all int) {
		names, _ := filepath.Glob("/proc/self/task/*")
		for _, name := range names {
			tid, err := strconv.Atoi(filepath.Base(name))
			var set unix.CPUSet
			if err != nil || unix.SchedGetaffinity(tid, &set) != nil {
				continue // It has ended.
			}
			all++
			if set.Count() == 1 && set.IsSet(cpu) {
				on++
			}
		}
		return on, all
	}
	defer func() {
		if err := Unbind(); err != nil {
			t.Error(err)
		}
		if on, all := bound(); before.Count() > 1 && on > 0 {
			t.Errorf("%d of %d threads are bound still", on, all)
		}
	}()
	if err := Bind(cpu); err != nil {
		t.Fatal(err)
	}
	started, end := make(chan struct{}), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(started)
		<-end
	}()
	<-started
	on, all := bound()
	close(end)
	if on != all || all == 0 {
		t.Errorf("%d of %d threads are bound to CPU %d", on, all, cpu)
	}
}
