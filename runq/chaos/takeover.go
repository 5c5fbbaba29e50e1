package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"syscall"
	"time"

	"github.com/coreplica/coreplica/runq"
	"github.com/coreplica/coreplica/runq/internal/trial"
)

// slowName is a handler that takes a while: what is queued behind it stays, and a
// queue that is to be handed back has not to wait for long.
const (
	slowName = "coreplica.chaos.slow"
	slowness = 5 * time.Millisecond
)

func init() {
	runq.Register(slowName, func(context.Context, *runq.Task) ([]byte, error) {
		time.Sleep(slowness)
		return nil, nil
	})
}

// TakeoverConfig says which takeovers to time.
type TakeoverConfig struct {
	// Samples is how many, Queued how many tasks the victim's queue holds.
	Samples, Queued int
	Lease           time.Duration
	// Silent stops the victim instead of killing it: nothing but the lease
	// tells. Else SIGKILL, which its pidfd tells at once.
	Silent bool
	Logger *slog.Logger
	// Progress is called after each sample.
	Progress func(done, of int)
}

// errStuck says that a queue did not come back.
var errStuck = errors.New("the queue did not come back after a takeover")

// Takeovers are the times from a signal to the first claim of a task that was
// inherited, and to the steps before that.
type Takeovers struct {
	Times
	Steps []StepTimes
}

// StepTimes are the times from the signal to one step of a takeover.
type StepTimes struct {
	Step string `json:"step"`
	Times
}

// timed are the steps in the order in which they are told about.
var timed = []runq.HappeningKind{runq.WorkerDied, runq.TakeoverBegan, runq.RegionSealed, runq.QueueServed, runq.FirstClaim}

// manySteps is more than one takeover has: what is told of it waits unread.
const manySteps = 256

// TimeTakeovers fails one of two workers again and again, with all memory of its
// failure domain, and returns the times from the signal to the first claim of a
// task that it had queued.
func TimeTakeovers(ctx context.Context, cfg TakeoverConfig) (times Takeovers, err error) {
	t := &run{cfg: Config{Workers: 2, K: 2, Lease: cfg.Lease}, stale: make([]uint32, 2), gone: make([]uint32, 2)}
	if cfg.Progress == nil {
		cfg.Progress = func(int, int) {}
	}
	steps := make(chan runq.Happening, manySteps)
	slots := 1 << 10
	for 2*slots < 5*cfg.Queued { // Half of them are for tasks.
		slots *= 2
	}
	t.q, err = runq.Open(ctx, runq.Options{
		Workers: 2, K: 2, AllowSharedDomain: true, Lease: cfg.Lease, Slots: slots, ArenaBytes: max(cfg.Queued, 1024) * 192,
		MaxPending: 4 * cfg.Queued, MaxCrashes: 250, Logger: cfg.Logger,
		Observe: func(h runq.Happening) {
			if h.Queue == 0 {
				select {
				case steps <- h:
				default:
				}
			}
		},
	})
	if err != nil {
		return times, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err = errors.Join(err, t.q.Close(closing))
	}()
	ns := make([][]int64, len(timed))
	for done := range cfg.Samples {
		err := t.fill(ctx, cfg.Queued)
		var took []int64
		if err == nil {
			took, err = t.takeover(ctx, cfg.Silent, steps)
		}
		if err != nil {
			return times, err
		}
		for i, at := range took {
			if at > 0 {
				ns[i] = append(ns[i], at)
			}
		}
		cfg.Progress(done+1, cfg.Samples)
	}
	for i, kind := range timed {
		times.Steps = append(times.Steps, StepTimes{kind.String(), timesOf(ns[i])})
	}
	times.Times = times.Steps[len(timed)-1].Times
	return times, nil
}

// fill tops the queue of worker 0 up, once it is whole.
func (t *run) fill(ctx context.Context, queued int) error {
	if !t.whole(ctx) {
		return errors.Join(errStuck, ctx.Err())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, wholePatience, errStuck)
	defer cancel()
	for {
		jobs := make([]runq.Job, max(queued-t.q.Stats().Workers[0].Pending, 0))
		for i := range jobs {
			jobs[i] = runq.Job{Name: slowName, Payload: make([]byte, 64), Affinity: runq.OnWorker(0), Detached: true}
		}
		_, err := t.q.SubmitBatch(ctx, jobs)
		if err == nil || !errors.Is(err, runq.ErrDegraded) && !errors.Is(err, runq.ErrFull) {
			return err
		}
		sleep(ctx, poll) // On a busy machine a worker may be taken for dead meanwhile.
	}
}

// takeover fails worker 0, whose queue is full, and returns when each step came,
// in nanoseconds from the signal; 0 is one that nobody told of.
func (t *run) takeover(ctx context.Context, silent bool, steps chan runq.Happening) (took []int64, err error) {
	t.wound(0)
	for len(steps) > 0 {
		<-steps // Of the owner that came back.
	}
	begin := time.Now()
	t.send(0, syscall.SIGSTOP)
	if !silent {
		// It was stopped, so nothing is written to what is taken away now.
		if err := trial.Punch(t.q, 0); err != nil {
			return nil, fmt.Errorf("take memory away: %w", err)
		}
		begin = time.Now()
		t.send(0, syscall.SIGKILL)
	}
	timer := time.NewTimer(wholePatience)
	defer timer.Stop()
	took = make([]int64, len(timed))
	for {
		select {
		case h := <-steps:
			if h.Kind == runq.WorkerKilled {
				h.Kind = runq.WorkerDied
			}
			if i := slices.Index(timed, h.Kind); i >= 0 && h.Time.After(begin) {
				took[i] = h.Time.Sub(begin).Nanoseconds()
			}
			if h.Kind == runq.FirstClaim && h.Time.After(begin) {
				return took, nil
			}
		case <-timer.C:
			return nil, errStuck
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
