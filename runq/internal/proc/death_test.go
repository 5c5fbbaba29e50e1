package proc

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A worker lives through an interrupt of its opener's group, and ends when its
// opener is killed, also where it stands still then. Its new parent is this
// process, of the same session, so the kernel's rule for orphaned groups does not
// help it: the control, whose parent death signal is gone, stands still for good.
func TestOpenerDies(t *testing.T) {
	adoptOrphans(t)
	t.Run("running", func(t *testing.T) { openerDies(t, "", false, true) })
	t.Run("stopped", func(t *testing.T) { openerDies(t, "", true, true) })
	t.Run("control", func(t *testing.T) { openerDies(t, roleNoDeath, true, false) })
}

func adoptOrphans(t *testing.T) {
	t.Helper()
	adopt := func(on uintptr) {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, on, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	adopt(1)
	t.Cleanup(func() { adopt(0) })
}

// openerDies kills the opener of a worker and checks whether the worker ends, and
// in its own way.
func openerDies(t *testing.T, role string, stopped, ends bool) {
	ours, theirs, err := pair(unix.SOCK_SEQPACKET, "test")
	if err != nil {
		t.Fatal(err)
	}
	boot, err := newBoot(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer boot.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), openerEnv+"=1", roleEnv+"="+role)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	m, err := boot.Receive()
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(m.Files)
	worker := m.Files[0]
	defer Kill(worker) // Should the test fail.
	died, stop, err := Watch(worker)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if err := unix.Kill(-cmd.Process.Pid, unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if said, err := boot.Receive(); err != nil || said.Kind != "interrupted" {
		t.Fatalf("%+v, %v", said, err)
	}
	if Exited(worker) {
		t.Fatal("the worker died before its opener")
	}
	if stopped {
		if err := Signal(worker, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		awaitStopped(t, worker)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if !ends {
		// All that its opener's death sends was sent before Wait returned, and
		// a signal that continues does so at once, so nothing comes later.
		if states := threadStates(t, worker); strings.Trim(states, "T") != "" {
			t.Fatalf("its threads are in states %s, so the test above proves nothing", states)
		}
		Kill(worker)
	}
	await(t, died, "the worker's death")
	var info unix.Siginfo
	err = control(worker, func(fd int) error { return unix.Waitid(unix.P_PIDFD, fd, &info, unix.WEXITED, nil) })
	const exitedByItself, killed = 1, 2 // CLD_EXITED, CLD_KILLED
	if want := int32(map[bool]int{true: exitedByItself, false: killed}[ends]); err != nil || info.Code != want {
		t.Fatalf("%v, its end is of kind %d, want %d", err, info.Code, want)
	}
}

// threadStates returns one letter per thread, as ps shows it.
func threadStates(t *testing.T, pidfd *os.File) string {
	t.Helper()
	var pid int
	if err := control(pidfd, func(fd int) (err error) { pid, err = pidOf(fd); return err }); err != nil {
		t.Fatal(err)
	}
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		t.Fatalf("%v, %d threads", err, len(stats))
	}
	states := ""
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // It ended while we looked.
		}
		if _, rest, ok := strings.Cut(string(stat), ") "); ok {
			states += rest[:1]
		}
	}
	return states
}

// awaitStopped waits until all threads stand still: a signal is no rendezvous,
// and the kernel gives no event to who is not the parent.
func awaitStopped(t *testing.T, pidfd *os.File) {
	t.Helper()
	for start := time.Now(); time.Since(start) < patience; time.Sleep(time.Millisecond) {
		if states := threadStates(t, pidfd); states != "" && strings.Trim(states, "T") == "" {
			return
		}
	}
	t.Fatal("the worker does not stop")
}

// startIdle starts workers that are up, wait for their link and do nothing else.
func startIdle(tb testing.TB, g *Group, index int) (*Worker, *Link, <-chan string) {
	tb.Helper()
	tb.Setenv(roleEnv, roleCount)
	w, link, err := g.Start(index)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { link.Close() })
	up, answers := make(chan struct{}), make(chan string, 1)
	go link.Receive(func(f Frame) error {
		switch f.Kind {
		case kindUp:
			close(up)
		case kindAnswer:
			for item := range f.Items() {
				answers <- string(item)
			}
		}
		return nil
	})
	await(tb, up, "a worker's start")
	return w, link, answers
}

func newGroup(tb testing.TB) *Group {
	g := NewGroup(SpawnOptions{Log: slog.New(slog.DiscardHandler)})
	tb.Cleanup(func() {
		if err := g.Close(); err != nil {
			tb.Error(err)
		}
	})
	return g
}

// From SIGKILL to the closed channel, of workers that are up and wait.
func TestDeathIsNoticedSoon(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 2
	}
	const perRound = 10
	var all []time.Duration
	for range rounds {
		g := newGroup(t)
		var workers []*Worker
		for i := range perRound {
			w, _, _ := startIdle(t, g, i)
			workers = append(workers, w)
		}
		for _, w := range workers {
			died, stop, err := Watch(w.Pidfd())
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-died:
				t.Fatal("a living worker is told dead")
			default:
			}
			start := time.Now()
			if err := Kill(w.Pidfd()); err != nil {
				t.Fatal(err)
			}
			await(t, died, "the notice")
			all = append(all, time.Since(start))
			stop()
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(all)
	n := len(all)
	t.Logf("SIGKILL to notice, %d samples: p50 %v, p99 %v, max %v", n, all[n/2], all[n*99/100], all[n-1])
	if all[n/2] > time.Second {
		t.Fatalf("half of all deaths were noticed after %v", all[n/2])
	}
}

// A kill is ours where we did it, or where somebody said that he does, before or
// after the death. A crash and another signal are never ours.
func TestWhoseKill(t *testing.T) {
	by := func(sig unix.Signal) func(*Worker) error {
		return func(w *Worker) error { return Signal(w.Pidfd(), sig) }
	}
	for name, c := range map[string]struct {
		announced bool
		end       func(*Worker) error
		want      Exit
	}{
		"own kill":              {false, (*Worker).Kill, Exit{-1, syscall.SIGKILL, true}},
		"takeover":              {true, by(unix.SIGKILL), Exit{-1, syscall.SIGKILL, true}},
		"stranger's kill":       {false, by(unix.SIGKILL), Exit{-1, syscall.SIGKILL, false}},
		"crash during takeover": {true, by(unix.SIGBUS), Exit{2, 0, false}},
		"end during takeover":   {true, by(unix.SIGTERM), Exit{-1, syscall.SIGTERM, false}}, // Unlike SIGHUP, nohup lets it be.
	} {
		t.Run(name, func(t *testing.T) {
			w, _, _ := startIdle(t, newGroup(t), 1)
			if c.announced {
				w.ExpectKill()
			}
			if err := c.end(w); err != nil {
				t.Fatal(err)
			}
			await(t, w.Done(), "the end")
			if exit := w.Exit(); exit != c.want {
				t.Fatalf("exit %+v, want %+v", exit, c.want)
			}
			if w.ExpectKill(); w.Exit().Ours != (c.want.Signal == syscall.SIGKILL) {
				t.Fatalf("announced late: %+v", w.Exit())
			}
		})
	}
}
