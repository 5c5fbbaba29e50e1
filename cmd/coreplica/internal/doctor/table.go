package doctor

import (
	"bufio"
	"fmt"
	"io"
)

// WriteTable writes the report for people: a status column, and beneath each
// miss or warning what follows from it and what mends it.
func (r Report) WriteTable(w io.Writer) error {
	out := bufio.NewWriter(w)
	writeChecks(out, r.Checks)
	fmt.Fprintln(out)
	for _, check := range r.Checks {
		if check.Needed && check.Status == Miss {
			fmt.Fprintf(out, "needed and missing: %s, %s (%s)\n", check.Section, check.Name, check.Detail)
		}
	}
	verdict := "no"
	if r.CanRun {
		verdict = "yes"
	}
	fmt.Fprintf(out, "mirrorcost can run here: %s\n", verdict)
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// writeChecks writes checks by section.
func writeChecks(out io.Writer, checks []Check) {
	width := 0
	for _, check := range checks {
		width = max(width, len(check.Name))
	}
	section := ""
	for _, check := range checks {
		if check.Section != section {
			if section != "" {
				fmt.Fprintln(out)
			}
			section = check.Section
			fmt.Fprintln(out, section)
		}
		fmt.Fprintf(out, "  %-4s  %-*s  %s\n", check.Status, width, check.Name, check.Detail)
		if check.Consequence != "" {
			fmt.Fprintf(out, "          so:  %s\n", check.Consequence)
		}
		if check.Fix != "" {
			fmt.Fprintf(out, "          fix: %s\n", check.Fix)
		}
	}
}
