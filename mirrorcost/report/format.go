package report

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// ErrUsage means that the caller asked for something that does not exist.
var ErrUsage = errors.New("bad usage")

// Format names a form in which a report is written.
type Format string

// The formats that [Write] knows.
const (
	Table  Format = "table"  // for a terminal of 100 columns
	JSON   Format = "json"   // indented, versioned by [Schema]
	JSONL  Format = "jsonl"  // the same on one line
	CSV    Format = "csv"    // one row a value
	Folded Format = "folded" // stacks for flamegraph.pl, in ns of CPU time
	Pprof  Format = "pprof"  // a gzipped profile for `go tool pprof`
	Bench  Format = "bench"  // lines for benchstat
)

var writers = map[Format]func(io.Writer, *Report) error{
	Table:  writeTable,
	JSON:   writeJSON,
	JSONL:  writeJSONL,
	CSV:    writeCSV,
	Folded: writeFolded,
	Pprof:  writePprof,
	Bench:  writeBench,
}

// Formats returns all formats, the most readable first.
func Formats() []Format {
	return []Format{Table, JSON, JSONL, CSV, Folded, Pprof, Bench}
}

// ParseFormat finds a format by its name. The error wraps [ErrUsage].
func ParseFormat(s string) (Format, error) {
	if slices.Contains(Formats(), Format(s)) {
		return Format(s), nil
	}
	var known []string
	for _, f := range Formats() {
		known = append(known, string(f))
	}
	return "", fmt.Errorf("%w: unknown format %q; known are %s", ErrUsage, s, strings.Join(known, ", "))
}

// Write writes a report in a format.
func Write(w io.Writer, r *Report, f Format) error {
	write, known := writers[f]
	if !known {
		_, err := ParseFormat(string(f))
		return err
	}
	if err := write(w, r); err != nil {
		return fmt.Errorf("write report as %s: %w", f, err)
	}
	return nil
}
