package numa

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// CurrentSource names a way to learn the current CPU.
type CurrentSource string

// The ways, from the cheapest. BenchmarkCurrent measures those that the CPU at
// hand has: on a virtual machine (AMD family 26, Linux 6.18) LSL costs 20 ns and
// the system call 1,240 ns. CPUID, which other libraries use, traps into the
// hypervisor.
const (
	// SourceRDPID is an instruction that reads IA32_TSC_AUX, a register that
	// Linux fills with node and CPU.
	SourceRDPID CurrentSource = "rdpid"
	// SourceLSL reads the same from the limit of a segment, which is how the
	// vDSO's getcpu does it where RDPID is missing (arch/x86/include/asm/segment.h).
	SourceLSL CurrentSource = "lsl"
	// SourceSyscall is getcpu(2).
	SourceSyscall CurrentSource = "getcpu"
)

// errMoved is returned where the scheduler moved the thread too often for two
// readings to be compared.
var errMoved = errors.New("the thread was moved between two readings each time")

// currentSource is chosen once, before any other code of the program runs.
var currentSource = chooseSource()

// CurrentFrom returns the way that this process uses: the cheapest that the CPU
// has and that agreed with the system call at start.
func CurrentFrom() CurrentSource { return currentSource }

// Current returns the CPU that the caller ran on a moment ago, and its node.
// Unless the thread is bound, both may be out of date on return: use them to
// choose a near shard, never to assume that nobody else is there. It takes no
// lock and does not allocate.
func Current() (cpu, node int) { return readCurrent(currentSource) }

// CurrentCPU returns the CPU of [Current].
func CurrentCPU() int {
	cpu, _ := readCurrent(currentSource)
	return cpu
}

// CurrentNode returns the node of [Current].
func CurrentNode() int {
	_, node := readCurrent(currentSource)
	return node
}

// getcpu asks the kernel. It cannot fail: the addresses are good.
func getcpu() (cpu, node int) {
	var c, n uint32
	unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&c)), uintptr(unsafe.Pointer(&n)), 0)
	return int(c), int(n)
}

// chooseSource takes the first way that agrees with the system call here and
// now. [VerifyCurrent] tries every CPU.
func chooseSource() CurrentSource {
	for _, source := range currentSources() {
		if checkSource(source, readCurrent) == nil {
			return source
		}
	}
	return SourceSyscall
}

// checkSource compares a way with the system call on the current CPU. That is no
// formality: under a hypervisor that hides RDPID, the instruction was seen to
// answer with the number of the host's CPU.
func checkSource(source CurrentSource, read func(CurrentSource) (cpu, node int)) error {
	const tries = 100
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range tries {
		cpu, node := getcpu()
		gotCPU, gotNode := read(source)
		if again, _ := getcpu(); again != cpu {
			continue
		}
		if gotCPU != cpu || gotNode != node {
			return fmt.Errorf("%s says CPU %d, node %d; getcpu says CPU %d, node %d", source, gotCPU, gotNode, cpu, node)
		}
		return nil
	}
	return errMoved
}

// VerifyCurrent goes to each of the CPUs and compares the way that [Current]
// uses with the system call, and the system call with the CPU that it went to.
// The calling goroutine's thread has its affinity back on return.
func VerifyCurrent(cpus List) error {
	return bound(cpus, func(cpu int) error {
		if got, _ := getcpu(); got != cpu {
			return fmt.Errorf("verify CPU number: bound to CPU %d, and getcpu says %d", cpu, got)
		}
		if err := checkSource(currentSource, readCurrent); err != nil {
			return fmt.Errorf("verify CPU number: %w", err)
		}
		return nil
	})
}
