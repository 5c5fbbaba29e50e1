package lab

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/lab/initramfs"
	"github.com/coreplica/coreplica/internal/lab/kernel"
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
