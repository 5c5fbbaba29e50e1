// Package timeline draws what the workers of a run queue did when one of them
// failed: who noticed when, who took the log over, how long each step of the
// takeover lasted, and what the one that was fenced off still tried.
//
// It reads the traces that workers record (see [protocol.Recorder]), those of the
// simulator included, and plays them through the protocol: a picture of a trace
// that the protocol would not have caused is an error and no picture.
//
// Times are those of the steps' events, by the clock of each core. What a core
// does between two events has no time of its own.
package timeline
