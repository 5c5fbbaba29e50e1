// Package numa knows the shape of the machine and places work and memory on it.
//
// A [Topology] has the memory nodes, CPUs, cores, caches, distances and huge
// pages that exist, and [Limits] has what of it this process may use. It is
// parsed from an fs.FS that looks like the file system's root, so that a fixture
// is a machine: [Local] reads this one. The words are the kernel's
// (Documentation/admin-guide/mm/numaperf.rst, cputopology.rst, cgroup-v2.rst).
//
// A [Worker] is an operating system thread that is bound to CPUs and takes
// batches of requests from a ring; a [Pool] has one for each CPU, core or node.
// [Alloc] gives memory outside Go's heap under a memory policy, for types
// without pointers, and [PlacementOf] asks the kernel where pages really are.
// [Build] makes a value on the Go heap from a bound thread and reports the share
// of its pages that came to lie on the node: Go's heap knows no nodes, so that
// share is a measurement and never a promise.
//
// [CurrentCPU] and [CurrentNode] are hints: the scheduler may move the caller
// before it has looked at the answer.
//
// It does not help where there is one node, or where the working set fits a
// cache: then all memory is near. Nothing here makes remote memory faster, and a
// bound thread is slower than a free one where others compete for its CPU.
package numa
