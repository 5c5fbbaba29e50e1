package replicated

import (
	"context"
	"encoding/gob"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"maps"
	"math/bits"
	"reflect"

	"github.com/coreplica/coreplica/numa"
)

// Map is a map with a replica on each node. Its methods are those of [sync.Map],
// and mean the same, but for Range, which shows the map of one moment. In
// addition, all of them are linearizable.
//
// Where keys are integers or booleans and values are these or floating-point
// numbers, readers store nothing, not even in a slot of their own: replicas are
// tables of atomic words under a sequence lock. Other maps use Go's map and the
// generic engine.
//
// Keys and values are shared by all replicas, so nobody may change what they
// point to. A method panics if the map is poisoned, which takes a key whose
// comparison panics.
type Map[K comparable, V any] struct {
	core *mapCore[K, V]
	node int // that operations run for, or -1 for that of the calling thread
	// table is the engine of a map of words that is not split, for the sake of
	// reads.
	table *Replicated[*wordTable, wordOp, wordRes]
}

// view returns the map for the use of one node's threads, or of all for -1.
func (c *mapCore[K, V]) view(node int) *Map[K, V] {
	m := &Map[K, V]{core: c, node: node}
	if len(c.words) == 1 {
		m.table = c.words[0]
	}
	return m
}

// mapCore holds one of two engines, split into shards.
type mapCore[K comparable, V any] struct {
	words []*Replicated[*wordTable, wordOp, wordRes]
	boxes []*Replicated[*boxMap[K, V], boxOp[K, V], boxRes[V]]
	seed  maphash.Seed
	float mapKind
}

// NewMap returns an empty map.
func NewMap[K comparable, V any](opts Options) (*Map[K, V], error) {
	opts, err := opts.filled()
	if err != nil {
		return nil, err
	}
	core := &mapCore[K, V]{seed: maphash.MakeSeed()}
	valueType := reflect.TypeFor[V]()
	switch valueType.Kind() {
	case reflect.Float32:
		core.float = mapFloat32
	case reflect.Float64:
		core.float = mapFloat64
	}
	words := isWord(reflect.TypeFor[K](), true) && isWord(valueType, false)
	for range opts.Shards {
		if words {
			x, err := newAt(newWordTableAt, opts)
			if err != nil {
				return nil, err
			}
			x.adopt = func(r *replica[*wordTable, wordOp, wordRes], data *wordTable) { r.data.become(data) }
			core.words = append(core.words, x)
			continue
		}
		x, err := New(newBoxMap[K, V], opts)
		if err != nil {
			return nil, err
		}
		core.boxes = append(core.boxes, x)
	}
	return core.view(-1), nil
}

// On returns the same map for the use of threads of one node: it does not ask
// each time where the caller runs.
func (m *Map[K, V]) On(node int) *Map[K, V] {
	if node < 0 || node >= m.core.nodes() {
		panic("replicated: node out of range")
	}
	return m.core.view(node)
}

func (c *mapCore[K, V]) nodes() int {
	if c.words != nil {
		return c.words[0].nodes
	}
	return c.boxes[0].nodes
}

// Close is [Replicated.Close].
func (m *Map[K, V]) Close() error {
	for _, x := range m.core.words {
		_ = x.Close() // It has no error to tell.
	}
	for _, x := range m.core.boxes {
		_ = x.Close()
	}
	return nil
}

// Stats returns the figures of each shard.
func (m *Map[K, V]) Stats() []Stats {
	var all []Stats
	for _, x := range m.core.words {
		all = append(all, x.Stats())
	}
	for _, x := range m.core.boxes {
		all = append(all, x.Stats())
	}
	return all
}

// AddReplica is [Replicated.AddReplica], for all shards.
func (m *Map[K, V]) AddReplica(ctx context.Context, node int) error {
	return m.core.change(func(x admin) error { return x.AddReplica(ctx, node) })
}

// RemoveReplica is [Replicated.RemoveReplica], for all shards.
func (m *Map[K, V]) RemoveReplica(ctx context.Context, node int) error {
	return m.core.change(func(x admin) error { return x.RemoveReplica(ctx, node) })
}

// Verify is [Replicated.Verify], for all shards.
func (m *Map[K, V]) Verify(ctx context.Context) error {
	return m.core.change(func(x admin) error { return x.Verify(ctx) })
}

// admin is what both engines offer to those who look after replicas.
type admin interface {
	AddReplica(ctx context.Context, node int) error
	RemoveReplica(ctx context.Context, node int) error
	Verify(ctx context.Context) error
	Placement(ctx context.Context) ([]numa.Landed, error)
}

func (c *mapCore[K, V]) change(do func(admin) error) error {
	for _, x := range c.words {
		if err := do(x); err != nil {
			return err
		}
	}
	for _, x := range c.boxes {
		if err := do(x); err != nil {
			return err
		}
	}
	return nil
}

// shardOf deals a key's hash to shards by its high bits.
func shardOf(hash uint64, shards int) int {
	hi, _ := bits.Mul64(hash, uint64(shards))
	return int(hi)
}

func (c *mapCore[K, V]) wordShard(key uint64) *Replicated[*wordTable, wordOp, wordRes] {
	if len(c.words) == 1 {
		return c.words[0]
	}
	// Not the hash that the table uses: its cells would be used unevenly.
	return c.words[shardOf((key^key>>29)*0xBF58476D1CE4E5B9, len(c.words))]
}

func (c *mapCore[K, V]) boxShard(key K) *Replicated[*boxMap[K, V], boxOp[K, V], boxRes[V]] {
	var empty map[K]struct{}
	_ = empty[key] // It panics here, and not in the log, if the key has no hash.
	if len(c.boxes) == 1 {
		return c.boxes[0]
	}
	return c.boxes[shardOf(maphash.Comparable(c.seed, key), len(c.boxes))]
}

// actorOn returns the calling thread as an actor of a node, or of its own node.
func (x *Replicated[S, Op, Res]) actorOn(node int) actor {
	if node < 0 {
		return x.here()
	}
	return actor{node, stackHint()}
}

// nodeOn is actorOn for those who need no slot.
func (x *Replicated[S, Op, Res]) nodeOn(node int) int {
	if node >= 0 {
		return node
	}
	if x.nodes == 1 {
		return 0
	}
	return x.topo.Current() % x.nodes
}

// apply runs an operation on the map.
func (m *Map[K, V]) apply(kind mapKind, key K, value, old V) (was V, ok bool) {
	if m.core.words != nil {
		word := wordOf(key)
		x := m.core.wordShard(word)
		res, _, err := x.writeOne(context.Background(), x.actorOn(m.node), wordOp{kind, word, wordOf(value), wordOf(old)})
		mustHold(err)
		return valueOf[V](res.value), res.ok
	}
	x := m.core.boxShard(key)
	res, _, err := x.writeOne(context.Background(), x.actorOn(m.node), boxOp[K, V]{kind, key, value, old})
	mustHold(err)
	return res.value, res.ok
}

// mustHold panics if a ready-made structure is broken, as Go's map does.
func mustHold(err error) {
	if err != nil {
		panic(fmt.Errorf("replicated: %w", err))
	}
}

// Load returns the value of a key, or the zero value, and whether it is there.
func (m *Map[K, V]) Load(key K) (value V, ok bool) {
	x, word := m.table, wordOf(key)
	if x == nil {
		if m.core.words == nil {
			return m.loadBox(key)
		}
		x = m.core.wordShard(word)
	}
	node := m.node
	if node < 0 {
		node = x.nodeOn(node)
	}
	if r, gate, open := x.peek(node); open {
		if w, ok := r.data.load(word); x.stands(r, gate) {
			return valueOf[V](w), ok
		}
	}
	w, ok := loadSlowly(x, actor{node, stackHint()}, word)
	return valueOf[V](w), ok
}

// loadSlowly peeks a few times more, and then loads under a reader slot, which
// keeps writers out.
func loadSlowly(x *Replicated[*wordTable, wordOp, wordRes], by actor, key uint64) (value uint64, ok bool) {
	for range peeks {
		r, gate, open := x.peek(by.node)
		if !open {
			break
		}
		if value, ok = r.data.load(key); x.stands(r, gate) {
			return value, ok
		}
	}
	_, err := x.read(by, 0, 0, func(t *wordTable) { value, ok = t.load(key) })
	mustHold(err)
	return value, ok
}

func (m *Map[K, V]) loadBox(key K) (value V, ok bool) {
	x := m.core.boxShard(key)
	_, err := x.read(x.actorOn(m.node), 0, 0, func(b *boxMap[K, V]) { value, ok = b.m[key] })
	mustHold(err)
	return value, ok
}

// Store sets the value of a key.
func (m *Map[K, V]) Store(key K, value V) { m.Swap(key, value) }

// Swap sets the value of a key and returns the one before, if there was one.
func (m *Map[K, V]) Swap(key K, value V) (previous V, loaded bool) {
	var none V
	return m.apply(mapStore, key, value, none)
}

// LoadOrStore returns the value of a key if there is one. Otherwise it stores and
// returns the given one. It is a read where the key is there already.
func (m *Map[K, V]) LoadOrStore(key K, value V) (actual V, loaded bool) {
	if actual, loaded = m.Load(key); loaded {
		return actual, true
	}
	var none V
	if actual, loaded = m.apply(mapLoadOrStore, key, value, none); loaded {
		return actual, true
	}
	return value, false
}

// LoadAndDelete deletes a key and returns the value that it had, if any.
func (m *Map[K, V]) LoadAndDelete(key K) (value V, loaded bool) {
	var none V
	return m.apply(mapDelete, key, none, none)
}

// Delete deletes a key.
func (m *Map[K, V]) Delete(key K) { m.LoadAndDelete(key) }

// CompareAndSwap sets the value of a key if it is old. It panics if old is not
// comparable.
func (m *Map[K, V]) CompareAndSwap(key K, old, value V) (swapped bool) {
	if any(old) != any(old) {
		return false // Not a number is equal to nothing.
	}
	_, swapped = m.apply(mapCompareAndSwap|m.core.float, key, value, old)
	return swapped
}

// CompareAndDelete deletes a key if its value is old. It panics if old is not
// comparable.
func (m *Map[K, V]) CompareAndDelete(key K, old V) (deleted bool) {
	if any(old) != any(old) {
		return false
	}
	var none V
	_, deleted = m.apply(mapCompareAndDelete|m.core.float, key, none, old)
	return deleted
}

// Clear deletes all keys, shard by shard.
func (m *Map[K, V]) Clear() {
	for _, x := range m.core.words {
		_, _, err := x.writeOne(context.Background(), x.actorOn(m.node), wordOp{kind: mapClear})
		mustHold(err)
	}
	for _, x := range m.core.boxes {
		_, _, err := x.writeOne(context.Background(), x.actorOn(m.node), boxOp[K, V]{kind: mapClear})
		mustHold(err)
	}
}

// Len returns the number of keys, added up shard by shard.
func (m *Map[K, V]) Len() (n int) {
	for _, x := range m.core.words {
		_, err := x.read(x.actorOn(m.node), 0, 0, func(t *wordTable) { n += int(t.count.Load()) })
		mustHold(err)
	}
	for _, x := range m.core.boxes {
		_, err := x.read(x.actorOn(m.node), 0, 0, func(b *boxMap[K, V]) { n += len(b.m) })
		mustHold(err)
	}
	return n
}

// pair is a key and its value.
type pair[K, V any] struct {
	key   K
	value V
}

// Range calls fn for each key until fn returns false, in no order. It copies a
// shard at one moment and calls fn outside, so fn may use the map.
func (m *Map[K, V]) Range(fn func(key K, value V) bool) {
	for _, x := range m.core.words {
		var all []pair[K, V]
		_, err := x.read(x.actorOn(m.node), 0, 0, func(t *wordTable) {
			all = make([]pair[K, V], 0, t.count.Load())
			t.each(func(key, value uint64) bool {
				all = append(all, pair[K, V]{valueOf[K](key), valueOf[V](value)})
				return true
			})
		})
		mustHold(err)
		if !each(all, fn) {
			return
		}
	}
	for _, x := range m.core.boxes {
		var all []pair[K, V]
		_, err := x.read(x.actorOn(m.node), 0, 0, func(b *boxMap[K, V]) {
			all = make([]pair[K, V], 0, len(b.m))
			for key, value := range b.m {
				all = append(all, pair[K, V]{key, value})
			}
		})
		mustHold(err)
		if !each(all, fn) {
			return
		}
	}
}

func each[K, V any](all []pair[K, V], fn func(K, V) bool) bool {
	for _, p := range all {
		if !fn(p.key, p.value) {
			return false
		}
	}
	return true
}

// All is [Map.Range] as an iterator.
func (m *Map[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { m.Range(yield) }
}

// boxMap is a replica of a map of any types: Go's map.
type boxMap[K comparable, V any] struct{ m map[K]V }

func newBoxMap[K comparable, V any]() *boxMap[K, V] { return &boxMap[K, V]{map[K]V{}} }

// boxOp is a wordOp of any types.
type boxOp[K comparable, V any] struct {
	kind       mapKind
	key        K
	value, old V
}

type boxRes[V any] struct {
	value V
	ok    bool
}

// Apply implements [Sequential].
func (b *boxMap[K, V]) Apply(op boxOp[K, V]) boxRes[V] {
	if op.kind == mapClear {
		clear(b.m)
		return boxRes[V]{}
	}
	value, ok := b.m[op.key]
	switch op.kind & mapKindMask {
	case mapStore:
		b.m[op.key] = op.value
	case mapLoadOrStore:
		if !ok {
			b.m[op.key] = op.value
		}
	case mapDelete:
		delete(b.m, op.key)
	case mapCompareAndSwap:
		if ok = ok && any(value) == any(op.old); ok {
			b.m[op.key] = op.value
		}
	case mapCompareAndDelete:
		if ok = ok && any(value) == any(op.old); ok {
			delete(b.m, op.key)
		}
	}
	return boxRes[V]{value, ok}
}

// Clone implements [Cloner].
func (b *boxMap[K, V]) Clone() *boxMap[K, V] { return &boxMap[K, V]{maps.Clone(b.m)} }

// hashSeed is the same for all replicas of a process.
var hashSeed = maphash.MakeSeed()

// Hash implements [Hasher], over keys and over those values that can be compared.
func (b *boxMap[K, V]) Hash() (sum uint64) {
	comparable := reflect.TypeFor[V]().Comparable() && reflect.TypeFor[V]().Kind() != reflect.Interface
	for key, value := range b.m {
		h := maphash.Comparable(hashSeed, key)
		if comparable {
			h ^= bits.RotateLeft64(maphash.Comparable(hashSeed, any(value)), 17)
		}
		sum += h * 0x9E3779B97F4A7C15
	}
	return sum
}

// Snapshot implements [Snapshotter], by encoding/gob.
func (b *boxMap[K, V]) Snapshot(w io.Writer) error { return gob.NewEncoder(w).Encode(b.m) }

// Restore implements [Snapshotter].
func (b *boxMap[K, V]) Restore(r io.Reader) error {
	b.m = map[K]V{}
	return gob.NewDecoder(r).Decode(&b.m)
}
