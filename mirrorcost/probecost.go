package mirrorcost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/bpf"
)

const (
	probeRounds = 8
	probeTime   = 250 * time.Millisecond
)

// probeStates are what the rounds alternate between. A round goes through them
// and back, so that a drift of the machine's speed cancels.
const (
	probesOff = iota
	probesLedger
	probesAll
	probeStates
)

// probePass measures what the probes cost the load: its throughput on the
// cheaper leg, as fast as it can, with probes off, with the ledger, and with
// everything. The cheaper leg suffers most, so the figure is the worse one.
func (s *session) probePass(ctx context.Context, rounds int, p *progress) (o probeObservation, err error) {
	for round := range rounds {
		var writes [probeStates]uint64
		var elapsed [probeStates]time.Duration
		for _, state := range []int{probesOff, probesLedger, probesAll, probesAll, probesLedger, probesOff} {
			if err := s.setProbes(state); err != nil {
				return o, err
			}
			r, busy, err := s.plain(ctx, baseline, s.limited(baseline, probeTime, 0))
			if err != nil {
				return o, err
			}
			writes[state] += r.Acknowledged
			elapsed[state] += busy
		}
		off := float64(writes[probesOff]) / elapsed[probesOff].Seconds()
		ledger := float64(writes[probesLedger]) / elapsed[probesLedger].Seconds()
		all := float64(writes[probesAll]) / elapsed[probesAll].Seconds()
		o.ledgerPercent = append(o.ledgerPercent, 100*(1-ledger/off))
		o.allPercent = append(o.allPercent, 100*(1-all/off))
		p.step(float64(round+1) / float64(rounds))
	}
	o.nsPerEvent, err = s.calibrate()
	return o, errors.Join(err, s.setProbes(probesLedger))
}

// setProbes attaches what a state needs and detaches the rest.
func (s *session) setProbes(state int) error {
	if state == probesAll {
		if err := s.blockio.Attach(); err != nil {
			return err
		}
		if err := s.stacks.Attach(); err != nil {
			return err
		}
	} else if err := errors.Join(s.blockio.Detach(), s.stacks.Detach()); err != nil {
		return err
	}
	if state == probesOff {
		return s.ledger.Detach()
	}
	if err := s.ledger.Attach(); err != nil {
		return err
	}
	return s.startLedger()
}

// calibrate measures what one event of the ledger costs, dispatch included: a
// thread that only makes system calls, and two threads that only switch, each
// with and without the ledger. Interrupts and works are taken to cost what a
// system call's event does, since their programs do the same.
func (s *session) calibrate() (map[string]float64, error) {
	if err := s.setProbes(probesLedger); err != nil {
		return nil, err
	}
	// Only the load's system calls are charged, so for this while we are it.
	if err := s.ledger.Start(os.Getpid(), 0); err != nil {
		return nil, err
	}
	syscallOn, err := timeSyscalls()
	if err != nil {
		return nil, err
	}
	switchOn, err := timeSwitches()
	if err != nil {
		return nil, err
	}
	if err := s.ledger.Detach(); err != nil {
		return nil, err
	}
	syscallOff, err := timeSyscalls()
	if err != nil {
		return nil, err
	}
	switchOff, err := timeSwitches()
	if err != nil {
		return nil, err
	}
	// A switch takes place inside a system call (sched_yield) here.
	perSyscall := max(syscallOn-syscallOff, 0)
	perSwitch := max(switchOn-switchOff-perSyscall, 0)
	return map[string]float64{
		"syscall": perSyscall, "sched_switch": perSwitch,
		"softirq": perSyscall, "irq_handler": perSyscall, "irq_vector": perSyscall,
		"work": perSyscall / 2,
	}, nil
}

const (
	calibrationTrials = 15
	calibrationCalls  = 2000
)

// timeSyscalls returns the median time of a getppid in ns: the kernel does next
// to nothing in it, so what the ledger adds stands out.
func timeSyscalls() (float64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var trials []float64
	for range calibrationTrials {
		start := time.Now()
		for range calibrationCalls {
			_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		}
		trials = append(trials, float64(time.Since(start))/calibrationCalls)
	}
	slices.Sort(trials)
	return trials[len(trials)/2], nil
}

// timeSwitches returns the median time in ns of a switch between two threads on
// one CPU that yield to each other.
func timeSwitches() (float64, error) {
	cpus, err := bpf.OnlineCPUs()
	if err != nil {
		return 0, err
	}
	last := cpus[len(cpus)-1]
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- yieldUntil(last, stop) }()
	trials, err := yieldTrials(last)
	close(stop)
	if err := errors.Join(err, <-done); err != nil {
		return 0, err
	}
	slices.Sort(trials)
	return trials[len(trials)/2], nil
}

// yieldTrials times rounds of yields. Each of ours lets the other thread run,
// whose yield lets us run: two switches.
func yieldTrials(cpu int) (trials []float64, err error) {
	restore, err := pin(cpu)
	if err != nil {
		return nil, err
	}
	defer restore()
	for range calibrationTrials {
		start := time.Now()
		for range calibrationCalls {
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
		trials = append(trials, float64(time.Since(start))/(2*calibrationCalls))
	}
	return trials, nil
}

func yieldUntil(cpu int, stop <-chan struct{}) error {
	restore, err := pin(cpu)
	if err != nil {
		return err
	}
	defer restore()
	for {
		select {
		case <-stop:
			return nil
		default:
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
	}
}

// pin locks the goroutine to a thread and the thread to a CPU. The returned
// function restores the thread's mask before it unlocks it.
func pin(cpu int) (restore func(), err error) {
	runtime.LockOSThread()
	var old, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("read affinity: %w", err)
	}
	only.Set(cpu)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	return func() {
		_ = unix.SchedSetaffinity(0, &old)
		runtime.UnlockOSThread()
	}, nil
}
