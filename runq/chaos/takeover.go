package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
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

// TimeTakeovers fails one of two workers again and again, with all memory of its
// failure domain, and returns the times from the signal to the first claim of a
// task that it had queued.
func TimeTakeovers(ctx context.Context, cfg TakeoverConfig) (times Times, err error) {
	t := &run{cfg: Config{Workers: 2, K: 2, Lease: cfg.Lease}, stale: make([]uint32, 2), gone: make([]uint32, 2)}
	if cfg.Progress == nil {
		cfg.Progress = func(int, int) {}
	}
	claimed := make(chan int64, 1)
	var victim atomic.Int64
	slots := 1 << 10
	for 2*slots < 5*cfg.Queued { // Half of them are for tasks.
		slots *= 2
	}
	t.q, err = runq.Open(ctx, runq.Options{
		Workers: 2, K: 2, AllowSharedDomain: true, Lease: cfg.Lease, Slots: slots, ArenaBytes: max(cfg.Queued, 1024) * 192,
		MaxPending: 4 * cfg.Queued, MaxCrashes: 250, Logger: cfg.Logger,
		Observe: func(h runq.Happening) {
			if h.Kind == runq.FirstClaim && int64(h.Queue) == victim.Load() {
				select {
				case claimed <- Now():
				default:
				}
			}
		},
	})
	if err != nil {
		return Times{}, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err = errors.Join(err, t.q.Close(closing))
	}()
	var ns []int64
	for len(ns) < cfg.Samples {
		if err := t.fill(ctx, cfg.Queued); err != nil {
			return timesOf(ns), err
		}
		took, err := t.takeover(ctx, cfg.Silent, claimed)
		if err != nil {
			return timesOf(ns), err
		}
		ns = append(ns, took)
		cfg.Progress(len(ns), cfg.Samples)
	}
	return timesOf(ns), nil
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

// takeover fails worker 0, whose queue is full, and waits until it is back.
func (t *run) takeover(ctx context.Context, silent bool, claimed chan int64) (ns int64, err error) {
	select {
	case <-claimed: // By the owner that came back.
	default:
	}
	t.wound(0)
	t.q.Stats()
	begin := Now()
	if silent {
		t.send(0, syscall.SIGSTOP)
	} else {
		t.send(0, syscall.SIGSTOP) // Nothing is written to what is taken away now.
		if err := trial.Punch(t.q, 0); err != nil {
			return 0, fmt.Errorf("take memory away: %w", err)
		}
		begin = Now()
		t.send(0, syscall.SIGKILL)
	}
	timer := time.NewTimer(wholePatience)
	defer timer.Stop()
	select {
	case at := <-claimed:
		return at - begin, nil
	case <-timer.C:
		return 0, errStuck
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}
