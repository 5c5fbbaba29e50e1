package main

import (
	"sync"
	"sync/atomic"

	"github.com/coreplica/coreplica/runq/bench"
)

// task is what the queues carry by value.
type task struct {
	id      uint64
	payload [bench.PayloadBytes]byte
}

// ringSize is a power of two that holds a batch.
const ringSize = 2 * bench.Batch

// deque is a ring under a mutex.
type deque struct {
	mu         sync.Mutex
	head, tail uint64
	tasks      [ringSize]task
}

func (d *deque) push(t task) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tail-d.head == ringSize {
		return false
	}
	d.tasks[d.tail%ringSize] = t
	d.tail++
	return true
}

func (d *deque) pop() (t task, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.head == d.tail {
		return t, false
	}
	t = d.tasks[d.head%ringSize]
	d.head++
	return t, true
}

// chaseLev is the work-stealing ring of Chase and Lev (Dynamic Circular
// Work-Stealing Deque, SPAA 2005) with a fixed size: the owner pushes and pops at
// the bottom, thieves take from the top. Slots hold pointers, since a thief may
// read a slot that it does not get.
type chaseLev struct {
	top    atomic.Int64
	_      [120]byte // Thieves and owner write different lines.
	bottom atomic.Int64
	_      [120]byte
	slots  [ringSize]atomic.Pointer[task]
}

// push is for the owner.
func (q *chaseLev) push(t *task) bool {
	b := q.bottom.Load()
	if b-q.top.Load() >= ringSize {
		return false
	}
	q.slots[b%ringSize].Store(t)
	q.bottom.Store(b + 1)
	return true
}

// pop is for the owner, and takes the youngest.
func (q *chaseLev) pop() *task {
	b := q.bottom.Load() - 1
	q.bottom.Store(b)
	t := q.top.Load()
	if t > b {
		q.bottom.Store(b + 1)
		return nil
	}
	got := q.slots[b%ringSize].Load()
	if t == b { // The last one: thieves want it too.
		if !q.top.CompareAndSwap(t, t+1) {
			got = nil
		}
		q.bottom.Store(b + 1)
	}
	return got
}

// steal is for anybody, and takes the oldest.
func (q *chaseLev) steal() *task {
	t := q.top.Load()
	if t >= q.bottom.Load() {
		return nil
	}
	got := q.slots[t%ringSize].Load()
	if !q.top.CompareAndSwap(t, t+1) {
		return nil
	}
	return got
}
