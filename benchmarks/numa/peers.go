package main

import (
	"github.com/puzpuzpuz/xsync/v4"
	"github.com/tidwall/btree"

	"github.com/coreplica/coreplica/numa/replicated/bench"
)

// structures returns all kinds of stores.
func structures() []bench.Structure {
	return append(bench.Structures(), bench.Structure{Name: "btree", New: newTree, Clone: cloneTree})
}

// tree is tidwall's B-tree without its lock: coreplica or a mutex guards it.
type tree struct{ m *btree.Map[uint64, uint64] }

func newTree(keys int) bench.Store {
	t := tree{btree.NewMap[uint64, uint64](0)}
	for k := range uint64(keys) {
		t.m.Set(k, k)
	}
	return t
}

// cloneTree copies the root alone: the tree itself copies on write, node by node.
func cloneTree(s bench.Store) bench.Store { return tree{s.(tree).m.Copy()} }

func (t tree) Get(key uint64) uint64 {
	v, _ := t.m.Get(key)
	return v
}

func (t tree) Put(key, value uint64) uint64 {
	old, _ := t.m.Set(key, value)
	return old
}

// implementations returns coreplica's, the standard library's and the peers'.
func implementations() []bench.Implementation {
	return append(bench.Implementations(),
		bench.Implementation{Name: "xsync", Only: "hashmap", New: newXsync},
		bench.Implementation{Name: "rbmutex", New: newRBMutex},
	)
}

func newXsync(_ bench.Structure, keys, _ int) (bench.Instance, error) {
	m := xsync.NewMap[uint64, uint64]()
	for k := range uint64(keys) {
		m.Store(k, k)
	}
	return bench.Instance{
		Get: func(_ int, key uint64) uint64 { v, _ := m.Load(key); return v },
		Put: func(_ int, key, value uint64) { m.Store(key, value) },
	}, nil
}

func newRBMutex(s bench.Structure, keys, _ int) (bench.Instance, error) {
	store := s.New(keys)
	mu := xsync.NewRBMutex()
	return bench.Instance{
		Get: func(_ int, key uint64) uint64 {
			token := mu.RLock()
			v := store.Get(key)
			mu.RUnlock(token)
			return v
		},
		Put: func(_ int, key, value uint64) { mu.Lock(); store.Put(key, value); mu.Unlock() },
	}, nil
}
