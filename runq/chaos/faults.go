package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreplica/coreplica/runq/internal/trial"
	"github.com/coreplica/coreplica/runq/protocol"
)

// The rhythm of faults.
const (
	// mostCalm is the longest time between a queue that is whole and the next
	// fault.
	mostCalm = 20 * time.Millisecond
	// wholePatience is how long a queue may take to have all its copies again,
	// and patientLeases as many leases more: who takes long ones has a slow
	// machine. What takes longer is told by what is lost.
	wholePatience = 10 * time.Second
	patientLeases = 10
	poll          = time.Millisecond
	// caught is how long a worker gets to stop itself before a publish.
	caught = 15 * time.Millisecond
)

// breakThings kills and stops workers, one at a time: the next fault comes when
// every queue has all its copies again, since k copies survive k-1 failures.
func (t *run) breakThings(ctx context.Context) {
	rng := t.seeded(2)
	faults := make([]func(context.Context, *rand.Rand), 0, t.cfg.Kills+t.cfg.Stops)
	for i := range t.cfg.Kills {
		step := ""
		if t.cfg.Failpoints {
			step = Steps[i%len(Steps)] // Each step gets its share.
		}
		faults = append(faults, func(ctx context.Context, rng *rand.Rand) { t.kill(ctx, rng, step) })
	}
	for i := range t.cfg.Stops {
		if i%3 == 2 {
			faults = append(faults, t.pause)
		} else {
			faults = append(faults, t.stop)
		}
	}
	rng.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
	for _, fault := range faults {
		if !t.whole(ctx) {
			return
		}
		sleep(ctx, time.Duration(rng.Int64N(int64(mostCalm))))
		if ctx.Err() != nil || t.failure() != nil {
			return
		}
		fault(ctx, rng)
		t.faults.Add(1)
	}
	t.whole(ctx)
}

// whole waits until every queue is served by its own worker with all copies, each
// made after the last fault. A control may break that for good; the trial then
// goes on without faults.
func (t *run) whole(ctx context.Context) bool {
	for begin := time.Now(); time.Since(begin) < wholePatience+patientLeases*t.cfg.Lease && ctx.Err() == nil; sleep(ctx, poll) {
		if t.healed() {
			return true
		}
	}
	return false
}

// wound remembers that a life of a worker ends and takes its copies along: logs
// that had one need another.
func (t *run) wound(worker int) {
	for i, w := range trial.Logs(t.q) {
		if int(w.Owner) == worker || w.InSync(t.cfg.Workers).Has(worker) {
			t.stale[i] = max(t.stale[i], w.ActiveEpoch)
		}
	}
	t.gone[worker] = max(t.gone[worker], trial.Lives(t.q)[worker])
}

func (t *run) healed() bool {
	for i, w := range trial.Logs(t.q) {
		if w.Phase != protocol.Active || int(w.Owner) != i || w.InSync(t.cfg.Workers).Len() < t.cfg.K || w.ActiveEpoch <= t.stale[i] {
			return false
		}
	}
	for worker, life := range trial.Lives(t.q) {
		if life <= t.gone[worker] {
			return false
		}
	}
	return true
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// send signals a worker. One that has just ended by itself is no error.
func (t *run) send(worker int, sig syscall.Signal) bool {
	_, err := trial.Signal(t.q, worker, sig)
	return err == nil
}

// kill is a core failure: the process stops, its memory is gone, it is dead. The
// memory goes first, while nobody can have noticed yet, so that no taker reads
// what a real failure would have taken along. The first taker that comes to the
// step, if there is one, dies there.
func (t *run) kill(ctx context.Context, rng *rand.Rand, step string) {
	worker := rng.IntN(t.cfg.Workers)
	if step != "" {
		if err := arm(t.dir, step); err != nil {
			t.fail(err)
			return
		}
	}
	if !t.send(worker, syscall.SIGSTOP) {
		return
	}
	t.wound(worker)
	if err := trial.Punch(t.q, worker); err != nil {
		t.fail(fmt.Errorf("take memory away: %w", err))
		return
	}
	t.note(Record{Kind: Killed, Worker: uint16(worker)})
	if step != protocol.EffectKill.String() {
		t.send(worker, syscall.SIGKILL) // Else a taker does it: nobody kills the dead.
	}
	if step != "" {
		t.whole(ctx)
		disarm(t.dir, step)
	}
}

// stop stops a worker for longer than its lease, before a publish if it comes to
// one, and keeps the taker from killing it: what it does when it goes on is a
// zombie's.
func (t *run) stop(ctx context.Context, rng *rand.Rand) {
	worker := rng.IntN(t.cfg.Workers)
	t.spared[worker].Store(true)
	defer t.spared[worker].Store(false)
	life, pid := trial.Lives(t.q)[worker], uint32(t.q.Stats().Workers[worker].PID)
	if !t.send(worker, syscall.SIGUSR1) {
		return
	}
	t.wound(worker)
	t.note(Record{Kind: Stopped, Worker: uint16(worker), Doer: pid})
	sleep(ctx, caught)
	t.send(worker, syscall.SIGSTOP)
	sleep(ctx, t.cfg.Lease+2*killDeadline+time.Duration(rng.Int64N(int64(t.cfg.Lease))))
	t.note(Record{Kind: Continued, Worker: uint16(worker), Doer: pid})
	t.send(worker, syscall.SIGCONT)
	sleep(ctx, killDeadline)
	// The kill comes through at last, if the zombie has not ended itself.
	if life > 0 && trial.Lives(t.q)[worker] == life {
		t.send(worker, syscall.SIGKILL)
	}
}

// pause stops a worker for a little less than its lease. Nothing should come of
// it, but on a busy machine a takeover may.
func (t *run) pause(ctx context.Context, rng *rand.Rand) {
	worker := rng.IntN(t.cfg.Workers)
	if !t.send(worker, syscall.SIGSTOP) {
		return
	}
	sleep(ctx, t.cfg.Lease*6/10)
	t.send(worker, syscall.SIGCONT)
}

// stopUntil is until when the worker is to stop before a publish, by the clock of
// the journals, or 0.
var stopUntil atomic.Int64

// heedStops has a worker stop itself when it was asked to.
func heedStops() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	go func() {
		for range c {
			stopUntil.Store(Now() + int64(caught))
		}
	}()
}

// stopHere stops this process if it was asked to a moment ago.
func stopHere() {
	until := stopUntil.Load()
	if until == 0 {
		return
	}
	stopUntil.Store(0)
	if Now() < until {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
}
