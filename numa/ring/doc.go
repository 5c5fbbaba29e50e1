// Package ring has a bounded queue that takes and gives batches: many goroutines
// push, one pops. It feeds threads that are bound to CPUs, for which a channel
// operation per request costs a futex and a scheduler round each.
//
// A producer claims room for its batch with one compare-and-swap on the tail and
// then publishes each cell by a sequence number, as in Vyukov's bounded queue
// (1024cores.net, "Bounded MPMC queue"); the consumer takes whatever is
// published in one go. Waiting is a short spin and then a channel, so an idle
// ring costs nothing and no lock is held anywhere.
//
// Producer, consumer and cold words are 128 bytes apart: cache lines are 64 bytes
// and the adjacent-line prefetcher of x86 fetches them in pairs.
//
// It does not help where a request takes microseconds: then a channel is as fast
// and simpler. A producer that the scheduler stops between claim and publication
// holds up what was claimed after it, until it runs again.
package ring
