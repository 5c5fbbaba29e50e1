package protocol

import (
	"math/bits"
	"slices"
)

// arena hands out cells, first fit: payloads of a batch lie side by side, and low
// cells, which caches have, are used again first. The owner of a log alone decides,
// and every copy follows, so it needs no words of its own in shared memory: a new
// owner packs the payloads afresh.
//
// A tree of summaries over a bitmap finds the first run of free cells that is long
// enough, as the page allocator of Go's runtime does: a take and a return cost the
// logarithm of the arena, however many holes it has.
type arena struct {
	free []uint64 // A bit a cell.
	// tree summarizes: its second half a word each, node i the nodes 2i and 2i+1.
	tree []freeRuns
	// low has no free cell before it, in words.
	low int
	// stale is the word whose changes the tree does not know yet, plus one: batches
	// take and return neighbours, so most changes are to the word of the one before.
	stale int
}

// freeRuns is how many cells are free at the start of a stretch, at most in a row,
// and at its end.
type freeRuns struct{ first, longest, last uint32 }

// wordCells is how many cells a word of the bitmap tells of.
const wordCells = 64

func newArena(n uint32) arena {
	words := int(n+wordCells-1) / wordCells
	leaves := 1 << bits.Len(uint(max(words, 1)-1))
	a := arena{free: make([]uint64, words), tree: make([]freeRuns, 2*leaves)}
	for i := range a.free {
		a.free[i] = maskOf(0, min(n-uint32(i)*wordCells, wordCells))
		a.tree[leaves+i] = runsOf(a.free[i])
	}
	for i, width := leaves-1, uint32(wordCells); i > 0; i-- {
		a.tree[i] = join(a.tree[2*i], a.tree[2*i+1], width)
		if i&(i-1) == 0 {
			width *= 2 // Node i was the first of its level.
		}
	}
	return a
}

func (a *arena) clone() arena {
	c := *a
	c.free, c.tree = slices.Clone(a.free), slices.Clone(a.tree)
	return c
}

// take returns the first cell of the first run of n that is free.
func (a *arena) take(n uint32) (uint32, bool) {
	if n == 0 || len(a.free) == 0 {
		return 0, n == 0
	}
	for a.free[a.low] == 0 && a.low < len(a.free)-1 {
		a.low++
	}
	// No run that goes on in the next word comes before one within this word.
	if starts := startsOf(a.free[a.low], n); starts != 0 && n <= wordCells {
		bit := uint32(bits.TrailingZeros64(starts))
		*a.word(a.low) &^= maskOf(bit, n)
		return uint32(a.low)*wordCells + bit, true
	}
	from, ok := a.find(n)
	if ok {
		a.parts(from, n, func(word *uint64, mask uint64) { *word &^= mask })
	}
	return from, ok
}

// give takes n cells back.
func (a *arena) give(from, n uint32) {
	word, bit := int(from/wordCells), from%wordCells
	a.low = min(a.low, word)
	if n > 0 && bit+n <= wordCells {
		*a.word(word) |= maskOf(bit, n)
		return
	}
	a.parts(from, n, func(word *uint64, mask uint64) { *word |= mask })
}

// word returns a word that is about to change.
func (a *arena) word(i int) *uint64 {
	if a.stale != i+1 {
		a.settle()
		a.stale = i + 1
	}
	return &a.free[i]
}

// parts yields the words of a run with the bits that belong to it.
func (a *arena) parts(from, n uint32, yield func(word *uint64, mask uint64)) {
	for n > 0 {
		bit := from % wordCells
		here := min(n, wordCells-bit)
		yield(a.word(int(from/wordCells)), maskOf(bit, here))
		from, n = from+here, n-here
	}
}

// maskOf has n bits from one on, at least one.
func maskOf(bit, n uint32) uint64 { return ^uint64(0) >> (wordCells - n) << bit }

// find goes down the tree.
func (a *arena) find(n uint32) (uint32, bool) {
	a.settle()
	if a.tree[1].longest < n {
		return 0, false
	}
	at, base, width := 1, uint32(0), uint32(len(a.tree)/2*wordCells)
	for at < len(a.tree)/2 {
		width /= 2
		left, right := &a.tree[2*at], &a.tree[2*at+1]
		switch {
		case left.longest >= n:
			at = 2 * at
		case left.last+right.first >= n:
			return base + width - left.last, true
		default:
			at, base = 2*at+1, base+width
		}
	}
	return base + uint32(bits.TrailingZeros64(startsOf(a.free[base/wordCells], n))), true
}

// settle tells the tree of the last word that changed.
func (a *arena) settle() {
	if a.stale == 0 {
		return
	}
	at, runs := len(a.tree)/2+a.stale-1, runsOf(a.free[a.stale-1])
	a.stale = 0
	for width := uint32(wordCells); a.tree[at] != runs; width *= 2 {
		a.tree[at] = runs
		if at /= 2; at == 0 {
			return
		}
		runs = join(a.tree[2*at], a.tree[2*at+1], width)
	}
}

// spans yields the runs of free cells in their order.
func (a *arena) spans(yield func(from, to uint32)) {
	from, open := uint32(0), false
	for i, word := range a.free {
		for bit := 0; ; {
			rest := word
			if open {
				rest = ^word // What ends the run.
			}
			if bit += bits.TrailingZeros64(rest >> bit); bit >= wordCells {
				break
			}
			cell := uint32(i*wordCells + bit)
			if open {
				yield(from, cell)
			}
			from, open = cell, !open
		}
	}
	if open {
		yield(from, uint32(len(a.free)*wordCells))
	}
}

// startsOf returns the bits at which a run of n set bits begins.
func startsOf(word uint64, n uint32) uint64 {
	for have := uint32(1); have < n && word != 0; {
		more := min(have, n-have)
		word &= word >> more
		have += more
	}
	return word
}

// runsOf summarizes a word.
func runsOf(word uint64) freeRuns {
	if ^word == 0 {
		return freeRuns{wordCells, wordCells, wordCells}
	}
	r := freeRuns{first: uint32(bits.TrailingZeros64(^word)), last: uint32(bits.LeadingZeros64(^word))}
	if word == 0 {
		return r
	}
	// Doubles the length while a run has it, then adds what fits below that.
	r.longest = 1
	for more := word & (word >> 1); more != 0; more = word & (word >> r.longest) {
		word = more
		r.longest *= 2
	}
	for add := r.longest / 2; add > 0; add /= 2 {
		if more := word & (word >> add); more != 0 {
			word = more
			r.longest += add
		}
	}
	return r
}

// join summarizes two neighbours of the same width.
func join(left, right freeRuns, width uint32) freeRuns {
	r := freeRuns{left.first, max(left.longest, right.longest, left.last+right.first), right.last}
	if left.first == width {
		r.first += right.first
	}
	if right.last == width {
		r.last += left.last
	}
	return r
}
