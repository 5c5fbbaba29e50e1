package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/runq"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

func TestMain(m *testing.M) {
	runq.Main()
	testscript.Main(testkit.Checked{M: m}, map[string]func(){"coreplica": main})
}

// The command line as a user meets it. A script's exit codes are read from a
// shell's `echo $?`, since a script only tells success from failure.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true})
}

func TestExitCodes(t *testing.T) {
	tests := []struct {
		args []string
		code int
	}{
		{nil, 0},
		{[]string{"help"}, 0},
		{[]string{"help", "doctor"}, 0},
		{[]string{"version", "--help"}, 0},
		{[]string{"version"}, 0},
		{[]string{"completion", "zsh"}, 0},
		{[]string{"verson"}, exitUsage},
		{[]string{"--nonsense"}, exitUsage},
		{[]string{"help", "nonsense"}, exitUsage},
		{[]string{"version", "more"}, exitUsage},
		{[]string{"version", "-o", "yaml"}, exitUsage},
		{[]string{"version", "-o"}, exitUsage},
		{[]string{"runq"}, exitUsage},
		{[]string{"runq", "sim", "--seeds", "2", "--steps", "500"}, 0},
		{[]string{"runq", "sim", "--faults", "flood"}, exitUsage},
		{[]string{"runq", "sim", "--seeds", "0"}, exitUsage},
		{[]string{"runq", "explore", "--tasks", "1", "--failures", "0"}, 0},
		{[]string{"runq", "explore", "--copies", "9"}, exitUsage},
		{[]string{"runq", "top", "--interval", "0s"}, exitUsage},
		{[]string{"runq", "top", "a", "b"}, exitUsage},
		{[]string{"runq", "export"}, exitUsage},
		{[]string{"runq", "export", "a", "--listen", "nowhere"}, exitFailed},
		{[]string{"runq", "demo", "--rate", "0"}, exitUsage},
		{[]string{"docs"}, exitUsage},
		{[]string{"docs", "man"}, exitUsage},
		{[]string{"docs", "man", "/dev/null/no-folder"}, exitFailed},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(context.Background(), tt.args, &stdout, &stderr)
			if code != tt.code {
				t.Errorf("exit %d, want %d; %s", code, tt.code, stderr.String())
			}
			lines := strings.Count(stderr.String(), "\n")
			if tt.code == 0 && lines != 0 || tt.code != 0 && (lines != 1 || !strings.HasPrefix(stderr.String(), "coreplica: ")) {
				t.Errorf("standard error has %d lines: %q", lines, stderr.String())
			}
			if tt.code == exitUsage && (stdout.Len() > 0 || !strings.Contains(stderr.String(), "--help`")) {
				t.Errorf("a usage error prints %q and does not point to the help: %q", stdout.String(), stderr.String())
			}
		})
	}
}

func TestExitCodeOfErrors(t *testing.T) {
	plain := errors.New("it\nbroke\r\n\nbadly")
	tests := []struct {
		err  error
		code int
	}{
		{nil, 0},
		{usageError(nil), 0},
		{plain, exitFailed},
		{usageError(plain), exitUsage},
		{fmt.Errorf("run: %w", usageError(plain)), exitUsage},
	}
	for _, tt := range tests {
		if got := exitCode(tt.err); got != tt.code {
			t.Errorf("exitCode(%v) = %d, want %d", tt.err, got, tt.code)
		}
	}
	if got := oneLine(plain); got != "it; broke; badly" {
		t.Errorf("oneLine = %q", got)
	}
	if !errors.Is(usageError(fs.ErrNotExist), fs.ErrNotExist) {
		t.Error("a usage error hides its cause")
	}
}

// Examples in the help are what users copy, so every command has some, and each
// line of theirs names a command and flags that exist.
func TestEveryCommandShowsExamples(t *testing.T) {
	root := newRoot(io.Discard, io.Discard)
	walk(root, func(cmd *cobra.Command) {
		if foreign(cmd) {
			return
		}
		if cmd.Short == "" || len(cmd.Long) < len(cmd.Short) || cmd.Example == "" {
			t.Errorf("%s lacks a short text, a long one or examples", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Example) {
			if err := checkExample(root, line); err != nil {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), strings.TrimSpace(line), err)
			}
		}
	})
}

func TestExampleCheckCanFail(t *testing.T) {
	for _, line := range []string{"  coreplica docter", "  sudo coreplica doctor --fast", "  coreplica version -o yaml"} {
		if checkExample(newRoot(io.Discard, io.Discard), line) == nil {
			t.Errorf("%q passes", line)
		}
	}
}

// checkExample parses what stands behind "coreplica" in a line of examples.
func checkExample(root *cobra.Command, line string) error {
	_, rest, found := strings.Cut(" "+strings.TrimSpace(line), " coreplica ")
	if !found || strings.HasPrefix(strings.TrimSpace(line), "#") {
		return nil
	}
	rest, _, _ = strings.Cut(rest, " | ")
	rest, _, _ = strings.Cut(rest, " > ")
	cmd, args, err := root.Find(strings.Fields(strings.TrimSuffix(rest, "\\")))
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(args); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, visit)
	}
}

// foreign commands come with cobra, and their texts too.
func foreign(cmd *cobra.Command) bool {
	for c := cmd; c != nil; c = c.Parent() {
		if c.Name() == "completion" || c.Name() == "help" {
			return true
		}
	}
	return false
}

// No command line makes the program panic, whatever is typed.
func FuzzFlags(f *testing.F) {
	f.Add("version -o json")
	f.Add("version --output=")
	f.Add("help help help")
	f.Add("docs man --")
	f.Add("completion bash --no-descriptions=maybe")
	f.Fuzz(func(t *testing.T, line string) {
		root := newRoot(io.Discard, io.Discard)
		cmd, args, err := root.Find(strings.Fields(line))
		if err != nil {
			return
		}
		if cmd.ParseFlags(args) == nil {
			_ = cmd.ValidateArgs(cmd.Flags().Args()) // Nothing is run: only the parsing is on trial.
		}
	})
}
