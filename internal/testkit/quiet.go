package testkit

import "testing"

// Quiet repeats a measurement of time that a neighbour on the machine may spoil, and
// fails when it was wrong each time. What is wrong in itself stays wrong.
func Quiet(tb testing.TB, tries int, measure func() (complaint string)) {
	tb.Helper()
	Need(tb, Timing)
	var complaints []string
	for range tries {
		complaint := measure()
		if complaint == "" {
			return
		}
		tb.Logf("not yet: %s", complaint)
		complaints = append(complaints, complaint)
	}
	tb.Errorf("wrong each time: %q", complaints)
}
