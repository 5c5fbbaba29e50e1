package proc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/coreplica/coreplica/numa"
	"golang.org/x/sys/unix"
)

// ErrExited says that the process of a pidfd is dead.
var ErrExited = errors.New("the process has exited")

// Self returns a pidfd of this process. Its number cannot be a stranger's while
// it asks.
func Self() (*os.File, error) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, fmt.Errorf("open own pidfd: %w (it needs Linux 5.3)", err)
	}
	return newFile(fd, "pidfd")
}

// newFile wraps a descriptor for Go's poller, which wants it non-blocking.
func newFile(fd int, name string) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s for polling: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// control lends a file's descriptor. Fd would switch the poller off.
func control(f *os.File, use func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = use(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// dup returns the same open file under a number of its own.
func dup(f *os.File) (*os.File, error) {
	var copied int
	err := control(f, func(fd int) (err error) {
		copied, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return newFile(copied, f.Name())
}

// exited asks a pidfd without waiting.
func exited(fd int) bool {
	polls := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(polls, 0)
		if err != unix.EINTR {
			return n > 0 && polls[0].Revents&unix.POLLIN != 0
		}
	}
}

// Exited reports whether the process of a pidfd is dead.
func Exited(pidfd *os.File) bool {
	var dead bool
	err := control(pidfd, func(fd int) error { dead = exited(fd); return nil })
	return err == nil && dead
}

// Watch returns a channel that is closed when the process dies. It waits in Go's
// poller and so costs no thread. The pidfd may be closed after the call. After
// stop, the channel stays open for ever.
func Watch(pidfd *os.File) (died <-chan struct{}, stop func(), err error) {
	file, err := dup(pidfd)
	if err != nil {
		return nil, nil, fmt.Errorf("watch process: %w", err)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("watch process: %w", err), file.Close())
	}
	ended, finished := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		var dead bool
		// It returns with an error once stop has closed the file.
		_ = raw.Read(func(fd uintptr) bool { dead = exited(int(fd)); return dead })
		// Closed before the news, so that who hears it can count files. Closing
		// twice is an error that says nothing.
		_ = file.Close()
		if dead {
			close(ended)
		}
	}()
	return ended, sync.OnceFunc(func() {
		_ = file.Close()
		<-finished
	}), nil
}

// Signal sends a signal to the process of a pidfd and to no other.
func Signal(pidfd *os.File, signal unix.Signal) error {
	err := control(pidfd, func(fd int) error { return unix.PidfdSendSignal(fd, signal, nil, 0) })
	if errors.Is(err, unix.ESRCH) {
		return ErrExited
	}
	if err != nil {
		return fmt.Errorf("send %v by pidfd: %w", signal, err)
	}
	return nil
}

// Kill sends SIGKILL. It does not wait: see Watch.
func Kill(pidfd *os.File) error { return Signal(pidfd, unix.SIGKILL) }

// affinityPasses bounds how often the threads are listed: a process that starts
// threads faster than that is not caught by its affinity.
const affinityPasses = 8

// pidOf asks the kernel for the number that a pidfd stands for now.
func pidOf(fd int) (int, error) {
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "Pid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(value))
			if err == nil && pid <= 0 {
				err = ErrExited
			}
			return pid, err
		}
	}
	return 0, errors.New("it is no pidfd")
}

// moveHere moves the threads of a process, whose CPUs real-time threads may keep, to
// the CPU that it runs on itself, which so is known to serve ordinary threads, and
// lets them run anywhere. A wider affinity alone would leave them where they were
// until the kernel balances.
func moveHere(pidfd *os.File) error {
	var here unix.CPUSet
	here.Set(numa.CurrentCPU())
	// Both may meet a process that is gone.
	return errors.Join(setAffinity(pidfd, here), ResetAffinity(pidfd))
}

// ResetAffinity lets all threads of a process run on every CPU that its cpuset
// allows.
func ResetAffinity(pidfd *os.File) error {
	var all unix.CPUSet
	all.Fill()
	return setAffinity(pidfd, all)
}

// Bind lets all threads of this process, and those that they start, run on one CPU.
func Bind(cpu int) error {
	var one unix.CPUSet
	one.Set(cpu)
	return bindSelf(one)
}

// Unbind lets them run on every CPU that the cpuset allows.
func Unbind() error {
	var all unix.CPUSet
	all.Fill()
	return bindSelf(all)
}

func bindSelf(cpus unix.CPUSet) error {
	self, err := Self()
	if err != nil {
		return err
	}
	return errors.Join(setAffinity(self, cpus), self.Close())
}

// setAffinity sets the CPUs of all threads of a process, or all CPUs where its
// cpuset allows none of these. The number of the process comes from the pidfd and
// is asked for again before each thread. A thread that ends in that instant may
// have its number taken; the taker's affinity would be changed, and nothing worse.
func setAffinity(pidfd *os.File, cpus unix.CPUSet) error {
	err := control(pidfd, func(fd int) error {
		done := map[int]bool{}
		for range affinityPasses {
			fresh, err := move(fd, cpus, done)
			if err != nil || !fresh {
				return err
			}
		}
		return fmt.Errorf("it still starts threads after %d passes", affinityPasses)
	})
	if err != nil {
		return fmt.Errorf("set affinity: %w", err)
	}
	return nil
}

// move makes one pass over the threads and reports whether it met a new one.
func move(fd int, cpus unix.CPUSet, done map[int]bool) (fresh bool, err error) {
	pid, err := pidOf(fd)
	if err != nil {
		return false, err
	}
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if errors.Is(err, os.ErrNotExist) {
		return false, ErrExited
	}
	if err != nil {
		return false, err
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil || done[tid] {
			continue
		}
		if now, err := pidOf(fd); err != nil || now != pid || exited(fd) {
			return false, ErrExited
		}
		err = unix.SchedSetaffinity(tid, &cpus)
		if err == unix.EINVAL {
			var all unix.CPUSet
			all.Fill()
			err = unix.SchedSetaffinity(tid, &all)
		}
		if err != nil && err != unix.ESRCH {
			return false, fmt.Errorf("thread %d: %w", tid, err)
		}
		done[tid], fresh = true, true
	}
	return fresh, nil
}
