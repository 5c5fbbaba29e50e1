package testkit

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"testing"
	"time"
)

// LeakExit is the exit code of a test binary whose tests passed and left
// something behind.
const LeakExit = 99

// settle is how long something may take to go away by itself: a killed child
// that the kernel has not reaped, a lazily detached loop device.
const settle = 3 * time.Second

// Check looks for one kind of thing that tests may leave behind.
type Check struct {
	// Name is the kind, in the plural.
	Name string
	// List returns what is there now. Keys tell the things apart and values
	// describe them.
	List func() (map[string]string, error)
}

// Main runs the tests of a package and exits: with their code, or with
// [LeakExit] if they passed and left something that was not there before. File
// descriptors, child processes and the CPU affinity are always looked at;
// checks add to that.
func Main(m *testing.M, checks ...Check) {
	os.Exit(Checked{M: m, Checks: checks}.Run())
}

// Checked is [Main] for a package whose TestMain belongs to another helper,
// such as testscript, that wants something to run.
type Checked struct {
	M      *testing.M
	Checks []Check
}

// Run runs the tests and returns the exit code.
func (c Checked) Run() int {
	return run(c.M.Run, os.Stderr, settle, append([]Check{FDs(), Children(), Affinity()}, c.Checks...))
}

// run is [Main] without the exit, so that a test can see it fail.
func run(tests func() int, log io.Writer, patience time.Duration, checks []Check) int {
	before := make([]map[string]string, len(checks))
	for i, check := range checks {
		list, err := check.List()
		if err != nil {
			fmt.Fprintf(log, "list %s before the tests: %v\n", check.Name, err)
			return 1
		}
		before[i] = list
	}
	if code := tests(); code != 0 {
		return code // A failed test may well leave things; its failure is the news.
	}
	code := 0
	for i, check := range checks {
		left, err := leaked(check, before[i], patience)
		if err != nil {
			fmt.Fprintf(log, "list %s after the tests: %v\n", check.Name, err)
			code = LeakExit
		}
		for _, key := range slices.Sorted(maps.Keys(left)) {
			fmt.Fprintf(log, "LEAK %s: %s %s\n", check.Name, key, left[key])
			code = LeakExit
		}
	}
	return code
}

// leaked returns what is there and was not before, after some patience.
func leaked(check Check, before map[string]string, patience time.Duration) (map[string]string, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		now, err := check.List()
		if err != nil {
			return nil, err
		}
		left := map[string]string{}
		for key, value := range now {
			if was, there := before[key]; !there || was != value {
				left[key] = value
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left, nil
		}
	}
}
