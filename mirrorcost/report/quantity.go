package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// NoDifference is what an interval that spans zero reads.
const NoDifference = "no difference shown"

// notANumber stands where a figure is not finite.
const notANumber = "n/a"

type scale struct {
	ns   float64
	unit string
}

var scales = []scale{{1, "ns"}, {1e3, "µs"}, {1e6, "ms"}, {1e9, "s"}}

// scaleOf picks the unit in which the value has one to three digits before the
// point.
func scaleOf(ns float64) scale {
	best := scales[0]
	for _, s := range scales {
		// What would round up to 1000 of a unit is 1 of the next.
		if math.Abs(ns) >= 0.9995*s.ns {
			best = s
		}
	}
	return best
}

// in formats ns in the scale without its unit.
func (s scale) in(ns float64) string {
	if math.IsNaN(ns) || math.IsInf(ns, 0) {
		return notANumber
	}
	v := ns / s.ns
	digits := 1
	switch abs := math.Abs(v); {
	case s.ns == 1 && abs >= 10:
		digits = 0
	case s.ns > 1 && abs < 10:
		digits = 2
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Trim(text, "-0.") == "" {
		return "0"
	}
	return text
}

// FormatNs formats nanoseconds in the unit that suits them, such as "46.1 µs".
func FormatNs(ns float64) string {
	s := scaleOf(ns)
	return s.in(ns) + " " + s.unit
}

// FormatSignedNs is [FormatNs] with a sign before what is above zero.
func FormatSignedNs(ns float64) string {
	text := FormatNs(ns)
	if ns > 0 && !strings.HasPrefix(text, "0 ") {
		return "+" + text
	}
	return text
}

// FormatNsInterval formats an interval of nanoseconds in the unit of its mean,
// such as "46.1 µs [44.9, 47.3]".
func FormatNsInterval(i Interval) string {
	s := scaleOf(i.Mean)
	return fmt.Sprintf("%s %s [%s, %s]", s.in(i.Mean), s.unit, s.in(i.Low), s.in(i.High))
}

// FormatRatio formats an interval of a ratio, such as "2.33x [2.24, 2.42]".
func FormatRatio(i Interval) string {
	return fmt.Sprintf("%sx [%s, %s]", fixed(i.Mean, 2), fixed(i.Low, 2), fixed(i.High, 2))
}

// FormatPercent formats a percentage with one digit after the point, or with
// more where one digit would read zero.
func FormatPercent(percent float64) string {
	for _, digits := range []int{1, 2, 4} {
		if math.Abs(percent) >= math.Pow(10, -float64(digits)) {
			return fixed(percent, digits) + " %"
		}
	}
	if percent == 0 || math.IsNaN(percent) {
		return fixed(percent, 0) + " %"
	}
	return "< 0.0001 %"
}

// FormatPercentInterval formats an interval of a percentage, such as
// "4.8 % [3.9, 5.7]".
func FormatPercentInterval(i Interval) string {
	return fmt.Sprintf("%s %% [%s, %s]", fixed(i.Mean, 1), fixed(i.Low, 1), fixed(i.High, 1))
}

// FormatCount formats a count with its thousands apart, such as "20,011".
func FormatCount(n uint64) string {
	digits := strconv.FormatUint(n, 10)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// rare is the number of times per write below which a count says more than a
// multiple.
const rare = 0.01

// FormatMultiple formats a count as a multiple of the writes, or as it is where
// it is rare. Only what is an exact multiple reads like one: "2x", but
// "2.0004x".
func FormatMultiple(n, writes uint64) string {
	exact := float64(n) / float64(max(writes, 1))
	switch {
	case n == 0:
		return "0"
	case exact < rare:
		return FormatCount(n) + " in all"
	case writes == 0:
		return FormatCount(n)
	case n%writes == 0:
		return FormatCount(n/writes) + "x"
	}
	for digits := 4; digits < 17; digits++ {
		text := strconv.FormatFloat(exact, 'g', digits, 64)
		if v, err := strconv.ParseFloat(text, 64); err == nil && v != math.Trunc(v) {
			return text + "x"
		}
	}
	return strconv.FormatFloat(exact, 'g', -1, 64) + "x"
}

// FormatRate formats a rate per second, such as "5,613/s".
func FormatRate(perSecond float64) string {
	if math.IsNaN(perSecond) || perSecond < 0 || perSecond > 1e18 {
		return notANumber
	}
	return FormatCount(uint64(math.Round(perSecond))) + "/s"
}

// FormatBytes formats a size, in binary units where it is a multiple of one.
func FormatBytes(n int) string {
	switch {
	case n > 0 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n > 0 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// fixed formats a number with so many digits after the point.
func fixed(v float64, digits int) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return notANumber
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Trim(text, "-0.") == "" {
		return "0"
	}
	return text
}
