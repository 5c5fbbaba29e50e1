package clock

import (
	"sync/atomic"
	"time"
)

// Instant is a reading of a monotonic clock, in nanoseconds since a moment that
// only this clock knows. Readings of different clocks are not comparable.
type Instant int64

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from o to i.
func (i Instant) Sub(o Instant) time.Duration { return time.Duration(i - o) }

// Source is a clock. It never goes back, and it may be read by any goroutine.
type Source interface {
	Now() Instant
}

// Manual is a Source that moves when it is told to. Its zero value stands at 0.
type Manual struct{ now atomic.Int64 }

// Now returns where the clock stands.
func (m *Manual) Now() Instant { return Instant(m.now.Load()) }

// Advance moves the clock on. It panics on a negative duration: the clock is
// monotonic.
func (m *Manual) Advance(d time.Duration) {
	if d < 0 {
		panic("clock: a monotonic clock does not go back")
	}
	m.now.Add(int64(d))
}

// Interval is a moment between two instants, both included, of one clock.
type Interval struct{ Earliest, Latest Instant }

// Around returns the moments that a reading with an error of at most delta may
// mean.
func Around(reading Instant, delta time.Duration) Interval {
	return Interval{reading.Add(-delta), reading.Add(delta)}
}

// Before reports whether i is certainly before o. When neither is before the
// other, their order is not known.
func (i Interval) Before(o Interval) bool { return i.Latest < o.Earliest }

// Overlaps reports whether the order of i and o is not known.
func (i Interval) Overlaps(o Interval) bool { return !i.Before(o) && !o.Before(i) }
