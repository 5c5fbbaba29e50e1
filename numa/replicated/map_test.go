package replicated

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// mapCall is a call of a method that Map and sync.Map have.
type mapCall struct {
	method     int
	key        int
	value, old int
	node       int
}

const mapMethods = 11

var mapCalls = rapid.Custom(func(t *rapid.T) mapCall {
	return mapCall{
		method: rapid.IntRange(0, mapMethods-1).Draw(t, "method"),
		key:    rapid.IntRange(-3, 12).Draw(t, "key"),
		value:  rapid.IntRange(0, 3).Draw(t, "value"),
		old:    rapid.IntRange(0, 3).Draw(t, "old"),
		node:   rapid.IntRange(0, 5).Draw(t, "node"),
	}
})

// call calls the same method of both and returns the results of each.
func call[K comparable, V any](c mapCall, m *Map[K, V], model *sync.Map, key K, value, old V) (got, want []any) {
	typed := func(v any, ok bool) []any {
		if v == nil {
			var none V
			v = none
		}
		return []any{v, ok}
	}
	own := func(v V, ok bool) []any { return []any{v, ok} }
	switch c.method {
	case 0:
		return own(m.Load(key)), typed(model.Load(key))
	case 1:
		m.Store(key, value)
		model.Store(key, value)
	case 2:
		return own(m.Swap(key, value)), typed(model.Swap(key, value))
	case 3:
		return own(m.LoadOrStore(key, value)), typed(model.LoadOrStore(key, value))
	case 4:
		return own(m.LoadAndDelete(key)), typed(model.LoadAndDelete(key))
	case 5:
		m.Delete(key)
		model.Delete(key)
	case 6:
		return []any{m.CompareAndSwap(key, old, value)}, []any{model.CompareAndSwap(key, old, value)}
	case 7:
		return []any{m.CompareAndDelete(key, old)}, []any{model.CompareAndDelete(key, old)}
	case 8:
		got, want := map[any]any{}, map[any]any{}
		m.Range(func(k K, v V) bool { got[k] = v; return true })
		model.Range(func(k, v any) bool { want[k] = v; return true })
		return []any{got}, []any{want}
	case 9:
		n := 0
		model.Range(func(any, any) bool { n++; return true })
		return []any{m.Len()}, []any{n}
	case 10:
		if c.value == 0 && c.old == 0 { // Seldom, or maps stay small.
			m.Clear()
			model.Clear()
		}
	}
	return nil, nil
}

// behavesLikeSyncMap makes a thousand calls a hundred times, on a map of any types.
func behavesLikeSyncMap[K comparable, V any](t *testing.T, keyOf func(int) K, valueOf func(int) V) {
	for _, opts := range []Options{{Topology: Simulated(1, 1)}, {Topology: Simulated(3, 3), LogSize: 16}, {Topology: Simulated(2, 2), Shards: 3}} {
		t.Run(fmt.Sprintf("%d nodes, %d shards", opts.Topology.Nodes(), opts.Shards), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m, err := NewMap[K, V](opts)
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				var model sync.Map
				nodes := opts.Topology.Nodes()
				for i, c := range rapid.SliceOfN(mapCalls, 350, 350).Draw(t, "calls") {
					if nodes > 1 && i%50 == 49 {
						churn(t, m, c.node%nodes)
					}
					got, want := call(c, m.On(c.node%nodes), &model, keyOf(c.key), valueOf(c.value), valueOf(c.old))
					if !reflect.DeepEqual(got, want) {
						t.Fatalf("call %d, %+v: got %v, sync.Map %v", i, c, got, want)
					}
				}
				if err := m.Verify(context.Background()); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// churn removes a node's replica if it has one, and gives it one if not.
func churn(t *rapid.T, m interface {
	AddReplica(context.Context, int) error
	RemoveReplica(context.Context, int) error
}, node int) {
	err := m.AddReplica(context.Background(), node)
	if errors.Is(err, ErrReplicaExists) {
		err = m.RemoveReplica(context.Background(), node)
	}
	if err != nil && !errors.Is(err, ErrLastReplica) {
		t.Fatal(err)
	}
}

func TestMapsOfWordsBehaveLikeSyncMap(t *testing.T) {
	behavesLikeSyncMap(t, func(n int) int { return n }, func(n int) int { return n })
}

func TestMapsOfStringsBehaveLikeSyncMap(t *testing.T) {
	behavesLikeSyncMap(t, func(n int) string { return fmt.Sprint(n) }, func(n int) string { return fmt.Sprint("v", n) })
}

func TestMapsOfSmallWordsBehaveLikeSyncMap(t *testing.T) {
	behavesLikeSyncMap(t, func(n int) int8 { return int8(n) }, func(n int) float32 {
		return []float32{0, float32(math.Copysign(0, -1)), 1.5, float32(math.Inf(1))}[n]
	})
}

func TestMapsOfInterfacesBehaveLikeSyncMap(t *testing.T) {
	behavesLikeSyncMap(t, func(n int) any {
		if n < 5 {
			return n
		}
		return fmt.Sprint(n)
	}, func(n int) any { return n % 3 })
}

func TestWhichMapsAreTables(t *testing.T) {
	type celsius int16
	for _, c := range []struct {
		t          reflect.Type
		key, value bool
	}{
		{reflect.TypeFor[uint64](), true, true}, {reflect.TypeFor[celsius](), true, true}, {reflect.TypeFor[bool](), true, true},
		{reflect.TypeFor[float64](), false, true}, {reflect.TypeFor[struct{}](), true, true}, {reflect.TypeFor[string](), false, false},
		{reflect.TypeFor[*int](), false, false}, {reflect.TypeFor[[2]uint32](), false, false}, {reflect.TypeFor[any](), false, false},
		{reflect.TypeFor[struct{ _ uint32 }](), false, false}, {reflect.TypeFor[complex64](), false, false},
	} {
		if key, value := isWord(c.t, true), isWord(c.t, false); key != c.key || value != c.value {
			t.Errorf("%v is a word as key: %v, as value: %v", c.t, key, value)
		}
	}
}

func TestWhatCannotBeComparedPanicsInTheCaller(t *testing.T) {
	m, err := NewMap[any, any](Options{Topology: Simulated(2, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	panics := func(do func()) (did bool) {
		defer func() { did = recover() != nil }()
		do()
		return false
	}
	unhashable := []int{1}
	for name, do := range map[string]func(){
		"Load":             func() { m.Load(unhashable) },
		"Store":            func() { m.Store(unhashable, 1) },
		"CompareAndSwap":   func() { m.CompareAndSwap(1, unhashable, 1) },
		"CompareAndDelete": func() { m.CompareAndDelete(1, unhashable) },
	} {
		if !panics(do) {
			t.Errorf("%s does not panic", name)
		}
	}
	m.Store(1, unhashable)
	if m.CompareAndSwap(1, 2, 3) {
		t.Error("a slice was equal to a number")
	}
	if s := m.Stats()[0]; s.Panics != 0 || s.Detached != 0 {
		t.Errorf("the replicas suffered: %+v", s)
	}
}

// A loop over a map may use the map, as in Go issue 46399.
func TestRangeMayUseTheMap(t *testing.T) {
	m, err := NewMap[int, string](Options{Topology: Simulated(2, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for i, v := range []string{"hello", "world", "Go"} {
		m.Store(i, v)
	}
	m.Range(func(key int, _ string) bool {
		m.Range(func(key int, value string) bool {
			if v, ok := m.Load(key); !ok || v != value {
				t.Fatalf("Load(%d) = %q, %v", key, v, ok)
			}
			if _, loaded := m.LoadOrStore(42, "dummy"); loaded {
				t.Fatal("42 was there")
			}
			if v, loaded := m.LoadAndDelete(42); !loaded || v != "dummy" {
				t.Fatalf("LoadAndDelete = %q, %v", v, loaded)
			}
			return true
		})
		m.Delete(key)
		return true
	})
	if n := m.Len(); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

// wordHistory drives a map of words as the engine's tests drive theirs: an
// addition is a loop of CompareAndSwap, of which the last one counts.
func wordHistory(t *testing.T, m *Map[uint64, uint64], nodes int, seed uint64) *history {
	h := newHistory()
	var wg sync.WaitGroup
	for client := range 6 {
		rng := rand.New(rand.NewPCG(seed, uint64(client)))
		via := m.On(client % nodes)
		wg.Go(func() {
			for range 50 {
				key, call := rng.Uint64N(3), h.now()
				old, _ := via.Load(key)
				if rng.IntN(2) == 0 {
					h.add(client, kvInput{key: key}, kvOutput{value: old}, call)
					continue
				}
				delta := 1 + rng.Uint64N(9)
				call = h.now()
				if old == 0 {
					if _, loaded := via.LoadOrStore(key, delta); !loaded {
						h.add(client, kvInput{key, delta}, kvOutput{value: 0}, call)
					}
				} else if via.CompareAndSwap(key, old, old+delta) {
					h.add(client, kvInput{key, delta}, kvOutput{value: old}, call)
				}
			}
		})
	}
	wg.Wait()
	return h
}

func TestHistoriesOfWordMapsAreLinearizable(t *testing.T) {
	for _, nodes := range []int{1, 2, 3} {
		for seed := range uint64(rounds(t, 8)) {
			m, err := NewMap[uint64, uint64](Options{Topology: Simulated(nodes, nodes), LogSize: 16, DetachAfter: 2 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			m.core.words[0].probe = shaker(seed, 5*time.Millisecond)
			wordHistory(t, m, nodes, seed).check(t)
			if err := m.Verify(t.Context()); err != nil {
				t.Error(err)
			}
			m.Close()
		}
	}
}

// A reader without a slot sees no table that is half changed: here keys move while
// others are deleted, and tables grow and shrink.
func TestReadersOfWordsNeverMissAKey(t *testing.T) {
	m, err := NewMap[uint64, uint64](Options{Topology: Simulated(2, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for key := uint64(0); key < 64; key += 2 {
		m.Store(key, key*7)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for node := range 2 {
		wg.Go(func() {
			via := m.On(node)
			for {
				select {
				case <-stop:
					return
				default:
				}
				for key := uint64(0); key < 64; key += 2 {
					if v, ok := via.Load(key); !ok || v != key*7 {
						t.Errorf("key %d: %d, %v", key, v, ok)
						return
					}
				}
			}
		})
	}
	for range 100 {
		for key := uint64(1); key < 200; key += 2 {
			m.Store(key, key)
		}
		for key := uint64(1); key < 200; key += 2 {
			m.Delete(key)
		}
	}
	close(stop)
	wg.Wait()
}

func TestReadsOfWordsAllocateAndStoreNothing(t *testing.T) {
	m, err := NewMap[uint64, uint64](Options{Topology: Simulated(2, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Store(1, 2)
	via := m.On(1)
	via.Load(1)
	r := m.core.words[0].members.Load().home[1]
	for i := range r.readers {
		r.readers[i].readers.Store(math.MinInt64 / 2) // Any change would show.
	}
	if n := testing.AllocsPerRun(1000, func() { via.Load(1) }); n != 0 {
		t.Errorf("a read allocates %g times", n)
	}
	for i := range r.readers {
		if r.readers[i].readers.Load() != math.MinInt64/2 {
			t.Error("a read took a slot")
		}
		r.readers[i].readers.Store(0)
	}
}

func TestWordTableSnapshot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := newWordTable()
		want := rapid.MapOf(rapid.Uint64(), rapid.Uint64()).Draw(t, "content")
		for k, v := range want {
			table.store(k, v)
		}
		var text bytes.Buffer
		if err := table.Snapshot(&text); err != nil {
			t.Fatal(err)
		}
		cut := newWordTable()
		if err := cut.Restore(bytes.NewReader(text.Bytes()[:text.Len()-1])); err == nil {
			t.Fatal("a snapshot that is cut off was restored")
		}
		if err := cut.Restore(&text); err != nil {
			t.Fatal(err)
		}
		got := map[uint64]uint64{}
		cut.each(func(k, v uint64) bool { got[k] = v; return true })
		if !maps.Equal(got, want) || cut.Hash() != table.Hash() || cut.Hash() != table.Clone().Hash() {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestSet(t *testing.T) {
	s, err := NewSet[string](Options{Topology: Simulated(2, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Add("b") || s.Add("b") || !s.On(1).Add("a") || !s.On(1).Contains("b") || s.Contains("c") || s.Len() != 2 {
		t.Error("wrong members")
	}
	if got := slices.Sorted(s.All()); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("members %v", got)
	}
	if !s.Delete("a") || s.Delete("a") {
		t.Error("wrong deletions")
	}
	if s.Clear(); s.Len() != 0 {
		t.Error("not cleared")
	}
}

func TestCounter(t *testing.T) {
	for _, nodes := range []int{1, 2, 4} {
		c, err := NewCounter(Options{Topology: Simulated(nodes, nodes)})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for node := range nodes {
			wg.Go(func() {
				via := c.On(node)
				last := int64(0)
				for range 500 {
					if n := via.Add(1); n <= last {
						t.Errorf("Add returned %d after %d", n, last)
					} else {
						last = n
					}
					if n := via.Load(); n < last {
						t.Errorf("Load returned %d after %d", n, last)
					}
				}
			})
		}
		wg.Wait()
		if old := c.Swap(5); old != int64(500*nodes) || c.On(nodes-1).Load() != 5 {
			t.Errorf("%d nodes: Swap returned %d", nodes, old)
		}
		c.Close()
	}
}

func TestSliceBehavesLikeASlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, err := NewSlice[string](Options{Topology: Simulated(2, 2)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var model []string
		for range rapid.IntRange(1, 60).Draw(t, "calls") {
			via := s.On(rapid.IntRange(0, 1).Draw(t, "node"))
			index := rapid.IntRange(-1, len(model)+1).Draw(t, "index")
			there := index >= 0 && index < len(model)
			switch rapid.IntRange(0, 3).Draw(t, "method") {
			case 0:
				more := rapid.SliceOfN(rapid.String(), 0, 3).Draw(t, "values")
				if at := via.Append(more...); at != len(model) {
					t.Fatalf("Append returned %d, the length was %d", at, len(model))
				}
				model = append(model, more...)
			case 1:
				value := rapid.String().Draw(t, "value")
				if ok := via.Store(index, value); ok != there {
					t.Fatalf("Store(%d) = %v", index, ok)
				} else if ok {
					model[index] = value
				}
			case 2:
				if v, ok := via.Load(index); ok != there || ok && v != model[index] {
					t.Fatalf("Load(%d) = %q, %v", index, v, ok)
				}
			case 3:
				if ok := via.Truncate(index); ok != (index >= 0 && index <= len(model)) {
					t.Fatalf("Truncate(%d) = %v", index, ok)
				} else if ok {
					model = model[:index]
				}
			}
			var all []string
			for _, v := range via.All() {
				all = append(all, v)
			}
			if !slices.Equal(all, model) || via.Len() != len(model) {
				t.Fatalf("%q, want %q", all, model)
			}
		}
	})
}

func TestOrderedMapBehavesLikeAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, err := NewOrderedMap[int, int](Options{Topology: Simulated(2, 2)})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		model := map[int]int{}
		span := rapid.SampledFrom([]int{5, 2000}).Draw(t, "keys")
		for range rapid.IntRange(1, 3*span).Draw(t, "calls") {
			via := m.On(rapid.IntRange(0, 1).Draw(t, "node"))
			key, value := rapid.IntRange(0, span).Draw(t, "key"), rapid.Int().Draw(t, "value")
			was, there := model[key]
			var got int
			var ok bool
			switch rapid.IntRange(0, 4).Draw(t, "method") {
			case 0, 1:
				got, ok = via.Swap(key, value)
				model[key] = value
			case 2:
				if got, ok = via.LoadOrStore(key, value); !ok {
					was, model[key] = value, value
				}
			case 3:
				got, ok = via.LoadAndDelete(key)
				delete(model, key)
			case 4:
				got, ok = via.Load(key)
			}
			if ok != there || got != was {
				t.Fatalf("key %d: %d, %v, want %d, %v", key, got, ok, was, there)
			}
		}
		keys := slices.Sorted(maps.Keys(model))
		var all []int
		for k, v := range m.All() {
			if all = append(all, k); v != model[k] {
				t.Fatalf("key %d has %d, want %d", k, v, model[k])
			}
		}
		low := rapid.IntRange(-1, span+1).Draw(t, "low")
		var above []int
		m.Ascend(low, func(k, _ int) bool { above = append(above, k); return true })
		at, _ := slices.BinarySearch(keys, low)
		if !slices.Equal(all, keys) || !slices.Equal(above, keys[at:]) || m.Len() != len(keys) {
			t.Fatalf("%d keys in order, from %d on %d; want %d and %d", len(all), low, len(above), len(keys), len(keys)-at)
		}
	})
}
