package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/runq/protocol"
)

// All states of three cores with two copies. The trial walks more, and the same
// without the reduction.
func TestAllStates(t *testing.T) {
	if testing.Short() {
		t.Skip("the walk runs without -short")
	}
	for _, opts := range []ExploreOptions{
		{Cores: 3, K: 2, Tasks: 2, Failures: 2},
		{Cores: 3, K: 2, Tasks: 1, Failures: 2, Zombies: 1},
		{Cores: 3, K: 2, Tasks: 1, Failures: 1, AllLogs: true},
	} {
		explore(t, opts)
	}
}

func TestAllStatesTrial(t *testing.T) {
	testkit.Need(t, testkit.Trial)
	for _, opts := range []ExploreOptions{
		{Cores: 3, K: 2, Tasks: 2, Failures: 2, Zombies: 1},
		{Cores: 3, K: 2, Tasks: 2, Failures: 2, AllLogs: true},
		{Cores: 3, K: 2, Tasks: 2, Failures: 1, Zombies: 1, AllLogs: true},
		{Cores: 3, K: 2, Tasks: 2, Failures: 2, Zombies: 1, Full: true},
		{Cores: 3, K: 2, Tasks: 1, Failures: 2, Zombies: 1, AllLogs: true},
		{Cores: 4, K: 3, Tasks: 1, Failures: 2}, // A takeover of a takeover.
	} {
		explore(t, opts)
	}
	// Two zombies: not to the end, which is farther than anyone waits.
	opts := ExploreOptions{Cores: 3, K: 2, Tasks: 2, Failures: 2, Zombies: 2, MaxStates: 4_000_000}
	if out, err := Explore(context.Background(), opts); err != nil || out.Actions["suspect"] == 0 {
		t.Errorf("two zombies: %+v, %v", out, err)
	}
}

func explore(t *testing.T, opts ExploreOptions) {
	t.Helper()
	start := time.Now()
	out, err := Explore(context.Background(), opts)
	t.Logf("%d tasks, %d failures of which %d zombies, all logs %v, full %v: %d states, %d transitions, %d ends, depth %d, %v; %v", opts.Tasks,
		opts.Failures, opts.Zombies, opts.AllLogs, opts.Full, out.States, out.Transitions, out.Ends, out.Depth, out.Actions, time.Since(start).Round(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if !out.Complete || out.Ends == 0 || out.Actions["crash"] == 0 || out.Actions["finish"] == 0 || opts.Zombies > 0 && out.Actions["suspect"] == 0 {
		t.Error("the walk did not go everywhere")
	}
}

// The reduced walk comes to the same ends as the walk of every interleaving:
// what the journals of submitters and handlers hold when nothing can happen any
// more. A reduction that leaves something out is noticed.
func TestReductionKeepsTheEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("the walk runs without -short")
	}
	for _, opts := range []ExploreOptions{
		{Cores: 3, K: 2, Tasks: 1, Failures: 1, Zombies: 1},
		{Cores: 3, K: 2, Tasks: 1, Failures: 2},
		{Cores: 3, K: 2, Tasks: 2, Failures: 1},
	} {
		compareEnds(t, opts)
	}
}

func TestReductionKeepsTheEndsTrial(t *testing.T) {
	testkit.Need(t, testkit.Trial)
	compareEnds(t, ExploreOptions{Cores: 3, K: 2, Tasks: 2, Failures: 1, Zombies: 1})
}

func compareEnds(t *testing.T, opts ExploreOptions) {
	t.Helper()
	reduced, err := ends(opts)
	if err != nil {
		t.Fatal(err)
	}
	opts.Full = true
	full, err := ends(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d tasks, %d failures of which %d zombies: %d different ends", opts.Tasks, opts.Failures, opts.Zombies, len(full))
	if !slices.Equal(slices.Sorted(maps.Keys(full)), slices.Sorted(maps.Keys(reduced))) {
		t.Errorf("%d tasks, %d failures, %d zombies: the reduced walk comes to %d ends, the full one to %d\nreduced %v\nfull %v",
			opts.Tasks, opts.Failures, opts.Zombies, len(reduced), len(full), reduced, full)
	}
	if opts.Zombies > 0 {
		return // A suspect may die before any answer, which hides what the control leaves out.
	}
	opts.Full, opts.hasty = false, true
	// It may come to a state that breaks an invariant too: which, the order in
	// which workers walk decides.
	if hasty, err := ends(opts); err == nil && len(hasty) >= len(full) {
		t.Errorf("control: a walk that reduces too much comes to all %d ends", len(full))
	}
}

func ends(opts ExploreOptions) (map[string]bool, error) {
	seen := map[string]bool{}
	opts.end = func(s *state) {
		text := ""
		for _, id := range slices.SortedFunc(maps.Keys(s.w.check.tasks), compareIDs) {
			h := s.w.check.tasks[id]
			starts := 0 // States that differ in those of other modes are one.
			if h.mode == protocol.AtMostOnce {
				starts = h.starts
			}
			text += fmt.Sprintf("%d: acked %v done %v lost %v ended %v starts %d token %d; ", id.N, h.acked, h.done, h.lost, h.ended, starts, h.token)
		}
		seen[text] = true
	}
	out, err := Explore(context.Background(), opts)
	if err == nil && !out.Complete {
		err = fmt.Errorf("the walk %+v did not end", out)
	}
	return seen, err
}

// Where states come from: the fields with many values are those that multiply.
func TestFieldsAreCounted(t *testing.T) {
	out, err := Explore(context.Background(), ExploreOptions{Cores: 3, K: 2, Tasks: 1, Failures: 1, Zombies: 1, fields: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(out.fields)) {
		t.Logf("%-14s %d values", name, len(out.fields[name]))
		if n := len(out.fields[name]); n > out.States {
			t.Errorf("%s has %d values in %d states", name, n, out.States)
		}
	}
	if len(out.fields["node"]) < 2 || len(out.fields["node 1"]) < 2 {
		t.Error("cores that never change were walked through")
	}
}

// A walk that is cut off says so, and a system that cannot be is refused.
func TestExploreLimits(t *testing.T) {
	out, err := Explore(context.Background(), ExploreOptions{Cores: 3, K: 2, Tasks: 1, Failures: 1, MaxStates: 100, Workers: 1})
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

// Every state is found whoever finds it, and the set of hashes grows without
// losing any.
func TestWorkersFindTheSame(t *testing.T) {
	counts := map[int]Explored{}
	for _, workers := range []int{1, 4} {
		out, err := Explore(context.Background(), ExploreOptions{Cores: 3, K: 2, Tasks: 1, Failures: 1, Zombies: 1, Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		counts[workers] = out
	}
	if a, b := counts[1], counts[4]; a.States != b.States || a.Transitions != b.Transitions || a.Ends != b.Ends {
		t.Errorf("one worker finds %+v, four find %+v", a, b)
	}
	s := newSet()
	for i := range 100_000 {
		if word := fmt.Append(nil, i); !s.add(word) || s.add(word) {
			t.Fatalf("word %d", i)
		}
	}
	if s.len() != 100_000 {
		t.Errorf("%d words are held", s.len())
	}
}
