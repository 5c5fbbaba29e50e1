package replicated

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"reflect"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// isWord reports whether values of a type can stand in a word of a table that
// readers read without storing anything: integers, booleans and nothing else as
// keys, floating-point numbers as values too. Keys that are equal must have equal
// bits, and the collector must not need to see them.
func isWord(t reflect.Type, key bool) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return true
	case reflect.Float32, reflect.Float64:
		return !key // 0 equals -0, and NaN not itself.
	case reflect.Struct:
		return t.NumField() == 0
	}
	return false
}

// wordOf returns the bits of a value for which isWord holds.
func wordOf[T any](v T) uint64 {
	switch unsafe.Sizeof(v) {
	case 8:
		return *(*uint64)(unsafe.Pointer(&v))
	case 4:
		return uint64(*(*uint32)(unsafe.Pointer(&v)))
	case 2:
		return uint64(*(*uint16)(unsafe.Pointer(&v)))
	case 1:
		return uint64(*(*uint8)(unsafe.Pointer(&v)))
	}
	return 0
}

// valueOf is the inverse of wordOf.
func valueOf[T any](w uint64) (v T) {
	switch unsafe.Sizeof(v) {
	case 8:
		*(*uint64)(unsafe.Pointer(&v)) = w
	case 4:
		*(*uint32)(unsafe.Pointer(&v)) = uint32(w)
	case 2:
		*(*uint16)(unsafe.Pointer(&v)) = uint16(w)
	case 1:
		*(*uint8)(unsafe.Pointer(&v)) = uint8(w)
	}
	return v
}

// wordTable is a hash table of words with open addressing and linear probing, in
// which one thread writes while others read. All its memory is atomic words. A
// reader may see it half changed: who reads it beside a writer compares the
// replica's gate before and after, and throws away what it saw if they differ.
type wordTable struct {
	site  site
	cells atomic.Pointer[wordCells]
	// count is the number of keys, that of the zero key included.
	count atomic.Int64
	// The key 0 marks a free cell, so the real one lives apart.
	zeroThere atomic.Bool
	zeroValue atomic.Uint64
}

type wordCell struct{ key, value atomic.Uint64 }

type wordCells struct {
	cells []wordCell
	shift uint8 // of a hash, to give an index
}

const minCells = 16

func newWordTable() *wordTable { return newWordTableAt(site{}) }

func newWordTableAt(s site) *wordTable {
	t := &wordTable{site: s}
	t.cells.Store(newWordCells(s, s.leastCells()))
	return t
}

// newWordCells returns n free cells. They may lie where the collector does not look:
// who uses them beside a writer that replaces them keeps the wordCells alive.
func newWordCells(s site, n int) *wordCells {
	c := &wordCells{shift: uint8(64 - bits.Len(uint(n-1)))}
	c.cells = wordsAt[wordCell](s, n, c)
	return c
}

// home is where the search for a key begins (Fibonacci hashing: Knuth, The Art of
// Computer Programming, volume 3, section 6.4).
func (c *wordCells) home(key uint64) int {
	return int((key ^ key>>32) * 0x9E3779B97F4A7C15 >> (c.shift & 63))
}

// find returns the cell that holds a key, or the free one where it belongs. A
// reader beside a writer may find neither: then it returns the last cell that it
// looked at.
func (c *wordCells) find(key uint64) (i int, found bool) {
	mask := len(c.cells) - 1
	i = c.home(key) & mask
	for range c.cells {
		switch c.cells[i].key.Load() {
		case key:
			return i, true
		case 0:
			return i, false
		}
		i = (i + 1) & mask
	}
	return i, false
}

// load returns the value of a key.
func (t *wordTable) load(key uint64) (uint64, bool) {
	if key == 0 {
		return t.zeroValue.Load(), t.zeroThere.Load()
	}
	c := t.cells.Load()
	mask := len(c.cells) - 1
	i := c.home(key) & mask
	for range c.cells {
		cell := &c.cells[i]
		switch cell.key.Load() {
		case key:
			value := cell.value.Load()
			runtime.KeepAlive(c)
			return value, true
		case 0:
			runtime.KeepAlive(c)
			return 0, false
		}
		i = (i + 1) & mask
	}
	runtime.KeepAlive(c)
	return 0, false
}

func (t *wordTable) store(key, value uint64) {
	if key == 0 {
		if !t.zeroThere.Swap(true) {
			t.count.Add(1)
		}
		t.zeroValue.Store(value)
		return
	}
	c := t.cells.Load()
	i, found := c.find(key)
	c.cells[i].value.Store(value)
	if found {
		return
	}
	c.cells[i].key.Store(key)
	// At most 5/8 full: linear probing then looks at two cells on average.
	if n := t.count.Add(1); int(n)*8 > len(c.cells)*5 {
		t.resize(2 * len(c.cells))
	}
}

// resize moves everything to a table of another size. Readers that still have the
// old one read what was there before.
func (t *wordTable) resize(n int) {
	old, c := t.cells.Load(), newWordCells(t.site, n)
	for i := range old.cells {
		if key := old.cells[i].key.Load(); key != 0 {
			j, _ := c.find(key)
			c.cells[j].key.Store(key)
			c.cells[j].value.Store(old.cells[i].value.Load())
		}
	}
	t.cells.Store(c)
}

// remove takes a key out and closes the gap, so that no markers pile up (Knuth,
// section 6.4, algorithm R).
func (t *wordTable) remove(key uint64) {
	if key == 0 {
		if t.zeroThere.Swap(false) {
			t.count.Add(-1)
		}
		t.zeroValue.Store(0)
		return
	}
	c := t.cells.Load()
	gap, found := c.find(key)
	if !found {
		return
	}
	mask := len(c.cells) - 1
	for i := (gap + 1) & mask; ; i = (i + 1) & mask {
		k := c.cells[i].key.Load()
		if k == 0 {
			break
		}
		// A key may move back as far as its home, and no further.
		if (i-c.home(k))&mask >= (i-gap)&mask {
			c.cells[gap].key.Store(k)
			c.cells[gap].value.Store(c.cells[i].value.Load())
			gap = i
		}
	}
	c.cells[gap].key.Store(0)
	c.cells[gap].value.Store(0)
	t.count.Add(-1)
	if n := len(c.cells); n > t.site.leastCells() && int(t.count.Load())*8 < n {
		t.resize(n / 2)
	}
}

func (t *wordTable) clear() {
	t.cells.Store(newWordCells(t.site, t.site.leastCells()))
	t.zeroThere.Store(false)
	t.zeroValue.Store(0)
	t.count.Store(0)
}

// each calls fn for each key until it returns false. The caller keeps writers out.
func (t *wordTable) each(fn func(key, value uint64) bool) {
	if t.zeroThere.Load() && !fn(0, t.zeroValue.Load()) {
		return
	}
	c := t.cells.Load()
	defer runtime.KeepAlive(c)
	for i := range c.cells {
		if key := c.cells[i].key.Load(); key != 0 && !fn(key, c.cells[i].value.Load()) {
			return
		}
	}
}

// The kinds of operations on a map. Those that may change nothing are operations
// all the same: whether they do is decided in the log's order.
type mapKind uint64

const (
	mapStore mapKind = iota
	mapLoadOrStore
	mapDelete // and return what was there
	mapCompareAndSwap
	mapCompareAndDelete
	mapClear
	mapKindMask mapKind = 0xFF
)

// Flags of a comparison: the words are floating-point numbers of that size, of
// which two differ in their bits and are equal, 0 and -0.
const (
	mapFloat32 mapKind = 1 << (iota + 8)
	mapFloat64
)

// equal compares words as the kind of operation says.
func (k mapKind) equal(a, b uint64) bool {
	switch {
	case k&mapFloat32 != 0:
		return a == b || (a|b)&^(1<<31) == 0
	case k&mapFloat64 != 0:
		return a == b || (a|b)&^(1<<63) == 0
	}
	return a == b
}

// wordOp is an operation on a wordTable: with it, a request's shared part is one
// cache line.
type wordOp struct {
	kind            mapKind
	key, value, old uint64
}

// wordRes is what was there, and for comparisons whether they succeeded.
type wordRes struct {
	value uint64
	ok    bool
}

// Apply implements [Sequential].
func (t *wordTable) Apply(op wordOp) wordRes {
	if op.kind == mapClear {
		t.clear()
		return wordRes{}
	}
	value, ok := t.load(op.key)
	switch op.kind & mapKindMask {
	case mapStore:
		t.store(op.key, op.value)
	case mapLoadOrStore:
		if !ok {
			t.store(op.key, op.value)
		}
	case mapDelete:
		if ok {
			t.remove(op.key)
		}
	case mapCompareAndSwap:
		if ok = ok && op.kind.equal(value, op.old); ok {
			t.store(op.key, op.value)
		}
	case mapCompareAndDelete:
		if ok = ok && op.kind.equal(value, op.old); ok {
			t.remove(op.key)
		}
	}
	return wordRes{value, ok}
}

// Clone implements [Cloner].
func (t *wordTable) Clone() *wordTable { return t.cloneAt(site{}) }

// cloneAt is Clone into memory of another site.
func (t *wordTable) cloneAt(s site) *wordTable {
	clone := &wordTable{site: s}
	clone.cells.Store(newWordCells(s, max(len(t.cells.Load().cells), s.leastCells())))
	t.each(func(key, value uint64) bool { clone.store(key, value); return true })
	return clone
}

// Hash implements [Hasher]: a sum over the keys, since two tables of the same
// content may hold it in different cells.
func (t *wordTable) Hash() (sum uint64) {
	t.each(func(key, value uint64) bool {
		h := (key ^ bits.RotateLeft64(value, 32)) * 0x9E3779B97F4A7C15
		sum += (h ^ h>>29 ^ value) * 0xBF58476D1CE4E5B9
		return true
	})
	return sum
}

// Snapshot implements [Snapshotter]: the number of keys, then keys and values, as
// little-endian words.
func (t *wordTable) Snapshot(w io.Writer) error {
	text := binary.LittleEndian.AppendUint64(nil, uint64(t.count.Load()))
	t.each(func(key, value uint64) bool {
		text = binary.LittleEndian.AppendUint64(text, key)
		text = binary.LittleEndian.AppendUint64(text, value)
		return true
	})
	_, err := w.Write(text)
	return err
}

// Restore implements [Snapshotter].
func (t *wordTable) Restore(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if len(text) < 8 || uint64(len(text)-8) != 16*binary.LittleEndian.Uint64(text) {
		return fmt.Errorf("restore words: %d bytes are not a count and as many pairs", len(text))
	}
	t.clear()
	for rest := text[8:]; len(rest) > 0; rest = rest[16:] {
		t.store(binary.LittleEndian.Uint64(rest), binary.LittleEndian.Uint64(rest[8:]))
	}
	return nil
}

// become takes over the content of another table, which is not used any more.
func (t *wordTable) become(other *wordTable) {
	t.cells.Store(other.cells.Load())
	t.zeroThere.Store(other.zeroThere.Load())
	t.zeroValue.Store(other.zeroValue.Load())
	t.count.Store(other.count.Load())
}
