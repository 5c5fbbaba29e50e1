package sim

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/runq/protocol"
)

// Seeds of one test run, and how often each thing must have happened in them.
const (
	seeds = 2000
	least = 100
)

// The claims of the run queue, under everything that can go wrong: nothing
// acknowledged is lost, nothing removed comes back, a core that was fenced off
// changes nothing.
func TestInvariantsHold(t *testing.T) {
	if testing.Short() {
		t.Skip("the sweep runs without -short")
	}
	coverage, steps := Coverage{}, 0
	for seed := range uint64(seeds) {
		steps += sweep(t, seed, coverage)
	}
	covered(t, coverage, seeds, steps)
}

// sweep runs a seed, adds what it covered, and returns its steps.
func sweep(t *testing.T, seed uint64, coverage Coverage) int {
	t.Helper()
	result, err := Run(Options{Seed: seed, Faults: AllFaults})
	if err != nil {
		shrunk, small := Shrink(Options{Seed: seed, Faults: AllFaults})
		t.Fatalf("%v\nshrunk to faults %v, steps %d: %v\nreplay with: coreplica runq sim --seed %d --seeds 1 --faults %v --steps %d",
			err, shrunk.Faults, shrunk.Steps, small, seed, shrunk.Faults, shrunk.Steps)
	}
	coverage.Add(result.Coverage)
	return result.Steps
}

// covered prints what happened, and fails where something happened too seldom.
func covered(t *testing.T, coverage Coverage, seeds uint64, steps int) {
	t.Helper()
	t.Logf("%d seeds, %d steps", seeds, steps)
	for _, group := range slices.Sorted(maps.Keys(coverage)) {
		t.Logf("%s: %v", group, coverage[group])
	}
	for _, missing := range coverage.Missing(least) {
		t.Errorf("happened fewer than %d times: %s", least, missing)
	}
}

// What did not happen is missed, so that a fault which does nothing any more
// does not go unnoticed (correction 16).
func TestCoverageMissesWhatDidNotHappen(t *testing.T) {
	coverage := Coverage{}
	for seed := range uint64(100) {
		result, err := Run(Options{Seed: seed, Faults: AllFaults &^ (Crash | Rot)})
		if err != nil {
			t.Fatal(err)
		}
		coverage.Add(result.Coverage)
	}
	missing := strings.Join(coverage.Missing(1), "\n")
	for _, want := range []string{"fault crash: 0", "fault rot: 0", "fault publish to a lost copy: 0"} {
		if !strings.Contains(missing, want) {
			t.Errorf("without crashes and rot, %q is not missed:\n%s", want, missing)
		}
	}
	if strings.Contains(missing, "record ENQ") {
		t.Errorf("what happened is missed:\n%s", missing)
	}
}

// A hundred million steps, from other seeds than the test's.
func TestInvariantsHoldTrial(t *testing.T) {
	testkit.Need(t, testkit.Trial)
	const first, want = 1_000_000, 100_000_000
	coverage, steps, seed := Coverage{}, 0, uint64(first)
	start := time.Now()
	for ; steps < want; seed++ {
		steps += sweep(t, seed, coverage)
	}
	t.Logf("seeds %d to %d, %v", first, seed-1, time.Since(start).Round(time.Second))
	covered(t, coverage, seed-first, steps)
}

// A task that arrives elsewhere while its old log is copied is counted where it
// is: this seed once blamed the protocol for a death that the checker missed.
func TestDeathsAreCountedWhereTheTaskIs(t *testing.T) {
	if _, err := Run(Options{Seed: 1_000_017, Faults: AllFaults}); err != nil {
		t.Error(err)
	}
}

// A seed is the whole truth about a run.
func TestSeedReplays(t *testing.T) {
	for seed := range uint64(20) {
		var first, second []protocol.EventKind
		a, errA := Run(Options{Seed: seed, Faults: AllFaults, Record: kindsOf(&first)})
		b, errB := Run(Options{Seed: seed, Faults: AllFaults, Record: kindsOf(&second)})
		if errA != nil || errB != nil || !reflect.DeepEqual(a, b) || !slices.Equal(first, second) {
			t.Fatalf("seed %d differs from itself: %v %v", seed, errA, errB)
		}
	}
}

func kindsOf(kinds *[]protocol.EventKind) func(protocol.Core, []protocol.Event, []protocol.Effect) {
	return func(_ protocol.Core, evs []protocol.Event, _ []protocol.Effect) {
		for i := range evs {
			*kinds = append(*kinds, evs[i].Kind)
		}
	}
}

// A lease that is renewed from a side goroutine keeps a hung worker alive for
// ever: its queue is never taken over.
func TestSideRenewalIsNoticed(t *testing.T) {
	for seed := range uint64(50) {
		_, err := Run(Options{Seed: seed, Faults: Wedge, sideRenewal: true})
		if errors.Is(err, ErrViolation) && strings.Contains(err.Error(), "liveness") {
			if _, err := Run(Options{Seed: seed, Faults: Wedge}); err != nil {
				t.Fatalf("control: renewed from the scheduling loop, %v", err)
			}
			return
		}
	}
	t.Error("50 seeds do not notice")
}

// An area that is freed while its writer still lives is written to by it: slot
// stores are not fenced.
func TestFreeingUnderAWriterIsNoticed(t *testing.T) {
	for seed := range uint64(200) {
		_, err := Run(Options{Seed: seed, Faults: AllFaults &^ Excess, freeAll: true})
		if errors.Is(err, ErrViolation) && strings.Contains(err.Error(), "freed") {
			return
		}
	}
	t.Error("200 seeds do not notice")
}

// Past k-1 failures tasks are lost, and it is said.
func TestExcessIsReported(t *testing.T) {
	reported := 0
	for seed := range uint64(300) {
		result, err := Run(Options{Seed: seed, Faults: Crash | Excess})
		if err != nil {
			t.Fatal(err)
		}
		if result.Coverage["report"]["log"] > 0 {
			if !result.Excused {
				t.Fatalf("seed %d lost a log within the number of failures that it survives", seed)
			}
			reported++
		}
	}
	if reported == 0 {
		t.Error("no log was ever lost: the fault does nothing")
	}
}

func TestFaultNames(t *testing.T) {
	if len(faultNames) != len(AllFaults.Names()) {
		t.Errorf("%d names for %d faults", len(faultNames), len(AllFaults.Names()))
	}
	for _, f := range []Faults{0, Crash, Crash | Rot | Excess, AllFaults} {
		if got, err := ParseFaults(f.String()); err != nil || got != f {
			t.Errorf("ParseFaults(%q) = %v, %v", f, got, err)
		}
	}
	if _, err := ParseFaults("crash,flood"); err == nil {
		t.Error("flood is no fault")
	}
}
