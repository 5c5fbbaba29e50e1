// Package uring is the least of io_uring that a load needs: one ring, writes,
// one system call for a batch, completions.
//
// It follows the kernel's own description (io_uring(7), io_uring_setup(2),
// io_uring_enter(2)): two queues in shared memory, each with one side that
// advances its head and one that advances its tail. It needs Linux 5.6, the
// first with a plain write operation.
//
// It does not help a program that wants polling by a kernel thread, registered
// files or buffers, linked operations, or a ring that several goroutines share:
// it has none of them, so that what is measured is a batch of writes and nothing
// else.
package uring
