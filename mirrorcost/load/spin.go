package load

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// spin runs a fixed loop and returns its last value, so that no compiler can
// leave it out. Each step depends on the one before: its time does not hang on
// what else the processor finds to do at once. It touches no memory.
//
//go:noinline
func spin(iterations, seed uint64) uint64 {
	x := seed | 1
	for range iterations {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}

// The calibration.
const (
	// trialTime is long against the 200 ns of reading the clock, and short
	// against the time for which a virtual processor keeps its speed.
	trialTime = 200 * time.Microsecond
	trials    = 301
	// maxSpin keeps a slip of the pen from stopping the load for good.
	maxSpin = time.Minute
)

// CalibrateSpin returns the number of iterations of [Spec.SpinIterations] that
// cost d by the thread's own CPU clock, which stands still while the thread does
// not run. It takes about a tenth of a second.
//
// A virtual processor changes its speed with what its neighbours do: the median
// of many short trials is what a load that runs for seconds will see, where
// their minimum would be a speed that is seldom reached.
func CalibrateSpin(d time.Duration) (iterations uint64, err error) {
	if d <= 0 || d > maxSpin {
		return 0, fmt.Errorf("calibrate spin: %v: want more than 0 and at most %v", d, maxSpin)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const probe = 100_000
	perIteration, err := medianCost(probe, 1)
	if err != nil {
		return 0, fmt.Errorf("calibrate spin: %w", err)
	}
	perIteration /= probe
	// The second round runs the loop as the load will: as often and as
	// short, so that the call's own cost is in it.
	short := min(d, trialTime)
	n := max(uint64(float64(short)/perIteration+0.5), 1)
	cost, err := medianCost(n, max(int(trialTime/short), 1))
	if err != nil {
		return 0, fmt.Errorf("calibrate spin: %w", err)
	}
	return max(uint64(float64(n)*float64(d)/cost+0.5), 1), nil
}

// spinSink keeps the results of the trials in use.
var spinSink uint64

// medianCost returns the CPU time of one call in nanoseconds.
func medianCost(iterations uint64, calls int) (float64, error) {
	var costs [trials]int64
	for i := range costs {
		before, err := threadCPUNs()
		if err != nil {
			return 0, err
		}
		for range calls {
			spinSink = spin(iterations, spinSink)
		}
		after, err := threadCPUNs()
		if err != nil {
			return 0, err
		}
		costs[i] = after - before
	}
	slices.Sort(costs[:])
	median := float64(costs[trials/2]) / float64(calls)
	if median <= 0 {
		return 0, errors.New("the thread's CPU clock stands still: this kernel cannot measure a spin")
	}
	return median, nil
}

// threadCPUNs reads the CPU clock of the calling thread.
func threadCPUNs() (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("read the thread's CPU clock: %w", err)
	}
	return ts.Nano(), nil
}
