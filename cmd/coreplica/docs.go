package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newDocsCmd() *cobra.Command {
	docs := &cobra.Command{
		Use:     "docs",
		Short:   "Write documentation",
		Long:    `Write documentation from the commands' own help texts, for packagers.`,
		Example: `  coreplica docs man /usr/local/share/man/man1`,
		Hidden:  true,
	}
	man := &cobra.Command{
		Use:   "man DIR",
		Short: "Write man pages into a folder",
		Long: `Write one man page a command into a folder, which is made if it is not there.
"make docs" calls it.`,
		Example: `  coreplica docs man man
  man -l man/coreplica-doctor.1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("make folder for man pages: %w", err)
			}
			header := &doc.GenManHeader{Section: "1", Source: "coreplica", Manual: "coreplica"}
			if err := doc.GenManTree(cmd.Root(), header, args[0]); err != nil {
				return fmt.Errorf("write man pages: %w", err)
			}
			return nil
		},
	}
	docs.AddCommand(man)
	return docs
}
