package mirrorcost_test

import (
	"context"
	"fmt"
	"time"

	"github.com/coreplica/coreplica/mirrorcost"
)

// A run from a program of one's own. Its main, or TestMain as here, calls
// load.Hook first, since the load is the same program once more.
func ExampleRun() {
	plan := mirrorcost.DefaultPlan()
	plan.Duration, plan.Quads = 2*time.Second, 4
	plan.FileBytes = 16 << 20
	plan.ProbeCost = false

	report, err := mirrorcost.Run(context.Background(), plan, mirrorcost.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, leg := range []mirrorcost.Leg{report.Baseline, report.Mirror} {
		fmt.Printf("%s: each write reached %d device(s) and cost between 1 µs and 1 ms of CPU: %t\n",
			leg.Name, len(leg.BiosDataPerDevice), leg.CPUNsPerWrite.Mean > 1e3 && leg.CPUNsPerWrite.Mean < 1e6)
	}
	// Output:
	// btrfs-single: each write reached 1 device(s) and cost between 1 µs and 1 ms of CPU: true
	// btrfs-raid1: each write reached 2 device(s) and cost between 1 µs and 1 ms of CPU: true
}
