package sim

import (
	"context"
	"errors"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/runq/protocol"
)

// All states of three cores with two copies: one task and two failures here,
// two tasks and everything else in the trial. Both are reduced as
// ExploreOptions.Full says; the trial walks one space in full, too.
func TestAllStates(t *testing.T) {
	if testing.Short() {
		t.Skip("the walk runs without -short")
	}
	explore(t, ExploreOptions{Cores: 3, K: 2, Tasks: 1, Failures: 2})
}

func TestAllStatesTrial(t *testing.T) {
	testkit.Need(t, testkit.Trial)
	for _, opts := range []ExploreOptions{
		{Cores: 3, K: 2, Tasks: 2, Failures: 2},
		{Cores: 3, K: 2, Tasks: 1, Failures: 2, Zombies: 1},
		{Cores: 3, K: 2, Tasks: 2, Failures: 1, Zombies: 1},
		{Cores: 3, K: 2, Tasks: 2, Failures: 2, Zombies: 1},
		{Cores: 3, K: 2, Tasks: 2, Failures: 2, Full: true},
	} {
		explore(t, opts)
	}
}

func explore(t *testing.T, opts ExploreOptions) {
	t.Helper()
	out, err := Explore(context.Background(), opts)
	t.Logf("%+v: %+v", opts, out)
	if err != nil {
		t.Fatal(err)
	}
	if !out.Complete || out.Ends == 0 || out.Actions["crash"] == 0 || out.Actions["finish"] == 0 {
		t.Error("the walk did not go everywhere")
	}
}

// A walk that is cut off says so, and a system that cannot be is refused.
func TestExploreLimits(t *testing.T) {
	out, err := Explore(context.Background(), ExploreOptions{Cores: 3, K: 2, Tasks: 1, Failures: 1, MaxStates: 100})
	if err != nil || out.Complete || out.States != 100 {
		t.Errorf("a walk of 100 states: %+v, %v", out, err)
	}
	if _, err := Explore(context.Background(), ExploreOptions{Cores: 2, K: 3}); !errors.Is(err, ErrUsage) || !errors.Is(err, protocol.ErrConfig) {
		t.Errorf("three copies on two cores: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Explore(ctx, ExploreOptions{Cores: 3, K: 2, Tasks: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
