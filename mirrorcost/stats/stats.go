package stats

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// Interval is a mean with its 95 % confidence interval. All three are finite for
// finite input.
type Interval struct{ Mean, Low, High float64 }

// level is the two-sided confidence level of every interval.
const level = 0.95

// normal is the 97.5 % quantile of the standard normal distribution.
var normal = distuv.UnitNormal.Quantile(1 - (1-level)/2)

// MeanCI is the mean of independent figures with Student's t interval. Fewer
// than two figures have no spread to judge by: the interval is then the point
// itself, and the caller must not read anything into it.
func MeanCI(xs []float64) Interval {
	switch len(xs) {
	case 0:
		return Interval{}
	case 1:
		return Interval{xs[0], xs[0], xs[0]}
	}
	mean, sd := stat.MeanStdDev(xs, nil)
	n := float64(len(xs))
	t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: n - 1}.Quantile(1 - (1-level)/2)
	half := t * sd / math.Sqrt(n)
	return Interval{mean, mean - half, mean + half}
}

// DiffCI is the mean difference of pairs, one pair a quad. Both slices have the
// same length.
func DiffCI(mirror, baseline []float64) Interval {
	diffs := make([]float64, len(mirror))
	for i := range mirror {
		diffs[i] = mirror[i] - baseline[i]
	}
	return MeanCI(diffs)
}

// resamples of the bootstrap. The quantiles at 2.5 % then rest on a hundred
// values each.
const resamples = 4000

// RatioCI is the ratio of the means of pairs, with a BCa interval over pairs.
// The same seed gives the same interval. With fewer than two pairs, or without
// any spread, the interval is the point; with a baseline of zero it is zero.
func RatioCI(mirror, baseline []float64, seed uint64) Interval {
	n := len(mirror)
	point := ratio(mirror, baseline)
	if n < 2 {
		return Interval{point, point, point}
	}
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	boot := make([]float64, resamples)
	for i := range boot {
		var m, b float64
		for range n {
			j := rng.IntN(n)
			m += mirror[j]
			b += baseline[j]
		}
		boot[i] = quotient(m, b)
	}
	slices.Sort(boot)
	if boot[0] == boot[resamples-1] {
		return Interval{point, point, point}
	}
	low, high := bca(boot, point, jackknife(mirror, baseline))
	return Interval{point, min(low, point), max(high, point)}
}

func ratio(mirror, baseline []float64) float64 {
	var m, b float64
	for i := range mirror {
		m += mirror[i]
		b += baseline[i]
	}
	return quotient(m, b)
}

func quotient(m, b float64) float64 {
	if q := m / b; !math.IsNaN(q) && !math.IsInf(q, 0) {
		return q
	}
	return 0
}

// jackknife returns the ratio without each pair in turn.
func jackknife(mirror, baseline []float64) []float64 {
	var m, b float64
	for i := range mirror {
		m += mirror[i]
		b += baseline[i]
	}
	out := make([]float64, len(mirror))
	for i := range out {
		out[i] = quotient(m-mirror[i], b-baseline[i])
	}
	return out
}

// bca picks the interval's ends from the sorted bootstrap distribution.
func bca(boot []float64, point float64, jack []float64) (low, high float64) {
	below, _ := slices.BinarySearch(boot, point)
	// A share of 0 or 1 would have no finite normal score.
	share := min(max(float64(below)/float64(len(boot)), 0.5/float64(len(boot))), 1-0.5/float64(len(boot)))
	bias := distuv.UnitNormal.Quantile(share)
	mean := stat.Mean(jack, nil)
	var cubes, squares float64
	for _, x := range jack {
		d := mean - x
		cubes += d * d * d
		squares += d * d
	}
	acceleration := 0.0
	if squares > 0 {
		acceleration = cubes / (6 * math.Pow(squares, 1.5))
	}
	at := func(z float64) float64 {
		p := distuv.UnitNormal.CDF(bias + (bias+z)/(1-acceleration*(bias+z)))
		i := int(p * float64(len(boot)))
		return boot[min(max(i, 0), len(boot)-1)]
	}
	return at(-normal), at(normal)
}

// Order returns for each quad whether it is BAAB rather than ABBA: half of each,
// the odd one by chance, shuffled by seed.
func Order(seed uint64, quads int) []bool {
	rng := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	order := make([]bool, quads)
	odd := rng.IntN(2)
	for i := range order {
		order[i] = (i+odd)%2 == 0
	}
	rng.Shuffle(quads, func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// Discard says which quads to leave out: those above the threshold, the worst
// first, and at most a share of all of them.
func Discard(steal []float64, threshold, maxShare float64) []bool {
	worst := make([]int, len(steal))
	for i := range worst {
		worst[i] = i
	}
	slices.SortStableFunc(worst, func(i, j int) int { return cmp.Compare(steal[j], steal[i]) })
	drop := make([]bool, len(steal))
	for _, i := range worst[:int(maxShare*float64(len(steal)))] {
		drop[i] = steal[i] > threshold
	}
	return drop
}

// ShareSE is the binomial standard error of part of total, as a share.
func ShareSE(part, total float64) float64 {
	if total <= 0 {
		return 0
	}
	p := part / total
	return math.Sqrt(max(p*(1-p), 0) / total)
}

// Widen adds an independent error of that standard deviation to an interval, in
// quadrature.
func Widen(i Interval, sd float64) Interval {
	more := normal * sd
	return Interval{
		Mean: i.Mean,
		Low:  i.Mean - math.Hypot(i.Mean-i.Low, more),
		High: i.Mean + math.Hypot(i.High-i.Mean, more),
	}
}

// LagOne is the lag-1 autocorrelation: how much each figure resembles the one
// before. It is 0 where there are fewer than three or they do not vary.
func LagOne(xs []float64) float64 {
	if len(xs) < 3 {
		return 0
	}
	mean := stat.Mean(xs, nil)
	var with, own float64
	for i, x := range xs {
		own += (x - mean) * (x - mean)
		if i > 0 {
			with += (x - mean) * (xs[i-1] - mean)
		}
	}
	if own == 0 {
		return 0
	}
	return with / own
}
