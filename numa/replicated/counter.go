package replicated

import (
	"context"
	"encoding/binary"
	"io"
	"runtime"
	"sync/atomic"
)

// Counter is a number with a replica on each node, for numbers that are read much
// more often than they change, such as a limit, a version or a time. Reads store
// nothing. To count events, take a counter that is split by threads instead: this
// one applies each addition on each node.
type Counter struct {
	x    *Replicated[*countCell, countOp, int64]
	node int
}

// countCell is a replica: a number, on its own page if it is not on the heap.
type countCell struct{ n *atomic.Int64 }

func newCountCell(s site) *countCell {
	c := &countCell{}
	c.n = &wordsAt[atomic.Int64](s, 1, c)[0]
	return c
}

// load keeps the number's memory alive, should the replica be given up meanwhile.
func (c *countCell) load() int64 {
	n := c.n.Load()
	runtime.KeepAlive(c)
	return n
}

type countOp struct {
	set    bool
	amount int64
}

// Apply implements [Sequential]. It returns the new number after an addition and
// the old one when it is set.
func (c *countCell) Apply(op countOp) int64 {
	if op.set {
		return c.n.Swap(op.amount)
	}
	return c.n.Add(op.amount)
}

// Clone implements [Cloner].
func (c *countCell) Clone() *countCell { return c.cloneAt(site{}) }

func (c *countCell) cloneAt(s site) *countCell {
	clone := newCountCell(s)
	clone.n.Store(c.load())
	return clone
}

// Hash implements [Hasher].
func (c *countCell) Hash() uint64 { return uint64(c.load()) }

// Snapshot implements [Snapshotter].
func (c *countCell) Snapshot(w io.Writer) error {
	return binary.Write(w, binary.LittleEndian, c.load())
}

// Restore implements [Snapshotter].
func (c *countCell) Restore(r io.Reader) error {
	var n int64
	err := binary.Read(r, binary.LittleEndian, &n)
	c.n.Store(n)
	return err
}

// NewCounter returns a counter at 0.
func NewCounter(opts Options) (*Counter, error) {
	x, err := newAt(newCountCell, opts)
	if err != nil {
		return nil, err
	}
	x.adopt = func(r *replica[*countCell, countOp, int64], data *countCell) { r.data.n.Store(data.load()) }
	return &Counter{x, -1}, nil
}

// On returns the same counter for the use of threads of one node.
func (c *Counter) On(node int) *Counter {
	if node < 0 || node >= c.x.nodes {
		panic("replicated: node out of range")
	}
	return &Counter{c.x, node}
}

// Load returns the number.
func (c *Counter) Load() (n int64) {
	node := c.x.nodeOn(c.node)
	for range peeks {
		r, gate, open := c.x.peek(node)
		if !open {
			break
		}
		if n = r.data.load(); c.x.stands(r, gate) {
			return n
		}
	}
	_, err := c.x.read(actor{node, stackHint()}, 0, 0, func(cell *countCell) { n = cell.load() })
	mustHold(err)
	return n
}

// Add adds delta and returns the new number.
func (c *Counter) Add(delta int64) int64 { return c.write(countOp{false, delta}) }

// Swap sets the number and returns the one before.
func (c *Counter) Swap(n int64) int64 { return c.write(countOp{true, n}) }

// Store sets the number.
func (c *Counter) Store(n int64) { c.Swap(n) }

func (c *Counter) write(op countOp) int64 {
	n, _, err := c.x.writeOne(context.Background(), c.x.actorOn(c.node), op)
	mustHold(err)
	return n
}

// Stats is [Replicated.Stats].
func (c *Counter) Stats() Stats { return c.x.Stats() }

// Close is [Replicated.Close].
func (c *Counter) Close() error { return c.x.Close() }
