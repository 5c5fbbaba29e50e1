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

// The explorer notices too, without luck.
func TestExplorerCatchesMutants(t *testing.T) {
	for _, name := range []string{"ack before last replica", "shortest log", "old regions freed early", "payload in one copy"} {
		t.Run(name, func(t *testing.T) {
			opts := sim.ExploreOptions{Cores: 3, K: 2, Tasks: 1, Failures: 1, MaxStates: 50_000, Prepare: protocol.Mutate(name)}
			if out, err := sim.Explore(context.Background(), opts); !errors.Is(err, sim.ErrViolation) {
				t.Errorf("%d states do not notice: %v", out.States, err)
			}
		})
	}
}
