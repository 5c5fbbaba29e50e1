package protocol_test

import (
	"context"
	"errors"
	"testing"

	"github.com/coreplica/coreplica/runq/protocol"
	"github.com/coreplica/coreplica/runq/protocol/sim"
)

// A rule that nothing misses is no rule: each one, switched off, must be missed
// by the simulator within so many seeds. Two rules whose absence shows too
// seldom for that have tests of their own: TestStaleResultIsRejected and
// TestCellsAreNotReusedEarly. So has the lease that a side goroutine renews,
// which is the executor's doing: TestSideRenewalIsNoticed in sim.
const mutantSeeds = 600

func TestMutantsAreCaught(t *testing.T) {
	for _, name := range protocol.Mutants() {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(mutantSeeds) {
				_, err := sim.Run(sim.Options{Seed: seed, Faults: sim.AllFaults &^ sim.Excess, Prepare: protocol.Mutate(name)})
				if errors.Is(err, sim.ErrViolation) {
					t.Logf("caught: %v", err)
					return
				}
			}
			t.Errorf("%d seeds do not notice", mutantSeeds)
		})
	}
}

// The explorer notices too, without luck, where its actions reach: it has one
// log followed, a submit that is not repeated, no cancel, no hand-off and no core
// that returns. It goes through all states that come before the violation.
func TestExplorerCatchesMutants(t *testing.T) {
	one := sim.ExploreOptions{Cores: 3, K: 2, Tasks: 1, Failures: 1, Zombies: 1}
	cascade := sim.ExploreOptions{Cores: 3, K: 2, Tasks: 1, Failures: 2, Zombies: 1}
	tokens := sim.ExploreOptions{Cores: 3, K: 2, Tasks: 2, Failures: 1, Zombies: 1} // The second task is OnceRecorded.
	for name, opts := range map[string]sim.ExploreOptions{
		"ack before last replica": one,
		"claim not replicated":    one,
		"fence ignored":           one,
		"no seal":                 one,
		"old regions freed early": one,
		"payload in one copy":     one,
		"shortest log":            one,
		"longest valid prefix":    cascade,
		"read a recovering epoch": cascade,
		"token not replicated":    tokens,
	} {
		t.Run(name, func(t *testing.T) {
			opts.Prepare = protocol.Mutate(name)
			out, err := sim.Explore(context.Background(), opts)
			if !errors.Is(err, sim.ErrViolation) {
				t.Errorf("%d states do not notice: %v", out.States, err)
			}
			t.Logf("caught after %d states: %v", out.States, err)
		})
	}
}
