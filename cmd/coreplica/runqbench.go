package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/coreplica/coreplica/mirrorcost"
	"github.com/coreplica/coreplica/runq/bench"
	"github.com/coreplica/coreplica/runq/chaos"
)

func newRunqBenchCmd() *cobra.Command {
	var p bench.Plan
	var growth, silent bool
	var takeovers, queued int
	var mode string
	lease := chaos.DefaultLease
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Say what a task costs beside a buffered channel, and how long takeovers take",
		Long: `Take tasks with payloads of 64 bytes through queues, from submission over claim to
result: a buffered channel with one goroutine, a pool behind a channel, the
protocol alone with one, two and three copies, and the queue itself, with
goroutines and with processes as workers, with results that are waited for and
without. They run in short blocks, in turn; a
ratio is the median over blocks of one round, with its 95 percent interval. Blocks
take 30 ms where one goroutine does all, and 300 ms where others work, so that the
wait for a block's last task does not count: half a minute for all. Other pools are
compared in the benchmarks module.

With --growth, say how the protocol's cost grows with cores, copies and tasks that
wait. With --takeovers, fail a worker process again and again, memory and all,
with many tasks in its queue, and give the times from the signal to the steps of the
takeover, of which the first claim of an inherited task is the last.`,
		Example: `  coreplica runq bench
  coreplica runq bench -o json | jq -r '[.impl, .mode, .k, .ratio_to_channel, .ratio_to_k1] | @tsv'
  coreplica runq bench --mode detached --length 200ms
  coreplica runq bench --growth
  coreplica runq bench --takeovers 200 --queued 10000`,
	}
	flags := cmd.Flags()
	flags.IntVar(&p.Rounds, "rounds", 10, "rounds of blocks")
	flags.DurationVar(&p.Length, "length", 0, "length of a block (default 30ms in the mode cycle, 300ms in others)")
	flags.Uint64Var(&p.Seed, "seed", 1, "seed of the order")
	flags.BoolVar(&growth, "growth", false, "compare sizes instead")
	flags.StringVar(&mode, "mode", "", "only these beside the channel: cycle, threads, processes or detached")
	flags.IntVar(&takeovers, "takeovers", 0, "time so many takeovers instead")
	flags.IntVar(&queued, "queued", 10_000, "tasks in the queue that is taken over")
	flags.BoolVar(&silent, "silent", false, "stop the worker instead of killing it: only its lease tells")
	flags.DurationVar(&lease, "lease", lease, "the lease of workers whose takeovers are timed")
	output := outputFlag(cmd, bench.Formats()...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		w := cmd.OutOrStdout()
		switch {
		case p.Rounds < 1 || p.Length < 0 || takeovers < 0 || queued < 1 || lease <= 0:
			return usageError(errors.New("--rounds, --queued and --lease must be above zero, and --length and --takeovers not below"))
		case growth && takeovers > 0:
			return usageError(errors.New("--growth and --takeovers measure different things: give one of them"))
		case silent && takeovers == 0:
			return usageError(errors.New("--silent says how workers fail whose takeovers are timed: add --takeovers N"))
		case (growth || takeovers > 0) && output.value == "bench":
			return usageError(errors.New("-o bench is for the comparison of queues alone"))
		case takeovers > 0:
			return timeTakeovers(cmd, w, output.value, chaos.TakeoverConfig{Samples: takeovers, Queued: queued, Lease: lease, Silent: silent})
		case growth:
			return compareGrowth(w, output.value, p)
		}
		all := bench.Contenders()
		for k := 1; k <= 2; k++ {
			all = append(all, bench.NewQueue(false, false, 2, k), bench.NewQueue(false, true, 2, k))
		}
		if all = chosen(all, mode); len(all) < 2 {
			return usageError(fmt.Errorf("there is no --mode %q: want threads, cycle, processes or detached", mode))
		}
		progress := newMeter(cmd.ErrOrStderr())
		p.Progress = tellRounds(progress, p.Rounds)
		rows, err := bench.Compare(all, p)
		progress.close()
		if err != nil {
			return err
		}
		return bench.Write(w, rows, output.value)
	}
	return cmd
}

// tellRounds returns what tells a meter of each round that begins.
func tellRounds(m *meter, rounds int) func(round int) {
	begin := time.Now()
	return func(round int) {
		if round == 0 {
			return // Nobody knows yet how long it takes.
		}
		done := float64(round) / float64(rounds+1)
		left := time.Duration(float64(time.Since(begin)) * (1 - done) / done)
		m.tell(mirrorcost.Progress{Phase: fmt.Sprintf("round %d of %d", round, rounds), Done: done, Left: left})
	}
}

// chosen returns the channel that all are compared with, and those of one mode.
func chosen(all []bench.Contender, mode string) []bench.Contender {
	return slices.DeleteFunc(all, func(c bench.Contender) bool { return mode != "" && c.Mode != mode && c.Name != "channel" })
}

func compareGrowth(w io.Writer, format string, p bench.Plan) error {
	rows, err := bench.CompareGrowth(p)
	if err != nil {
		return err
	}
	if format != "json" {
		return bench.WriteGrowth(w, rows)
	}
	enc := json.NewEncoder(w)
	for _, r := range rows {
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// takeoverReport is what `coreplica runq bench --takeovers -o json` prints.
type takeoverReport struct {
	Schema     string      `json:"schema"`
	Queued     int         `json:"queued"`
	Silent     bool        `json:"silent"`
	LeaseNS    int64       `json:"lease_ns"`
	TakeoverNS chaos.Times `json:"takeover_ns"`
	// StepsNS are from the signal to each step, the last of which ends it.
	StepsNS []chaos.StepTimes `json:"steps_ns"`
}

func timeTakeovers(cmd *cobra.Command, w io.Writer, format string, c chaos.TakeoverConfig) error {
	last := time.Now()
	c.Progress = func(done, of int) {
		if time.Since(last) > 2*time.Second {
			last = time.Now()
			fmt.Fprintf(cmd.ErrOrStderr(), "%d of %d takeovers\n", done, of)
		}
	}
	times, err := chaos.TimeTakeovers(cmd.Context(), c)
	if err != nil {
		return err
	}
	report := takeoverReport{"coreplica.runq.takeover/1", c.Queued, c.Silent, c.Lease.Nanoseconds(), times.Times, times.Steps}
	if format == "json" {
		return writeJSON(w, report)
	}
	signal := "SIGKILL"
	if c.Silent {
		signal = "SIGSTOP"
	}
	ms := func(ns int64) float64 { return float64(ns) / 1e6 }
	for _, s := range times.Steps {
		if _, err := fmt.Fprintf(w, "%-16s p50 %7.2f ms, p99 %7.2f ms\n", s.Step, ms(s.P50), ms(s.P99)); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(w, "from %s to the first inherited claim, %d tasks queued, lease %v: p50 %.1f ms, p99 %.1f ms, max %.1f ms of %d takeovers\n",
		signal, c.Queued, c.Lease, ms(times.P50), ms(times.P99), ms(times.Max), times.N)
	return err
}
