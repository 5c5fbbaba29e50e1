// Package kernelfs mounts the kernel's own file systems for as long as they are
// needed: tracefs, without which no classic tracepoint attaches, and bpffs,
// without which nothing can be pinned. Distributions mount both at boot; minimal
// systems and containers do not.
//
// It does not help where the process may not mount, and it is not for file
// systems that hold data: package internal/cleanup remembers those.
package kernelfs
