package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/coreplica/coreplica/numa/replicated/bench"
)

func newNumaBenchCmd() *cobra.Command {
	var c bench.Choice
	p := bench.Plan{Base: bench.DefaultBase}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Compare replicated structures with the same ones under a lock",
		Long: `Run structures (hash map, ordered map, LRU cache, priority queue, two accounts that
change as one) under locks, as replicas, and bare, in short blocks one after the
other and again. A ratio is the median over neighbouring blocks, by the time of
the same structure under sync.RWMutex, with its 95 percent interval. The bare
structure runs with one thread: what sharing costs stands in the last column.

On one socket this says what replication costs and not what it gains: two nodes
are simulated. Other libraries are compared in the benchmarks module.`,
		Example: `  coreplica numa bench
  coreplica numa bench --structure hashmap --keys 1000000 --write 0,10 --threads 2 --dist zipf
  coreplica numa bench -o json | jq -r '[.structure, .impl, .write_percent, .ratio_to_rwmutex] | @tsv'`,
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&c.Structures, "structure", nil, "structures to run (default all)")
	flags.StringSliceVar(&c.Implementations, "impl", nil, "implementations to run beside rwmutex (default all)")
	flags.IntSliceVar(&c.Keys, "keys", []int{1000}, "numbers of keys: 1000, 1000000")
	flags.IntSliceVar(&c.WritePercents, "write", []int{0, 1, 10}, "percents of writes: 0, 1, 10, 50, 100")
	flags.IntSliceVar(&c.Workers, "threads", []int{1, 2}, "numbers of threads: 1, 2")
	flags.StringSliceVar(&c.Dists, "dist", []string{"uniform"}, "distributions of keys: uniform, zipf")
	flags.IntVar(&p.Blocks, "blocks", 10, "blocks of each implementation")
	flags.DurationVar(&p.Length, "length", 20*time.Millisecond, "length of a block")
	flags.Uint64Var(&p.Seed, "seed", 1, "seed of keys and order")
	output := outputFlag(cmd, bench.Formats()...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if p.Blocks < 1 || p.Length <= 0 {
			return usageError(errors.New("--blocks and --length must be above zero"))
		}
		err := bench.Run(c, bench.Structures(), bench.Implementations(), p, cmd.OutOrStdout(), output.value)
		if errors.Is(err, bench.ErrChoice) {
			return usageError(err)
		}
		return err
	}
	return cmd
}
