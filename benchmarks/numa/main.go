package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coreplica/coreplica/numa/replicated/bench"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "numa:", err)
		}
		os.Exit(2)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("numa", flag.ContinueOnError)
	flags.SetOutput(stderr)
	structure := flags.String("structure", "", "structures to run, with commas (default all)")
	implementation := flags.String("impl", "", "implementations to run besides the base, with commas (default all)")
	keys := flags.String("keys", "", "numbers of keys: 1000, 1000000 (default both)")
	writes := flags.String("write", "", "percents of writes: 0, 1, 10, 50, 100 (default all)")
	threads := flags.String("threads", "", "numbers of threads: 1, 2 (default both)")
	dist := flags.String("dist", "", "distribution of keys: uniform or zipf (default both)")
	blocks := flags.Int("blocks", 10, "blocks per implementation")
	length := flags.Duration("length", 30*time.Millisecond, "length of a block")
	seed := flags.Uint64("seed", 1, "seed of keys and order")
	format := flags.String("o", "table", "output: table, json (one object a line) or bench")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c := bench.Choice{Structures: list(*structure), Implementations: list(*implementation), Dists: list(*dist)}
	for _, l := range []struct {
		to   *[]int
		text string
	}{{&c.Keys, *keys}, {&c.WritePercents, *writes}, {&c.Workers, *threads}} {
		for _, word := range list(l.text) {
			n, err := strconv.Atoi(word)
			if err != nil {
				return fmt.Errorf("read numbers %q: %w", l.text, err)
			}
			*l.to = append(*l.to, n)
		}
	}
	return bench.Run(c, structures(), implementations(), bench.Plan{Blocks: *blocks, Length: *length, Seed: *seed}, stdout, *format)
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}
