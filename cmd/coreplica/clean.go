package main

import (
	"errors"
	"fmt"

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
			queues, qerr := runq.Leftovers(true)
			err = errors.Join(err, qerr)
			for _, name := range queues {
				fmt.Fprintln(cmd.OutOrStdout(), "name of run queue", name)
			}
			if err == nil && len(removed)+len(queues) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing to remove")
			}
			return err
		},
	}
}
