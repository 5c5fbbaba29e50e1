package clock

import "time"

// PPM is a rate error in parts per million.
type PPM int64

// million is what a PPM is a part of.
const million = 1_000_000

// Lease is the right to act for a while, renewed by raising a counter that
// others watch.
type Lease struct {
	// Length is how long a renewal lasts on the holder's clock.
	Length time.Duration
	// Drift bounds how far the rate of any clock is from true time.
	Drift PPM
	// Epsilon is a margin for what rates do not cover: the granularity of the
	// clocks and the time that a store takes to be seen.
	Epsilon time.Duration
}

// HeldUntil returns when the holder must stop, given when it read its clock,
// before the store of the renewal.
func (l Lease) HeldUntil(beforeRenewal Instant) Instant {
	return beforeRenewal.Add(l.Length - l.Epsilon)
}

// Renewal returns how long after a renewal the next one is due. A quarter of
// the length lets three renewals come late before the lease runs out.
func (l Lease) Renewal() time.Duration { return l.Length / 4 }

// Patience returns how long a watcher waits after it saw the last renewal, on
// its own clock: Length*(1+Drift)/(1-Drift) + Epsilon, rounded up. A holder
// with the slowest clock has stopped by then, on a watcher's fastest.
func (l Lease) Patience() time.Duration {
	slow, fast := int64(million-l.Drift), int64(million+l.Drift)
	length := int64(l.Length)
	// Divided first, so that hours in nanoseconds do not overflow.
	scaled := length/slow*fast + (length%slow*fast+slow-1)/slow
	return time.Duration(scaled) + l.Epsilon
}

// Watch times the changes of a counter on the watcher's clock. Its zero value
// has seen nothing. It is not safe for concurrent use.
type Watch struct {
	value   uint64
	changed Instant
	seen    bool
}

// Observe takes a reading of the counter.
func (w *Watch) Observe(value uint64, now Instant) {
	if !w.seen || value != w.value {
		*w = Watch{value, now, true}
	}
}

// Silent returns how long the counter has not changed, 0 before the first
// reading.
func (w *Watch) Silent(now Instant) time.Duration {
	if !w.seen {
		return 0
	}
	return now.Sub(w.changed)
}
