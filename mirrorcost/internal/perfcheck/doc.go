// Package perfcheck reads what `perf script` prints and puts its stacks into the
// stages of a write, by rules that were written apart from those of package
// stage: from what the functions of Linux's source do, family by family. Only a
// test uses it, which compares the two instruments.
//
// It knows btrfs on loop devices and no other mirror, and it is no profiler: a
// user wants `perf report`.
package perfcheck
