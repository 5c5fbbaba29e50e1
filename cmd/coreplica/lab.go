package main

import "github.com/spf13/cobra"

func newLabCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Virtual machines with NUMA nodes, other kernels and several nodes",
	}
	cmd.AddCommand(newLabTestCmd(), newLabBenchCmd())
	return cmd
}
