package paired

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Run runs each of n alternatives in so many rounds, after one for nothing that
// warms up. Block runs one for a short while and returns its time for one
// operation, in nanoseconds. The result has the times of alternative i in
// times[i], round by round.
func Run(n, rounds int, seed uint64, block func(i int) float64) (times [][]float64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	times = make([][]float64, n)
	for round := range rounds + 1 {
		for _, i := range rng.Perm(n) {
			ns := block(i)
			if round > 0 {
				times[i] = append(times[i], ns)
			}
		}
	}
	return times
}

// Ratio is the median of ratios, with the interval that holds the true median
// with at least 95 percent.
type Ratio struct{ Median, Low, High float64 }

// RatioOf relates the times of one alternative to those of a base, round by round.
func RatioOf(times, base []float64) Ratio {
	ratios := make([]float64, len(times))
	for i := range ratios {
		ratios[i] = times[i] / base[i]
	}
	low, high := interval(ratios)
	return Ratio{Median(ratios), low, high}
}

// Median returns the middle of the values, of which there must be one.
func Median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// interval returns order statistics that hold the median with at least 95
// percent, whatever the distribution: the number of values below the median is
// binomial. With fewer than six values there are none, and it returns the range.
func interval(values []float64) (low, high float64) {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	outside := math.Pow(0.5, float64(n)) // The chance that at most k values are below.
	term := outside
	k := 0
	for {
		term *= float64(n-k) / float64(k+1)
		if outside+term > 0.025 || k+1 >= n/2 {
			break
		}
		outside += term
		k++
	}
	return sorted[k], sorted[n-1-k]
}
