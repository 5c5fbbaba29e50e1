package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// newRoot puts the commands together. The writers come first because cobra's
// completion command takes its own when it is made.
func newRoot(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "coreplica",
		Short: "Measure what mirrored storage costs in CPU",
		Long: `coreplica brings up a real kernel mirror, writes to it, and tells what each
write costs in CPU time above the same write to one device: counted by eBPF in
the kernel, divided into stages, with confidence intervals.

Commands read "coreplica NOUN VERB". Results go to standard output, progress
and complaints to standard error. The exit code is 0, 1 when the work failed,
or 2 when the command line makes no sense.`,
		Example: `  # Can this machine measure?
  sudo coreplica doctor

  # What does a mirrored write cost?
  sudo coreplica mirrorcost run --save out
  coreplica serve out`,
		// A complaint is one line that says the fix, not a page of usage.
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.DisableAutoGenTag = true // A date in the man pages would change them with every build.
	root.AddCommand(commands()...)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	strict(root)
	return root
}

// commands are the nouns.
func commands() []*cobra.Command {
	return []*cobra.Command{
		newMirrorcostCmd(),
		newNumaCmd(),
		newServeCmd(),
		newRunqCmd(),
		newDoctorCmd(),
		newLabCmd(),
		newCleanCmd(),
		newVersionCmd(),
		newDocsCmd(),
	}
}

// strict makes every mistake in a command line a usage error: a flag or an
// argument that is not known, and a noun without a verb.
func strict(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError(fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath()))
	})
	check := cmd.Args
	switch {
	case cmd.Name() == "help":
		cmd.Args = wantTopic
	case cmd.HasSubCommands() && !cmd.Runnable():
		cmd.Args = wantVerb
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	case check == nil:
		check = cobra.NoArgs
		fallthrough
	default:
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError(fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath()))
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
}

// wantTopic refuses help on what does not exist; cobra would answer with the
// root's help and success.
func wantTopic(cmd *cobra.Command, args []string) error {
	if _, rest, err := cmd.Root().Find(args); err != nil || len(rest) > 0 {
		return usageError(fmt.Errorf("there is no command %q; see `coreplica --help`", strings.Join(args, " ")))
	}
	return nil
}

// wantVerb says which verbs a noun has. The bare program is no mistake: it
// shows its help.
func wantVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 && !cmd.HasParent() {
		return nil
	}
	var verbs []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			verbs = append(verbs, sub.Name())
		}
	}
	slices.Sort(verbs)
	choice := strings.Join(verbs, ", ")
	if len(args) == 0 {
		return usageError(fmt.Errorf("%s needs one of: %s; see `%s --help`", cmd.CommandPath(), choice, cmd.CommandPath()))
	}
	return usageError(fmt.Errorf("%s knows no %q, only: %s; see `%s --help`", cmd.CommandPath(), args[0], choice, cmd.CommandPath()))
}

// format is the value of -o: one of a few names.
type format struct {
	value   string
	choices []string
}

func (f *format) String() string { return f.value }

// Type names the value in help texts.
func (f *format) Type() string { return strings.Join(f.choices, "|") }

// Set takes one of the choices.
func (f *format) Set(value string) error {
	if !slices.Contains(f.choices, value) {
		return errors.New("must be one of " + strings.Join(f.choices, ", "))
	}
	f.value = value
	return nil
}

// outputFlag adds -o to a command. The first choice is the default.
func outputFlag(cmd *cobra.Command, choices ...string) *format {
	f := &format{value: choices[0], choices: choices}
	cmd.Flags().VarP(f, "output", "o", "form of the result")
	err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // The flag was added two lines above.
	}
	return f
}
