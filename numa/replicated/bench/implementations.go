package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/coreplica/coreplica/numa/replicated"
)

// Instance is a structure that several workers use at once.
type Instance struct {
	// Get and Put are called with the worker's number, from 0.
	Get func(worker int, key uint64) uint64
	Put func(worker int, key, value uint64)
	// Close releases it. It may be nil.
	Close func()
}

// Implementation is a way of sharing a structure.
type Implementation struct {
	// Name is as it stands in reports.
	Name string
	// Only is the structure that it implements, or empty if it makes any store
	// usable by several workers.
	Only string
	// Copies says that each write copies the structure.
	Copies bool
	// Sequential says that it is not made for several workers. It runs with
	// one, whatever the case says, to show what sharing costs.
	Sequential bool
	// New returns an instance with keys 0 to keys-1 for so many workers.
	New func(s Structure, keys, workers int) (Instance, error)
}

// copiedKeys is the most that a structure may hold to be copied by each write. A copy
// of a thousand keys takes microseconds. A copy of a million takes tens of milliseconds,
// more than a block lasts, so that a block would measure one write, or none.
const copiedKeys = 1_000

// Serves reports whether the implementation is one of the structure with so many
// keys: what copies it needs a way to do so, and few of them.
func (i Implementation) Serves(s Structure, keys int) bool {
	if i.Copies && (s.Clone == nil || keys > copiedKeys) {
		return false
	}
	return i.Only == "" || i.Only == s.Name
}

// Implementations returns those that need no third party: the bare structure,
// locks, copy-on-write, sync.Map, and replicas on one node and on two simulated ones.
func Implementations() []Implementation {
	return []Implementation{
		{Name: "bare", Sequential: true, New: newBare},
		{Name: "mutex", New: newMutex},
		{Name: "rwmutex", New: newRWMutex},
		{Name: "cow", Copies: true, New: newCopyOnWrite},
		{Name: "syncmap", Only: "hashmap", New: newSyncMap},
		{Name: "replicated1", New: func(s Structure, keys, workers int) (Instance, error) { return newReplicated(s, keys, workers, 1) }},
		{Name: "replicated2", New: func(s Structure, keys, workers int) (Instance, error) { return newReplicated(s, keys, workers, 2) }},
		{Name: "map1", Only: "hashmap", New: func(_ Structure, keys, workers int) (Instance, error) { return newMap(keys, workers, 1) }},
		{Name: "map2", Only: "hashmap", New: func(_ Structure, keys, workers int) (Instance, error) { return newMap(keys, workers, 2) }},
	}
}

func newBare(s Structure, keys, _ int) (Instance, error) {
	store := s.New(keys)
	return Instance{
		Get: func(_ int, key uint64) uint64 { return store.Get(key) },
		Put: func(_ int, key, value uint64) { store.Put(key, value) },
	}, nil
}

func newMutex(s Structure, keys, _ int) (Instance, error) {
	store := s.New(keys)
	var mu sync.Mutex
	return Instance{
		Get: func(_ int, key uint64) uint64 { mu.Lock(); v := store.Get(key); mu.Unlock(); return v },
		Put: func(_ int, key, value uint64) { mu.Lock(); store.Put(key, value); mu.Unlock() },
	}, nil
}

func newRWMutex(s Structure, keys, _ int) (Instance, error) {
	store := s.New(keys)
	var mu sync.RWMutex
	return Instance{
		Get: func(_ int, key uint64) uint64 { mu.RLock(); v := store.Get(key); mu.RUnlock(); return v },
		Put: func(_ int, key, value uint64) { mu.Lock(); store.Put(key, value); mu.Unlock() },
	}, nil
}

// newCopyOnWrite keeps an immutable copy behind a pointer: readers store nothing and
// wait for nobody, and a write copies all. It is what Go has of read-copy-update.
func newCopyOnWrite(s Structure, keys, _ int) (Instance, error) {
	var current atomic.Pointer[Store]
	first := s.New(keys)
	current.Store(&first)
	var mu sync.Mutex
	return Instance{
		Get: func(_ int, key uint64) uint64 { return (*current.Load()).Get(key) },
		Put: func(_ int, key, value uint64) {
			mu.Lock()
			next := s.Clone(*current.Load())
			next.Put(key, value)
			current.Store(&next)
			mu.Unlock()
		},
	}, nil
}

func newSyncMap(_ Structure, keys, _ int) (Instance, error) {
	var m sync.Map
	for k := range uint64(keys) {
		m.Store(k, k)
	}
	return Instance{
		Get: func(_ int, key uint64) uint64 { v, _ := m.Load(key); n, _ := v.(uint64); return n },
		Put: func(_ int, key, value uint64) { m.Store(key, value) },
	}, nil
}

// put is the operation on a replicated store.
type put struct{ key, value uint64 }

// sequential is a store as a replica.
type sequential struct{ store Store }

// Apply implements [replicated.Sequential].
func (s sequential) Apply(op put) uint64 { return s.store.Put(op.key, op.value) }

func newReplicated(s Structure, keys, workers, nodes int) (Instance, error) {
	x, err := replicated.New(func() sequential { return sequential{s.New(keys)} },
		replicated.Options{Topology: replicated.Simulated(nodes, 2)})
	if err != nil {
		return Instance{}, err
	}
	handles := make([]*replicated.Handle[sequential, put, uint64], workers)
	for w := range handles {
		handles[w] = x.HandleOn(w % nodes)
	}
	return Instance{
		Get: func(worker int, key uint64) (v uint64) {
			if err := handles[worker].Read(func(s sequential) { v = s.store.Get(key) }); err != nil {
				panic(fmt.Errorf("bench: %w", err))
			}
			return v
		},
		Put: func(worker int, key, value uint64) {
			if _, err := handles[worker].Write(context.Background(), put{key, value}); err != nil {
				panic(fmt.Errorf("bench: %w", err))
			}
		},
		Close: func() { _ = x.Close() }, // It has no error to tell.
	}, nil
}

func newMap(keys, workers, nodes int) (Instance, error) {
	m, err := replicated.NewMap[uint64, uint64](replicated.Options{Topology: replicated.Simulated(nodes, 2)})
	if err != nil {
		return Instance{}, err
	}
	for k := range uint64(keys) {
		m.Store(k, k)
	}
	views := make([]*replicated.Map[uint64, uint64], workers)
	for w := range views {
		views[w] = m.On(w % nodes)
	}
	return Instance{
		Get:   func(worker int, key uint64) uint64 { v, _ := views[worker].Load(key); return v },
		Put:   func(worker int, key, value uint64) { views[worker].Store(key, value) },
		Close: func() { _ = m.Close() }, // It has no error to tell.
	}, nil
}
