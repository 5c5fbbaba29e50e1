package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/runq"
)

// topOptions are the flags of `coreplica runq top`.
type topOptions struct {
	interval time.Duration
	once     bool
	json     bool
}

func newRunqTopCmd() *cobra.Command {
	o := topOptions{interval: time.Second}
	cmd := &cobra.Command{
		Use:   "top [NAME]",
		Short: "Watch an open queue: workers, rates, and what happened last",
		Long: `Watch a run queue that another process of yours has open: its workers, the tasks
that each of them ends in a second, whose queues it serves, how often it has come
to life, and what happened to workers and queues last.

A queue can be watched when it was opened with a name. Where only one is open,
NAME may be left out. On a terminal the table redraws itself until Ctrl-C or until
the queue closes; elsewhere each one follows the one before. PENDING is the tasks
of a worker's own queue, whoever serves it; QUEUES are those that it serves.

With -o json every interval prints a snapshot, whose schema is
coreplica.runq.stats/1.`,
		Example: `  # The only queue that is open.
  coreplica runq top

  # How many tasks wait in the queue "mail"?
  coreplica runq top mail --once -o json | jq .stats.pending`,
		Args: cobra.MaximumNArgs(1),
	}
	output := outputFlag(cmd, "table", "json")
	cmd.Flags().DurationVar(&o.interval, "interval", o.interval, "time between two looks")
	cmd.Flags().BoolVar(&o.once, "once", false, "look once and end")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.interval <= 0 {
			return usageError(fmt.Errorf("--interval must be above 0; see `%s --help`", cmd.CommandPath()))
		}
		o.json = output.value == "json"
		name, err := queueName(cmd, args)
		if err != nil {
			return err
		}
		return top(cmd.Context(), name, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

// queueName returns the queue that is meant: the argument, or the only one.
func queueName(cmd *cobra.Command, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	names, err := runq.Names(cmd.Context())
	switch {
	case err != nil:
		return "", err
	case len(names) == 0:
		return "", fmt.Errorf("%w: no process of yours has a queue with a name; `coreplica runq demo` opens one", runq.ErrNotOpen)
	case len(names) > 1:
		return "", usageError(fmt.Errorf("several queues are open: %s; name one of them; see `%s --help`", strings.Join(names, ", "), cmd.CommandPath()))
	}
	return names[0], nil
}

// top shows a queue until it closes or the context ends.
func top(ctx context.Context, name string, o topOptions, stdout, stderr io.Writer) (err error) {
	now, err := runq.Look(ctx, name)
	if err != nil {
		return err
	}
	if o.once {
		return showTop(stdout, o, nil, &now)
	}
	if screen := newScreen(stdout); screen != nil && !o.json {
		stdout = screen
		if err := screen.open(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, screen.close()) }()
	}
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	var before *runq.Snapshot
	for {
		if err := showTop(stdout, o, before, &now); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		last := now
		before = &last
		now, err = runq.Look(ctx, name)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, runq.ErrNotOpen):
			fmt.Fprintf(stderr, "queue %s was closed\n", name)
			return nil
		case err != nil:
			return err
		}
	}
}

func showTop(w io.Writer, o topOptions, before, now *runq.Snapshot) error {
	if o.json {
		return writeJSON(w, now)
	}
	text, err := topTable(before, now)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// screen is a terminal of which each write fills the whole.
type screen struct{ f *os.File }

// The terminal's other screen, without a cursor; and back.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
)

// newScreen returns nil where the writer is no terminal.
func newScreen(w io.Writer) *screen {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	return &screen{f}
}

func (s *screen) open() error {
	_, err := s.f.WriteString(enterScreen)
	return err
}

func (s *screen) close() error {
	_, err := s.f.WriteString(leaveScreen)
	return err
}

// Write replaces what stands on the screen.
func (s *screen) Write(text []byte) (int, error) {
	columns, rows := 80, 24
	if size, err := unix.IoctlGetWinsize(int(s.f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 && size.Row > 0 {
		columns, rows = int(size.Col), int(size.Row)
	}
	if _, err := s.f.WriteString(fit(string(text), columns, rows)); err != nil {
		return 0, fmt.Errorf("draw: %w", err)
	}
	return len(text), nil
}

// fit cuts a text to the size of a screen, for a line that wraps would scroll it,
// and wraps it in what draws over the one before: erasing all first would flicker.
func fit(text string, columns, rows int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	lines = lines[:min(len(lines), rows)]
	for i, line := range lines {
		if runes := []rune(line); len(runes) > columns {
			lines[i] = string(runes[:columns])
		}
	}
	return "\x1b[H" + strings.Join(lines, "\x1b[K\r\n") + "\x1b[K\x1b[J"
}
