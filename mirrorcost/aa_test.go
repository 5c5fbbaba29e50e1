package mirrorcost

import (
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/mirrorcost/report"
)

// equalLegs is a plan whose legs are the same but for a known cost.
func equalLegs(seed uint64, spin time.Duration) Plan {
	p := DefaultPlan()
	p.Mirror, p.Seed, p.Spin = p.Baseline, seed, spin
	p.ProbeCost = false
	return p
}

// halfWidth is half of the tax's interval as a share of a write's cost.
func halfWidth(r *Report) float64 {
	ci := r.Tax.CPUNsPerWrite
	return (ci.High - ci.Low) / 2 / r.Baseline.CPUNsPerWrite.Mean
}

// quadsOnly is a run of a plan without the passes that set no totals: new devices,
// a new load, the rate found anew, and all quads.
func quadsOnly(t *testing.T, p Plan) *Report {
	t.Helper()
	progress := newProgress(&p, nil)
	s, err := open(t.Context(), p, Options{}, progress)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	o, err := s.describe()
	if err != nil {
		t.Fatal(err)
	}
	saturated, err := s.saturate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if o.pace, err = s.choosePace(saturated); err != nil {
		t.Fatal(err)
	}
	if o.ledger, err = s.ledgerPass(t.Context(), o.pace, progress); err != nil {
		t.Fatal(err)
	}
	return o.analyse()
}

// Over many seeds, equal legs are told to be equal and a known difference is
// found. The spin is the control: an interval wide enough to hold anything would
// pass the first half and fail the second.
func TestTrialAA(t *testing.T) {
	testkit.Need(t, testkit.Trial)
	needRun(t)
	const seeds, least = 20, 17
	spans, detected, narrow := 0, 0, 0
	for seed := range uint64(seeds) {
		equal := quadsOnly(t, equalLegs(seed+1, 0))
		spun := quadsOnly(t, equalLegs(seed+1, 5*time.Microsecond))
		t.Logf("seed %2d: A/A %s of %s, half-width %.1f %%; with 5 µs %s", seed+1,
			report.FormatNsInterval(equal.Tax.CPUNsPerWrite), report.FormatNs(equal.Baseline.CPUNsPerWrite.Mean), 100*halfWidth(equal), report.FormatNsInterval(spun.Tax.CPUNsPerWrite))
		if equal.Tax.CPUNsPerWrite.SpansZero() {
			spans++
		}
		if spun.Tax.CPUNsPerWrite.Low > 0 {
			detected++
		}
		if halfWidth(equal) <= 0.08 {
			narrow++
		}
	}
	t.Logf("of %d seeds: %d A/A intervals contain zero, %d are within 8 %% of the cost, 5 µs detected %d times", seeds, spans, narrow, detected)
	if spans < least || detected < least || narrow < least {
		t.Errorf("want at least %d of each", least)
	}
}

// The short form for every change: one seed of equal legs, and one with a
// difference that is hard to miss. An interval at 95 % misses zero once in
// twenty, so a miss is tried once more: twice in a row is one in four hundred.
func TestAA(t *testing.T) {
	needRun(t)
	if testkit.Missing(testkit.Trial) == "" {
		t.Skip("the trial does more")
	}
	short := func(seed uint64, spin time.Duration) *Report {
		p := equalLegs(seed, spin)
		p.Duration, p.FileBytes = 16*time.Second, 16<<20
		return mustRun(t, p)
	}
	for try := uint64(1); ; try++ {
		r := short(try, 0)
		t.Logf("A/A: %s of %s, half-width %.1f %%", report.FormatNsInterval(r.Tax.CPUNsPerWrite), report.FormatNs(r.Baseline.CPUNsPerWrite.Mean), 100*halfWidth(r))
		if !r.Tax.Shown && halfWidth(r) <= 0.08 {
			break
		}
		if try == 2 {
			t.Fatalf("twice equal legs were not told to be equal within 8 %%")
		}
	}
	if r := short(3, 30*time.Microsecond); r.Tax.CPUNsPerWrite.Low <= 0 {
		t.Errorf("30 µs were not found: %s", report.FormatNsInterval(r.Tax.CPUNsPerWrite))
	}
}
