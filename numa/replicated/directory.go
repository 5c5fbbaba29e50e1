package replicated

import (
	"sync"
	"unsafe"
)

// lineBytes is the unit of coherence.
const lineBytes = 64

// directory models what a directory of cache lines sees: which nodes hold a line,
// and whether one of them has changed it. Nodes have caches without end, so what
// it counts is sharing and nothing else.
//
// It watches what this package shares between nodes: the log's ring and tails, the
// replicas' positions, and requests. What a structure allocates is local to its
// replica, and slots are local to their node, but for the rare helper.
type directory struct {
	mu        sync.Mutex
	holders   map[uintptr]uint64 // by line: a bit for each node that has it
	transfers uint64
	upgrades  uint64
}

func newDirectory() *directory { return &directory{holders: map[uintptr]uint64{}} }

// touch records an access by a thread of a node. Memory that nobody has touched
// comes from nowhere: the first access moves nothing.
func (d *directory) touch(node int, at unsafe.Pointer, write bool) {
	d.touchLine(node, uintptr(at)/lineBytes, write)
}

func (d *directory) touchLine(node int, l uintptr, write bool) {
	bit := uint64(1) << (node % 64)
	d.mu.Lock()
	defer d.mu.Unlock()
	holders := d.holders[l]
	if holders != 0 && holders&bit == 0 {
		d.transfers++
	} else if write && holders&^bit != 0 {
		d.upgrades++
	}
	if write {
		d.holders[l] = bit
	} else {
		d.holders[l] = holders | bit
	}
}

func (d *directory) counts() (transfers, upgrades uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.transfers, d.upgrades
}
