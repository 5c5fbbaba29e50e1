package numa

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/cpulist"
)

// mask is a thread's affinity as the kernel stores it, wide enough for every
// CPU that a kernel may know.
type mask = unix.CPUSetDynamic

func newMask(cpus List) mask {
	m := unix.NewCPUSet(maxCPUs)
	for _, cpu := range cpus {
		m.Set(cpu)
	}
	return m
}

// maskOf reads the affinity of a thread, 0 for the caller's.
func maskOf(tid int) (mask, error) {
	m := unix.NewCPUSet(maxCPUs)
	if err := unix.SchedGetaffinityDynamic(tid, m); err != nil {
		return nil, fmt.Errorf("get affinity of thread %d: %w", tid, err)
	}
	return m, nil
}

func listOf(m mask) List {
	var cpus List
	for cpu := range maxCPUs {
		if m.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// Affinity returns the CPUs that a thread may run on, 0 for the calling one. It
// is meaningful for a goroutine that is locked to its thread.
func Affinity(tid int) (List, error) {
	m, err := maskOf(tid)
	if err != nil {
		return nil, err
	}
	return listOf(m), nil
}

// CPUError says that the kernel refused to bind a thread to CPUs.
type CPUError struct {
	CPUs List
	Err  error
}

func (e *CPUError) Error() string {
	text := fmt.Sprintf("bind thread to CPUs %s: %v", e.CPUs, e.Err)
	if errors.Is(e.Err, unix.EINVAL) {
		text += ": name CPUs that are online and in this process's cpuset, see `coreplica numa topo`"
	}
	return text
}
func (e *CPUError) Unwrap() error { return e.Err }

// bindThread binds the calling thread to all of the CPUs.
func bindThread(cpus List) error {
	got, err := rebindThread(cpus)
	if err == nil && !got.Equal(cpus) {
		err = &CPUError{cpus, fmt.Errorf("the kernel left %q of it: %w", got, unix.EINVAL)}
	}
	return err
}

// Rebind binds the calling thread, to which its goroutine must be locked, to those
// of the CPUs that are online and in the cpuset, and fails if there are none. It
// is for a function that [Worker.Run] runs for long: between batches, a worker
// does the same by itself. It costs a microsecond, [CurrentCPU] first costs less.
func Rebind(cpus List) error {
	_, err := rebindThread(cpus)
	return err
}

// rebindThread binds the calling thread to those of the CPUs that are online
// and in the cpuset, and returns them: the kernel drops others silently.
func rebindThread(cpus List) (got List, err error) {
	if len(cpus) == 0 || cpus[0] < 0 || cpus[len(cpus)-1] >= maxCPUs {
		return nil, &CPUError{cpus, fmt.Errorf("want numbers from 0 to %d", maxCPUs-1)}
	}
	if err := unix.SchedSetaffinityDynamic(0, newMask(cpus)); err != nil {
		return nil, &CPUError{cpus, err}
	}
	return Affinity(0)
}

// boundMain has the affinity that the process's first thread had before we bound
// it. /proc/self tells of that thread, and Go runs any goroutine on it, a worker's
// too: without this, [Local] would take a worker's binding for the process's.
var boundMain atomic.Pointer[List]

// saved is a thread's affinity, to be restored.
type saved struct {
	mask mask
	// main is true where this is what boundMain holds.
	main bool
	// free is true where the thread could run on every CPU that was online. The
	// mask lacks those that were not, and a CPU that comes back is part of that.
	free bool
}

// save notes the calling thread's affinity before it is bound.
func save() (saved, error) {
	m, err := maskOf(0)
	if err != nil {
		return saved{}, err
	}
	s := saved{mask: m, free: holdsOnline(listOf(m))}
	if unix.Gettid() == os.Getpid() {
		cpus := listOf(m)
		s.main = boundMain.CompareAndSwap(nil, &cpus) // The outermost binding counts.
	}
	return s, nil
}

// restore gives the calling thread exactly the affinity that it had.
func (s saved) restore() error {
	if s.main {
		defer boundMain.Store(nil)
	}
	mask := s.mask
	if s.free {
		mask = newMask(everyCPU())
	}
	if err := unix.SchedSetaffinityDynamic(0, mask); err != nil {
		return fmt.Errorf("restore affinity: %w", err)
	}
	return nil
}

// holdsOnline reports whether a list has all CPUs that are online. Where that cannot
// be found out it has not, and is restored as it is.
func holdsOnline(cpus List) bool {
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return false
	}
	online, err := cpulist.Parse(strings.TrimSpace(string(text)))
	if err != nil || len(online) == 0 {
		return false
	}
	for _, cpu := range online {
		if !cpus.Has(cpu) {
			return false
		}
	}
	return true
}

// everyCPU lists all numbers that a CPU may have. The kernel leaves out those that
// there are not.
func everyCPU() List {
	all := make(List, maxCPUs)
	for cpu := range all {
		all[cpu] = cpu
	}
	return all
}

// bound locks the calling goroutine to its thread, binds that to each of the
// CPUs in turn and calls f there. The thread's affinity is restored exactly. If
// that fails, the error says so and the goroutine stays locked, so that the
// thread ends with it and no other goroutine inherits the binding.
func bound(cpus List, f func(cpu int) error) (err error) {
	runtime.LockOSThread()
	before, err := save()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		if restore := before.restore(); restore != nil {
			err = errors.Join(err, restore)
			return
		}
		runtime.UnlockOSThread()
	}()
	for _, cpu := range cpus {
		if err := bindThread(List{cpu}); err != nil {
			return err
		}
		if err := f(cpu); err != nil {
			return err
		}
	}
	return nil
}
