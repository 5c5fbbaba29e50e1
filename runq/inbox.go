package runq

import (
	"sync"

	"github.com/coreplica/coreplica/runq/protocol"
)

// inbox is what a worker has not looked at yet. Whoever puts something there
// wakes the worker only if it sleeps, and with one signal for a batch.
type inbox struct {
	mu     sync.Mutex
	evs    []protocol.Event
	asleep bool
	wake   chan struct{}
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

// put copies events in. What they refer to belongs to the worker from now on.
func (b *inbox) put(evs ...protocol.Event) {
	b.mu.Lock()
	b.evs = append(b.evs, evs...)
	b.rouse()
	b.mu.Unlock()
}

// nudge wakes the worker.
func (b *inbox) nudge() {
	b.mu.Lock()
	b.rouse()
	b.mu.Unlock()
}

func (b *inbox) rouse() {
	if b.asleep {
		b.asleep = false
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
}

// take returns all events and leaves buf in their place.
func (b *inbox) take(buf []protocol.Event) []protocol.Event {
	b.mu.Lock()
	evs := b.evs
	b.evs = buf[:0]
	b.mu.Unlock()
	return evs
}

// doze says that the worker will sleep, unless there is something.
func (b *inbox) doze() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asleep = len(b.evs) == 0
	return b.asleep
}
