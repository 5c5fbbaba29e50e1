package load

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
)

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// The spin costs what it was calibrated for, by the thread's own clock, in many
// short stretches as the load runs it. A busy sibling of the core makes the same
// instructions a tenth dearer, which no calibration foresees: a run reports what
// its spins really cost. The bounds are for a number that is wrong.
func TestSpinCostsWhatItSays(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, d := range []time.Duration{time.Microsecond, 5 * time.Microsecond, time.Millisecond} {
		testkit.Quiet(t, 6, func() string {
			n, err := CalibrateSpin(d)
			if err != nil {
				t.Fatal(err)
			}
			ratio := medianCost(t, n, max(int(500*time.Microsecond/d), 1)) / float64(d)
			t.Logf("%d iterations for %v cost %.3f of it", n, d, ratio)
			if ratio < 0.95 || ratio > 1.25 {
				return fmt.Sprintf("%d iterations for %v cost %.3f of it", n, d, ratio)
			}
			return ""
		})
	}
}

func medianCost(t *testing.T, iterations uint64, calls int) float64 {
	t.Helper()
	var costs []float64
	for range 201 {
		before, err := threadCPUNs()
		if err != nil {
			t.Fatal(err)
		}
		for range calls {
			spinSink = spin(iterations, spinSink)
		}
		after, err := threadCPUNs()
		if err != nil {
			t.Fatal(err)
		}
		costs = append(costs, float64(after-before)/float64(calls))
	}
	return median(costs)
}

func TestCalibrationsAgree(t *testing.T) {
	testkit.Quiet(t, 6, func() string {
		var list []float64
		for range 3 {
			n, err := CalibrateSpin(5 * time.Microsecond)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, float64(n))
		}
		t.Logf("calibrations of 5µs: %v", list)
		if slices.Max(list)/slices.Min(list) > 1.02 {
			return fmt.Sprint(list)
		}
		return ""
	})
}

// In the load a spin costs what was asked for, by the thread's own clock, and is
// not part of a write's latency. The threads' CPU time is a sum, and so has all
// disturbances in it. The spin is a long one here, since the write after a spin
// is dearer by most of a microsecond: the spin lets its caches go cold.
func TestTheLoadSpins(t *testing.T) {
	const d, writes = 200 * time.Microsecond, 140
	n, err := CalibrateSpin(d)
	if err != nil {
		t.Fatal(err)
	}
	with, without := spec(t, 1, 1), spec(t, 1, 1)
	with.SpinIterations = n
	p := start(t, map[string]Spec{"with": with, "without": without})
	testkit.Quiet(t, 6, func() string {
		var cpu, timed []float64
		for range 9 {
			spun := run(t, p, Block{Leg: "with", Writes: writes})
			bare := run(t, p, Block{Leg: "without", Writes: writes})
			if bare.Spin != 0 {
				t.Fatalf("a spin of %s without a spin", bare.Spin)
			}
			timed = append(timed, float64(spun.Spin))
			cpu = append(cpu, (float64(spun.ThreadCPUNs)-float64(bare.ThreadCPUNs))/writes)
			h, err := DecodeLatencies(spun.Latencies)
			if err != nil {
				t.Fatal(err)
			}
			if half := h.ValueAtQuantile(50); half > int64(d)/2 {
				t.Fatalf("half of the writes took %d ns: the spin is in them", half)
			}
		}
		said, cost := median(timed)/float64(d), median(cpu)/float64(d)
		t.Logf("a spin of %v costs %.3f of it by its own clock, %.3f by the block's", d, said, cost)
		if said < 0.95 || said > 1.25 || math.Abs(cost-said) > 0.1*said {
			return fmt.Sprintf("says %.3f, costs %.3f", said, cost)
		}
		return ""
	})
}

func TestSpinLimits(t *testing.T) {
	for _, d := range []time.Duration{-1, 0, maxSpin + 1} {
		if _, err := CalibrateSpin(d); err == nil {
			t.Errorf("CalibrateSpin(%v) works", d)
		}
	}
	if n, err := CalibrateSpin(1); err != nil || n != 1 {
		t.Errorf("CalibrateSpin(1ns) = %d, %v", n, err)
	}
}
