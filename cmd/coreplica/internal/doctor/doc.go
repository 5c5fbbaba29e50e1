// Package doctor examines a machine: can `coreplica mirrorcost run` measure
// here, what is missing, what does the lack cost, and what mends it.
//
// What can be tried is tried: each BPF program type is loaded and attached,
// since a kernel that lists a feature may still refuse it. What can only be
// read comes from a file tree that looks like /, so that tests examine
// machines that nobody has. Two CPUID libraries are asked side by side, and
// where they disagree both answers are shown.
//
// An examination changes nothing: it mounts nothing, loads no kernel module,
// and detaches each program as soon as it was attached.
//
// It does not help with what only the work itself meets: a full disk, a device
// that fails, a program that the verifier refuses. And it looks at this moment:
// a machine that is quiet now may be busy in a minute.
package doctor
