package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/internal/lab/cluster"
	"github.com/spf13/cobra"
)

func newLabCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Virtual machines with NUMA nodes, other kernels and several nodes",
		Long: `Virtual machines for what the machine at hand lacks: other kernels, NUMA nodes,
a network that loses frames and disks that lose power.

Test and bench run Go tests in guests. Up, ls, exec, push, net, kill, start and
down are for a lab of several nodes that stays up until it is taken down.
Nothing needs root, and nothing of the machine's network is touched.`,
		Example: `  coreplica lab test ./...

  coreplica lab up -n 3
  coreplica lab exec node1 -- ping -c 3 node2
  coreplica lab net drop 20% from node1 to node2
  coreplica lab net partition node1 '|' node2,node3
  coreplica lab kill node3
  coreplica lab down`,
	}
	cmd.AddCommand(newLabTestCmd(), newLabBenchCmd(), newLabUpCmd(), newLabServeCmd(), newLabLsCmd(), newLabExecCmd(),
		newLabPushCmd(), newLabNetCmd(), newLabKillCmd(), newLabStartCmd(), newLabDownCmd())
	return cmd
}

// labError sorts the errors of a lab: names that nobody has and rules that make
// no sense are usage errors.
func labError(err error) error {
	for _, usage := range []error{cluster.ErrUsage, cluster.ErrOptions} {
		if errors.Is(err, usage) {
			return usageError(err)
		}
	}
	return guestError(err)
}

func newLabLsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the nodes of the lab, its network's faults and counters",
		Long: `List the nodes of the lab with their states, the faults that the network has, and
for each link what became of its frames.`,
		Example: `  coreplica lab ls
  coreplica lab ls -o json | jq '.links[] | select(.dropped > 0)'`,
	}
	form := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := cluster.Find(cleanup.Options{})
		if err != nil {
			return err
		}
		s, err := c.Status(cmd.Context())
		if err != nil {
			return err
		}
		if form.value == "json" {
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(s)
		}
		return printLab(cmd.OutOrStdout(), s)
	}
	return cmd
}

func printLab(out io.Writer, s cluster.Status) error {
	fmt.Fprintf(out, "Linux %s, topology %s, seed %d, process %d\n", s.Kernel, s.Topology, s.Seed, s.PID)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTATE\tADDRESS\tBOOT")
	for _, n := range s.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1fs\n", n.Name, n.State, n.Address, n.BootNs.Seconds())
	}
	if len(s.Rules) > 0 {
		fmt.Fprintf(w, "\nfaults: %s\n", strings.Join(s.Rules, "; "))
	}
	if len(s.Links) > 0 {
		fmt.Fprintln(w, "\nLINK\tFRAMES\tDELIVERED\tDROPPED\tDUPLICATED\tDELAYED\tREORDERED\tCUT\tLOST OTHERWISE")
		for _, l := range s.Links {
			fmt.Fprintf(w, "%s > %s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", l.From, l.To, l.Frames, l.Delivered, l.Dropped, l.Duplicated, l.Delayed, l.Reordered, l.Cut, l.Overflow+l.Absent)
		}
	}
	return w.Flush()
}

func newLabExecCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "exec NODE -- COMMAND [ARGUMENT...]",
		Short: "Run a command on a node",
		Long: `Run a command on a node of the lab, with this program's standard input, output
and exit code. It reaches the node by a port of its own, not over the network,
so it works across a partition.`,
		Example: `  coreplica lab exec node1 -- ping -c 3 node2
  coreplica lab exec node2 -- coreplica doctor
  tar c dir | coreplica lab exec node1 -- tar x -C /tmp`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			lab, err := cluster.Find(cleanup.Options{})
			if err != nil {
				return err
			}
			node, err := lab.Agent(cmd.Context(), args[0])
			if err != nil {
				return labError(err)
			}
			defer node.Close() // The command has ended.
			code, err := node.Exec(cmd.Context(), args[1:], cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
			if err == nil && code != 0 {
				err = &exitError{code: code, err: fmt.Errorf("%s on %s: exit code %d", args[1], args[0], code)}
			}
			return err
		},
	}
}

func newLabPushCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "push NODE FILE PATH",
		Short:   "Copy a file to a node",
		Long:    `Copy a file of this machine to a path of a node, with its permissions. The file appears there whole or not at all.`,
		Example: `  coreplica lab push node1 ./mydaemon /bin/mydaemon`,
		Args:    cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			lab, err := cluster.Find(cleanup.Options{})
			if err != nil {
				return err
			}
			node, err := lab.Agent(cmd.Context(), args[0])
			if err != nil {
				return labError(err)
			}
			defer node.Close() // The file is there.
			return node.Push(cmd.Context(), args[1], args[2])
		},
	}
}

func newLabNetCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "net FAULT [from NODE] [to NODE]",
		Short: "Make the lab's network lose, delay, repeat or reorder frames, or fall apart",
		Long: `Add a fault to the lab's network. Which frames it hits is decided by the lab's
seed and the number of the frame on its link, so the same traffic meets the same
faults again. A new fault of a kind replaces the old one on the same links.

  drop P%             lose frames
  dup P%              deliver frames twice
  delay D[±J]         hold frames back, with jitter
  reorder P% [gap N]  let N later frames overtake
  partition A,B | C   keep groups of nodes apart
  cut                 cut links, in one direction with from and to
  heal                end partitions and cuts
  clear               end all faults`,
		Example: `  coreplica lab net drop 20%
  coreplica lab net delay 10ms±3ms from node1
  coreplica lab net partition node1 '|' node2,node3
  coreplica lab net heal`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lab, err := cluster.Find(cleanup.Options{})
			if err != nil {
				return err
			}
			return labError(lab.Net(cmd.Context(), strings.Join(args, " ")))
		},
	}
}

// sayOf does something to the node that is named and prints what the lab says of it.
func sayOf(do func(*cluster.Client, context.Context, string) (string, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		lab, err := cluster.Find(cleanup.Options{})
		if err != nil {
			return err
		}
		said, err := do(lab, cmd.Context(), args[0])
		if err == nil {
			fmt.Fprintln(cmd.OutOrStdout(), said)
		}
		return labError(err)
	}
}

func newLabKillCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "kill NODE",
		Short: "Cut a node's power",
		Long: `End a node at once. What it wrote to its disk and did not flush survives or
vanishes, sector by sector, by the lab's seed.`,
		Example: `  coreplica lab kill node3
  coreplica lab start node3`,
		Args: cobra.ExactArgs(1),
		RunE: sayOf((*cluster.Client).Kill),
	}
}

func newLabStartCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "start NODE",
		Short:   "Boot a node that is off, with the disk that it has",
		Long:    `Boot a node whose power was cut, or that has ended. Its disk is as the loss of power left it; what it had in memory is gone.`,
		Example: `  coreplica lab start node3`,
		Args:    cobra.ExactArgs(1),
		RunE:    sayOf((*cluster.Client).Start),
	}
}

func newLabDownCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Take the lab down and remove what it made",
		Long: `End all nodes and remove their disks and the network. If the lab's process was
killed, its nodes died with it, and what it left is removed.`,
		Example: `  coreplica lab down`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			const patience = 2 * time.Minute
			ctx, cancel := context.WithTimeout(cmd.Context(), patience)
			defer cancel()
			lab, err := cluster.Find(cleanup.Options{})
			if err == nil {
				return lab.Down(ctx)
			}
			if !errors.Is(err, cluster.ErrNoLab) {
				return err
			}
			removed, err := cleanup.Clean(ctx, cleanup.Options{})
			found := false
			for _, r := range removed {
				if !r.Spared {
					found = true
					fmt.Fprintln(cmd.OutOrStdout(), r)
				}
			}
			if err == nil && !found {
				fmt.Fprintln(cmd.OutOrStdout(), "no lab is up, and none left anything")
			}
			return err
		},
	}
}
