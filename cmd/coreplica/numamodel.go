package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/coreplica/coreplica/numa/replicated/bench"
)

func newNumaModelCmd() *cobra.Command {
	c := bench.Choice{Workers: []int{1}}
	p := bench.Plan{Base: bench.DefaultBase}
	cmd := &cobra.Command{
		Use:   "model",
		Short: "Compute what shared structures would take on machines with two sockets",
		Long: `Measure structures with one thread on this machine, and compute from published
core-to-core latencies between which bounds an operation would take on machines
with two sockets, with a thread on each: t = t_local + transfers x L_remote. The
low end holds while a line stays on one socket for a burst of operations, the high
end if each access finds it on the other.

These are bounds and no results: they know nothing of caches that overflow, memory
that is remote, or more than two threads. coreplica numa bench measures.`,
		Example: `  coreplica numa model
  coreplica numa model --structure hashmap --write 0,1,10
  coreplica numa model -o json | jq -r '[.machine, .impl, .write_percent, .low_ns, .high_ns] | @tsv'`,
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&c.Structures, "structure", []string{"hashmap"}, "structures to run")
	flags.StringSliceVar(&c.Implementations, "impl", nil, "implementations to run beside rwmutex (default all that are modelled)")
	flags.IntSliceVar(&c.Keys, "keys", []int{1000}, "numbers of keys: 1000, 1000000")
	flags.IntSliceVar(&c.WritePercents, "write", []int{0, 1, 10}, "percents of writes: 0, 1, 10, 50, 100")
	flags.StringSliceVar(&c.Dists, "dist", []string{"uniform"}, "distributions of keys: uniform, zipf")
	flags.IntVar(&p.Blocks, "blocks", 10, "blocks of each implementation, of which the fastest counts")
	flags.DurationVar(&p.Length, "length", 5*time.Millisecond, "length of a block")
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if p.Blocks < 1 || p.Length <= 0 {
			return usageError(errors.New("--blocks and --length must be above zero"))
		}
		rows, err := bench.ModelRun(c, bench.Structures(), p, bench.Machines())
		if errors.Is(err, bench.ErrChoice) {
			return usageError(err)
		}
		if err != nil {
			return err
		}
		return bench.WriteModel(cmd.OutOrStdout(), rows, output.value)
	}
	return cmd
}
