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
	// The trials are spread over rounds with a rest between: a neighbour
	// that has the processor for some 10 ms spoils one round and no more.
	rounds         = 16
	trialsPerRound = 24
	rest           = 5 * time.Millisecond
	// maxSpin keeps a slip of the pen from stopping the load for good.
	maxSpin = time.Minute
)

// CalibrateSpin returns the number of iterations of [Spec.SpinIterations] that
// cost d by the thread's own CPU clock, which stands still while the thread does
// not run. It takes about a third of a second.
//
// On a virtual machine many trials come out dear, by interrupts and neighbours,
// and a few come out cheap, when the clock makes good for stolen time. Between
// them lies a plateau, and the lower quartile is on it: it repeats to one or two
// per cent where minimum, median and mean do not. By the same disturbances a load
// spins one to four per cent longer than calibrated on average, not in its
// median.
func CalibrateSpin(d time.Duration) (iterations uint64, err error) {
	if d <= 0 || d > maxSpin {
		return 0, fmt.Errorf("calibrate spin: %v: want more than 0 and at most %v", d, maxSpin)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const probe = 100_000
	perIteration, err := callCost(probe, 1)
	if err != nil {
		return 0, fmt.Errorf("calibrate spin: %w", err)
	}
	perIteration /= probe
	// The second round runs the loop as the load will: as often and as
	// short, so that the call's own cost is in it.
	short := min(d, trialTime)
	n := max(uint64(float64(short)/perIteration+0.5), 1)
	cost, err := callCost(n, max(int(trialTime/short), 1))
	if err != nil {
		return 0, fmt.Errorf("calibrate spin: %w", err)
	}
	return max(uint64(float64(n)*float64(d)/cost+0.5), 1), nil
}

// spinSink keeps the results of the trials in use.
var spinSink uint64

// callCost returns the CPU time of one call in nanoseconds.
func callCost(iterations uint64, calls int) (float64, error) {
	costs := make([]int64, 0, rounds*trialsPerRound)
	for range rounds {
		for range trialsPerRound {
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
			costs = append(costs, after-before)
		}
		time.Sleep(rest)
	}
	slices.Sort(costs)
	quartile := float64(costs[len(costs)/4]) / float64(calls)
	if quartile <= 0 {
		return 0, errors.New("the thread's CPU clock stands still: this kernel cannot measure a spin")
	}
	return quartile, nil
}

// threadCPUNs reads the CPU clock of the calling thread.
func threadCPUNs() (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("read the thread's CPU clock: %w", err)
	}
	return ts.Nano(), nil
}
