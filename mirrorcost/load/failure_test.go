package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/testkit"
)

// deadPromptly fails a test whose process is still there.
func deadPromptly(t *testing.T, p *Process) {
	t.Helper()
	select {
	case <-p.gone:
	case <-time.After(3 * time.Second):
		t.Errorf("process %d lives", p.Pid())
	}
}

// asWriteError fails a test whose error is no WriteError.
func asWriteError(t *testing.T, err error) *WriteError {
	t.Helper()
	var w *WriteError
	if !errors.As(err, &w) {
		t.Fatalf("%v is no WriteError", err)
	}
	return w
}

// The second of two files is full: nothing is acknowledged although the first
// one has it.
func TestAFullDeviceEndsTheBlock(t *testing.T) {
	for _, batch := range []int{0, 1, 5} {
		t.Run(fmt.Sprintf("batch %d", batch), func(t *testing.T) {
			s := spec(t, 1, 2)
			op := opPwrite
			if batch > 0 {
				testkit.Need(t, testkit.IOUring)
				s.Uring, s.Batch, op = true, batch, opUring
			}
			s.Targets[0][1] = "/dev/full"
			p := start(t, map[string]Spec{"x": s, "good": spec(t, 2, 1)})
			r, err := p.Run(t.Context(), Block{Leg: "x", Writes: 10})
			w := asWriteError(t, err)
			if want := (WriteError{op, "/dev/full", 0, 4096, 0, unix.ENOSPC}); *w != want {
				t.Errorf("%+v, want %+v", *w, want)
			}
			if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "larger") || r.Acknowledged != 0 {
				t.Errorf("%d acknowledged, %v", r.Acknowledged, err)
			}
			if r := run(t, p, Block{Leg: "good", Writes: 10}); r.Acknowledged != 10 {
				t.Errorf("after it the other leg acknowledged %d", r.Acknowledged)
			}
		})
	}
}

// The kernel cuts a write short at the limit of file sizes, and refuses the
// next one. What was whole before is acknowledged.
func TestAShortWriteEndsTheBlock(t *testing.T) {
	s := spec(t, 1, 1)
	p := start(t, map[string]Spec{"x": s})
	limit := unix.Rlimit{Cur: 3*4096 + 100, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(p.Pid(), unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		acknowledged uint64
		WriteError
	}{
		{3, WriteError{opPwrite, s.Targets[0][0], 3 * 4096, 4096, 100, io.ErrShortWrite}},
		{0, WriteError{opPwrite, s.Targets[0][0], 4 * 4096, 4096, 0, unix.EFBIG}},
	} {
		r, err := p.Run(t.Context(), Block{Leg: "x", Writes: 10})
		if w := asWriteError(t, err); *w != want.WriteError || r.Acknowledged != want.acknowledged || !errors.Is(err, want.Err) {
			t.Errorf("%d acknowledged, %+v; want %+v", r.Acknowledged, *w, want)
		}
		if h, err := DecodeLatencies(r.Latencies); err != nil || uint64(h.TotalCount()) != want.acknowledged {
			t.Errorf("histogram: %v", err)
		}
	}
}

// One thread's failure ends the block for all.
func TestAFailureStopsTheOthers(t *testing.T) {
	s := spec(t, 2, 1)
	s.Targets[1][0] = "/dev/full"
	p := start(t, map[string]Spec{"x": s})
	for _, rate := range []float64{0, 1} {
		began := time.Now()
		r, err := p.Run(t.Context(), Block{Leg: "x", For: time.Minute, RatePerSecond: rate})
		if w := asWriteError(t, err); w.Path != "/dev/full" || time.Since(began) > 10*time.Second {
			t.Errorf("rate %g: after %v: %v, %d acknowledged", rate, time.Since(began), err, r.Acknowledged)
		}
	}
}

// A device that takes a write and cannot make it durable: /dev/null has no
// fdatasync.
func TestAFailedSyncTakesTheWriteBack(t *testing.T) {
	s := spec(t, 1, 1)
	s.Targets[0][0], s.FsyncEvery = "/dev/null", 3
	p := start(t, map[string]Spec{"x": s})
	r, err := p.Run(t.Context(), Block{Leg: "x", Writes: 10})
	if w := asWriteError(t, err); w.Op != opSync || w.Wrote != 4096 || w.Offset != 2*4096 || !errors.Is(err, unix.EINVAL) || r.Acknowledged != 2 {
		t.Errorf("%d acknowledged, %v", r.Acknowledged, err)
	}
}

func TestTheEndOfTheProcessEndsTheBlock(t *testing.T) {
	for name, tt := range map[string]struct {
		signal unix.Signal
		words  []string
	}{
		"kill":  {unix.SIGKILL, []string{"signal: killed"}},
		"crash": {unix.SIGABRT, []string{"exit status 2", "SIGABRT: abort", "goroutine"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, map[string]Spec{"x": spec(t, 1, 1)})
			timer := time.AfterFunc(50*time.Millisecond, func() { _ = unix.Kill(p.Pid(), tt.signal) })
			defer timer.Stop()
			began := time.Now()
			_, err := p.Run(t.Context(), Block{Leg: "x", For: time.Minute})
			if !errors.Is(err, ErrDied) || time.Since(began) > 3*time.Second {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
			for _, word := range tt.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q is not in: %v", word, err)
				}
			}
			if len(err.Error()) > headBytes+tailBytes+200 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if err := p.Sync(t.Context(), "x"); !errors.Is(err, ErrDied) {
				t.Errorf("sync after it: %v", err)
			}
		})
	}
}

func TestTheContextKills(t *testing.T) {
	p := start(t, map[string]Spec{"x": spec(t, 1, 1)})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.Run(ctx, Block{Leg: "x", For: time.Minute}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("run = %v", err)
	}
	deadPromptly(t, p)

	// A context that has ended before anything was asked kills nobody.
	p = start(t, map[string]Spec{"x": spec(t, 1, 1)})
	if _, err := p.Run(ctx, Block{Leg: "x", Writes: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("run = %v", err)
	}
	run(t, p, Block{Leg: "x", Writes: 1})
	if _, err := Start(ctx, map[string]Spec{"x": spec(t, 1, 1)}, StartOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("start = %v", err)
	}
}

func TestCloseEndsTheBlock(t *testing.T) {
	p := start(t, map[string]Spec{"x": spec(t, 1, 1)})
	ended := make(chan error)
	go func() {
		_, err := p.Run(context.Background(), Block{Leg: "x", For: time.Minute})
		ended <- err
	}()
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	if err := p.Close(); err != nil || time.Since(began) > politeTime/2 {
		t.Errorf("close after %v: %v", time.Since(began), err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("run = %v", err)
	}
	if _, err := p.Run(t.Context(), Block{Leg: "x", Writes: 1}); !errors.Is(err, ErrClosed) {
		t.Errorf("run after it = %v", err)
	}
	deadPromptly(t, p)
}

// A child that does not listen is killed.
func TestCloseKillsWhoDoesNotListen(t *testing.T) {
	p := start(t, map[string]Spec{"x": spec(t, 1, 1)})
	if err := unix.Kill(p.Pid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	deadPromptly(t, p)
}

func TestNothingStartsWithoutTheHook(t *testing.T) {
	hooked.Store(false)
	defer hooked.Store(true)
	_, err := Start(t.Context(), map[string]Spec{"x": spec(t, 1, 1)}, StartOptions{})
	if !errors.Is(err, ErrNoHook) || !strings.Contains(err.Error(), "load.Hook()") {
		t.Errorf("start = %v", err)
	}
}

// Somebody who sets the variable by hand gets a sentence, not a riddle.
func TestTheMarkAloneIsRefused(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	text, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exitUsage || !strings.Contains(string(text), "unset it") {
		t.Errorf("%v: %s", err, text)
	}
}

func TestWrongSpecsAreRefused(t *testing.T) {
	good := spec(t, 1, 1)
	for name, tt := range map[string]struct {
		spoil func(*Spec)
		want  string
	}{
		"no thread":      {func(s *Spec) { s.Targets = nil }, "Targets"},
		"no file":        {func(s *Spec) { s.Targets = [][]string{{}} }, "thread 0"},
		"gone":           {func(s *Spec) { s.Targets = [][]string{{filepath.Dir(s.Targets[0][0]) + "/gone"}} }, "no such file"},
		"no size":        {func(s *Spec) { s.SizeBytes = 0 }, "size"},
		"too small":      {func(s *Spec) { s.FileBytes = 4095 }, "does not fit"},
		"mode":           {func(s *Spec) { s.Mode = "sync" }, `"dsync"`},
		"not aligned":    {func(s *Spec) { s.Mode, s.SizeBytes = ModeDirect, 1000 }, "multiple of 512"},
		"pattern":        {func(s *Spec) { s.Pattern = "" }, `"rand"`},
		"fsync":          {func(s *Spec) { s.FsyncEvery = -1 }, "never"},
		"batch":          {func(s *Spec) { s.Batch = 1 << 20 }, "batch"},
		"too much":       {func(s *Spec) { s.Uring, s.Batch, s.SizeBytes, s.FileBytes = true, 4096, 1<<20, 1<<30 }, "batch"},
		"too many files": {func(s *Spec) { s.Uring, s.Batch, s.Targets = true, 20000, [][]string{{"a", "b"}} }, "product"},
		"CPU":            {func(s *Spec) { s.CPUs = []int{-1} }, "CPU -1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := good
			tt.spoil(&s)
			_, err := Start(t.Context(), map[string]Spec{"x": s}, StartOptions{})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), `"x"`) {
				t.Errorf("start = %v, want a word about %q", err, tt.want)
			}
		})
	}
	if _, err := Start(t.Context(), nil, StartOptions{}); err == nil || !strings.Contains(err.Error(), "no legs") {
		t.Errorf("start without legs = %v", err)
	}
}

func TestWrongBlocksAreRefused(t *testing.T) {
	p := start(t, map[string]Spec{"x": spec(t, 1, 1)})
	for want, b := range map[string]Block{
		"no end":      {Leg: "x"},
		"backwards":   {Leg: "x", For: -1},
		"0 for no":    {Leg: "x", Writes: 1, RatePerSecond: -1},
		"no limit":    {Leg: "x", Writes: 1, RatePerSecond: math.NaN()},
		"no such leg": {Leg: "y", Writes: 1},
	} {
		if _, err := p.Run(t.Context(), b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v = %v, want a word about %q", b, err, want)
		}
	}
	if err := p.Sync(t.Context(), "y"); err == nil || !strings.Contains(err.Error(), "no such leg") {
		t.Errorf("sync = %v", err)
	}
	run(t, p, Block{Leg: "x", Writes: 1})
}

// What errors.Is and errors.As find before the process border, they find behind
// it.
func TestErrorsCrossTheBorder(t *testing.T) {
	write := &WriteError{opUring, "/a", 7, 8, 3, io.ErrShortWrite}
	got := asWriteError(t, pack(fmt.Errorf("x: %w", write)).unpack())
	if diff := cmp.Diff(*write, *got, cmp.Comparer(func(a, b error) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	other := fmt.Errorf("set up: %w: %w", ErrUringDisabled, unix.EPERM)
	if err := pack(other).unpack(); !errors.Is(err, ErrUringDisabled) || !errors.Is(err, unix.EPERM) || err.Error() != other.Error() {
		t.Errorf("%v became %v", other, err)
	}
	if err := pack(nil).unpack(); err != nil {
		t.Errorf("nothing became %v", err)
	}
}
