package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/coreplica/coreplica/cmd/coreplica/internal/doctor"
	"github.com/coreplica/coreplica/numa"
)

func newNumaCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "numa",
		Short: "See the machine's memory nodes, and what lies where",
		Long: `See which CPUs are near to which memory, what of it this process may use, and
on which nodes another process's memory and threads are.`,
		Example: `  coreplica numa topo
  coreplica numa doctor
  coreplica numa bench --structure hashmap`,
	}
	cmd.AddCommand(newNumaTopoCmd(), newNumaDoctorCmd(), newNumaPlaceCmd(), newNumaBenchCmd(), newNumaModelCmd())
	return cmd
}

func newNumaTopoCmd() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:   "topo",
		Short: "Show nodes, CPUs, cores, caches, distances and limits",
		Long: `Show the machine's shape as the kernel tells it: memory nodes with their memory,
CPUs, huge pages and distances, cores with the CPUs that share them, caches, and
what affinity, cpuset and quota leave for this process.

With -o dot it is a graph for Graphviz, grey where this process may not run. With
--root it reads a copy of another machine's /sys and /proc.`,
		Example: `  coreplica numa topo
  coreplica numa topo -o dot | dot -Tsvg > machine.svg
  coreplica numa topo -o json | jq '.nodes[] | {id, cpus, distances}'
  taskset -c 0 coreplica numa topo`,
	}
	output := outputFlag(cmd, "table", "json", "dot")
	cmd.Flags().StringVar(&root, "root", "/", "`folder` that holds sys and proc")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		t, err := numa.Read(os.DirFS(root))
		if err != nil {
			return err
		}
		return writeAs(cmd, output, t, map[string]func(io.Writer) error{"table": t.WriteTable, "dot": t.WriteDOT})
	}
	return cmd
}

func newNumaDoctorCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Tell what keeps memory from being near, and how to mend it",
		Long: `Examine how this machine places memory: nodes without memory or CPUs, AutoNUMA,
GOMAXPROCS against cpuset and quota, memory imbalance, huge pages, and whether the
kernel and two CPUID libraries tell the same story. Beneath each warning stands
what follows from it and what mends it.

Nothing is changed. To read CPUID everywhere, a thread is bound to each usable CPU
for a moment. Warnings are advice, so the exit code is 0 with them too.`,
		Example: `  coreplica numa doctor

  # Only what wants attention, for a script.
  coreplica numa doctor -o json | jq -r '.checks[] | select(.status == "warn") | .name + ": " + .fix'`,
	}
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		machine, err := doctor.LocalNUMA(runtime.GOMAXPROCS(0))
		if err != nil {
			return err
		}
		report := doctor.ExamineNUMA(machine, currentVersion().Version)
		return writeAs(cmd, output, report, map[string]func(io.Writer) error{"table": report.WriteTable})
	}
	return cmd
}

func newNumaPlaceCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "place PID",
		Short: "Show on which nodes a process's memory and threads are",
		Long: `Show how much of a process's memory is on which node, by kind (Go's heap, stacks,
files, huge pages), and on which node its threads ran last, from numa_maps and the
threads' status. Reading another user's process needs root.

The process is not stopped, but reading numa_maps holds its memory map for the
time of the walk: milliseconds for each gigabyte.`,
		Example: `  sudo coreplica numa place 1
  coreplica numa place $$ -o json | jq '.nodes'`,
		Args: cobra.ExactArgs(1),
	}
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		pid, err := strconv.ParseUint(args[0], 10, 31)
		if err != nil || pid == 0 {
			return usageError(fmt.Errorf("%q is not the number of a process; see `coreplica numa place --help`", args[0]))
		}
		root := os.DirFS("/")
		t, err := numa.Read(root)
		if err != nil {
			return err
		}
		p, err := numa.ReadProcess(root, t, int(pid))
		if err != nil {
			return err
		}
		return writeAs(cmd, output, p, map[string]func(io.Writer) error{"table": p.WriteTable})
	}
	return cmd
}

// writeAs writes a result as JSON or in one of its other forms.
func writeAs(cmd *cobra.Command, output *format, result any, forms map[string]func(io.Writer) error) error {
	if write := forms[output.value]; write != nil {
		return write(cmd.OutOrStdout())
	}
	return writeJSON(cmd.OutOrStdout(), result)
}
