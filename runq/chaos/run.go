package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreplica/coreplica/numa"
	"github.com/coreplica/coreplica/runq"
	"github.com/coreplica/coreplica/runq/internal/trial"
)

// Config says what to do to a queue. The zero value of a field is its default.
type Config struct {
	Tasks   int // How many are acknowledged before the trial ends.
	Kills   int // Workers that are killed and lose their memory.
	Stops   int // Workers that are stopped: most for longer than a lease, some for just less.
	Workers int
	K       int
	Seed    uint64
	Lease   time.Duration
	// Hog takes a CPU for a third of the time, under SCHED_FIFO.
	Hog bool
	// Failpoints kills takers between two steps of a takeover. It needs three
	// copies.
	Failpoints bool
	// Trace keeps what each worker was told and answered, for Timeline and for
	// [protocol.Replay].
	Trace bool
	// Dir is where journals and traces go; empty is a directory that is removed
	// at the end.
	Dir string

	// The controls. Each switches off what the trial is about, and must fail.
	NoReplicas     bool // One copy: what a core takes along is lost.
	NoFence        bool // Who lost its log goes on: results are accepted twice.
	TimeTombstones bool // An ended task is forgotten with its tombstone: it comes back.

	Logger *slog.Logger
	// Progress is called now and then with how far the trial is.
	Progress func(Progress)
}

// Progress is how far a trial is.
type Progress struct{ Acknowledged, Ended, Faults, OfTasks, OfFaults int }

// Defaults of [Config].
const (
	DefaultTasks = 20_000
	DefaultLease = 250 * time.Millisecond
	// killDeadline is how long a taker waits for a victim that was spared.
	killDeadline = 60 * time.Millisecond
)

// ErrConfig is wrapped by errors about trials that make no sense.
var ErrConfig = errors.New("the trial makes no sense")

func (c Config) withDefaults() (Config, error) {
	c.Tasks = cmp.Or(c.Tasks, DefaultTasks)
	c.Workers = cmp.Or(c.Workers, 2)
	c.K = cmp.Or(c.K, 2)
	c.Lease = cmp.Or(c.Lease, DefaultLease)
	if c.NoReplicas {
		c.K = 1
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Progress == nil {
		c.Progress = func(Progress) {}
	}
	switch {
	case c.Tasks < 1 || c.Kills < 0 || c.Stops < 0:
		return c, fmt.Errorf("counts are below 0: %w", ErrConfig)
	case c.K > c.Workers:
		return c, fmt.Errorf("%d copies need as many workers, and there are %d: %w", c.K, c.Workers, ErrConfig)
	case c.Failpoints && c.K < 3:
		return c, fmt.Errorf("a taker that dies is a second failure, and %d copies survive %d: take 3 copies and 4 workers: %w", c.K, c.K-1, ErrConfig)
	}
	return c, nil
}

// control reports whether a rule is switched off.
func (c *Config) control() bool { return c.NoReplicas || c.NoFence || c.TimeTombstones }

// run is a trial.
type run struct {
	cfg     Config
	dir     string
	q       *runq.Queue
	journal *Writer
	// spared are the workers that a takeover does not get to kill.
	spared []atomic.Bool
	// stale is the last epoch of each log that a fault took copies of, gone the
	// last life of each worker that a fault ended.
	stale, gone []uint32

	acked, ended, faults atomic.Int64
	failed               error
	mu                   sync.Mutex
}

// Run does all of it and judges. The error is about the trial; what the queue did
// is in the verdict.
func Run(ctx context.Context, cfg Config) (v Verdict, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return v, err
	}
	t := &run{cfg: cfg, dir: cfg.Dir, spared: make([]atomic.Bool, cfg.Workers), stale: make([]uint32, cfg.Workers), gone: make([]uint32, cfg.Workers)}
	if t.dir == "" {
		if t.dir, err = os.MkdirTemp("", "coreplica-chaos-"); err != nil {
			return v, fmt.Errorf("make directory for journals: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(t.dir)) }()
	}
	if err := t.trial(ctx); err != nil {
		return v, err
	}
	records, torn, err := ReadDir(t.dir)
	if err != nil {
		return v, err
	}
	v = Judge(records)
	v.TornJournals = torn
	return v, nil
}

func (t *run) trial(ctx context.Context) (err error) {
	if t.journal, err = Create(t.dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.journal.Close()) }()
	trial.Hooks.Spare = func(worker int, _ uint32) bool { return t.spared[worker].Load() }
	defer func() { trial.Hooks.Spare = nil }()
	if t.q, err = t.open(ctx); err != nil {
		return err
	}
	defer func() {
		// The trial may have been interrupted; the workers end all the same.
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closePatience)
		defer cancel()
		err = errors.Join(err, t.q.Close(closing))
	}()
	if t.cfg.Hog {
		stop, err := startHog(hogCPU())
		if err != nil {
			return err
		}
		defer stop()
	}
	return t.drive(ctx)
}

// closePatience bounds the end of a trial, whatever a control has broken.
const closePatience = 10 * time.Second

// hogCPU is the last CPU that this process may use.
func hogCPU() int {
	top, err := numa.Local()
	if err != nil || len(top.Limits.CPUs) == 0 {
		return 0
	}
	return top.Limits.CPUs[len(top.Limits.CPUs)-1]
}

func (t *run) open(ctx context.Context) (*runq.Queue, error) {
	env := []string{envDir + "=" + t.dir}
	switch {
	case t.cfg.NoFence:
		env = append(env, envRule+"=fence")
	case t.cfg.TimeTombstones:
		env = append(env, envRule+"=tombstones")
	}
	if t.cfg.Trace {
		env = append(env, envTrace+"=1")
	}
	return runq.Open(ctx, runq.Options{
		Workers: t.cfg.Workers, K: t.cfg.K, AllowSharedDomain: true, Lease: t.cfg.Lease, KillDeadline: killDeadline,
		Handlers: 2, MaxCrashes: 100, Env: env, Logger: t.cfg.Logger,
		Observe: func(h runq.Happening) {
			if h.Kind == runq.FirstClaim {
				t.note(Record{Kind: Inherited, Worker: uint16(h.Queue)})
			}
		},
	})
}

// note writes to the trial's own journal. Without it there is no verdict.
func (t *run) note(records ...Record) {
	if err := t.journal.Append(records...); err != nil {
		t.fail(err)
	}
}

// fail remembers why the trial itself is worth nothing.
func (t *run) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = cmp.Or(t.failed, err)
}

func (t *run) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

// drive submits and breaks things at the same time, until both are through and all
// tasks have ended, or nothing ends any more.
func (t *run) drive(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var broken, waiting sync.WaitGroup
	faulty := make(chan struct{})
	broken.Go(func() {
		defer close(faulty)
		t.breakThings(ctx)
	})
	waiting.Go(func() { t.submit(ctx, faulty) })
	all := make(chan struct{})
	go func() {
		waiting.Wait()
		close(all)
	}()
	err := t.watch(ctx, all)
	cancel()
	waiting.Wait()
	broken.Wait()
	return errors.Join(err, t.failure())
}

// stall is after how long without a task's end the rest is given up as lost. A
// takeover takes less than a second.
const (
	stall        = 20 * time.Second
	controlStall = 3 * time.Second
	tick         = 100 * time.Millisecond
)

func (t *run) watch(ctx context.Context, all chan struct{}) error {
	limit := stall + patientLeases*t.cfg.Lease
	if t.cfg.control() {
		limit = controlStall
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	last, since := int64(-1), time.Now()
	for {
		select {
		case <-all:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("trial was interrupted: %w", context.Cause(ctx))
		case <-ticker.C:
		}
		t.cfg.Progress(Progress{int(t.acked.Load()), int(t.ended.Load()), int(t.faults.Load()), t.cfg.Tasks, t.cfg.Kills + t.cfg.Stops})
		if now := t.ended.Load() + t.faults.Load(); now != last {
			last, since = now, time.Now()
		} else if time.Since(since) > limit {
			return nil
		}
	}
}

// seeded returns a source of its own for each part of the trial.
func (t *run) seeded(part uint64) *rand.Rand { return rand.New(rand.NewPCG(t.cfg.Seed, part)) }
