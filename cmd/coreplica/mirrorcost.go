package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/coreplica/coreplica/mirrorcost"
	"github.com/coreplica/coreplica/mirrorcost/mirror"
	"github.com/coreplica/coreplica/mirrorcost/report"
	"github.com/coreplica/coreplica/mirrorcost/serve"
)

func newMirrorcostCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mirrorcost",
		Short: "Measure what a mirrored write costs in CPU, by stage",
		Long: `Measure what a mirrored write costs in CPU above the same write to one device:
on the running kernel, on a real mirror that is made for it and taken down again.`,
		Example: `  # What does btrfs RAID1 cost? About a minute.
  sudo coreplica mirrorcost run

  # The probes as files, for bpftool.
  coreplica mirrorcost objects probes`,
	}
	cmd.AddCommand(newMirrorcostRunCmd(), newObjectsCmd())
	return cmd
}

func newMirrorcostRunCmd() *cobra.Command {
	plan := mirrorcost.DefaultPlan()
	var save, pinned string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Bring up two legs, write to both, compare, take them down",
		Long: `Bring up a baseline and a mirror, write to both in turn, and compare what a write
costs in CPU. The defaults compare 4 KiB direct writes to btrfs on one loop
device with btrfs RAID1 on two, and take about a minute.

Every nanosecond of every CPU is booked by eBPF to one context. The load, the
work functions and threads of the mirror and its devices, softirqs and hardirqs
are charged to the writes, less what they use while nothing is written. Sampled
stacks divide the cost into stages. Both legs are measured in groups of four
blocks, ABBA or BAAB, and the interval is over the groups.

It needs root, or the capabilities that "coreplica doctor" lists. What it makes
is gone when it ends, also after Ctrl-C; after kill -9, run "coreplica clean".`,
		Example: mirrorcostExamples,
	}
	output := outputFlag(cmd, formats()...)
	planFlags(cmd.Flags(), &plan)
	cmd.Flags().StringVar(&save, "save", "", "keep the report in all forms, with a page to look at, in this `folder`")
	cmd.Flags().StringVar(&pinned, "pinned", "", "use the probes that bpftool pinned in this `folder` on bpffs")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log what is done to the machine")
	completePlan(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if save != "" {
			if err := report.CheckSave(save); err != nil {
				return usageError(err)
			}
		}
		r, err := measure(cmd, plan, pinned, verbose)
		if err != nil {
			if errors.Is(err, mirrorcost.ErrUsage) || errors.Is(err, mirror.ErrUsage) {
				return usageError(fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath()))
			}
			return err
		}
		// The folder first: a pipe that breaks should not cost the run.
		if save != "" {
			if err := saveRun(save, r); err != nil {
				return err
			}
		}
		return report.Write(cmd.OutOrStdout(), r, report.Format(output.value))
	}
	return cmd
}

const mirrorcostExamples = `  # What does btrfs RAID1 cost? About a minute.
  sudo coreplica mirrorcost run

  # Keep everything, then look at flame graphs and stages in a browser.
  sudo coreplica mirrorcost run --save out
  coreplica serve out

  # 1 MiB buffered writes with fsync and sha256, on zram.
  sudo coreplica mirrorcost run --size 1M --mode buffered --fsync-every 1 --csum sha256 --substrate zram

  # Three copies written by the program itself, 16 writes a system call.
  sudo coreplica mirrorcost run --baseline files --mirror uring --legs 3 --batch 16

  # Your own devices. They are overwritten.
  sudo coreplica mirrorcost run --substrate devices --devices /dev/sdb,/dev/sdc,/dev/sdd

  # For scripts and for pprof.
  sudo coreplica mirrorcost run -o json | jq .tax
  sudo coreplica mirrorcost run -o pprof > tax.pb.gz && go tool pprof -http=: tax.pb.gz`

func formats() (names []string) {
	for _, f := range report.Formats() {
		names = append(names, string(f))
	}
	return names
}

func planFlags(f *pflag.FlagSet, p *mirrorcost.Plan) {
	f.SortFlags = false
	f.StringVar(&p.Baseline, "baseline", p.Baseline, "the leg to compare with: "+strings.Join(kinds(), ", "))
	f.StringVar(&p.Mirror, "mirror", p.Mirror, "the leg whose cost is asked for, one of the same")
	f.IntVar(&p.Legs, "legs", p.Legs, "copies that files and uring write")
	f.Var(size[int]{&p.SizeBytes}, "size", "bytes of a write")
	f.Uint64Var(&p.Count, "count", 0, "writes of each leg in each pass, instead of a duration")
	f.DurationVar(&p.Duration, "duration", p.Duration, "time of the quads, both legs together")
	f.StringVar(&p.Mode, "mode", p.Mode, "direct (O_DIRECT), buffered or dsync (O_DSYNC)")
	f.IntVar(&p.FsyncEvery, "fsync-every", 0, "fdatasync after each so many writes of a thread; 0 never")
	f.StringVar(&p.Pattern, "pattern", p.Pattern, "rand or seq")
	f.Uint64Var(&p.Seed, "seed", p.Seed, "of the order of blocks, the pattern and the bootstrap")
	f.IntVar(&p.Threads, "threads", p.Threads, "threads that write, each to a file of its own")
	f.Var(&cpuList{cpus: &p.CPUs}, "cpus", "CPUs for the threads, e.g. 0-3,8; empty lets the kernel choose")
	f.Var(rate{&p.RatePerSecond, &p.Saturate}, "rate", "writes a second; half is half of what the slower leg can do, max saturates")
	f.IntVar(&p.Batch, "batch", p.Batch, "writes a system call of uring")
	f.StringVar(&p.Csum, "csum", "", "data checksums: on (crc32c), off, or crc32c, xxhash, sha256, blake2; default off for direct and on else")
	f.IntVar(&p.Quads, "quads", p.Quads, "groups of four blocks")
	f.DurationVar(&p.Spin, "spin", 0, "add this CPU time to each write of the mirror: a known cost, to test the instrument")
	f.StringVar(&p.Substrate, "substrate", p.Substrate, "what is below the legs: loop (over tmpfs), loop-dio (over files in --dir), zram, devices")
	f.StringVar(&p.Dir, "dir", "", "`folder` for the files of loop-dio")
	f.StringSliceVar(&p.Devices, "devices", nil, "block devices to overwrite; the baseline takes the first ones")
	f.BoolVar(&p.Force, "force", false, "overwrite --devices although they hold a file system; mounted ones are refused all the same")
	f.Var(size[int64]{&p.DeviceBytes}, "device-size", "of each device that is made")
	f.Var(size[int64]{&p.FileBytes}, "file-size", "of each file that is written to")
	f.IntVar(&p.SampleHz, "sample-hz", p.SampleHz, "stacks a second on each CPU, in a pass of their own; more tell small stages better")
	f.BoolVar(&p.ProbeCost, "probe-cost", p.ProbeCost, "measure what the probes cost the load")
}

func kinds() (names []string) {
	for _, k := range mirror.Kinds() {
		names = append(names, k.Name)
	}
	return names
}

func completePlan(cmd *cobra.Command) {
	for flag, choices := range map[string][]string{
		"baseline": kinds(), "mirror": kinds(),
		"mode": {"direct", "buffered", "dsync"}, "pattern": {"rand", "seq"}, "rate": {"half", "max"},
		"csum":      {"on", "off", "crc32c", "xxhash", "sha256", "blake2"},
		"substrate": {"loop", "loop-dio", "zram", "devices"},
	} {
		if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // The flags were added just before.
		}
	}
}

// measure runs the plan, with progress on standard error.
func measure(cmd *cobra.Command, plan mirrorcost.Plan, pinned string, verbose bool) (*report.Report, error) {
	o := mirrorcost.Options{Pinned: pinned, Version: currentVersion().Version, Command: []string{"coreplica", "mirrorcost", "run"}}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		o.Command = append(o.Command, "--"+f.Name+"="+f.Value.String())
	})
	if verbose {
		o.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	meter := newMeter(cmd.ErrOrStderr())
	defer meter.close()
	o.Progress = meter.tell
	r, err := mirrorcost.Run(cmd.Context(), plan, o)
	if errors.Is(err, context.Canceled) {
		return nil, errors.New("interrupted; everything that the run made is gone again")
	}
	return r, err
}

// saveRun keeps the report in all forms.
func saveRun(dir string, r *report.Report) error {
	var page bytes.Buffer
	if err := serve.WriteHTML(&page, r); err != nil {
		return err
	}
	return report.Save(dir, r, map[string][]byte{"report.html": page.Bytes()})
}
