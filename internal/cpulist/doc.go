// Package cpulist reads and writes the kernel's list format, such as "0-3,8":
// how /sys, /proc and taskset name sets of CPUs and of memory nodes
// (Documentation/admin-guide/cputopology.rst; bitmap_print_to_pagebuf in
// lib/bitmap-str.c).
//
// It does not read the hexadecimal masks of the same files, nor the group
// syntax "0-31:2/4" of the kernel's command line, which no file prints.
package cpulist
