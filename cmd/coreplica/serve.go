package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/coreplica/coreplica/mirrorcost/report"
	"github.com/coreplica/coreplica/mirrorcost/serve"
)

func newServeCmd() *cobra.Command {
	var o serve.Options
	cmd := &cobra.Command{
		Use:   "serve DIR|FILE",
		Short: "Look at a saved run in a browser",
		Long: `Serve a page that shows a saved run: flame graphs of both legs and of their
difference, stages with intervals, latencies and the ledger. The page loads
nothing from elsewhere.

It listens on the loopback device only, unless --addr says otherwise, and answers
only requests that name this host, so that a page elsewhere cannot read it.`,
		Example: `  sudo coreplica mirrorcost run --save out
  coreplica serve out

  # From another machine, through ssh.
  ssh -L 7070:127.0.0.1:7070 server coreplica serve out`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := report.Open(args[0])
			if err != nil {
				return err
			}
			o.Ready = func(url string) { fmt.Fprintf(cmd.ErrOrStderr(), "look at %s; Ctrl-C ends it\n", url) }
			return serve.ListenAndServe(cmd.Context(), r, o)
		},
	}
	cmd.Flags().StringVar(&o.Addr, "addr", "127.0.0.1:7070", "`host:port` to listen on; port 0 takes a free one")
	return cmd
}
