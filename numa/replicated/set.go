package replicated

import (
	"context"
	"iter"
)

// Set is a set with a replica on each node. What is said of [Map] holds for it.
type Set[K comparable] struct{ m *Map[K, struct{}] }

// NewSet returns an empty set.
func NewSet[K comparable](opts Options) (*Set[K], error) {
	m, err := NewMap[K, struct{}](opts)
	if err != nil {
		return nil, err
	}
	return &Set[K]{m}, nil
}

// On returns the same set for the use of threads of one node.
func (s *Set[K]) On(node int) *Set[K] { return &Set[K]{s.m.On(node)} }

// Add adds a key and reports whether it was not there.
func (s *Set[K]) Add(key K) (added bool) {
	_, loaded := s.m.LoadOrStore(key, struct{}{})
	return !loaded
}

// Delete deletes a key and reports whether it was there.
func (s *Set[K]) Delete(key K) (deleted bool) {
	_, deleted = s.m.LoadAndDelete(key)
	return deleted
}

// Contains reports whether a key is there.
func (s *Set[K]) Contains(key K) bool {
	_, ok := s.m.Load(key)
	return ok
}

// Len returns the number of keys.
func (s *Set[K]) Len() int { return s.m.Len() }

// Clear deletes all keys.
func (s *Set[K]) Clear() { s.m.Clear() }

// All yields the keys that were there at one moment, in no order.
func (s *Set[K]) All() iter.Seq[K] {
	return func(yield func(K) bool) {
		s.m.Range(func(key K, _ struct{}) bool { return yield(key) })
	}
}

// Stats is [Map.Stats].
func (s *Set[K]) Stats() []Stats { return s.m.Stats() }

// AddReplica is [Map.AddReplica].
func (s *Set[K]) AddReplica(ctx context.Context, node int) error { return s.m.AddReplica(ctx, node) }

// RemoveReplica is [Map.RemoveReplica].
func (s *Set[K]) RemoveReplica(ctx context.Context, node int) error {
	return s.m.RemoveReplica(ctx, node)
}

// Close is [Map.Close].
func (s *Set[K]) Close() error { return s.m.Close() }
