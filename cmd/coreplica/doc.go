// Command coreplica measures what mirrored storage costs in CPU.
//
// Commands read `coreplica NOUN VERB`, and a noun is the name of the folder
// that does the work. This package only translates: flags into options, errors
// into exit codes, results into a chosen form. Standard output carries results
// and nothing else; progress and complaints go to standard error, a complaint
// on one line that says the fix. The exit code is 0, 1 when the work failed, or
// 2 when the command line makes no sense.
//
// It does not help another Go program: that imports the packages beneath.
package main
