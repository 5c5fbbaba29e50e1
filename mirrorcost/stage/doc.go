// Package stage knows what kernel functions do for a write.
//
// A sampled stack is walked from the leaf towards the root, and the first
// function that a rule names decides its stage. Functions that no rule names
// belong to whoever called them: a memcpy in a checksum is the checksum's. The
// walk ends where an interrupt came in, since what lies below it was only
// interrupted. Thread names play no part: btrfs moves the same work between the
// writer and its workers as it sees fit.
//
// The rules are text, one file a layer (see the folder rules), so that they can
// be read and argued with; [Parse] describes the form. The same files list which
// work functions and kernel threads belong to a write at all. Function names
// come from Linux 5.15 to 6.18 and are compared without the suffixes that
// compilers add.
//
// The package does not help with functions that the compiler inlined: their time
// is their caller's.
package stage
