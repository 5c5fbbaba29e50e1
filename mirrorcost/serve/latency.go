package serve

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/coreplica/coreplica/mirrorcost/report"
)

// latencyChart draws how long writes took, and below it how long the devices
// took, on one logarithmic axis.
type latencyChart struct {
	Ticks   []tick
	Legs    []latencyLine
	Devices []latencyLine
}

// latencyLine is a histogram as an outline.
type latencyLine struct {
	Class, Name string
	// Path is in a box of 1000 by 100.
	Path     string
	Quantile []quantile
	Counted  string
}

type quantile struct{ Name, Value, X string }

// bucket is a range of latencies and the share of the writes in it for each
// octave, so that buckets of different widths are drawn to one scale.
type bucket struct{ low, high, share, density float64 }

func buckets(h report.Histogram) (list []bucket, count uint64) {
	n := min(len(h.UpperNs), len(h.Count))
	// Empty buckets may be missing, so a bucket begins where the closest
	// pair of bounds says that one of its size would.
	growth := 2.0
	for i := 1; i < n; i++ {
		if h.UpperNs[i-1] > 0 && h.UpperNs[i] > h.UpperNs[i-1] {
			growth = min(growth, float64(h.UpperNs[i])/float64(h.UpperNs[i-1]))
		}
	}
	growth = max(growth, 1.01)
	for i := range n {
		count += h.Count[i]
	}
	for i := range n {
		high := math.Max(float64(h.UpperNs[i]), 1)
		b := bucket{low: high / growth, high: high}
		if last := len(list) - 1; last >= 0 {
			if high <= list[last].high {
				continue // Bounds that do not grow make no picture.
			}
			if b.low < list[last].high*1.02 {
				b.low = list[last].high
			}
		}
		b.share = float64(h.Count[i]) / float64(max(count, 1))
		b.density = b.share / math.Log2(b.high/b.low)
		list = append(list, b)
	}
	return list, count
}

func newLatencyChart(r *report.Report) latencyChart {
	type source struct {
		line    latencyLine
		buckets []bucket
	}
	add := func(class, name string, h report.Histogram) source {
		list, count := buckets(h)
		return source{latencyLine{Class: class, Name: name, Counted: report.FormatCount(count)}, list}
	}
	legs := []source{add("baseline", r.Baseline.Name, r.Baseline.LatencyHist), add("mirror", r.Mirror.Name, r.Mirror.LatencyHist)}
	var devices []source
	for _, leg := range []struct {
		class string
		*report.Leg
	}{{"baseline", &r.Baseline}, {"mirror", &r.Mirror}} {
		for _, device := range slices.Sorted(maps.Keys(leg.DeviceLatency)) {
			devices = append(devices, add(leg.class, device, leg.DeviceLatency[device]))
		}
	}
	all := append(slices.Clone(legs), devices...)
	a := axis{math.Inf(1), math.Inf(-1)}
	for _, s := range all {
		for _, b := range s.buckets {
			if b.share > 0 {
				a.low, a.high = min(a.low, math.Log10(b.low)), max(a.high, math.Log10(b.high))
			}
		}
	}
	if a.high <= a.low {
		return latencyChart{}
	}
	chart := latencyChart{Ticks: logTicks(a)}
	top := peak(legs[0].buckets, legs[1].buckets)
	for i, s := range legs {
		s.line.Path = outline(a, s.buckets, top)
		s.line.Quantile = quantiles(a, []*report.Leg{&r.Baseline, &r.Mirror}[i].LatencyNs)
		chart.Legs = append(chart.Legs, s.line)
	}
	for _, s := range devices {
		s.line.Path = outline(a, s.buckets, peak(s.buckets))
		chart.Devices = append(chart.Devices, s.line)
	}
	return chart
}

func peak(lists ...[]bucket) (top float64) {
	for _, list := range lists {
		for _, b := range list {
			top = max(top, b.density)
		}
	}
	return top
}

// logTicks labels decades, and what lies between them where there is room.
func logTicks(a axis) (ticks []tick) {
	between := []float64{1}
	if a.high-a.low < 3.5 {
		between = []float64{1, 2, 5}
	}
	for e := math.Floor(a.low); e <= a.high; e++ {
		for _, m := range between {
			if at := e + math.Log10(m); at > a.low && at < a.high {
				ticks = append(ticks, tick{percent(a.at(at)), tickLabel(m * math.Pow(10, e)), m > 1})
			}
		}
	}
	return ticks
}

func quantiles(a axis, l report.Latency) (list []quantile) {
	for _, q := range []struct {
		name string
		ns   int64
	}{{"p50", l.P50}, {"p99", l.P99}, {"p99.9", l.P999}} {
		list = append(list, quantile{q.name, report.FormatNs(float64(q.ns)), percent(a.at(math.Log10(math.Max(float64(q.ns), 1))))})
	}
	return list
}

// outline draws steps, closed at the bottom.
func outline(a axis, list []bucket, top float64) string {
	if len(list) == 0 || top <= 0 {
		return ""
	}
	var b strings.Builder
	x := func(ns float64) float64 { return 1000 * a.at(math.Log10(ns)) }
	end := x(list[0].low)
	fmt.Fprintf(&b, "M%.1f,100", end)
	for _, bucket := range list {
		low, high, y := x(bucket.low), x(bucket.high), 100-94*bucket.density/top
		if low > end+0.1 {
			fmt.Fprintf(&b, "V100H%.1f", low)
		}
		fmt.Fprintf(&b, "V%.1fH%.1f", y, high)
		end = high
	}
	b.WriteString("V100Z")
	return b.String()
}
