// Package load writes. It is the program under measurement, so it runs as a
// process of its own with as little in it as can be: locked threads, raw
// system calls, no garbage collection, no scheduler in the way.
//
// A program that wants to measure calls [Hook] first thing in main. Without
// that call nothing re-executes itself. [Start] then runs the program's own
// executable again with a mark in its environment; the two speak JSON lines over
// two pipes, and between blocks the child sleeps. What it saw comes back as a
// [Result], or as a [WriteError] that says which write of which file failed and
// how.
//
// The shape is fio's (threads, depth one, direct or buffered, fsync every so
// many writes, open-loop rate); unlike fio it writes each block to several files
// if told so, and acknowledges it only when all of them have it, which is what a
// program without a kernel mirror would have to do.
//
// It does not help as a benchmark of a device: a thread waits for each write, or
// each batch, so it never keeps a deep queue busy. And its latency is service
// time: what a late write waited for its turn is not in it, only counted, see
// [Result.Late].
package load
