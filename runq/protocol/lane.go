package protocol

import "slices"

// lane is the ready tasks of one priority that have no deadline and came in order,
// which is most of them: a ring instead of a heap. A task that leaves out of turn
// stays behind as a dead entry until it comes to the front.
type lane struct {
	ring []laneEntry // Its length is a power of two.
	head uint64      // Counts entries taken; tail counts those put in.
	tail uint64
	live int
}

// laneEntry is the place of a task and its order then: a task with another order
// is another one, or it came back.
type laneEntry struct {
	place int32
	order uint64
}

// minLane is the first length of a ring.
const minLane = 16

// last returns the order of the youngest entry, dead or alive, or 0.
func (l *lane) last() uint64 {
	if l.head == l.tail {
		return 0
	}
	return l.ring[(l.tail-1)&uint64(len(l.ring)-1)].order
}

func (l *lane) push(tasks []task, e laneEntry) {
	if l.tail-l.head == uint64(len(l.ring)) {
		l.make(tasks)
	}
	l.ring[l.tail&uint64(len(l.ring)-1)] = e
	l.tail++
	l.live++
}

// drop takes the task with an order out, whose entry stays as a dead one unless it is
// the oldest.
func (l *lane) drop(order uint64) {
	l.live--
	if l.ring[l.head&uint64(len(l.ring)-1)].order == order {
		l.head++
	}
}

// make makes room: it leaves dead entries out, and grows if those alone give
// little.
func (l *lane) make(tasks []task) {
	size := max(minLane, len(l.ring))
	if 2*l.live > size || len(l.ring) == 0 {
		size = max(minLane, 2*len(l.ring))
	}
	ring := make([]laneEntry, size)
	n := uint64(0)
	for ; l.head < l.tail; l.head++ {
		if e := l.ring[l.head&uint64(len(l.ring)-1)]; e.lives(tasks) {
			ring[n] = e
			n++
		}
	}
	l.ring, l.head, l.tail = ring, 0, n
}

// lives reports whether the task of an entry still stands there.
func (e laneEntry) lives(tasks []task) bool {
	t := &tasks[e.place]
	return t.laned && t.order == e.order
}

// front returns the place of the oldest task, or -1.
func (l *lane) front(tasks []task) int32 {
	for ; l.live > 0 && l.head < l.tail; l.head++ {
		if e := l.ring[l.head&uint64(len(l.ring)-1)]; e.lives(tasks) {
			return e.place
		}
	}
	l.head = l.tail
	return -1
}

func (l *lane) clone() lane {
	c := *l
	c.ring = slices.Clone(l.ring)
	return c
}
