package load

import (
	"runtime"
	"slices"
	"testing"
	"time"
)

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// The spin costs what it was calibrated for, by the thread's own clock, in many
// short stretches as the load runs it.
func TestSpinCostsWhatItSays(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, d := range []time.Duration{time.Microsecond, 5 * time.Microsecond, time.Millisecond} {
		n, err := CalibrateSpin(d)
		if err != nil {
			t.Fatal(err)
		}
		calls := max(int(500*time.Microsecond/d), 1)
		var costs []float64
		for range 201 {
			before, err := threadCPUNs()
			if err != nil {
				t.Fatal(err)
			}
			for range calls {
				spinSink = spin(n, spinSink)
			}
			after, err := threadCPUNs()
			if err != nil {
				t.Fatal(err)
			}
			costs = append(costs, float64(after-before)/float64(calls))
		}
		if ratio := median(costs) / float64(d); ratio < 0.97 || ratio > 1.03 {
			t.Errorf("%d iterations for %v cost %.3f of it", n, d, ratio)
		} else {
			t.Logf("%d iterations for %v cost %.3f of it", n, d, ratio)
		}
	}
}

func TestCalibrationsAgree(t *testing.T) {
	var list []float64
	for range 5 {
		n, err := CalibrateSpin(5 * time.Microsecond)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, float64(n))
	}
	middle := median(list)
	t.Logf("calibrations: %v", list)
	// All but one: a neighbour may have the processor for a while.
	if far := max(min(middle/list[1], 2), list[3]/middle); far > 1.02 {
		t.Errorf("calibrations of 5µs: %v", list)
	}
}

// In the load, a spin of 20 µs shows in the threads' CPU time and in the
// latency.
func TestTheLoadSpins(t *testing.T) {
	const d, writes = 20 * time.Microsecond, 2000
	n, err := CalibrateSpin(d)
	if err != nil {
		t.Fatal(err)
	}
	with, without := spec(t, 1, 1), spec(t, 1, 1)
	with.SpinIterations = n
	p := start(t, map[string]Spec{"with": with, "without": without})
	var differences []float64
	var p50 int64
	for range 9 {
		r := run(t, p, Block{Leg: "with", Writes: writes})
		h, err := DecodeLatencies(r.Latencies)
		if err != nil {
			t.Fatal(err)
		}
		p50 = h.ValueAtQuantile(50)
		bare := run(t, p, Block{Leg: "without", Writes: writes})
		differences = append(differences, float64(r.ThreadCPUNs)-float64(bare.ThreadCPUNs))
	}
	ratio := median(differences) / writes / float64(d)
	t.Logf("the spin costs %.3f of %v in the load", ratio, d)
	if ratio < 0.95 || ratio > 1.05 || p50 < int64(d)*9/10 {
		t.Errorf("the spin costs %.3f of %v, and half of the writes took more than %v", ratio, d, time.Duration(p50))
	}
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
