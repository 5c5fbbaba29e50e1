package replicated

import (
	"cmp"
	"context"
	"encoding/gob"
	"io"
	"iter"
	"slices"
	"sort"
)

// OrderedMap is a map with a replica on each node whose keys are in order.
type OrderedMap[K cmp.Ordered, V any] struct {
	x    *Replicated[*sortedMap[K, V], boxOp[K, V], boxRes[V]]
	node int
}

// chunkKeys is how many keys a chunk of a sortedMap may have. Smaller chunks make
// the list of chunks longer, and an insertion moves half of either.
const chunkKeys = 256

// sortedMap is a replica: a sorted list of sorted chunks, a B-tree of two levels.
// With a million keys the list is about as long as a chunk is times sixteen.
type sortedMap[K cmp.Ordered, V any] struct {
	chunks []*sortedChunk[K, V]
	count  int
}

type sortedChunk[K cmp.Ordered, V any] struct {
	keys   []K
	values []V
}

func newSortedMap[K cmp.Ordered, V any]() *sortedMap[K, V] { return &sortedMap[K, V]{} }

// find returns the chunk and the index at which a key is or belongs.
func (m *sortedMap[K, V]) find(key K) (chunk, index int, found bool) {
	// The last chunk whose first key is not above key.
	chunk = sort.Search(len(m.chunks), func(i int) bool { return cmp.Less(key, m.chunks[i].keys[0]) }) - 1
	if chunk < 0 {
		return 0, 0, false
	}
	index, found = slices.BinarySearch(m.chunks[chunk].keys, key)
	return chunk, index, found
}

func (m *sortedMap[K, V]) load(key K) (value V, ok bool) {
	if chunk, i, found := m.find(key); found {
		return m.chunks[chunk].values[i], true
	}
	return value, false
}

func (m *sortedMap[K, V]) store(key K, value V) {
	at, i, found := m.find(key)
	if found {
		m.chunks[at].values[i] = value
		return
	}
	m.count++
	if len(m.chunks) == 0 {
		m.chunks = append(m.chunks, &sortedChunk[K, V]{})
	}
	c := m.chunks[at]
	c.keys = slices.Insert(c.keys, i, key)
	c.values = slices.Insert(c.values, i, value)
	if len(c.keys) > chunkKeys {
		half := len(c.keys) / 2
		upper := &sortedChunk[K, V]{slices.Clone(c.keys[half:]), slices.Clone(c.values[half:])}
		c.keys = slices.Delete(c.keys, half, len(c.keys))
		c.values = slices.Delete(c.values, half, len(c.values))
		m.chunks = slices.Insert(m.chunks, at+1, upper)
	}
}

func (m *sortedMap[K, V]) remove(key K) {
	at, i, found := m.find(key)
	if !found {
		return
	}
	m.count--
	c := m.chunks[at]
	c.keys = slices.Delete(c.keys, i, i+1)
	c.values = slices.Delete(c.values, i, i+1)
	if len(c.keys) == 0 {
		m.chunks = slices.Delete(m.chunks, at, at+1)
	}
}

// from calls fn for each key from low on, in order, until it returns false.
func (m *sortedMap[K, V]) from(low K, fn func(K, V) bool) {
	if len(m.chunks) == 0 {
		return
	}
	at, i, _ := m.find(low)
	for ; at < len(m.chunks); at, i = at+1, 0 {
		c := m.chunks[at]
		for ; i < len(c.keys); i++ {
			if !fn(c.keys[i], c.values[i]) {
				return
			}
		}
	}
}

func (m *sortedMap[K, V]) each(fn func(K, V) bool) {
	for _, c := range m.chunks {
		for i := range c.keys {
			if !fn(c.keys[i], c.values[i]) {
				return
			}
		}
	}
}

// Apply implements [Sequential].
func (m *sortedMap[K, V]) Apply(op boxOp[K, V]) boxRes[V] {
	if op.kind == mapClear {
		*m = sortedMap[K, V]{}
		return boxRes[V]{}
	}
	value, ok := m.load(op.key)
	switch {
	case op.kind == mapStore, op.kind == mapLoadOrStore && !ok:
		m.store(op.key, op.value)
	case op.kind == mapDelete:
		m.remove(op.key)
	}
	return boxRes[V]{value, ok}
}

// Clone implements [Cloner].
func (m *sortedMap[K, V]) Clone() *sortedMap[K, V] {
	clone := &sortedMap[K, V]{count: m.count}
	for _, c := range m.chunks {
		clone.chunks = append(clone.chunks, &sortedChunk[K, V]{slices.Clone(c.keys), slices.Clone(c.values)})
	}
	return clone
}

// sortedText is the form of a snapshot.
type sortedText[K cmp.Ordered, V any] struct {
	Keys   []K
	Values []V
}

// Snapshot implements [Snapshotter], by encoding/gob.
func (m *sortedMap[K, V]) Snapshot(w io.Writer) error {
	var text sortedText[K, V]
	for _, c := range m.chunks {
		text.Keys = append(text.Keys, c.keys...)
		text.Values = append(text.Values, c.values...)
	}
	return gob.NewEncoder(w).Encode(text)
}

// Restore implements [Snapshotter].
func (m *sortedMap[K, V]) Restore(r io.Reader) error {
	var text sortedText[K, V]
	if err := gob.NewDecoder(r).Decode(&text); err != nil {
		return err
	}
	*m = sortedMap[K, V]{}
	for i, key := range text.Keys {
		m.store(key, text.Values[i])
	}
	return nil
}

// NewOrderedMap returns an empty map.
func NewOrderedMap[K cmp.Ordered, V any](opts Options) (*OrderedMap[K, V], error) {
	x, err := New(newSortedMap[K, V], opts)
	if err != nil {
		return nil, err
	}
	return &OrderedMap[K, V]{x, -1}, nil
}

// On returns the same map for the use of threads of one node.
func (m *OrderedMap[K, V]) On(node int) *OrderedMap[K, V] {
	if node < 0 || node >= m.x.nodes {
		panic("replicated: node out of range")
	}
	return &OrderedMap[K, V]{m.x, node}
}

func (m *OrderedMap[K, V]) write(kind mapKind, key K, value V) (V, bool) {
	res, _, err := m.x.writeOne(context.Background(), m.x.actorOn(m.node), boxOp[K, V]{kind: kind, key: key, value: value})
	mustHold(err)
	return res.value, res.ok
}

func (m *OrderedMap[K, V]) read(fn func(*sortedMap[K, V])) {
	_, err := m.x.read(m.x.actorOn(m.node), 0, 0, fn)
	mustHold(err)
}

// Load returns the value of a key, or the zero value, and whether it is there.
func (m *OrderedMap[K, V]) Load(key K) (value V, ok bool) {
	m.read(func(s *sortedMap[K, V]) { value, ok = s.load(key) })
	return value, ok
}

// Store sets the value of a key.
func (m *OrderedMap[K, V]) Store(key K, value V) { m.write(mapStore, key, value) }

// Swap sets the value of a key and returns the one before, if there was one.
func (m *OrderedMap[K, V]) Swap(key K, value V) (previous V, loaded bool) {
	return m.write(mapStore, key, value)
}

// LoadOrStore returns the value of a key if there is one. Otherwise it stores and
// returns the given one.
func (m *OrderedMap[K, V]) LoadOrStore(key K, value V) (actual V, loaded bool) {
	if actual, loaded = m.write(mapLoadOrStore, key, value); loaded {
		return actual, true
	}
	return value, false
}

// LoadAndDelete deletes a key and returns the value that it had, if any.
func (m *OrderedMap[K, V]) LoadAndDelete(key K) (value V, loaded bool) {
	var none V
	return m.write(mapDelete, key, none)
}

// Delete deletes a key.
func (m *OrderedMap[K, V]) Delete(key K) { m.LoadAndDelete(key) }

// Clear deletes all keys.
func (m *OrderedMap[K, V]) Clear() {
	var key K
	var value V
	m.write(mapClear, key, value)
}

// Len returns the number of keys.
func (m *OrderedMap[K, V]) Len() (n int) {
	m.read(func(s *sortedMap[K, V]) { n = s.count })
	return n
}

// Ascend calls fn for each key from low on, in order, until fn returns false. fn
// runs inside the replica: it must be short and must not use the map. All keys
// belong to one moment.
func (m *OrderedMap[K, V]) Ascend(low K, fn func(key K, value V) bool) {
	m.read(func(s *sortedMap[K, V]) { s.from(low, fn) })
}

// All yields the keys of one moment in order. It copies them, so the loop may use
// the map.
func (m *OrderedMap[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		var all []pair[K, V]
		m.read(func(s *sortedMap[K, V]) {
			all = make([]pair[K, V], 0, s.count)
			s.each(func(key K, value V) bool { all = append(all, pair[K, V]{key, value}); return true })
		})
		each(all, yield)
	}
}

// Stats is [Replicated.Stats].
func (m *OrderedMap[K, V]) Stats() Stats { return m.x.Stats() }

// Close is [Replicated.Close].
func (m *OrderedMap[K, V]) Close() error { return m.x.Close() }
