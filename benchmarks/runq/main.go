package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/coreplica/coreplica/runq/bench"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "runq:", err)
		}
		os.Exit(2)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("runq", flag.ContinueOnError)
	flags.SetOutput(stderr)
	implementation := flags.String("impl", "", "implementations to run besides the channel, with commas (default all)")
	rounds := flags.Int("rounds", 10, "rounds of blocks")
	length := flags.Duration("length", 0, "length of a block (default 30ms in the mode cycle, 300ms in others)")
	seed := flags.Uint64("seed", 1, "seed of the order")
	format := flags.String("o", "table", "output: table, json (one object a line) or bench")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !slices.Contains(bench.Formats(), *format) {
		return fmt.Errorf("output %q: want one of %v", *format, bench.Formats())
	}
	all, err := chosen(*implementation)
	if err != nil {
		return err
	}
	rows, err := bench.Compare(all, bench.Plan{Rounds: *rounds, Length: *length, Seed: *seed})
	if err != nil {
		return err
	}
	return bench.Write(stdout, rows, *format)
}

// chosen returns the contenders of these names, and the channel.
func chosen(list string) ([]bench.Contender, error) {
	names := strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
	all := contenders()
	for _, name := range names {
		if !slices.ContainsFunc(all, func(c bench.Contender) bool { return c.Name == name }) {
			return nil, fmt.Errorf("there is no implementation %q", name)
		}
	}
	return slices.DeleteFunc(all, func(c bench.Contender) bool {
		return len(names) > 0 && c.Name != bench.Channel && !slices.Contains(names, c.Name)
	}), nil
}
