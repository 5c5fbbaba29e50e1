package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/runq"
	"github.com/spf13/cobra"
)

func newCleanCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "clean",
		Short: "Remove what a run left that was killed",
		Long: `Remove the loop and zram devices, mounts, folders, processes and pinned BPF
objects of runs that died before they could do so themselves, and the names and
sockets of run queues whose process is gone.

Every run keeps a record of what it makes and a lock that dies with it. Clean
takes the records whose lock is free, and before it removes a thing it asks the
kernel for proof that it is the run's. A run that still lives is spared, and so
is everything that no run recorded.`,
		Example: `  # After a kill -9:
  sudo coreplica clean`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			removed, err := cleanup.Clean(cmd.Context(), cleanup.Options{})
			for _, r := range removed {
				fmt.Fprintln(cmd.OutOrStdout(), r)
			}
			queues, qerr := cleanQueues(cmd.OutOrStdout())
			if err = errors.Join(err, qerr); err == nil && len(removed)+queues == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing to remove")
			}
			return err
		},
	}
}

// cleanQueues removes what run queues left in the folder of their names, and
// tells of each. All else of theirs ends with their processes.
func cleanQueues(w io.Writer) (removed int, err error) {
	names, err := runq.Leftovers(true)
	for _, name := range names {
		fmt.Fprintln(w, "name of run queue", name)
	}
	return len(names), err
}
