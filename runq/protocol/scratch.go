package protocol

import "unsafe"

// Scratch is memory that a takeover needs, made ready before there is one: fresh
// pages cost a machine more than all else that a takeover does. It serves one log
// at a time, whose queue then lives there; a further one takes memory from the heap.
// Nothing in it refers to other memory.
type Scratch struct {
	origins []origin
	all     []int32
	tasks   []task
	places  []int32
	ring    []laneEntry
	words   []uint64
	data    []byte
	owner   *log
}

// ScratchBytes is how much memory a scratch for a queue of a geometry takes.
func ScratchBytes(g Geometry) int {
	var s Scratch
	return s.carve(g, nil)
}

// LongestProgram is roughly how many effects the longest program has: a snapshot of
// a full queue, with payloads that lie side by side, in k copies.
func LongestProgram(g Geometry, k int) int {
	return k * (2*int(g.capacity()) + int(g.Cells)) / maxRun
}

// NewScratch makes a scratch of ScratchBytes bytes of zeros, which begin at a multiple
// of 8 and are the scratch's from now on.
func NewScratch(g Geometry, memory []byte) *Scratch {
	s := &Scratch{}
	if s.carve(g, memory) > len(memory) {
		return nil
	}
	return s
}

// carve deals memory out, or only counts it where there is none.
func (s *Scratch) carve(g Geometry, memory []byte) (used int) {
	entries := int(g.capacity())
	carveOut(&s.origins, entries, memory, &used)
	carveOut(&s.all, entries, memory, &used)
	carveOut(&s.tasks, entries, memory, &used)
	carveOut(&s.places, 2*entries, memory, &used)
	carveOut(&s.ring, entries, memory, &used)
	carveOut(&s.words, (entries+4)*RecordWords, memory, &used)
	carveOut(&s.data, int(g.Cells)*CellBytes, memory, &used)
	return used
}

func carveOut[T any](to *[]T, n int, memory []byte, used *int) {
	var one T
	size := (n*int(unsafe.Sizeof(one)) + 7) &^ 7
	if *used+size <= len(memory) && n > 0 {
		*to = unsafe.Slice((*T)(unsafe.Pointer(&memory[*used])), n)
	}
	*used += size
}

// Lend gives the node memory for its next takeover.
func (n *Node) Lend(s *Scratch) { n.scratch = s }

// take gives the scratch to a log that is about to be recovered, unless another
// one that the node has lives there.
func (s *Scratch) take(n *Node, l *log) {
	if s != nil && (s.owner == nil || n.logs[s.owner.id] != s.owner) {
		s.owner = l
	}
}

// of returns the scratch if the log has it.
func (s *Scratch) of(l *log) *Scratch {
	if s == nil || s.owner != l {
		return nil
	}
	return s
}

// lent is what a log may use of the scratch that it has, or has not.
func (s *Scratch) lent() Scratch {
	if s == nil {
		return Scratch{}
	}
	return *s
}

// reserve makes room for so many entries of an empty queue, most of which come to
// the lane prio. Without a scratch it is of the heap.
func (q *queue) reserve(n int, prio uint8, s *Scratch) {
	size := minTable
	for size < 2*n {
		size *= 2
	}
	if s == nil || n > len(s.tasks) || size > len(s.places) {
		q.tasks, q.index.places = make([]task, 0, n), make([]int32, size)
		return
	}
	q.tasks, q.index.places, q.all = s.tasks[:0], s.places[:size], s.all[:0]
	clear(q.index.places)
	ring := minLane
	for ring < n {
		ring *= 2
	}
	if ring <= len(s.ring) {
		q.lanes[prio&MaxPrio].ring = s.ring[:ring]
	}
}

// room returns an empty slice with room for n, from a scratch if it has as much.
func room[T any](old []T, n int, scratch []T) []T {
	switch {
	case cap(old) >= n:
		return old[:0]
	case len(scratch) >= n:
		return scratch[:0]
	}
	return make([]T, 0, n)
}
