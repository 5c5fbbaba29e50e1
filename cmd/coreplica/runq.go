package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/coreplica/coreplica/runq/protocol"
	"github.com/coreplica/coreplica/runq/protocol/sim"
)

func newRunqCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "runq",
		Short: "Try the replicated run queue, and break it",
		Long: `Try the replicated run queue, whose tasks survive the core that they wait on: with
real worker processes that are killed, in a simulator that lets everything go
wrong that can, and in an explorer that walks all states of a small system. All of
them execute the same protocol, one store and one compare-and-swap at a time.`,
		Example: `  # Kill workers with their memory, and see that nothing is lost.
  coreplica runq chaos

  # Crashes, pauses, zombies and a bad network, from 2,000 seeds.
  coreplica runq sim

  # All states of three cores, two copies, two tasks and two failures, one of them a zombie.
  coreplica runq explore`,
	}
	cmd.AddCommand(newRunqSimCmd(), newRunqExploreCmd(), newRunqTimelineCmd(), newRunqBenchCmd(), newRunqChaosCmd())
	cmd.AddCommand(newRunqTopCmd(), newRunqExportCmd(), newRunqDemoCmd())
	return cmd
}

// simReport is what `coreplica runq sim -o json` prints.
type simReport struct {
	Schema   string       `json:"schema"`
	Seeds    uint64       `json:"seeds"`
	Steps    int          `json:"steps"`
	Tasks    int          `json:"tasks"`
	WallNS   int64        `json:"wall_ns"`
	Failure  *sim.Failure `json:"failure,omitempty"`
	Coverage sim.Coverage `json:"coverage"`
}

func newRunqSimCmd() *cobra.Command {
	var first, seeds uint64
	var steps int
	faults := "all"
	var trace string
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Simulate faults from seeds and check the invariants after every step",
		Long: `Simulate the run queue with faults: cores that stop and take their memory along,
pauses longer than a lease, zombies whose stores land late, victims that do not
die, lost, repeated and overtaken messages, partitions, clock drift and damaged
records. After every single effect the invariants are checked against journals
that submitters and handlers keep.

A failure is shrunk to the fewest faults and the shortest time that still show
it, and printed as a command that replays it. The exit code is then 1.`,
		Example: `  # What continuous integration runs.
  coreplica runq sim

  # Replay one seed with two kinds of fault.
  coreplica runq sim --seed 17 --seeds 1 --faults crash,pause -o json

  # Keep what a seed did, and look at its takeovers.
  coreplica runq sim --seed 3 --seeds 1 --trace sim.trace
  coreplica runq timeline sim.trace --file takeovers.html`,
	}
	output := outputFlag(cmd, "table", "json")
	cmd.Flags().Uint64Var(&first, "seed", 0, "the first seed")
	cmd.Flags().Uint64Var(&seeds, "seeds", 2000, "how many seeds")
	cmd.Flags().IntVar(&steps, "steps", sim.DefaultSteps, "actions of a run among which faults happen")
	cmd.Flags().StringVar(&trace, "trace", "", "write what the nodes of one seed were told and answered to this file")
	cmd.Flags().StringVar(&faults, "faults", faults, "which, separated by commas: all, none, or "+sim.AllFaults.String())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := sim.ParseFaults(faults)
		if err != nil {
			return usageError(fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath()))
		}
		if steps < 1 || seeds < 1 {
			return usageError(fmt.Errorf("--steps and --seeds must be 1 or more; see `%s --help`", cmd.CommandPath()))
		}
		opts := sim.Options{Seed: first, Steps: steps, Faults: set}
		if trace != "" {
			if seeds != 1 {
				return usageError(fmt.Errorf("--trace keeps one seed: give --seeds 1; see `%s --help`", cmd.CommandPath()))
			}
			if err := traceSeed(trace, opts); err != nil {
				return err
			}
		}
		report, err := simulate(cmd.Context(), first, seeds, opts)
		if err != nil {
			return err
		}
		if err := writeSim(cmd.OutOrStdout(), output.value, report); err != nil {
			return err
		}
		if f := report.Failure; f != nil {
			return fmt.Errorf("%s; replay with: coreplica runq sim --seed %d --seeds 1 --faults %s --steps %d", f.Text, f.Seed, f.Faults, f.Steps)
		}
		return nil
	}
	return cmd
}

// traceSeed runs a seed and records it. Whether it fails is for simulate to tell.
func traceSeed(name string, opts sim.Options) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("create trace: %w", err)
	}
	w := bufio.NewWriter(f)
	var rec *protocol.Recorder
	opts.Begin = func(cfg protocol.Config) { rec, err = protocol.NewRecorder(w, cfg) }
	opts.Record = func(core protocol.Core, evs []protocol.Event, effects []protocol.Effect) {
		if err == nil {
			err = rec.Step(core, evs, effects)
		}
	}
	_, _ = sim.Run(opts) // It fails again when the seed is simulated.
	return errors.Join(err, w.Flush(), f.Close())
}

// simulate runs seeds until one fails or all have run.
func simulate(ctx context.Context, first, seeds uint64, opts sim.Options) (*simReport, error) {
	report := &simReport{Schema: "coreplica.runq.sim/1", Coverage: sim.Coverage{}}
	start := time.Now()
	for report.Seeds < seeds && report.Failure == nil {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("interrupted after %d seeds without a failure", report.Seeds)
		}
		opts.Seed = first + report.Seeds
		result, err := sim.Run(opts)
		report.Seeds++
		report.Steps += result.Steps
		report.Tasks += result.Tasks
		report.Coverage.Add(result.Coverage)
		if err != nil {
			small, shrunk := sim.Shrink(opts)
			report.Failure = &sim.Failure{Seed: opts.Seed, Faults: small.Faults.String(), Steps: small.Steps, Text: errors.Join(shrunk).Error()}
		}
	}
	report.WallNS = time.Since(start).Nanoseconds()
	return report, nil
}

func writeSim(w io.Writer, format string, report *simReport) error {
	if format == "json" {
		return writeJSON(w, report)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "seeds\t%d\nsteps\t%d\ntasks\t%d\nwall\t%s\n", report.Seeds, report.Steps, report.Tasks, time.Duration(report.WallNS).Round(time.Millisecond))
	for _, group := range slices.Sorted(maps.Keys(report.Coverage)) {
		fmt.Fprintf(t, "\n%s\tcount\n", group)
		for _, name := range slices.Sorted(maps.Keys(report.Coverage[group])) {
			fmt.Fprintf(t, "  %s\t%d\n", name, report.Coverage[group][name])
		}
	}
	return t.Flush()
}

// exploreReport is what `coreplica runq explore -o json` prints.
type exploreReport struct {
	Schema string `json:"schema"`
	sim.Explored
	WallNS int64  `json:"wall_ns"`
	Error  string `json:"error,omitempty"`
}

func newRunqExploreCmd() *cobra.Command {
	opts := sim.ExploreOptions{Cores: 3, K: 2, Tasks: 2, Failures: 2, Zombies: 1}
	cmd := &cobra.Command{
		Use:   "explore",
		Short: "Walk all states of a small run queue",
		Long: `Walk every state that a small run queue can be in, whatever the order of its
steps and the moment of its failures, and check the invariants in each. A
failure is a core that stops with its memory; a zombie is one that is taken for
dead at any moment, may be killed at any later one or never, and goes on until
then. Time stands still: what a lease would decide, a failure decides. Messages
are lost, cores do not return, and the tasks are submitted to core 0, one
at-most-once and one once-recorded.

The walk follows the log of core 0 and lets a suspect die at any time, as if by
who takes another log of it; --all-logs follows those of all cores. Steps that
nobody else can tell apart are performed at once, --full interleaves every single
effect. Both come to the same ends. States are remembered by a hash of 64 bits:
among a million, one is missed with a chance of 1 in 37 million.

The defaults end after 937,188 states, in a quarter of a minute on two CPUs. Two
zombies do not end within five minutes, nor do the defaults with --all-logs.`,
		Example: `  # All states of two tasks, two failures, one of them a zombie.
  coreplica runq explore

  # Of the logs of all cores, without a zombie: seconds.
  coreplica runq explore --zombies 0 --all-logs -o json

  # Every interleaving of single effects of a smaller system.
  coreplica runq explore --failures 1 --full`,
	}
	output := outputFlag(cmd, "table", "json")
	cmd.Flags().IntVar(&opts.Cores, "cores", opts.Cores, "cores")
	cmd.Flags().IntVar(&opts.K, "copies", opts.K, "copies of each log")
	cmd.Flags().IntVar(&opts.Tasks, "tasks", opts.Tasks, "tasks that are submitted")
	cmd.Flags().IntVar(&opts.Failures, "failures", opts.Failures, "failures")
	cmd.Flags().IntVar(&opts.Zombies, "zombies", opts.Zombies, "failures that may be zombies")
	cmd.Flags().BoolVar(&opts.AllLogs, "all-logs", false, "follow the logs of all cores, not only that of core 0")
	cmd.Flags().BoolVar(&opts.Full, "full", false, "interleave every single effect")
	cmd.Flags().IntVar(&opts.MaxStates, "max-states", 0, "stop after so many states; 0 walks all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		start := time.Now()
		out, err := sim.Explore(cmd.Context(), opts)
		report := exploreReport{Schema: "coreplica.runq.explore/1", Explored: out, WallNS: time.Since(start).Nanoseconds()}
		if errors.Is(err, sim.ErrUsage) {
			return usageError(fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath()))
		}
		if err != nil {
			report.Error = err.Error()
		}
		if wrong := writeExplored(cmd.OutOrStdout(), output.value, report); wrong != nil {
			return wrong
		}
		return err
	}
	return cmd
}

func writeExplored(w io.Writer, format string, report exploreReport) error {
	if format == "json" {
		return writeJSON(w, report)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "states\t%d\ntransitions\t%d\nends\t%d\ndepth\t%d\ncomplete\t%v\nwall\t%s\n",
		report.States, report.Transitions, report.Ends, report.Depth, report.Complete, time.Duration(report.WallNS).Round(time.Millisecond))
	for _, name := range slices.Sorted(maps.Keys(report.Actions)) {
		fmt.Fprintf(t, "  %s\t%d\n", name, report.Actions[name])
	}
	return t.Flush()
}
