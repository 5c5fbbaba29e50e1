// Package attachcheck finds out which kinds of BPF program this kernel really
// runs, by loading and attaching one of each.
//
// Asking is not enough: a kernel may have a feature in its configuration, load
// the program and still refuse to attach it, because a security module, a
// hypervisor's policy or a missing capability says no. So [Kind.Try] loads a
// program of two instructions, attaches it, and detaches it at once. What
// comes back is the kernel's own errno.
//
// The programs return at once and touch nothing. While one is attached, its
// event costs every CPU some nanoseconds more; none stays attached for longer
// than the call.
//
// The package does not help with what depends on the program: a verifier that
// refuses a loop, a helper that is missing, a kernel function that was inlined
// away. The probes of coreplica say that themselves when they are loaded.
package attachcheck
