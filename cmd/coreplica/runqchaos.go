package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/coreplica/coreplica/runq/chaos"
)

func newRunqChaosCmd() *cobra.Command {
	c := chaos.Config{Tasks: chaos.DefaultTasks, Kills: 20, Stops: 10, Workers: 2, K: 2, Lease: chaos.DefaultLease}
	var verbose bool
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Kill the workers of a real queue with their memory, and judge by journals",
		Long: `Run tasks on worker processes and break them meanwhile: SIGKILL, with all memory of
the worker's failure domain punched out before anybody can read it; SIGSTOP for
longer than the lease, then SIGCONT, while the taker is kept from killing, so that
what the zombie writes meets the fence; pauses just under the lease; with --hog a
SCHED_FIFO loop on a CPU; with --failpoints the death of takers between any two
steps of a takeover (` + strings.Join(chaos.Steps, ", ") + `).

The verdict does not ask the queue. Submitters and handlers keep journals that
outlive their processes; each task's history goes through porcupine. Nothing
acknowledged may be lost, nothing that ended may come back, and no task may have
two accepted results. Tasks that were to start once at most, and were claimed by a
worker that failed, are reported lost, which is their promise.

The controls switch one rule off each and must fail: --no-replicas shows loss,
--no-fence double acceptance, --time-tombstones resurrection. The exit code is 1
if a promise was broken.`,
		Example: `  coreplica runq chaos
  coreplica runq chaos --tasks 200000 --kill 50 --stop 20 --hog -o json
  coreplica runq chaos --workers 4 --copies 3 --failpoints --lease 250ms

  # Beside each promise, what happens without the rule that keeps it.
  coreplica runq chaos --tasks 2000 --kill 4 --stop 0 --no-replicas
  coreplica runq chaos --tasks 2000 --kill 0 --stop 20 --no-fence
  coreplica runq chaos --tasks 2000 --kill 0 --stop 0 --time-tombstones`,
	}
	flags := cmd.Flags()
	flags.IntVar(&c.Tasks, "tasks", c.Tasks, "tasks that are acknowledged before the trial ends")
	flags.IntVar(&c.Kills, "kill", c.Kills, "workers that are killed")
	flags.IntVar(&c.Stops, "stop", c.Stops, "workers that are stopped")
	flags.IntVar(&c.Workers, "workers", c.Workers, "worker processes")
	flags.IntVar(&c.K, "copies", c.K, "copies of each queue")
	flags.Uint64Var(&c.Seed, "seed", 1, "seed of tasks and faults")
	flags.DurationVar(&c.Lease, "lease", c.Lease, "a worker's lease; longer than it is kept from the CPU")
	flags.BoolVar(&c.Hog, "hog", false, "take a CPU a third of the time, under SCHED_FIFO")
	flags.BoolVar(&c.Failpoints, "failpoints", false, "kill takers between two steps; needs 3 copies and 4 workers")
	flags.StringVar(&c.Dir, "dir", "", "keep journals in this directory")
	flags.BoolVar(&c.Trace, "trace", false, "keep what each worker was told, in --dir, for `coreplica runq timeline`")
	flags.BoolVar(&c.NoReplicas, "no-replicas", false, "control: one copy")
	flags.BoolVar(&c.NoFence, "no-fence", false, "control: who lost its queue goes on")
	flags.BoolVar(&c.TimeTombstones, "time-tombstones", false, "control: ended tasks are forgotten with their tombstones")
	flags.BoolVarP(&verbose, "verbose", "v", false, "tell on standard error what happens to workers")
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if c.Trace && c.Dir == "" {
			return usageError(errors.New("--trace needs --dir to keep traces in"))
		}
		if verbose {
			c.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
		}
		c.Progress = chaosProgress(cmd.ErrOrStderr())
		v, err := chaos.Run(cmd.Context(), c)
		if errors.Is(err, chaos.ErrConfig) {
			return usageError(fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath()))
		}
		if err != nil {
			return err
		}
		if err := writeVerdict(cmd.OutOrStdout(), output.value, v); err != nil {
			return err
		}
		if good, why := v.Good(); !good {
			return errors.New(why)
		}
		return nil
	}
	return cmd
}

// chaosProgress returns what tells how far a trial is, every two seconds.
func chaosProgress(w io.Writer) func(chaos.Progress) {
	last := time.Now()
	return func(p chaos.Progress) {
		if time.Since(last) < 2*time.Second {
			return
		}
		last = time.Now()
		fmt.Fprintf(w, "%d of %d tasks acknowledged, %d ended, %d of %d faults\n", p.Acknowledged, p.OfTasks, p.Ended, p.Faults, p.OfFaults)
	}
}

func writeVerdict(w io.Writer, format string, v chaos.Verdict) error {
	if format == "json" {
		return writeJSON(w, v)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range []struct {
		name string
		n    int
	}{
		{"submitted", v.Submitted}, {"acknowledged", v.Acknowledged}, {"completed", v.Completed}, {"cancelled", v.Cancelled},
		{"lost", v.Lost}, {"resurrected", v.Resurrected}, {"accepted twice", v.AcceptedTwice}, {"started twice", v.StartedTwice},
		{"reported lost", v.ReportedLost}, {"fenced writes", v.FencedWrites}, {"kills", v.Kills}, {"stops", v.Stops},
		{"failed takers", v.FailedTakers}, {"zombie starts", v.ZombieStarts}, {"takeovers", v.Takeovers},
		{"histories", v.Histories}, {"illegal histories", v.Illegal}, {"undecided histories", v.Undecided},
	} {
		fmt.Fprintf(t, "%s\t%d\n", row.name, row.n)
	}
	if n := v.TakeoverNs; n.N > 0 {
		fmt.Fprintf(t, "takeover\tp50 %.1f ms, p99 %.1f ms, max %.1f ms of %d\n", float64(n.P50)/1e6, float64(n.P99)/1e6, float64(n.Max)/1e6, n.N)
	}
	for _, e := range v.Examples {
		fmt.Fprintf(t, "%s\n", e)
	}
	return t.Flush()
}
