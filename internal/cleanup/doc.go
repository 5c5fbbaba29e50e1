// Package cleanup remembers what a run makes on the machine, so that a later
// run can remove what a crash left: loop devices, mounts, zram devices,
// processes, pinned BPF objects, folders.
//
// Every [Run] has an identity, "coreplica-PID-RANDOM", and a folder of that name
// with a lock that the kernel drops when the process dies, however it dies. It
// writes a line into a journal before it makes a thing, and another one after it
// has removed it. [Clean] takes the runs whose lock is free and removes what
// their journals list, last made first, and nothing else: before it touches
// anything it asks the kernel for proof that the thing is the run's. The proof is
// always the identity. It is a folder in the path of each file, mount point and
// backing file, a mark in the environment of each process, and the memory limit
// of each zram device, which is set far beyond any memory and to a number drawn
// from the identity. So a loop device or a process number that somebody else uses
// by now is left alone, and a damaged journal can at worst leave things behind.
//
// Writing intents before deeds is the rule of write-ahead logs; locks that die
// with their holder are flock(2).
//
// The package does not help against power failure: the journal is not synced,
// because devices and mounts do not outlive the kernel either. A folder of
// backing files on a disk may then stay. It cannot see what was made without
// being recorded, and two users of one machine do not see each other's runs.
package cleanup
