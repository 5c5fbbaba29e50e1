package replicated

import (
	"runtime"
	"time"
)

// How a thread waits. Yielding at once costs more than most waits last, and
// spinning without end is a deadlock on one CPU.
const (
	spins  = 1000 // polls before the thread is offered to others, a few microseconds
	yields = 64   // offers before it sleeps
	// nap grows from the first to the second.
	firstNap = 10 * time.Microsecond
	lastNap  = 500 * time.Microsecond
)

// waiter paces a loop that polls. Its zero value is ready.
type waiter struct {
	polls int
	nap   time.Duration
	// since is when the slow phase began; zero before.
	since time.Time
}

// pause waits a little, longer each time. It reports whether the wait has
// become slow, so that looking at clocks and contexts is worth its price.
func (w *waiter) pause() (slow bool) {
	w.polls++
	switch {
	case w.polls < spins:
		return false
	case w.polls < spins+yields:
		runtime.Gosched()
		return false
	case w.since.IsZero():
		w.since, w.nap = time.Now(), firstNap
	}
	time.Sleep(w.nap)
	w.nap = min(2*w.nap, lastNap)
	return true
}

// waited returns how long the slow phase has lasted.
func (w *waiter) waited() time.Duration {
	if w.since.IsZero() {
		return 0
	}
	return time.Since(w.since)
}
