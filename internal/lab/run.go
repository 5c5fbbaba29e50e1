package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coreplica/coreplica/internal/cleanup"
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
	begin := time.Now()
	if s.Topology, err = s.Topology.complete(); err != nil {
		return Result{}, err
	}
	if s.Accel == "" {
		if s.Accel, err = Accelerator(ctx, s.Kernel); err != nil {
			return Result{}, err
		}
	}
	run, err := cleanup.Open(ctx, cleanup.Options{Logger: s.Logger})
	if err != nil {
		return Result{}, fmt.Errorf("run guest: %w", err)
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	r, err := s.run(ctx, run, out)
	r.Release, r.Version, r.Accel, r.Wall = s.Kernel.Release, s.Kernel.Version, s.Accel, time.Since(begin)
	return r, err
}

func (s *Spec) run(ctx context.Context, run *cleanup.Run, out io.Writer) (_ Result, err error) {
	number, err := nonce()
	if err != nil {
		return Result{}, err
	}
	job := guest.Job{
		Nonce: number, Hostname: orElse(s.Hostname, "guest"), Sysctl: s.Sysctl, Args: s.Args, Dir: s.Dir,
		Env: append([]string{guest.EnvName + "=" + s.Accel}, s.Env...),
	}
	if err := s.writeRoot(filepath.Join(run.Dir(), "root.cpio"), job); err != nil {
		return Result{}, err
	}
	serial, err := listen(run.Dir())
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, serial.close()) }()
	timeout := s.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	limited, cancel := context.WithTimeoutCause(ctx, timeout, ErrHung)
	defer cancel()
	m, err := start(limited, run, qemuArgs(run.Dir(), s.Accel, s))
	if err != nil {
		return Result{}, err
	}
	control := newTail()
	copied, err := m.copyPorts(serial, control, out)
	if err != nil {
		cancel()
		<-m.ended
		return Result{}, err
	}
	<-m.ended
	if err := copied(); err != nil {
		return Result{}, fmt.Errorf("read from the guest: %w", err)
	}
	code, ok := guest.ParseExit(control.String(), number)
	if ok {
		return Result{ExitCode: code}, nil
	}
	if ctx.Err() != nil {
		return Result{}, fmt.Errorf("run guest: %w", ctx.Err())
	}
	return Result{}, m.failure(context.Cause(limited), timeout)
}

// copyPorts takes QEMU's connections and copies what comes from each until it
// ends, which the returned function waits for.
func (m *machine) copyPorts(p *ports, control, out io.Writer) (wait func() error, err error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, port := range []struct {
		l *net.UnixListener
		w io.Writer
	}{{p.console, m.console}, {p.control, control}, {p.output, out}} {
		conn, err := m.accept(port.l)
		if err != nil {
			return nil, err
		}
		wg.Go(func() {
			_, err := io.Copy(port.w, conn)
			err = errors.Join(err, conn.Close())
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	return func() error { wg.Wait(); return errors.Join(errs...) }, nil
}

// failure says why there is no exit code.
func (m *machine) failure(cause error, timeout time.Duration) error {
	f := &Failure{Reason: ErrNoExit, Console: m.console.lastLines(tailLines)}
	switch {
	case errors.Is(cause, ErrHung):
		f.Reason = fmt.Errorf("%w (%v)", ErrHung, timeout)
	case strings.Contains(f.Console, "Kernel panic - not syncing"):
		f.Reason = ErrPanic
	case m.err != nil:
		f.Reason = fmt.Errorf("%w: QEMU: %w: %s", ErrNoExit, m.err, m.stderr.lastLine())
	}
	return f
}
