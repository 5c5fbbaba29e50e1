package draw

import (
	"math/bits"
	"testing"
)

// Recorded failures are replayed by their seed, so the numbers must not change
// from one version to the next.
func TestBitsAreForGood(t *testing.T) {
	for _, tt := range []struct {
		got, want uint64
	}{
		{Bits(0), 0xe220a8397b1dcdaf}, // The first output of SplitMix64 from state 0.
		{Text("a"), 0xaf63dc4c8601ec8c},
		{Below(1<<63, 10), 5},
		{Below(1<<64-1, 10), 9},
		{Below(12345, 0), 0},
	} {
		if tt.got != tt.want {
			t.Errorf("got %#x, want %#x", tt.got, tt.want)
		}
	}
}

// Flipping one bit of the seed or of any key flips half of the bits, on
// average: neighbouring frames and links have nothing in common.
func TestEveryInputBitMatters(t *testing.T) {
	keys := [4]uint64{1, 2, 3, 4} // seed and three keys
	base := Bits(keys[0], keys[1:]...)
	for which := range keys {
		flipped := 0
		for bit := range 64 {
			changed := keys
			changed[which] ^= 1 << bit
			flipped += bits.OnesCount64(base ^ Bits(changed[0], changed[1:]...))
		}
		// 64 × 64 fair bits: 2048 with a standard deviation of 32.
		if flipped < 2048-6*32 || flipped > 2048+6*32 {
			t.Errorf("input %d: %d of 4096 bits flipped, want about 2048", which, flipped)
		}
	}
	if Bits(1, 2, 3) == Bits(1, 3, 2) || Bits(1) == Bits(1, 0) {
		t.Error("the order or the number of keys does not matter")
	}
}

// Counting keys, the way frames are numbered, fill the range evenly.
func TestBelowIsEven(t *testing.T) {
	const cells, draws = 20, 20000
	var count [cells]int
	for n := range uint64(draws) {
		count[Below(Bits(7, n), cells)]++
	}
	chi := 0.0
	for _, c := range count {
		d := float64(c) - draws/cells
		chi += d * d / (draws / cells)
	}
	// 19 degrees of freedom: mean 19, and above 50 once in 7000.
	if chi > 50 {
		t.Errorf("chi square %.1f over %d cells: %v", chi, cells, count)
	}
}
