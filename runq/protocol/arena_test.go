package protocol

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// FuzzArena plays takes and returns on an arena and on a list of cells, in which
// the first run that is long enough is looked for cell by cell.
func FuzzArena(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, size := range []uint16{0, 1, 40, 64, 65, 200, 1000, 2000} {
		for range 8 {
			script := make([]byte, 1200)
			for i := range script {
				script[i] = byte(rng.Uint32())
			}
			f.Add(size, script)
		}
	}
	f.Fuzz(func(t *testing.T, size uint16, script []byte) {
		size %= 2048
		a, taken := newArena(uint32(size)), make([]bool, size)
		type run struct{ from, n uint32 }
		var held []run
		for i, b := range script {
			if i%64 == 0 {
				a = a.clone() // A clone goes on like what it was made from.
			}
			if b&1 == 1 && len(held) > 0 { // Returns any one.
				at := int(b>>1) * len(held) / 128
				r := held[at]
				a.give(r.from, r.n)
				for c := r.from; c < r.from+r.n; c++ {
					taken[c] = false
				}
				held = slices.Delete(held, at, at+1)
				continue
			}
			n := uint32(b>>1)%5 + 1 // Mostly a few cells, and at times many.
			if b>>1 > 120 {
				n = uint32(b) * 2
			}
			want, fit := firstFit(taken, int(n))
			from, ok := a.take(n)
			if ok != fit || ok && int(from) != want {
				t.Fatalf("step %d: take(%d) = %d, %v, want %d, %v", i, n, from, ok, want, fit)
			}
			if ok {
				held = append(held, run{from, n})
				for c := from; c < from+n; c++ {
					taken[c] = true
				}
			}
		}
		rest := slices.Clone(taken)
		a.spans(func(from, to uint32) {
			for c := from; c < to; c++ {
				rest[c] = !rest[c]
			}
		})
		if slices.Contains(rest, false) {
			t.Fatalf("the free runs are not what is not taken: %v", rest)
		}
		checkTree(t, &a)
	})
}

// firstFit returns the first run of n cells that are not taken.
func firstFit(taken []bool, n int) (int, bool) {
	run := 0
	for i, t := range taken {
		if run++; t {
			run = 0
		}
		if run == n {
			return i + 1 - n, true
		}
	}
	return 0, false
}

// checkTree compares each summary with one made anew.
func checkTree(t *testing.T, a *arena) {
	t.Helper()
	a.settle()
	leaves := len(a.tree) / 2
	for i, width := leaves-1, uint32(wordCells); i > 0; i-- {
		if want := join(a.tree[2*i], a.tree[2*i+1], width); a.tree[i] != want {
			t.Fatalf("node %d is %v, want %v", i, a.tree[i], want)
		}
		if i&(i-1) == 0 {
			width *= 2
		}
	}
	for i, word := range a.free {
		if want := runsOf(word); a.tree[leaves+i] != want {
			t.Fatalf("word %d is %v, want %v", i, a.tree[leaves+i], want)
		}
	}
}

// Payloads of 1 to 4 cells that are collected in random order, each followed by a
// new one: the arena is full of holes, nine tenths of it taken.
func BenchmarkArena(b *testing.B) {
	for _, live := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 1))
			size := func() uint32 { return 1 + rng.Uint32N(4) }
			a := newArena(uint32(live) * 5 / 2 * 10 / 9)
			type run struct{ from, n uint32 }
			var held []run
			for range live {
				n := size()
				if from, ok := a.take(n); ok {
					held = append(held, run{from, n})
				}
			}
			turn := func() {
				r := &held[rng.IntN(len(held))]
				a.give(r.from, r.n)
				n := size()
				from, ok := a.take(n)
				if !ok { // What was there fits.
					n = r.n
					from, _ = a.take(n)
				}
				*r = run{from, n}
			}
			for range 3 * live {
				turn()
			}
			for b.Loop() {
				turn()
			}
		})
	}
}
