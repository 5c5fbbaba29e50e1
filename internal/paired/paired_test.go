package paired

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestInterval(t *testing.T) {
	values := []float64{9, 1, 8, 2, 7, 3, 6, 4, 5, 10}
	// Of ten values, the second and the ninth hold the median with 97.9 percent.
	if low, high := interval(values); low != 2 || high != 9 {
		t.Errorf("the interval is %g to %g", low, high)
	}
	if m := Median(values); m != 5.5 {
		t.Errorf("the median is %g", m)
	}
	if low, high := interval([]float64{3, 1, 2}); low != 1 || high != 3 {
		t.Errorf("of three values, the interval is %g to %g", low, high)
	}
}

// The interval must hold the true median as often as it says: 95 times in a
// hundred and not much more often.
func TestIntervalHoldsTheMedian(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{6, 10, 20, 41} {
		const trials = 4000
		held := 0
		for range trials {
			values := make([]float64, n)
			for i := range values {
				values[i] = rng.ExpFloat64() // Its median is ln 2.
			}
			if low, high := interval(values); low <= 0.6931472 && 0.6931472 <= high {
				held++
			}
		}
		if share := float64(held) / trials; share < 0.94 || share > 0.995 {
			t.Errorf("%d values: %.3f of the intervals hold the median", n, share)
		}
	}
}

// What slows the machine down must cancel out, and a real difference must stay.
func TestRatioOnAMachineThatSlowsDown(t *testing.T) {
	load := 1.0
	times := Run(3, 20, 1, func(i int) float64 {
		load *= 1.01
		return load * []float64{10, 10, 30}[i]
	})
	if len(times[0]) != 20 || slices.Max(times[0]) < 1.5*slices.Min(times[0]) {
		t.Fatalf("the machine did not slow down: %v", times[0])
	}
	if r := RatioOf(times[1], times[0]); r.Low > 1.02 || r.High < 0.98 {
		t.Errorf("the same work differs by %+v", r)
	}
	if r := RatioOf(times[2], times[0]); r.Low < 2.9 || r.High > 3.1 {
		t.Errorf("three times the work differs by %+v", r)
	}
	// The control: without pairs, the whole drift stands in the ratio.
	if late, early := times[1][19], times[0][0]; late/early < 1.5 {
		t.Errorf("blocks far from each other differ by %g only", late/early)
	}
}
