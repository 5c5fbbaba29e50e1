package gotest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreplica/coreplica/internal/lab"
	"github.com/coreplica/coreplica/internal/lab/kernel"
)

// Options of [Test] and [Bench].
type Options struct {
	// Override replaces what a directive says, field by field where it is
	// set; for a package without directives it is the directive.
	Override Directive
	// JSON prints the events of `go test -json` instead of text.
	JSON bool
	// Parallel is how many guests of [Test] run at once; a translated guest
	// takes one CPU.
	Parallel int
	// Verbose prints the output of tests that pass, too.
	Verbose bool
	// Bench is a regular expression that chooses benchmarks, for [Bench];
	// BenchArgs are more flags of the test binary, such as -test.benchtime.
	Bench     string
	BenchArgs []string
	// Kernels is where kernels are kept; see kernel.Options.
	Kernels kernel.Options
	Logger  *slog.Logger
}

// DefaultKernel is used where neither directive nor option names one.
const DefaultKernel = "6.12"

// ErrFailed is wrapped when tests have failed, or a guest has.
var ErrFailed = errors.New("tests failed in a guest")

// Test runs tests of packages in guests and writes what they print to out, run
// by run. It goes on after a failure.
func Test(ctx context.Context, packages []Package, o Options, out io.Writer) error {
	return each(ctx, packages, &o, out, (*run).test)
}

// Bench runs benchmarks of packages in guests, one after the other. The text is
// what benchstat reads, with a line that says what the figures of a translated
// guest are worth.
func Bench(ctx context.Context, packages []Package, o Options, out io.Writer) error {
	o.Parallel = 1
	return each(ctx, packages, &o, out, (*run).bench)
}

// run is one package on one kernel.
type run struct {
	o      *Options
	pkg    Package
	d      Directive
	kernel *kernel.Kernel
	name   string // of the kernel, as it was asked for
	binary string
}

func each(ctx context.Context, packages []Package, o *Options, out io.Writer, do func(*run, context.Context, io.Writer) error) (err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := os.MkdirTemp("", "coreplica-gotest-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	runs, err := prepare(ctx, packages, o, dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		failed []string
		errs   []error
		places = make(chan struct{}, max(1, o.Parallel))
	)
	for _, r := range runs {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			if ctx.Err() != nil {
				return // Another one met what no run can.
			}
			var text bytes.Buffer
			err := do(r, ctx, &text)
			mu.Lock()
			defer mu.Unlock()
			_, printErr := out.Write(text.Bytes())
			switch {
			case errors.Is(err, ErrFailed):
				failed = append(failed, r.label())
			case err != nil:
				errs = append(errs, fmt.Errorf("%s in a guest with Linux %s: %w", r.pkg.ImportPath, r.name, err))
				cancel()
			}
			if printErr != nil {
				errs = append(errs, printErr)
				cancel()
			}
		})
	}
	wg.Wait()
	if len(failed) > 0 {
		slices.Sort(failed)
		errs = append(errs, fmt.Errorf("%w: %s", ErrFailed, strings.Join(failed, ", ")))
	}
	return errors.Join(errs...)
}

// prepare compiles the tests and fetches the kernels, before any guest runs.
func prepare(ctx context.Context, packages []Package, o *Options, dir string) ([]*run, error) {
	var runs []*run
	for i, pkg := range packages {
		binary := filepath.Join(dir, fmt.Sprintf("%d.test", i))
		if err := pkg.build(ctx, binary); err != nil {
			return nil, err
		}
		list := pkg.Directives
		if len(list) == 0 {
			list = []Directive{{}}
		}
		for _, d := range list {
			d = d.with(o.Override)
			for _, name := range d.Kernels {
				k, err := kernel.Fetch(ctx, name, o.Kernels)
				if err != nil {
					return nil, err
				}
				runs = append(runs, &run{o: o, pkg: pkg, d: d, kernel: k, name: name, binary: binary})
			}
		}
	}
	return runs, nil
}

// with returns the directive with what is set in another.
func (d Directive) with(o Directive) Directive {
	pick := func(to *[]string, from []string) {
		if len(from) > 0 {
			*to = from
		}
	}
	pick(&d.Kernels, o.Kernels)
	pick(&d.Modules, o.Modules)
	pick(&d.Tools, o.Tools)
	pick(&d.Expect, o.Expect)
	if o.Topology != "" {
		d.Topology = o.Topology
	}
	if o.Run != "" {
		d.Run = o.Run
	}
	if o.Timeout != 0 {
		d.Timeout = o.Timeout
	}
	d.Short = d.Short || o.Short
	if len(d.Kernels) == 0 {
		d.Kernels = []string{DefaultKernel}
	}
	return d
}

// The places of a test in its guest.
const (
	guestBinary = "/coreplica/run.test"
	guestDir    = "/coreplica/package"
)

// boot runs the test binary with its flags in a guest.
func (r *run) boot(ctx context.Context, flags []string, out io.Writer) (lab.Result, error) {
	topology, err := lab.ParseTopology(r.d.Topology)
	if err != nil {
		return lab.Result{}, err
	}
	// The tests start in a copy of their package's folder, as they do on this
	// machine, and find their testdata there.
	files := map[string]string{guestBinary: r.binary, guestDir: r.pkg.Dir}
	timeout := r.d.Timeout
	if timeout == 0 {
		timeout = lab.DefaultTimeout
	}
	args := append([]string{guestBinary, "-test.timeout=" + timeout.String(), "-test.run=" + r.d.Run}, flags...)
	if r.d.Short {
		args = append(args, "-test.short")
	}
	return lab.Run(ctx, lab.Spec{
		Kernel: r.kernel, Topology: topology, Modules: r.d.Modules, Tools: r.d.Tools, Files: files,
		Args: args, Dir: guestDir, Env: []string{"COREPLICA_EXPECT=" + strings.Join(r.d.Expect, ",")},
		Timeout: timeout + guestTime, Logger: r.o.Logger,
	}, out)
}

// guestTime is what a guest may need beside its tests.
const guestTime = 30 * time.Second

// label tells runs of one package apart.
func (r *run) label() string { return r.pkg.ImportPath + "@" + r.name }

// event is what `go test -json` prints; see `go doc test2json`.
type event struct {
	Time    time.Time
	Action  string
	Package string
	Test    string   `json:",omitempty"`
	Elapsed *float64 `json:",omitempty"`
	Output  string   `json:",omitempty"`
}

func (r *run) test(ctx context.Context, out io.Writer) error {
	// The go command's own reader of a test's output writes the events.
	convert := exec.CommandContext(ctx, "go", "tool", "test2json", "-t", "-p", r.label())
	in, err := convert.StdinPipe()
	if err != nil {
		return err
	}
	events, err := convert.StdoutPipe()
	if err != nil {
		return err
	}
	convert.Stderr = os.Stderr
	if err := convert.Start(); err != nil {
		return fmt.Errorf("go tool test2json: %w", err)
	}
	printed := make(chan error, 1)
	go func() { printed <- r.print(events, out) }()
	start := time.Now()
	result, runErr := r.boot(ctx, []string{"-test.v=test2json"}, in)
	err = errors.Join(in.Close(), <-printed, convert.Wait())
	if err != nil {
		err = fmt.Errorf("go tool test2json: %w", err)
	}
	var failure *lab.Failure
	if runErr != nil && !errors.As(runErr, &failure) {
		return errors.Join(runErr, err)
	}
	return errors.Join(err, r.summary(out, result, runErr, time.Since(start)))
}

// print passes events on, or their text. A failed test's output comes whole.
func (r *run) print(events io.Reader, out io.Writer) error {
	dec := json.NewDecoder(events)
	held := map[string]*strings.Builder{}
	for {
		var raw json.RawMessage
		if err := dec.Decode(&raw); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var e event
		if err := json.Unmarshal(raw, &e); err != nil {
			return err
		}
		if e.Test == "" && (e.Action == "pass" || e.Action == "fail") {
			continue // The exit code decides; see summary.
		}
		if r.o.JSON {
			if _, err := fmt.Fprintf(out, "%s\n", raw); err != nil {
				return err
			}
			continue
		}
		if err := r.hold(held, e, out); err != nil {
			return err
		}
	}
}

// hold collects the text of each test until its end is known.
func (r *run) hold(held map[string]*strings.Builder, e event, out io.Writer) error {
	if e.Output == "PASS\n" || e.Output == "FAIL\n" {
		return nil
	}
	text := held[e.Test]
	if text == nil {
		text = &strings.Builder{}
		held[e.Test] = text
	}
	text.WriteString(e.Output)
	show := r.o.Verbose || e.Action == "fail" || e.Test == "" || e.Action == "skip" && strings.Contains(text.String(), "SKIP coreplica")
	switch e.Action {
	case "output":
		if e.Test != "" && !r.o.Verbose {
			return nil
		}
	case "pass", "fail", "skip":
		defer delete(held, e.Test)
	default:
		return nil
	}
	if !show {
		return nil
	}
	_, err := io.WriteString(out, text.String())
	text.Reset()
	return err
}

// summary is the last line of a package, and the verdict.
func (r *run) summary(out io.Writer, result lab.Result, failure error, wall time.Duration) error {
	passed := failure == nil && result.ExitCode == 0
	word, action := "ok  ", "pass"
	if !passed {
		word, action = "FAIL", "fail"
	}
	line := fmt.Sprintf("%s\t%s\t%.1fs (Linux %s, Debian %s, %s, %s)\n", word, r.label(), wall.Seconds(), result.Release, orUnknown(result.Version), orDefault(r.d.Topology), result.Accel)
	if failure != nil {
		line = failure.Error() + "\n" + line
	} else if result.ExitCode > 1 {
		line = fmt.Sprintf("exit code %d\n%s", result.ExitCode, line)
	}
	var err error
	if r.o.JSON {
		elapsed := wall.Seconds()
		for _, e := range []event{
			{Time: time.Now(), Action: "output", Package: r.label(), Output: line},
			{Time: time.Now(), Action: action, Package: r.label(), Elapsed: &elapsed},
		} {
			err = errors.Join(err, json.NewEncoder(out).Encode(e))
		}
	} else {
		_, err = io.WriteString(out, line)
	}
	if !passed {
		err = errors.Join(err, ErrFailed)
	}
	return err
}

func orUnknown(version string) string {
	if version == "" {
		return "unknown"
	}
	return version
}

func orDefault(topology string) string {
	if topology == "" {
		return "1x2"
	}
	return topology
}

func (r *run) bench(ctx context.Context, out io.Writer) error {
	accel, err := lab.Accelerator(ctx, r.kernel)
	if err != nil {
		return err
	}
	note := "accel: " + accel + "\n"
	if accel == "tcg" {
		note += "note: TCG: counts and placement only, not speed\n"
	}
	note += fmt.Sprintf("kernel: %s\ntopology: %s\n", r.kernel.Release, orDefault(r.d.Topology))
	if _, err := io.WriteString(out, note); err != nil {
		return err
	}
	r.d.Run = "^$"
	result, err := r.boot(ctx, append([]string{"-test.bench=" + r.o.Bench}, r.o.BenchArgs...), out)
	var failure *lab.Failure
	switch {
	case errors.As(err, &failure):
		return errors.Join(ErrFailed, err)
	case err != nil:
		return err
	case result.ExitCode != 0:
		return ErrFailed
	}
	return nil
}
