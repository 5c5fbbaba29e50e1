package attachcheck

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// samplePeriodNs is long enough that the attached program hardly ever runs.
const samplePeriodNs = 100_000_000

// perfFD is a perf event.
type perfFD int

func (fd perfFD) Close() error { return unix.Close(int(fd)) }

// attachPerfEvent samples CPU 0 by its clock, as a profiler does.
func attachPerfEvent() (io.Closer, error) {
	return attached(ebpf.ProgramSpec{Type: ebpf.PerfEvent}, func(prog *ebpf.Program) (io.Closer, error) {
		attr := unix.PerfEventAttr{
			Type:   unix.PERF_TYPE_SOFTWARE,
			Config: unix.PERF_COUNT_SW_CPU_CLOCK,
			Size:   uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
			Sample: samplePeriodNs,
		}
		fd, err := openPerf(&attr, -1, 0)
		if err != nil {
			return nil, err
		}
		if err := unix.IoctlSetInt(int(fd), unix.PERF_EVENT_IOC_SET_BPF, prog.FD()); err != nil {
			return nil, errors.Join(fmt.Errorf("set program: %w", err), fd.Close())
		}
		if err := unix.IoctlSetInt(int(fd), unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
			return nil, errors.Join(fmt.Errorf("enable: %w", err), fd.Close())
		}
		return fd, nil
	})
}

// HardwareCycles tells whether the CPU counts cycles for us. Most virtual
// machines do not let it.
func HardwareCycles() error {
	attr := unix.PerfEventAttr{
		Type:   unix.PERF_TYPE_HARDWARE,
		Config: unix.PERF_COUNT_HW_CPU_CYCLES,
		Size:   uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
	}
	fd, err := openPerf(&attr, 0, -1)
	if err != nil {
		return err
	}
	return fd.Close()
}

func openPerf(attr *unix.PerfEventAttr, pid, cpu int) (perfFD, error) {
	fd, err := unix.PerfEventOpen(attr, pid, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open perf event: %w", os.NewSyscallError("perf_event_open", err))
	}
	return perfFD(fd), nil
}
