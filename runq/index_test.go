package runq

import (
	"math/rand/v2"
	"testing"
)

// The index does what a map does, with keys that come in runs and go in any order.
func TestIndexIsAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	x, want := newIndex(), map[uint64]int32{}
	var keys []uint64
	next := uint64(1)
	for step := range 100_003 {
		switch n := rng.IntN(10); {
		case n < 5:
			if rng.IntN(200) == 0 {
				next += uint64(rng.IntN(1 << 42))
			}
			x.set(next, int32(step))
			want[next], keys = int32(step), append(keys, next)
			next++
		case len(keys) > 0:
			at := rng.IntN(len(keys))
			key := keys[at]
			keys[at] = keys[len(keys)-1]
			keys = keys[:len(keys)-1]
			if got := x.remove(key); got != want[key] {
				t.Fatalf("step %d: removing %d gives %d, want %d", step, key, got, want[key])
			}
			delete(want, key)
		}
		key := next - uint64(rng.IntN(600))
		got, ok := x.get(key)
		if w, there := want[key]; ok != there || ok && got != w {
			t.Fatalf("step %d: key %d is at %d (%v), want %d (%v)", step, key, got, ok, w, there)
		}
	}
	for _, key := range keys {
		x.remove(key)
	}
	if len(x.pages) != 0 {
		t.Errorf("%d pages are left of an empty index", len(x.pages))
	}
}
