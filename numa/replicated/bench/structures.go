package bench

import (
	"container/heap"
	"maps"
	"slices"
	"sort"
)

// Store is a sequential structure as the benchmarks use it. Get must change
// nothing.
type Store interface {
	Get(key uint64) uint64
	Put(key, value uint64) uint64
}

// Structure is a kind of store.
type Structure struct {
	// Name is as it stands in reports.
	Name string
	// New returns one with keys 0 to keys-1.
	New func(keys int) Store
	// Clone returns a copy that shares nothing with the original that either may
	// change. It may be nil.
	Clone func(Store) Store
}

// Structures returns the kinds: hash map, ordered map, LRU cache, priority queue,
// and two accounts changed as one.
func Structures() []Structure {
	return []Structure{
		{"hashmap", newHashMap, func(s Store) Store { return maps.Clone(s.(hashMap)) }},
		{"ordered", func(keys int) Store { return newOrdered(keys) }, func(s Store) Store { return s.(*ordered).clone() }},
		{"lru", func(keys int) Store { return newLRU(keys) }, func(s Store) Store { return s.(*lru).clone() }},
		{"heap", func(keys int) Store { return newQueue(keys) }, func(s Store) Store { q := slices.Clone(*s.(*queue)); return &q }},
		{"transfer", func(keys int) Store { return accounts(make([]uint64, keys)) }, func(s Store) Store { return slices.Clone(s.(accounts)) }},
	}
}

func newHashMap(keys int) Store {
	m := make(hashMap, keys)
	for k := range uint64(keys) {
		m[k] = k
	}
	return m
}

type hashMap map[uint64]uint64

func (m hashMap) Get(key uint64) uint64 { return m[key] }
func (m hashMap) Put(key, value uint64) uint64 {
	old := m[key]
	m[key] = value
	return old
}

// ordered is a list of sorted chunks.
type ordered struct{ chunks [][]uint64Pair }

type uint64Pair struct{ key, value uint64 }

const orderedChunk = 256

func newOrdered(keys int) *ordered {
	o := &ordered{}
	for k := range uint64(keys) {
		if k%(orderedChunk/2) == 0 {
			o.chunks = append(o.chunks, make([]uint64Pair, 0, orderedChunk))
		}
		last := &o.chunks[len(o.chunks)-1]
		*last = append(*last, uint64Pair{k, k})
	}
	return o
}

func (o *ordered) clone() *ordered {
	c := &ordered{make([][]uint64Pair, len(o.chunks))}
	for i, chunk := range o.chunks {
		c.chunks[i] = slices.Clone(chunk)
	}
	return c
}

func (o *ordered) find(key uint64) *uint64Pair {
	at := sort.Search(len(o.chunks), func(i int) bool { return key < o.chunks[i][0].key }) - 1
	if at < 0 {
		return nil
	}
	i, found := slices.BinarySearchFunc(o.chunks[at], key, func(p uint64Pair, key uint64) int {
		switch {
		case p.key < key:
			return -1
		case p.key > key:
			return 1
		}
		return 0
	})
	if !found {
		return nil
	}
	return &o.chunks[at][i]
}

func (o *ordered) Get(key uint64) uint64 {
	if p := o.find(key); p != nil {
		return p.value
	}
	return 0
}

// Put replaces a value: the benchmarks' keys are all there.
func (o *ordered) Put(key, value uint64) (old uint64) {
	if p := o.find(key); p != nil {
		old, p.value = p.value, value
	}
	return old
}

// lru is a cache of half as many entries as there are keys. Get looks without
// making an entry younger, and Put makes it the youngest.
type lru struct {
	index         map[uint64]uint32
	entries       []lruEntry
	young, oldest uint32
}

type lruEntry struct {
	key, value     uint64
	younger, older uint32
}

func newLRU(keys int) *lru {
	n := max(keys/2, 2)
	l := &lru{index: make(map[uint64]uint32, n), entries: make([]lruEntry, n)}
	for i := range uint32(n) {
		l.entries[i] = lruEntry{key: uint64(i), value: uint64(i), younger: i - 1, older: i + 1}
		l.index[uint64(i)] = i
	}
	l.oldest = uint32(n - 1)
	return l
}

func (l *lru) clone() *lru {
	c := *l
	c.index, c.entries = maps.Clone(l.index), slices.Clone(l.entries)
	return &c
}

func (l *lru) Get(key uint64) uint64 {
	if i, ok := l.index[key]; ok {
		return l.entries[i].value
	}
	return 0
}

func (l *lru) Put(key, value uint64) uint64 {
	i, ok := l.index[key]
	if !ok {
		i = l.oldest
		delete(l.index, l.entries[i].key)
		l.index[key] = i
		l.entries[i].key = key
	}
	e := &l.entries[i]
	old := e.value
	e.value = value
	if i == l.young {
		return old
	}
	if i == l.oldest {
		l.oldest = e.younger
	} else {
		l.entries[e.older].younger = e.younger
	}
	l.entries[e.younger].older = e.older
	e.older = l.young
	l.entries[l.young].younger = i
	l.young = i
	return old
}

// queue is a priority queue. Get looks at the least, and Put replaces it.
type queue []uint64

func newQueue(keys int) *queue {
	q := make(queue, keys)
	for i := range q {
		q[i] = uint64(i)
	}
	return &q
}

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i] < q[j] }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }

// Push implements [heap.Interface].
func (q *queue) Push(x any) { *q = append(*q, x.(uint64)) }

// Pop implements [heap.Interface].
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// Get implements [Store].
func (q *queue) Get(uint64) uint64 { return (*q)[0] }
func (q *queue) Put(key, value uint64) uint64 {
	old := (*q)[0]
	(*q)[0] = old + key + value%16
	heap.Fix(q, 0)
	return old
}

// accounts are balances: Get adds up two of them and Put moves an amount between
// two, which single-key maps cannot do as one operation.
type accounts []uint64

func (a accounts) other(key uint64) uint64 { return (key*31 + 17) % uint64(len(a)) }
func (a accounts) Get(key uint64) uint64   { return a[key] + a[a.other(key)] }
func (a accounts) Put(key, value uint64) uint64 {
	a[key] -= value
	a[a.other(key)] += value
	return a[key]
}
