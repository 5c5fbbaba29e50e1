package gotest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreplica/coreplica/internal/lab"
)

// Directive is one run of a package's tests in guests.
type Directive struct {
	// Kernels by name; see kernel.Fetch. One run on each.
	Kernels []string
	// Topology as lab.ParseTopology reads it.
	Topology string
	// Modules to load, each with its parameters.
	Modules []string
	// Tools of this machine that the tests call.
	Tools []string
	// Run is a regular expression that chooses tests; empty means all.
	Run string
	// Expect are features of internal/testkit that the guest must have: a
	// test that misses one fails.
	Expect []string
	// Short sets -test.short.
	Short bool
	// Timeout bounds one guest; zero means lab.DefaultTimeout.
	Timeout time.Duration
}

// Marker begins a directive's line.
const Marker = "//coreplica:guest"

// ErrDirective is wrapped by the errors of [Parse].
var ErrDirective = errors.New("want " + Marker + " followed by key=value, as in kernel=6.1,6.12 topology=2x2 modules=\"loop;btrfs\"")

// setters are the keys.
var setters = map[string]func(d *Directive, value string) error{
	"kernel":   func(d *Directive, v string) error { d.Kernels = split(v, ','); return nil },
	"topology": func(d *Directive, v string) error { d.Topology = v; _, err := lab.ParseTopology(v); return err },
	"modules":  func(d *Directive, v string) error { d.Modules = split(v, ';'); return nil },
	"tools":    func(d *Directive, v string) error { d.Tools = split(v, ','); return nil },
	"run":      func(d *Directive, v string) error { d.Run = v; return nil },
	"expect":   func(d *Directive, v string) error { d.Expect = split(v, ','); return nil },
	"short":    func(d *Directive, v string) (err error) { d.Short, err = strconv.ParseBool(v); return err },
	"timeout":  func(d *Directive, v string) (err error) { d.Timeout, err = time.ParseDuration(v); return err },
}

func split(text string, at rune) []string {
	var parts []string
	for _, p := range strings.FieldsFunc(text, func(r rune) bool { return r == at }) {
		if p = strings.TrimSpace(p); p != "" {
			parts = append(parts, p)
		}
	}
	return parts
}

// Parse reads a directive's line. Values with spaces stand in double quotes, as
// in Go. The keys are kernel, topology, modules (with semicolons), tools, run,
// expect, short and timeout.
func Parse(line string) (Directive, error) {
	rest, ok := strings.CutPrefix(line, Marker)
	if !ok || rest != "" && rest[0] != ' ' && rest[0] != '\t' {
		return Directive{}, fmt.Errorf("%.80q: %w", line, ErrDirective)
	}
	var d Directive
	for {
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" {
			return d, nil
		}
		key, after, ok := strings.Cut(rest, "=")
		set, known := setters[key]
		if !ok || !known {
			return Directive{}, fmt.Errorf("%.80q: the keys are %s: %w", rest, strings.Join(slices.Sorted(maps.Keys(setters)), ", "), ErrDirective)
		}
		var value string
		if strings.HasPrefix(after, `"`) {
			quoted, err := strconv.QuotedPrefix(after)
			if err == nil {
				value, err = strconv.Unquote(quoted)
			}
			if err != nil {
				return Directive{}, fmt.Errorf("%s: %w: %w", key, err, ErrDirective)
			}
			rest = after[len(quoted):]
		} else {
			end := strings.IndexAny(after, " \t")
			if end < 0 {
				end = len(after)
			}
			value, rest = after[:end], after[end:]
		}
		if err := set(&d, value); err != nil {
			return Directive{}, fmt.Errorf("%s=%s: %w: %w", key, value, err, ErrDirective)
		}
	}
}
