//go:build !amd64

package numa

// currentSources are the ways that this CPU has: without an instruction for it
// there is the system call.
func currentSources() []CurrentSource { return []CurrentSource{SourceSyscall} }

func readCurrent(CurrentSource) (cpu, node int) { return getcpu() }
