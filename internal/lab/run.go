package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/internal/lab/agent"
	"github.com/coreplica/coreplica/internal/lab/guest"
)

// Result is what a guest came to.
type Result struct {
	// ExitCode of the program; 128 and more is a signal.
	ExitCode int `json:"exit_code"`
	// Release and Version of the kernel that ran.
	Release string `json:"release"`
	Version string `json:"version"`
	// Accel is "kvm" or "tcg".
	Accel string `json:"accel"`
	// Wall is the time from the packing of the root to the end of QEMU.
	Wall time.Duration `json:"wall_ns"`
}

// Failure is the error for a guest that has no exit code. It wraps the reason:
// [ErrPanic], [ErrHung] or [ErrNoExit].
type Failure struct {
	Reason error
	// Console is the end of what the guest's kernel said.
	Console string
}

func (f *Failure) Error() string {
	return fmt.Sprintf("%v; the last lines of its console:\n%s", f.Reason, f.Console)
}

func (f *Failure) Unwrap() error { return f.Reason }

// Run boots a guest, runs its program, copies what that prints to out, and waits
// for the end. A program that fails is no error: see [Result.ExitCode].
func Run(ctx context.Context, s Spec, out io.Writer) (_ Result, err error) {
	run, err := cleanup.Open(ctx, cleanup.Options{Logger: s.Logger})
	if err != nil {
		return Result{}, fmt.Errorf("run guest: %w", err)
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	g, err := Start(ctx, run, run.Dir(), s, out)
	if err != nil {
		return Result{}, err
	}
	return g.Wait()
}

// Guest is one that was started. Its methods may be called from several
// goroutines.
type Guest struct {
	spec    Spec
	begin   time.Time
	timeout time.Duration
	nonce   string
	ctx     context.Context // of the caller
	limited context.Context // with the guest's own limit
	cancel  context.CancelFunc
	machine *machine
	serial  *ports
	control *tail
	copied  func() error
	host    *agent.Host
	wait    func() (Result, error)
}

// Start boots a guest and returns when QEMU runs. The guest's files lie in dir,
// which must be in the run's folder; its output goes to out until it ends. The
// guest is killed when the context ends. The caller must call Wait.
func Start(ctx context.Context, run *cleanup.Run, dir string, s Spec, out io.Writer) (_ *Guest, err error) {
	g := &Guest{begin: time.Now(), ctx: ctx, control: newTail()}
	if s.Topology, err = s.Topology.complete(); err != nil {
		return nil, err
	}
	if s.Accel == "" {
		if s.Accel, err = Accelerator(ctx, s.Kernel); err != nil {
			return nil, err
		}
	}
	if g.nonce, err = nonce(); err != nil {
		return nil, err
	}
	g.spec, g.timeout = s, s.Timeout
	if g.timeout == 0 {
		g.timeout = DefaultTimeout
	}
	if err := g.spec.writeRoot(filepath.Join(dir, rootFile), g.job()); err != nil {
		return nil, errors.Join(err, os.RemoveAll(filepath.Join(dir, rootFile)))
	}
	if g.serial, err = listen(dir, s.Agent); err != nil {
		return nil, err
	}
	g.limited, g.cancel = context.WithTimeoutCause(ctx, g.timeout, ErrHung)
	if g.machine, err = start(g.limited, run, qemuArgs(dir, s.Accel, &g.spec)); err != nil {
		g.cancel()
		return nil, errors.Join(err, g.serial.close())
	}
	if err := g.connect(out); err != nil {
		g.cancel()
		<-g.machine.ended
		return nil, errors.Join(err, g.serial.close())
	}
	g.wait = sync.OnceValues(g.end)
	return g, nil
}

// NoTimeout is the [Spec.Timeout] of a guest that runs until it is told to end.
const NoTimeout = 10 * 365 * 24 * time.Hour

func (g *Guest) job() guest.Job {
	s := &g.spec
	job := guest.Job{
		Nonce: g.nonce, Hostname: orElse(s.Hostname, "guest"), Sysctl: s.Sysctl, Hosts: s.Hosts, Applets: s.Applets,
		Args: s.Args, Dir: s.Dir, Agent: s.Agent,
		Env: append([]string{guest.EnvName + "=" + s.Accel}, s.Env...),
	}
	for _, card := range s.Cards {
		if card.Address != "" {
			if job.Addresses == nil {
				job.Addresses = map[string]string{}
			}
			job.Addresses[card.MAC] = card.Address
		}
	}
	return job
}

// connect takes QEMU's connections to the ports and copies what comes.
func (g *Guest) connect(out io.Writer) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, port := range []struct {
		name string
		w    io.Writer
	}{{"console", g.machine.console}, {"control", g.control}, {"output", out}} {
		conn, err := g.machine.accept(g.serial.listeners[port.name])
		if err != nil {
			return err
		}
		wg.Go(func() {
			// Without the methods of a file, for which the library would
			// splice through a pipe that it keeps open.
			_, err := io.Copy(struct{ io.Writer }{port.w}, conn)
			err = errors.Join(err, conn.Close())
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	g.copied = func() error { wg.Wait(); return errors.Join(errs...) }
	if !g.spec.Agent {
		return nil
	}
	conn, err := g.machine.accept(g.serial.listeners["agent"])
	if err != nil {
		return err
	}
	if g.host, err = agent.NewHost(conn); err != nil {
		return errors.Join(err, conn.Close())
	}
	return nil
}

// Agent reaches into a guest whose [Spec.Agent] is set.
func (g *Guest) Agent() *agent.Host { return g.host }

// Ended is closed when the guest's QEMU has ended.
func (g *Guest) Ended() <-chan struct{} { return g.machine.ended }

// Kill ends the guest at once, as a loss of power does.
func (g *Guest) Kill() { g.cancel() }

// Console returns the last lines of what the guest's kernel said.
func (g *Guest) Console() string { return g.machine.console.lastLines(tailLines) }

// Wait waits for the end. It may be called again and says the same.
func (g *Guest) Wait() (Result, error) {
	<-g.machine.ended
	return g.wait()
}

func (g *Guest) end() (r Result, err error) {
	r = Result{Release: g.spec.Kernel.Release, Version: g.spec.Kernel.Version, Accel: g.spec.Accel, Wall: time.Since(g.begin)}
	if g.host != nil {
		_ = g.host.Close() // Its other end is gone.
	}
	copied := g.copied()
	cause := context.Cause(g.limited)
	g.cancel()
	if err := g.serial.close(); err != nil {
		return r, err
	}
	code, ok := guest.ParseExit(g.control.String(), g.nonce)
	switch {
	case ok && copied == nil:
		r.ExitCode = code
		return r, nil
	case copied != nil:
		return r, fmt.Errorf("read from the guest: %w", copied)
	case g.ctx.Err() != nil:
		return r, fmt.Errorf("run guest: %w", g.ctx.Err())
	}
	return r, g.failure(cause)
}

// failure says why there is no exit code.
func (g *Guest) failure(cause error) error {
	f := &Failure{Reason: ErrNoExit, Console: g.Console()}
	switch {
	case errors.Is(cause, ErrHung):
		f.Reason = fmt.Errorf("%w (%v)", ErrHung, g.timeout)
	case strings.Contains(f.Console, "Kernel panic - not syncing"):
		f.Reason = ErrPanic
	case g.machine.err != nil:
		f.Reason = fmt.Errorf("%w: QEMU: %w: %s", ErrNoExit, g.machine.err, g.machine.stderr.lastLine())
	}
	return f
}
