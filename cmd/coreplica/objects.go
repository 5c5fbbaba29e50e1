package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/coreplica/coreplica/bpf"
)

func newObjectsCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "objects DIR",
		Short: "Write the compiled probes as files, for bpftool",
		Long: `Write the compiled probes of this architecture as files, for bpftool to load.

Those that attach to tracepoints come in three forms, tp_btf, raw_tp and
tracepoint: load one of each. docs/mirrorcost.md shows how to pin all of them and
how "run --pinned" uses what bpftool pinned.`,
		Example: `  coreplica mirrorcost objects probes
  sudo mkdir -p /sys/fs/bpf/coreplica
  sudo bpftool prog loadall probes/coreplica-ledger-tp_btf.bpf.o /sys/fs/bpf/coreplica/ledger \
      pinmaps /sys/fs/bpf/coreplica/ledger-maps`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := args[0]
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("make the folder: %w", err)
			}
			objects := bpf.Objects()
			for _, name := range slices.Sorted(maps.Keys(objects)) {
				path := filepath.Join(dir, name)
				if err := os.WriteFile(path, objects[name], 0o644); err != nil {
					return fmt.Errorf("write the object: %w", err)
				}
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return nil
		},
	}
}
