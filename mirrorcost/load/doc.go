// Package load writes. It is the program under measurement, so it runs as a
// process of its own with as little in it as can be: locked threads, raw
// system calls, no garbage collection, no scheduler in the way.
//
// A program that wants to measure calls [Hook] first thing in main. Without
// that call nothing re-executes itself.
package load
