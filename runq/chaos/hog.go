package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// envHog makes a process a hog on a CPU: a loop under SCHED_FIFO, which keeps
// everything else from it.
const envHog = "COREPLICA_CHAOS_HOG"

// The hog takes the CPU for longer than a lease, and leaves it for as long again.
// The kernel's own limit, 95 percent of a second, does not come in.
const (
	hogBusy = 80 * time.Millisecond
	hogIdle = 160 * time.Millisecond
)

func init() {
	if cpu, err := strconv.Atoi(os.Getenv(envHog)); err == nil {
		runtime.LockOSThread()
		err := hog(cpu)
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// hog never returns without an error.
func hog(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("bind hog to CPU %d: %w", cpu, err)
	}
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if err := unix.SchedSetAttr(0, attr, 0); err != nil {
		return fmt.Errorf("schedule hog: SCHED_FIFO needs CAP_SYS_NICE: %w", err)
	}
	for {
		for begin := time.Now(); time.Since(begin) < hogBusy; {
			continue
		}
		time.Sleep(hogIdle)
	}
}

// startHog starts one, and returns what ends it.
func startHog(cpu int) (stop func(), err error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envHog+"="+strconv.Itoa(cpu))
	cmd.Stderr = os.Stderr
	// The hog must not outlive us, and has nothing to lose.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	ended := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(ended)
		// The signal comes when the thread ends that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		<-done
		_ = cmd.Process.Kill() // It may have ended by itself.
		_ = cmd.Wait()         // It was killed.
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start hog: %w", err)
	}
	return func() { close(done); <-ended }, nil
}
