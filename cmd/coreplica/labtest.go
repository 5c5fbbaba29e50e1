package main

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"time"

	"github.com/coreplica/coreplica/internal/lab"
	"github.com/coreplica/coreplica/internal/lab/gotest"
	"github.com/coreplica/coreplica/internal/lab/initramfs"
	"github.com/coreplica/coreplica/internal/lab/kernel"
	"github.com/spf13/cobra"
)

// guestFlags are what `lab test` and `lab bench` share.
type guestFlags struct {
	d     gotest.Directive
	renew bool
}

func (f *guestFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.d.Kernels, "kernel", nil, "kernels to run on: 6.1, 6.12, 7 (with sched_ext), or a folder with vmlinuz and lib/modules")
	flags.StringVar(&f.d.Topology, "topology", "", "NODESxCPUS as in 2x2, or a JSON file with nodes and distances")
	flags.StringArrayVar(&f.d.Modules, "module", nil, "kernel module to load, with parameters: \"brd rd_nr=3\"; may be repeated")
	flags.StringSliceVar(&f.d.Tools, "tool", nil, "programs of this machine that the guest gets too, with their libraries")
	flags.StringVar(&f.d.Run, "run", "", "run only tests that match this regular expression")
	flags.DurationVar(&f.d.Timeout, "timeout", 0, "end a guest after this time (default 5m)")
	flags.BoolVar(&f.renew, "renew", false, "look for newer packages of the kernels")
}

// options turns the flags into options, with progress on standard error.
func (f *guestFlags) options(cmd *cobra.Command) gotest.Options {
	logger := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	return gotest.Options{Override: f.d, Kernels: kernel.Options{Renew: f.renew, Logger: logger}}
}

// guestError sorts the errors of a guest: what the user can mend on the command
// line is a usage error.
func guestError(err error) error {
	for _, usage := range []error{lab.ErrTopology, kernel.ErrUnknown, kernel.ErrNoModule, initramfs.ErrTool, gotest.ErrNoTests, gotest.ErrDirective} {
		if errors.Is(err, usage) {
			return usageError(err)
		}
	}
	return err
}

func newLabTestCmd() *cobra.Command {
	var f guestFlags
	var o gotest.Options
	cmd := &cobra.Command{
		Use:   "test PACKAGE...",
		Short: "Run Go tests in guests with other kernels and NUMA nodes",
		Long: `Compile the tests of Go packages and run them in small virtual machines: with
NUMA nodes, on Debian's kernels, with md, kprobes and whatever else the machine
at hand lacks.

A package says what its guests need in a line of a test file:

  //coreplica:guest kernel=6.1,6.12 topology=2x2 modules="loop;brd rd_nr=3" tools=mkfs.btrfs run=TestGuest

Each such line is a run on each of its kernels; flags replace what it says. Of
./... only packages with such a line are run, and a package that is named is run
in any case. Nothing needs root, and the kernels are not installed: they lie in
the user's cache folder.

Without KVM a guest is translated (TCG). It then tells nothing about time: tests
should ask testkit, or the variable COREPLICA_GUEST, which says tcg or kvm.`,
		Example: `  # All tests of this module that are marked for guests:
  coreplica lab test ./...

  # One package on a machine with four nodes:
  coreplica lab test --topology 4x1 --kernel 6.12 ./numa

  # For tools that read go test -json:
  coreplica lab test -o json ./... | gotestsum --raw-command -- cat`,
		Args: cobra.MinimumNArgs(1),
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.d.Short, "short", false, "set -test.short")
	cmd.Flags().IntVar(&o.Parallel, "parallel", runtime.NumCPU(), "guests that run at once")
	cmd.Flags().BoolVarP(&o.Verbose, "verbose", "v", false, "print what tests print that pass, too")
	form := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		all := f.options(cmd)
		all.JSON, all.Verbose, all.Parallel = form.value == "json", o.Verbose, o.Parallel
		return guestError(inGuests(cmd.Context(), args, func(ctx context.Context, p []gotest.Package) error {
			return gotest.Test(ctx, p, all, cmd.OutOrStdout())
		}))
	}
	return cmd
}

func newLabBenchCmd() *cobra.Command {
	var f guestFlags
	var benchtime time.Duration
	var bench string
	cmd := &cobra.Command{
		Use:   "bench PACKAGE...",
		Short: "Run Go benchmarks in a guest with NUMA nodes",
		Long: `Run the benchmarks of Go packages in a guest, two nodes with two CPUs each unless
told otherwise. The text is what benchstat reads.

In a translated guest (TCG) figures of time mean nothing, which the output says
in a line of its own; counts and placement are exact.`,
		Example: `  coreplica lab bench --topology 4x2 ./numa/...`,
		Args:    cobra.MinimumNArgs(1),
	}
	f.add(cmd)
	cmd.Flags().StringVar(&bench, "bench", ".", "run only benchmarks that match this regular expression")
	cmd.Flags().DurationVar(&benchtime, "benchtime", 100*time.Millisecond, "how long each benchmark runs")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.d.Topology == "" {
			f.d.Topology = "2x2"
		}
		all := f.options(cmd)
		all.Bench, all.BenchArgs = bench, []string{"-test.benchtime=" + benchtime.String()}
		return guestError(inGuests(cmd.Context(), args, func(ctx context.Context, p []gotest.Package) error {
			for i := range p {
				p[i].Directives = nil // They are for tests.
			}
			return gotest.Bench(ctx, p, all, cmd.OutOrStdout())
		}))
	}
	return cmd
}

func inGuests(ctx context.Context, patterns []string, do func(context.Context, []gotest.Package) error) error {
	packages, err := gotest.Find(ctx, patterns)
	if err != nil {
		return err
	}
	return do(ctx, packages)
}
