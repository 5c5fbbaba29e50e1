package numa

// Linux puts the CPU into the low bits and the node above
// (VDSO_CPUNODE_BITS in arch/x86/include/asm/segment.h).
const (
	cpuBits = 12
	cpuMask = 1<<cpuBits - 1
)

// rdpid executes RDPID, which faults on a CPU that lacks it.
//
//go:noescape
func rdpid() uint64

// lsl reads the limit of the segment in which Linux keeps the CPU's number, or
// returns all ones where there is no such segment.
//
//go:noescape
func lsl() uint64

// cpuid7 executes CPUID, leaf 7, and returns ECX; 0 where there is no leaf 7.
//
//go:noescape
func cpuid7() uint32

// currentSources are the ways that this CPU has, from the cheapest.
func currentSources() []CurrentSource {
	const hasRDPID = 1 << 22 // Intel SDM volume 2, CPUID leaf 07H
	if cpuid7()&hasRDPID != 0 {
		return []CurrentSource{SourceRDPID, SourceLSL, SourceSyscall}
	}
	return []CurrentSource{SourceLSL, SourceSyscall}
}

func readCurrent(source CurrentSource) (cpu, node int) {
	switch source {
	case SourceRDPID:
		v := rdpid()
		return int(v & cpuMask), int(v >> cpuBits)
	case SourceLSL:
		v := lsl()
		return int(v & cpuMask), int(v >> cpuBits)
	}
	return getcpu()
}
