package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
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

// choice is which cases to run. An empty list is no restriction.
type choice struct {
	structures, implementations []string
	keys, writes, threads       []int
	dist                        string
}

func (c choice) wants(k bench.Case) bool {
	has := func(list []int, n int) bool { return len(list) == 0 || slices.Contains(list, n) }
	dist := "uniform"
	if k.Zipf {
		dist = "zipf"
	}
	return has(c.keys, k.Keys) && has(c.writes, k.WritePercent) && has(c.threads, k.Workers) && (c.dist == "" || c.dist == dist)
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
	base := flags.String("base", "rwmutex", "implementation that others are compared with")
	blocks := flags.Int("blocks", 10, "blocks per implementation")
	length := flags.Duration("length", 30*time.Millisecond, "length of a block")
	seed := flags.Uint64("seed", 1, "seed of keys and order")
	format := flags.String("o", "table", "output: table, json (one object a line) or bench")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c := choice{structures: list(*structure), implementations: list(*implementation), dist: *dist}
	for _, l := range []struct {
		to   *[]int
		text string
	}{{&c.keys, *keys}, {&c.writes, *writes}, {&c.threads, *threads}} {
		for _, word := range list(l.text) {
			n, err := strconv.Atoi(word)
			if err != nil {
				return fmt.Errorf("read numbers %q: %w", l.text, err)
			}
			*l.to = append(*l.to, n)
		}
	}
	if len(c.implementations) > 0 {
		c.implementations = append(c.implementations, *base)
	}
	show, ok := formats[*format]
	if !ok {
		return fmt.Errorf("output %q: want table, json or bench", *format)
	}
	return compare(c, bench.Plan{Base: *base, Blocks: *blocks, Length: *length, Seed: *seed}, stdout, show)
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

// compare runs all cases that are wanted and shows each when it is done.
func compare(c choice, p bench.Plan, w io.Writer, show func(io.Writer, bench.Result) error) error {
	all := slices.DeleteFunc(implementations(), func(im bench.Implementation) bool {
		return len(c.implementations) > 0 && !slices.Contains(c.implementations, im.Name)
	})
	shown := 0
	for _, s := range structures() {
		if len(c.structures) > 0 && !slices.Contains(c.structures, s.Name) {
			continue
		}
		for _, k := range bench.Cases() {
			if !c.wants(k) {
				continue
			}
			results, err := bench.Compare(s, all, k, p)
			if err != nil {
				return err
			}
			for _, r := range results {
				if err := show(w, r); err != nil {
					return err
				}
				shown++
			}
		}
	}
	if shown == 0 {
		return errors.New("no case fits the choice")
	}
	return nil
}

var formats = map[string]func(io.Writer, bench.Result) error{
	"table": func(w io.Writer, r bench.Result) error {
		_, err := fmt.Fprintf(w, "%-9s %-45s %-12s %9.1f ns/op (best %.1f)  %6.2f [%.2f, %.2f]  %6.2f over bare\n",
			r.Structure, r.Case, r.Implementation, r.NsPerOp, r.BestNs, r.Ratio, r.Low, r.High, r.OverBare)
		return err
	},
	"json": func(w io.Writer, r bench.Result) error { return json.NewEncoder(w).Encode(r) },
	"bench": func(w io.Writer, r bench.Result) error {
		_, err := fmt.Fprintf(w, "BenchmarkReplicated/%s/%s/impl=%s 1 %.2f ns/op %.3f ratio\n",
			r.Structure, r.Case, r.Implementation, r.NsPerOp, r.Ratio)
		return err
	},
}
