// Package clock is how time enters coreplica: as an argument, from a [Source],
// with an error that is known.
//
// A [Lease] says until when its holder may act and from when on others may act
// instead. Both measure with their own clock, so only the difference of their
// rates matters, not what the clocks show (Gray and Cheriton, Leases, SOSP
// 1989). A [Watch] times the changes of a counter on the watcher's clock. An
// [Interval] is a moment that is known up to an error, as in Google's TrueTime
// (Corbett et al., Spanner, OSDI 2012).
//
// Leases decide when to act, never whether it is safe: a paused holder wakes up
// after its lease and goes on, and no check of a clock just before a write can
// keep it from writing. Safety needs a fence where the write lands.
package clock
