// Package guest is the inside of a lab's guest: the first process, which mounts
// what programs expect, loads modules, runs one program and tells its exit code.
//
// The process is the program that started the guest, packed as /init: it calls
// [Main] first thing, which returns at once unless the process is number 1 of a
// guest that [Job] describes. So a guest needs no program that is not there
// already, and a test binary can start guests too.
//
// The exit code goes to a serial port of its own, in a line with a number that
// the run drew and that nothing else in the guest knows: the job's file is
// removed before the program starts. A guest that dies, hangs or prints such a
// line without the number has no exit code.
package guest
