package bpf

import (
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// schedulerClockScale returns how many nanoseconds of CLOCK_MONOTONIC pass in one
// of the scheduler's, by which tasks are billed. In some virtual machines the two
// are calibrated apart and their rates differ by some tenths of a percent, which
// over a second would look like milliseconds of stolen time.
//
// A thread that runs without a break sees both clocks advance together; whatever
// disturbs it can only make its own clock look slower. So of many short trials
// the fast ones tell the truth, and the tenth from the top is taken.
func schedulerClockScale() (float64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const (
		trials  = 40
		trialNs = 2_000_000
	)
	ratios := make([]float64, 0, trials)
	for range trials {
		cpu, err := now(unix.CLOCK_THREAD_CPUTIME_ID)
		if err != nil {
			return 0, err
		}
		wall, err := now(unix.CLOCK_MONOTONIC)
		if err != nil {
			return 0, err
		}
		end := wall
		for end-wall < trialNs {
			if end, err = now(unix.CLOCK_MONOTONIC); err != nil {
				return 0, err
			}
		}
		cpuEnd, err := now(unix.CLOCK_THREAD_CPUTIME_ID)
		if err != nil {
			return 0, err
		}
		ratios = append(ratios, float64(cpuEnd-cpu)/float64(end-wall))
	}
	slices.Sort(ratios)
	ratio := ratios[trials*9/10]
	// The trial reads the clocks one after the other, which adds well under a
	// percent; beyond that the thread was never left alone.
	if ratio < 0.98 || ratio > 1.02 {
		return 1, nil
	}
	return 1 / ratio, nil
}

func now(clock int32) (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("read clock %d: %w", clock, err)
	}
	return ts.Nano(), nil
}
