package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/coreplica/coreplica/internal/testkit"
)

func main() {
	failed, err := summarise(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "skiplist:", err)
		os.Exit(1)
	}
	if failed {
		os.Exit(1)
	}
}

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // Of build output.
	Test       string
	Output     string
}

// name is a test of a package. Test is empty for the package itself.
type name struct{ Package, Test string }

// run is what the events say so far.
type run struct {
	out                     io.Writer
	output                  map[name][]string
	skips                   map[string][]string // reason → tests
	passed, failed, skipped int
	broken                  []string // packages and phases that failed
	untyped                 []string // tests that skipped without a reason
}

// summarise copies the run to out and reports whether it failed.
func summarise(in io.Reader, out io.Writer) (bool, error) {
	r := run{out: out, output: map[name][]string{}, skips: map[string][]string{}}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			r.line(line)
		}
		if err == io.EOF {
			return r.close(), nil
		}
		if err != nil {
			return true, fmt.Errorf("read test events: %w", err)
		}
	}
}

// line takes one line of input. What is no event is passed on: a phase's
// heading, or the go command's own complaint.
func (r *run) line(line string) {
	var e event
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil {
		fmt.Fprint(r.out, line)
		return
	}
	key := name{e.Package, e.Test}
	switch e.Action {
	case "output":
		if e.Test != "" {
			r.output[key] = append(r.output[key], e.Output)
		} else if e.Output != "PASS\n" {
			fmt.Fprint(r.out, e.Output)
		}
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "build-fail":
		r.broken = append(r.broken, e.ImportPath)
	case "phase-fail":
		r.broken = append(r.broken, e.Package)
	case "pass", "fail", "skip":
		r.end(key, e.Action)
	}
}

// end counts a test's end and forgets its output, so that the memory stays
// that of the tests under way.
func (r *run) end(key name, action string) {
	output := r.output[key]
	delete(r.output, key)
	switch {
	case key.Test == "":
		if action == "fail" {
			r.broken = append(r.broken, key.Package)
		}
	case action == "pass":
		r.passed++
	case action == "fail":
		r.failed++
		fmt.Fprint(r.out, strings.Join(output, ""))
	case action == "skip":
		r.skipped++
		r.skip(key, output)
	}
}

func (r *run) skip(key name, output []string) {
	test := key.Package + "." + key.Test
	for _, line := range output {
		if feature, reason, ok := testkit.ParseSkip(line); ok {
			key := fmt.Sprintf("%-10s %s", feature, reason)
			r.skips[key] = append(r.skips[key], test)
			return
		}
	}
	r.untyped = append(r.untyped, test+": "+strings.TrimSpace(strings.Join(output, "")))
}

// close prints the summary and reports whether the run failed.
func (r *run) close() bool {
	for key, output := range r.output {
		// A test without an end was cut off, by a panic or a time limit.
		r.failed++
		fmt.Fprintf(r.out, "no end seen of %s.%s\n%s", key.Package, key.Test, strings.Join(output, ""))
	}
	if len(r.skips) > 0 {
		fmt.Fprintln(r.out, "\nSkipped, by missing feature:")
	}
	for _, reason := range sortedKeys(r.skips) {
		fmt.Fprintf(r.out, "  %s\n", reason)
		for _, test := range r.skips[reason] {
			fmt.Fprintf(r.out, "             %s\n", test)
		}
	}
	for _, test := range r.untyped {
		fmt.Fprintf(r.out, "skipped without a typed reason, use testkit.Need or testkit.Skip: %s\n", test)
	}
	slices.Sort(r.broken)
	for _, what := range slices.Compact(r.broken) {
		fmt.Fprintf(r.out, "failed: %s\n", what)
	}
	if r.passed == 0 {
		fmt.Fprintln(r.out, "no test passed, so this run proves nothing")
	}
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return r.failed > 0 || len(r.broken) > 0 || len(r.untyped) > 0 || r.passed == 0
}

func sortedKeys(m map[string][]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
