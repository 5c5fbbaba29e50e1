package main

import (
	"errors"

	"github.com/coreplica/coreplica/cmd/coreplica/internal/doctor"
	"github.com/spf13/cobra"
)

// errCannotRun says in one line what doctor's table says at length.
var errCannotRun = errors.New("something that `coreplica mirrorcost run` needs is missing: see the lines marked miss, each with its fix")

func newDoctorCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Tell what this machine can measure, and how to mend what it cannot",
		Long: `Examine this machine: kernel, capabilities, which BPF program types really load
and attach, symbols and counters, mirrors, tools and CPUs. What can be tried is
tried. Beneath each miss stands what follows from it and what mends it.

Nothing is changed: no mount, no module, no setting. Programs that were attached
to find out whether they attach are detached at once.

The exit code is 0 when "coreplica mirrorcost run" with its defaults can run
here, and 1 when something that it needs is missing.`,
		Example: `  # Examine, with all rights that a measurement will have.
  sudo coreplica doctor

  # Only what is missing, for a script.
  sudo coreplica doctor -o json | jq -r '.checks[] | select(.status == "miss") | .name + ": " + .fix'`,
	}
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		report := doctor.Examine(doctor.Local(), currentVersion().Version)
		if err := writeReport(cmd, output, report); err != nil {
			return err
		}
		if !report.CanRun {
			return errCannotRun
		}
		return nil
	}
	return cmd
}

func writeReport(cmd *cobra.Command, output *format, report doctor.Report) error {
	if output.value == "json" {
		return writeJSON(cmd.OutOrStdout(), report)
	}
	return report.WriteTable(cmd.OutOrStdout())
}
