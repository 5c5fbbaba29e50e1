package runq

import (
	"runtime"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/numa"
)

// A loop looks after its own thread: it tells once that its CPU is gone, once that
// it is back, and nothing when somebody else moved it and it could go back.
func TestLoopIsBoundAgain(t *testing.T) {
	testkit.Need(t, testkit.TwoCPUs)
	top, err := numa.Local()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := numa.Affinity(0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := numa.Rebind(before); err != nil {
			t.Error(err)
		}
	}()
	first, second := top.Limits.CPUs[0], top.Limits.CPUs[1]
	gone := top.Possible[len(top.Possible)-1] + 1 // No machine has it.
	h := &home{cpu: first}
	for i, step := range []struct {
		cpu           int  // Where the loop belongs.
		pushed        int  // Where somebody puts its thread first.
		changed, away bool // What the look tells.
	}{
		{first, first, false, false},
		{first, second, false, false},
		{gone, first, true, true},
		{gone, second, false, true},
		{first, second, true, false},
		{first, first, false, false},
	} {
		if err := numa.Rebind(numa.List{step.pushed}); err != nil {
			t.Fatal(err)
		}
		h.cpu = step.cpu
		if changed := h.look(); changed != step.changed || h.away != step.away {
			t.Errorf("step %d: changed %v, away %v, want %v, %v", i, changed, h.away, step.changed, step.away)
		}
		if cpus, err := numa.Affinity(0); err != nil || !step.away && !cpus.Equal(numa.List{step.cpu}) {
			t.Errorf("step %d: the thread may run on %v, %v", i, cpus, err)
		}
	}
}
