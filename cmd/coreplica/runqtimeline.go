package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/coreplica/coreplica/runq/timeline"
)

func newRunqTimelineCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "timeline TRACE...",
		Short: "Draw the takeovers in a trace as a page, or list them",
		Long: `Draw what workers did when one of them failed: when its neighbours noticed, who took
its queue over, how long killing, sealing, reading and copying lasted, when the
first inherited task was claimed, and what the fenced worker still tried.

A trace is what workers were told and what they answered. It is played through the
protocol first: a trace that the protocol would not have caused is refused. Give
all traces of one run, if each worker wrote its own.`,
		Example: `  # A simulated run, as a page for a browser.
  coreplica runq sim --seed 3 --seeds 1 --trace sim.trace
  coreplica runq timeline sim.trace --file takeovers.html

  # Where the time of each takeover goes.
  coreplica runq timeline -o table sim.trace`,
		Args: cobra.MinimumNArgs(1),
	}
	output := outputFlag(cmd, "html", "table", "json")
	cmd.Flags().StringVar(&file, "file", "", "write to this file instead of standard output")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		t, err := readTimeline(args)
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if file != "" {
			f, err := os.Create(file)
			if err != nil {
				return fmt.Errorf("create timeline: %w", err)
			}
			defer func() {
				if cerr := f.Close(); cerr != nil && err == nil {
					err = fmt.Errorf("close timeline: %w", cerr)
				}
			}()
			w = f
		}
		switch output.value {
		case "json":
			return writeJSON(w, t)
		case "table":
			return writeTakeovers(w, t)
		}
		return timeline.WriteHTML(w, t)
	}
	return cmd
}

func readTimeline(names []string) (*timeline.Timeline, error) {
	var traces []io.Reader
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return nil, usageError(fmt.Errorf("open trace: %w", err))
		}
		defer f.Close()
		traces = append(traces, f)
	}
	t, err := timeline.Read(traces...)
	if err != nil {
		return nil, usageError(err)
	}
	return t, nil
}

func writeTakeovers(w io.Writer, t *timeline.Timeline) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, strings.Join(timeline.Header, "\t"))
	for _, row := range t.Rows() {
		fmt.Fprintln(tab, strings.Join(row, "\t"))
	}
	return tab.Flush()
}
