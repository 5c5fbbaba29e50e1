package replicated

import (
	"context"
	"encoding/gob"
	"io"
	"iter"
	"slices"
)

// Slice is a slice with a replica on each node. Elements are shared by all
// replicas, so nobody may change what they point to.
type Slice[V any] struct {
	x    *Replicated[*sliceRep[V], sliceOp[V], int]
	node int
}

// sliceRep is a replica.
type sliceRep[V any] struct{ all []V }

type sliceKind uint8

const (
	sliceAppend sliceKind = iota
	sliceSet
	sliceTruncate
)

type sliceOp[V any] struct {
	kind  sliceKind
	index int
	value V
	more  []V
}

// Apply implements [Sequential]. It returns the length afterwards, or -1 where an
// index was out of range.
func (s *sliceRep[V]) Apply(op sliceOp[V]) int {
	switch op.kind {
	case sliceAppend:
		s.all = append(s.all, op.more...)
	case sliceSet:
		if op.index < 0 || op.index >= len(s.all) {
			return -1
		}
		s.all[op.index] = op.value
	case sliceTruncate:
		if op.index < 0 || op.index > len(s.all) {
			return -1
		}
		clear(s.all[op.index:]) // For the collector.
		s.all = s.all[:op.index]
	}
	return len(s.all)
}

// Clone implements [Cloner].
func (s *sliceRep[V]) Clone() *sliceRep[V] { return &sliceRep[V]{slices.Clone(s.all)} }

// Snapshot implements [Snapshotter], by encoding/gob.
func (s *sliceRep[V]) Snapshot(w io.Writer) error { return gob.NewEncoder(w).Encode(s.all) }

// Restore implements [Snapshotter].
func (s *sliceRep[V]) Restore(r io.Reader) error {
	s.all = nil
	return gob.NewDecoder(r).Decode(&s.all)
}

// NewSlice returns an empty slice.
func NewSlice[V any](opts Options) (*Slice[V], error) {
	x, err := New(func() *sliceRep[V] { return &sliceRep[V]{} }, opts)
	if err != nil {
		return nil, err
	}
	return &Slice[V]{x, -1}, nil
}

// On returns the same slice for the use of threads of one node.
func (s *Slice[V]) On(node int) *Slice[V] {
	if node < 0 || node >= s.x.nodes {
		panic("replicated: node out of range")
	}
	return &Slice[V]{s.x, node}
}

func (s *Slice[V]) write(op sliceOp[V]) int {
	n, _, err := s.x.writeOne(context.Background(), s.x.actorOn(s.node), op)
	mustHold(err)
	return n
}

func (s *Slice[V]) read(fn func(all []V)) {
	_, err := s.x.read(s.x.actorOn(s.node), 0, 0, func(r *sliceRep[V]) { fn(r.all) })
	mustHold(err)
}

// Append appends values, next to each other, and returns the index of the first.
func (s *Slice[V]) Append(values ...V) (index int) {
	return s.write(sliceOp[V]{kind: sliceAppend, more: slices.Clone(values)}) - len(values)
}

// Load returns the element at an index, or false if there is none.
func (s *Slice[V]) Load(index int) (value V, ok bool) {
	s.read(func(all []V) {
		if ok = index >= 0 && index < len(all); ok {
			value = all[index]
		}
	})
	return value, ok
}

// Store sets the element at an index and reports whether there is one.
func (s *Slice[V]) Store(index int, value V) (ok bool) {
	return s.write(sliceOp[V]{kind: sliceSet, index: index, value: value}) >= 0
}

// Truncate shortens the slice to n elements and reports whether it had as many.
func (s *Slice[V]) Truncate(n int) (ok bool) {
	return s.write(sliceOp[V]{kind: sliceTruncate, index: n}) >= 0
}

// Clear deletes all elements.
func (s *Slice[V]) Clear() { s.Truncate(0) }

// Len returns the number of elements.
func (s *Slice[V]) Len() (n int) {
	s.read(func(all []V) { n = len(all) })
	return n
}

// All yields the indexes and elements of one moment.
func (s *Slice[V]) All() iter.Seq2[int, V] {
	return func(yield func(int, V) bool) {
		var taken []V
		s.read(func(all []V) { taken = slices.Clone(all) })
		for i, v := range taken {
			if !yield(i, v) {
				return
			}
		}
	}
}

// Stats is [Replicated.Stats].
func (s *Slice[V]) Stats() Stats { return s.x.Stats() }

// Close is [Replicated.Close].
func (s *Slice[V]) Close() error { return s.x.Close() }
