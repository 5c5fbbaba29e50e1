// Package identity asks CPUID libraries what the processor is, and compares
// what they and the kernel say of the same machine.
//
// The kernel's files are what coreplica goes by; klauspost/cpuid reads the
// topology leaves on every CPU, and intel-go/cpuid, where it compiles, reads the
// cache descriptors. They read the same hardware, so a difference is a fault or a
// gap of one of them, and it is shown rather than settled in silence.
//
// It is apart from package numa because both libraries execute CPUID when a
// program starts, which traps into the hypervisor in a virtual machine. It does
// not help to learn where a thread is: that is numa.CurrentCPU.
package identity
