package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/coreplica/coreplica/numa"
	"github.com/coreplica/coreplica/runq"
)

// demoTask is the handler of `coreplica runq demo`.
const demoTask = "coreplica-demo"

func init() {
	// Workers are processes of this program, and know what was registered
	// before main.
	runq.Register(demoTask, func(context.Context, *runq.Task) ([]byte, error) { return nil, nil })
}

// demoOptions are the flags of `coreplica runq demo`.
type demoOptions struct {
	name          string
	workers, rate int
	length        time.Duration
}

func newRunqDemoCmd() *cobra.Command {
	o := demoOptions{name: "demo", rate: 1000}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Open a queue with a steady load, to watch it and to kill its workers",
		Long: `Open a run queue with worker processes and give it tasks that do nothing, at a
steady rate, until Ctrl-C or for as long as --for says. Watch it with "coreplica
runq top" in another terminal, and kill workers: the tasks go on.

Each worker's process is printed when it comes to life. At the end the queue is
drained and closed, and the last line says what became of the tasks. The exit code
is 1 when one was lost: all workers that have its copies were killed at once.`,
		Example: `  # Here the queue, in a second terminal the table.
  coreplica runq demo
  coreplica runq top

  # For a minute, with four workers and a name of its own.
  coreplica runq demo --name mail --workers 4 --for 1m`,
	}
	cmd.Flags().StringVar(&o.name, "name", o.name, "what the queue is called")
	cmd.Flags().IntVar(&o.workers, "workers", 0, "how many; 0 is one for each CPU, 2 at least and 16 at most")
	cmd.Flags().IntVar(&o.rate, "rate", o.rate, "tasks a second")
	cmd.Flags().DurationVar(&o.length, "for", 0, "how long; 0 is until Ctrl-C")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.rate < 1 || o.workers < 0 || o.length < 0 || o.name == "" {
			return usageError(fmt.Errorf("--rate must be 1 or more, --workers and --for not below 0, and --name not empty; see `%s --help`", cmd.CommandPath()))
		}
		return demo(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

// demoPatience is how long what was submitted may take to end.
const demoPatience = 20 * time.Second

// demoLease is long enough for a desktop that is busy. Who kills a worker does not
// wait for it: deaths are seen at once.
const demoLease = 2 * time.Second

// demo opens a queue, loads it, and closes it.
func demo(ctx context.Context, o demoOptions, stdout, stderr io.Writer) (err error) {
	births := make(chan runq.Happening, 64)
	opts := runq.Options{Name: o.name, Workers: o.workers, AllowSharedDomain: true, Lease: demoLease, Observe: func(h runq.Happening) {
		if h.Kind != runq.WorkerUp {
			return
		}
		select {
		case births <- h:
		default: // More than anyone reads.
		}
	}}
	if opts.Workers == 0 {
		if opts.Workers, err = demoWorkers(); err != nil {
			return err
		}
	}
	q, err := runq.Open(ctx, opts)
	if err != nil {
		return err
	}
	end := context.WithoutCancel(ctx)
	if o.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.length)
		defer cancel()
	}
	fmt.Fprintf(stderr, "watch it with: coreplica runq top %s\nkill a worker with: kill -9 PID; Ctrl-C ends the demo\n", o.name)
	loaded := make(chan error, 1)
	load, stop := context.WithCancel(ctx)
	defer stop()
	go func() { loaded <- loadDemo(load, q, o.rate) }()
	for going := true; going || len(births) > 0; {
		select {
		case h := <-births:
			if pid := q.Stats().Workers[h.Worker].PID; pid > 0 {
				fmt.Fprintf(stdout, "worker %d life %d pid %d\n", h.Worker, h.Incarnation, pid)
			}
		case err = <-loaded:
			going = false
		}
	}
	return errors.Join(err, endDemo(end, q, stdout))
}

// loadTick is how often a share of a second's tasks is submitted.
const loadTick = 10 * time.Millisecond

// loadDemo submits tasks until the context ends, which is not an error. It does
// not make up for what it could not submit in time.
func loadDemo(ctx context.Context, q *runq.Queue, rate int) error {
	tick := time.NewTicker(loadTick)
	defer tick.Stop()
	const ticks = int(time.Second / loadTick)
	for n := 0; ; n++ {
		// Of each second the n-th tick, so that low rates come out even too.
		at := n % ticks
		jobs := make([]runq.Job, rate*(at+1)/ticks-rate*at/ticks)
		for i := range jobs {
			jobs[i] = runq.Job{Name: demoTask, Detached: true}
		}
		_, err := q.SubmitBatch(ctx, jobs)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, runq.ErrDegraded), errors.Is(err, runq.ErrUnknown): // A worker is down; its tasks are asked for again.
		case err != nil:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// endDemo lets tasks end, closes the queue and says what became of them.
func endDemo(ctx context.Context, q *runq.Queue, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	err := q.Drain(ctx)
	s := q.Stats()
	if err = errors.Join(err, q.Close(ctx)); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "submitted %d accepted %d completed %d failed %d lost %d takeovers %d\n", s.Submitted, s.Accepted, s.Completed, s.Failed, s.Lost, s.Takeovers)
	if s.Lost > 0 || s.RecordsLost > 0 {
		return fmt.Errorf("%d tasks were lost, and records of %d queues", s.Lost, s.RecordsLost)
	}
	return nil
}

// mostDemoWorkers bounds what a demonstration takes of a large machine.
const mostDemoWorkers = 16

// demoWorkers is one for each CPU, and enough for a neighbour.
func demoWorkers() (int, error) {
	topology, err := numa.Local()
	if err != nil {
		return 0, fmt.Errorf("find CPUs: %w", err)
	}
	return min(max(len(topology.Limits.CPUs), 2), mostDemoWorkers), nil
}
