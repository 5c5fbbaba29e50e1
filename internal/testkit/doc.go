// Package testkit is what the tests of coreplica share: saying what a test
// needs from the machine, and noticing what it leaves behind.
//
// A test names its needs with [Need]. Where one is missing it skips with a line
// that a program can read:
//
//	SKIP coreplica feature=kprobes reason="try kprobe: …"
//
// and where the environment variable COREPLICA_EXPECT lists the feature, it
// fails instead: a skip that a platform should not need is how a suite goes
// blind unnoticed. The program in skiplist prints all skips at the end of a
// run.
//
// A package's TestMain calls [Main], which fails the package when its tests
// leak file descriptors, child processes, CPU affinity or, by name, devices,
// mounts and pinned BPF objects.
//
// The idea of legal skips comes from cilium/ebpf's internal/testutils, and the
// exit on leaked file descriptors too.
//
// The package does not help where two runs share a machine and a name: give
// what a test makes a name of its own. And a leak that the test itself hides,
// say by detaching a process from its parent, is hidden from here as well.
package testkit
