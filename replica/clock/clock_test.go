package clock

import (
	"math/big"
	"testing"
	"testing/quick"
	"time"
)

// The formula in integers against the same in exact fractions.
func TestPatienceMatchesFractions(t *testing.T) {
	matches := func(length uint64, drift uint16, epsilon uint32) bool {
		l := Lease{time.Duration(length % uint64(1000*time.Hour)), PPM(drift), time.Duration(epsilon)}
		want := new(big.Rat).SetFrac64(int64(million+l.Drift), int64(million-l.Drift))
		want.Mul(want, new(big.Rat).SetInt64(int64(l.Length)))
		want.Add(want, new(big.Rat).SetInt64(int64(l.Epsilon)))
		got := new(big.Rat).SetInt64(int64(l.Patience()))
		below := new(big.Rat).Sub(got, big.NewRat(1, 1))
		return got.Cmp(want) >= 0 && below.Cmp(want) < 0
	}
	if err := quick.Check(matches, nil); err != nil {
		t.Error(err)
	}
}

// A holder whose clock is as slow as allowed stops before a watcher whose clock
// is as fast as allowed acts; without the drift in the formula it would not.
func TestHolderStopsBeforeWatcherActs(t *testing.T) {
	l := Lease{Length: 50 * time.Millisecond, Drift: 200, Epsilon: time.Millisecond}
	trueTime := func(reading time.Duration, rate PPM) time.Duration {
		return time.Duration(int64(reading) * million / int64(million+rate))
	}
	stops := trueTime(l.HeldUntil(0).Sub(0), -l.Drift)
	acts := trueTime(l.Patience(), l.Drift)
	if stops >= acts {
		t.Errorf("the holder stops at %v, the watcher acts at %v", stops, acts)
	}
	naive := Lease{Length: l.Length}
	if stops, acts := trueTime(naive.HeldUntil(0).Sub(0), -l.Drift), trueTime(naive.Patience(), l.Drift); stops < acts {
		t.Errorf("control: without drift and margin the holder stops at %v, before %v", stops, acts)
	}
	if l.Renewal()*4 > l.Length {
		t.Error("three renewals may not come late")
	}
}

// The watch against a list of all readings.
func TestWatchMatchesHistory(t *testing.T) {
	matches := func(readings []bool) bool {
		var w Watch
		var manual Manual
		value, changed := uint64(0), Instant(0)
		for i, changes := range readings {
			manual.Advance(time.Duration(i))
			if changes || i == 0 {
				value++
				changed = manual.Now()
			}
			w.Observe(value, manual.Now())
			if w.Silent(manual.Now()+3) != manual.Now().Sub(changed)+3 {
				return false
			}
		}
		return true
	}
	if err := quick.Check(matches, nil); err != nil {
		t.Error(err)
	}
	if (&Watch{}).Silent(1e9) != 0 {
		t.Error("a watch that saw nothing is not silent")
	}
}

// Before against every pair of moments.
func TestBeforeIsCertain(t *testing.T) {
	matches := func(a, b int8, da, db uint8) bool {
		x, y := Around(Instant(a), time.Duration(da%8)), Around(Instant(b), time.Duration(db%8))
		before, after := true, true
		for i := x.Earliest; i <= x.Latest; i++ {
			for j := y.Earliest; j <= y.Latest; j++ {
				before, after = before && i < j, after && i > j
			}
		}
		return x.Before(y) == before && y.Before(x) == after && x.Overlaps(y) == (!before && !after)
	}
	if err := quick.Check(matches, nil); err != nil {
		t.Error(err)
	}
}

func TestManualDoesNotGoBack(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Advance(-1) does not panic")
		}
	}()
	new(Manual).Advance(-1)
}
