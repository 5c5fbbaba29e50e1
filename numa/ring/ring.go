package ring

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

// ErrClosed is returned to who pushes after [Ring.Close].
var ErrClosed = errors.New("ring is closed")

const (
	// MaxCapacity keeps a slip of the pen from taking all memory.
	MaxCapacity = 1 << 24
	// spins are the looks at a cell before the consumer goes to sleep: 1 to 2
	// µs, about what waking a thread costs.
	spins = 1000
	// closedBit of the tail: claiming and closing are one word, so that what
	// was claimed before the end is delivered and nothing after it.
	closedBit = 1 << 63
	// apart separates words that different cores write.
	apart = 128
)

// Ring is a bounded queue for many producers and one consumer. Use [New].
type Ring[T any] struct {
	cells []cell[T]
	mask  uint64

	_ [apart]byte
	// tail is the next position to claim, written by producers.
	tail atomic.Uint64
	_    [apart - 8]byte
	// head is the next position to pop, written by the consumer.
	head atomic.Uint64
	_    [apart - 8]byte
	// asleep is 1 while the consumer waits for a signal, nudged after a Wake
	// that no Wait has seen yet, closed after the tail was closed.
	asleep atomic.Uint32
	nudged atomic.Uint32
	closed atomic.Bool
	// full counts producers that wait for room.
	full atomic.Int32
	_    [apart - 8]byte

	signal chan struct{}
	room   struct {
		sync.Mutex
		freed chan struct{}
	}
}

// cell holds a value at a position; sequence is the position plus one once the
// value is there.
type cell[T any] struct {
	sequence atomic.Uint64
	value    T
}

// New makes a ring for at least capacity values, rounded up to a power of two.
func New[T any](capacity int) (*Ring[T], error) {
	if capacity < 1 || capacity > MaxCapacity {
		return nil, fmt.Errorf("make ring: capacity %d, want 1 to %d", capacity, MaxCapacity)
	}
	size := uint64(1) << bits.Len64(uint64(capacity-1))
	r := &Ring[T]{cells: make([]cell[T], size), mask: size - 1, signal: make(chan struct{}, 1)}
	r.room.freed = make(chan struct{})
	return r, nil
}

// Cap returns the number of values that fit.
func (r *Ring[T]) Cap() int { return len(r.cells) }

// Len returns the number of values that were claimed and not popped; it may be
// out of date on return.
func (r *Ring[T]) Len() int {
	head := r.head.Load()
	return int(r.tail.Load()&^closedBit - head)
}

// Tail returns the number of values ever claimed.
func (r *Ring[T]) Tail() uint64 { return r.tail.Load() &^ closedBit }

// TryPush pushes as many of the values as there is room for, in order and next
// to each other, and returns how many. It never waits. Any goroutine may call
// it.
func (r *Ring[T]) TryPush(values []T) (n int, err error) {
	if len(values) == 0 {
		return 0, nil
	}
	var at uint64
	for {
		at = r.tail.Load()
		if at&closedBit != 0 {
			return 0, ErrClosed
		}
		// A head that is out of date shows too little room, never too much;
		// but it may have passed the tail that was read before it.
		used := at - r.head.Load()
		if int64(used) < 0 {
			continue
		}
		n = min(len(values), len(r.cells)-int(used))
		if n == 0 {
			return 0, nil
		}
		if r.tail.CompareAndSwap(at, at+uint64(n)) {
			break
		}
	}
	for i, value := range values[:n] {
		c := &r.cells[(at+uint64(i))&r.mask]
		c.value = value
		c.sequence.Store(at + uint64(i) + 1)
	}
	r.rouse()
	return n, nil
}

// Push pushes all values and waits for room. It returns how many were pushed:
// all of them, unless the ring was closed or ctx ended.
func (r *Ring[T]) Push(ctx context.Context, values ...T) (n int, err error) {
	for {
		m, err := r.TryPush(values[n:])
		if n += m; err != nil || n == len(values) {
			return n, err
		}
		if m > 0 {
			continue
		}
		if err := r.waitForRoom(ctx); err != nil {
			return n, err
		}
	}
}

func (r *Ring[T]) waitForRoom(ctx context.Context) error {
	// Announce first, look second: the consumer moves the head first and looks
	// for who waits second, so one of the two sees the other.
	r.full.Add(1)
	defer r.full.Add(-1)
	r.room.Lock()
	freed := r.room.freed
	r.room.Unlock()
	if tail := r.tail.Load(); tail&closedBit != 0 || r.Len() < r.Cap() {
		return nil
	}
	select {
	case <-freed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("push: %w", context.Cause(ctx))
	}
}

// tellRoom wakes all producers that wait for room.
func (r *Ring[T]) tellRoom() {
	r.room.Lock()
	close(r.room.freed)
	r.room.freed = make(chan struct{})
	r.room.Unlock()
}

// Wake makes a [Ring.Wait] return, the one that waits now or else the next. Any
// goroutine may call it.
func (r *Ring[T]) Wake() {
	r.nudged.Store(1)
	r.rouse()
}

// rouse wakes the consumer if it sleeps. What it should see is written before.
func (r *Ring[T]) rouse() {
	if r.asleep.Load() == 1 && r.asleep.CompareAndSwap(1, 0) {
		r.signal <- struct{}{} // Never blocks: one signal for each time asleep.
	}
}

// Pop moves what is published into the buffer and returns how many values; it
// never waits. Only the consumer may call it.
func (r *Ring[T]) Pop(buffer []T) int {
	head := r.head.Load()
	n := 0
	var none T
	for n < len(buffer) {
		c := &r.cells[(head+uint64(n))&r.mask]
		if c.sequence.Load() != head+uint64(n)+1 {
			break
		}
		buffer[n], c.value = c.value, none // The ring keeps nothing alive.
		n++
	}
	if n > 0 {
		r.head.Store(head + uint64(n))
		if r.full.Load() > 0 {
			r.tellRoom()
		}
	}
	return n
}

// Wait returns when a value is there, after a [Ring.Wake], or when the ring is
// closed. more is false when it is closed and empty for good. Only the consumer
// may call it.
func (r *Ring[T]) Wait() (more bool) {
	for range spins {
		if r.ready() {
			return r.more()
		}
	}
	// As in waitForRoom: announce, look, sleep.
	r.asleep.Store(1)
	if !r.ready() || !r.asleep.CompareAndSwap(1, 0) {
		<-r.signal
	}
	return r.more()
}

// more takes note of a Wake and reports whether anything can still come.
func (r *Ring[T]) more() bool {
	if r.nudged.Load() == 1 {
		r.nudged.Store(0)
	}
	return !r.done()
}

// ready reports whether there is a reason to return from Wait. It leaves the
// tail alone, for which the producers compete.
func (r *Ring[T]) ready() bool {
	head := r.head.Load()
	return r.cells[head&r.mask].sequence.Load() == head+1 || r.nudged.Load() == 1 || r.done()
}

// done reports whether the ring is closed and all that was pushed is popped.
func (r *Ring[T]) done() bool {
	return r.closed.Load() && r.tail.Load() == r.head.Load()|closedBit
}

// Close ends the ring: pushing fails from now on, and what was pushed can still
// be popped. It may be called more than once, by any goroutine.
func (r *Ring[T]) Close() {
	r.tail.Or(closedBit)
	r.closed.Store(true)
	r.rouse()
	r.tellRoom()
}
