package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/coreplica/coreplica/internal/cleanup"
)

// Errors that a caller may act on.
var (
	ErrNoQEMU = errors.New("qemu-system-x86_64 is not installed; install qemu-system-x86")
	// ErrPanic, ErrHung and ErrNoExit are why a guest has no exit code.
	ErrPanic  = errors.New("the guest's kernel panicked")
	ErrHung   = errors.New("the guest did not end in time")
	ErrNoExit = errors.New("the guest ended without telling its exit code")
)

var errNoSpace error = syscall.ENOSPC

// qemuProgram is the emulator. The kernels are for this architecture.
const qemuProgram = "qemu-system-x86_64"

// machine is one running QEMU.
type machine struct {
	cmd     *exec.Cmd
	console *tail
	stderr  *tail
	ended   chan struct{}
	err     error
}

// ports are the guest's serial ports, in their order.
type ports struct{ console, control, output *net.UnixListener }

// listen makes the sockets that QEMU connects the serial ports to.
func listen(dir string) (*ports, error) {
	p := &ports{}
	for name, to := range map[string]**net.UnixListener{"console": &p.console, "control": &p.control, "output": &p.output} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unix"})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen for the guest: %w", err), p.close())
		}
		*to = l
	}
	return p, nil
}

func (p *ports) close() error {
	var errs []error
	for _, l := range []*net.UnixListener{p.console, p.control, p.output} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// qemuArgs are the options that all guests share.
func qemuArgs(dir, accel string, s *Spec) []string {
	cpu := "max"
	// One thread for all CPUs: with a thread for each, a kernel that patches
	// code while another CPU runs it, as tracepoints do when they are
	// attached, can fall into an endless loop of interrupts.
	accelerate := "tcg,thread=single"
	if accel == "kvm" {
		accelerate, cpu = "kvm", "host"
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", accelerate, "-cpu", cpu,
		"-kernel", s.Kernel.Image(), "-initrd", filepath.Join(dir, "root.cpio"),
		// A panic restarts at once, and no-reboot makes that the end. What
		// the kernel says up to warnings is kept for the case of failure.
		"-append", "console=ttyS0 panic=-1 loglevel=5 random.trust_cpu=on",
	}
	for _, port := range []string{"console", "control", "output"} {
		args = append(args, "-chardev", fmt.Sprintf("socket,id=%s,path=%s", port, escape(filepath.Join(dir, port))), "-serial", "chardev:"+port)
	}
	for _, disk := range s.Disks {
		args = append(args, "-drive", disk+",if=virtio")
	}
	return append(args, s.Topology.args()...)
}

// escape doubles commas, which separate QEMU's options.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// start starts QEMU. It dies with this process: the kernel sends the signal when
// the thread that started it ends, so that thread is kept for it.
func start(ctx context.Context, run *cleanup.Run, args []string) (*machine, error) {
	if _, err := exec.LookPath(qemuProgram); err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNoQEMU, err)
	}
	m := &machine{console: newTail(), stderr: newTail(), ended: make(chan struct{})}
	m.cmd = exec.CommandContext(ctx, qemuProgram, args...)
	m.cmd.Env = append(os.Environ(), run.Env())
	m.cmd.Stderr = m.stderr
	m.cmd.WaitDelay = 5 * time.Second
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(m.ended)
		err := m.cmd.Start()
		started <- err
		if err == nil {
			m.err = m.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	if process, err := cleanup.Process(m.cmd.Process.Pid); err == nil {
		// If it cannot be recorded, its environment tells whose it is.
		if err := run.Add(process); err == nil {
			go func() { <-m.ended; _ = run.Done(process) }()
		}
	}
	return m, nil
}

// accept waits for QEMU to connect a port, or to end without.
func (m *machine) accept(l *net.UnixListener) (net.Conn, error) {
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-m.ended:
			_ = l.SetDeadline(time.Unix(1, 0)) // Wakes Accept, which then fails.
		case <-done:
		}
	}()
	conn, err := l.Accept()
	if err != nil {
		<-m.ended
		return nil, fmt.Errorf("QEMU did not start: %s", orElse(m.stderr.lastLine(), fmt.Sprint(m.err)))
	}
	return conn, nil
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// tail keeps the end of a text. It may be used by several goroutines.
type tail struct {
	mu   chan struct{}
	text []byte
}

const (
	tailBytes = 64 << 10
	// tailLines of the console are shown when a guest fails.
	tailLines = 50
)

func newTail() *tail {
	t := &tail{mu: make(chan struct{}, 1)}
	t.mu <- struct{}{}
	return t
}

// Write keeps the last of what comes.
func (t *tail) Write(p []byte) (int, error) {
	<-t.mu
	defer func() { t.mu <- struct{}{} }()
	t.text = append(t.text, p...)
	if extra := len(t.text) - tailBytes; extra > tailBytes {
		t.text = append([]byte(nil), t.text[extra:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	<-t.mu
	defer func() { t.mu <- struct{}{} }()
	return string(t.text)
}

func (t *tail) lastLine() string {
	lines := strings.Split(strings.TrimSpace(t.String()), "\n")
	return lines[len(lines)-1]
}

// lastLines returns the end of the text, without what would move a terminal's
// cursor.
func (t *tail) lastLines(n int) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, t.String())
	lines := strings.Split(strings.TrimSpace(clean), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

var _ io.Writer = (*tail)(nil)
