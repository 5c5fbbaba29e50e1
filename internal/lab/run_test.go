package lab

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/internal/lab/initramfs"
	"github.com/coreplica/coreplica/internal/lab/kernel"
	"github.com/coreplica/coreplica/internal/testkit"
	"golang.org/x/sys/unix"
)

// play runs one of the programs of this test binary in a guest.
func play(t *testing.T, name string, timeout time.Duration) (Result, string, error) {
	t.Helper()
	var out bytes.Buffer
	r, err := Run(t.Context(), Spec{
		Kernel: needGuest(t), Args: []string{"/init"}, Env: []string{playEnv + "=" + name}, Timeout: timeout,
	}, &out)
	t.Logf("%q on %s %s (%s): exit code %d after %.1f s, %d bytes printed", name, r.Release, r.Version, r.Accel, r.ExitCode, r.Wall.Seconds(), out.Len())
	return r, out.String(), err
}

func TestExitCode(t *testing.T) {
	r, out, err := play(t, "exit 7", time.Minute)
	if err != nil || r.ExitCode != 7 || out != "said before the end\n" {
		t.Errorf("exit code %d, %v, output %q", r.ExitCode, err, out)
	}
	if r, _, err = play(t, "signal", time.Minute); err != nil || r.ExitCode != 128+9 {
		t.Errorf("killed: exit code %d, %v", r.ExitCode, err)
	}
}

// A guest that dies, hangs, or claims an exit code that it does not have, is a
// failure with the end of its console.
func TestFailures(t *testing.T) {
	for _, tt := range []struct {
		play    string
		timeout time.Duration
		want    error
		console string
	}{
		{"panic", time.Minute, ErrPanic, "sysrq triggered crash"},
		{"hang", 8 * time.Second, ErrHung, ""},
		{"off", time.Minute, ErrNoExit, ""},
	} {
		_, _, err := play(t, tt.play, tt.timeout)
		var f *Failure
		if !errors.Is(err, tt.want) || !errors.As(err, &f) || !strings.Contains(f.Console, tt.console) {
			t.Errorf("%s: %v", tt.play, err)
		}
	}
	r, out, err := play(t, "forge", time.Minute)
	if err != nil || r.ExitCode != 9 || out != "coreplica-exit 0 0\n" {
		t.Errorf("a forged line: exit code %d, %v, output %q", r.ExitCode, err, out)
	}
}

// A guest whose root does not fit says how much it needs, and leaves nothing.
func TestFullDisk(t *testing.T) {
	testkit.Need(t, testkit.Root)
	k := needGuest(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=755"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	run, err := cleanup.Open(t.Context(), cleanup.Options{Root: filepath.Join(dir, "runs")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Start(t.Context(), run, run.Dir(), Spec{Kernel: k, Args: []string{"/init"}}, io.Discard)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "100 MB") {
		t.Errorf("got %v", err)
	}
	if rest, _ := filepath.Glob(filepath.Join(run.Dir(), "*.cpio")); len(rest) > 0 {
		t.Errorf("left behind: %q", rest)
	}
	if err := run.Close(); err != nil {
		t.Error(err)
	}
}

func TestBadSpec(t *testing.T) {
	k := needGuest(t)
	base := Spec{Kernel: k, Args: []string{"/init"}, Timeout: time.Minute}
	for name, tt := range map[string]struct {
		change func(*Spec)
		want   error
	}{
		"a module that is not there": {func(s *Spec) { s.Modules = []string{"nonesuch"} }, kernel.ErrNoModule},
		"a tool that is not there":   {func(s *Spec) { s.Tools = []string{"nonesuch"} }, initramfs.ErrTool},
		"too many nodes":             {func(s *Spec) { s.Topology.Nodes = make([]Node, 17) }, ErrTopology},
	} {
		s := base
		tt.change(&s)
		if _, err := Run(t.Context(), s, &bytes.Buffer{}); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := Run(t.Context(), base, &bytes.Buffer{}); !errors.Is(err, ErrNoQEMU) {
		t.Errorf("without QEMU: %v", err)
	}
}
