package proc

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is for what must happen, so it may be long: a busy machine is no failure.
const patience = time.Minute

// await fails the test where a channel stays silent: nothing here may hang.
func await[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not happen within %v", what, patience)
		panic("unreachable")
	}
}

type heard struct {
	from, kind, peer, life int
	rest                   []string
}

// startHearing starts a worker and copies what it says to a channel.
func startHearing(t *testing.T, g *Group, index int, to chan<- heard) (*Worker, *Link) {
	t.Helper()
	w, link, err := g.Start(index)
	if err != nil {
		t.Fatal(err)
	}
	go link.Receive(func(f Frame) error {
		h := heard{from: index, kind: int(f.Kind)}
		for item := range f.Items() {
			if h.peer == 0 && h.life == 0 {
				h.peer, h.life = int(item[0]), int(item[1])
				continue
			}
			h.rest = append(h.rest, string(item))
		}
		to <- h
		return nil
	})
	t.Cleanup(func() { link.Close() })
	return w, link
}

func ask(t *testing.T, link *Link, peer int) {
	t.Helper()
	var b Batch
	b.Reset(kindAsk)
	b.Append([]byte{byte(peer)})
	if err := link.Send(&b); err != nil {
		t.Fatal(err)
	}
}

// collect waits for n reports of a kind and returns them as "from>peer.life".
func collect(t *testing.T, c <-chan heard, kind, n int) []string {
	t.Helper()
	var all []string
	for range n {
		h := await(t, c, fmt.Sprintf("report %d", kind))
		if h.kind != kind {
			t.Fatalf("heard %+v, want kind %d", h, kind)
		}
		if kind == kindAnswered && !slices.Equal(h.rest, []string{"one", "", string([]byte{byte(h.peer)})}) {
			t.Fatalf("the echo is %q", h.rest)
		}
		all = append(all, fmt.Sprintf("%d>%d.%d", h.from, h.peer, h.life))
	}
	slices.Sort(all)
	return all
}

func openFDs(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Workers talk in pairs, a stopped one blocks nobody, and a killed one comes
// back with new links.
func TestGroupLivesAndDies(t *testing.T) {
	before := openFDs(t)
	t.Run("group", func(t *testing.T) {
		g := NewGroup(SpawnOptions{Log: slog.New(slog.DiscardHandler)})
		t.Cleanup(func() {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		})
		c := make(chan heard, 64)
		workers, links := map[int]*Worker{}, map[int]*Link{}
		for i := 1; i <= 3; i++ {
			workers[i], links[i] = startHearing(t, g, i, c)
		}
		collect(t, c, kindLinked, 6)
		askAll := func(pairs ...[2]int) {
			for _, p := range pairs {
				ask(t, links[p[0]], p[1])
			}
		}
		askAll([2]int{1, 2}, [2]int{1, 3}, [2]int{2, 1}, [2]int{2, 3}, [2]int{3, 1}, [2]int{3, 2})
		want := []string{"1>2.1", "1>3.1", "2>1.1", "2>3.1", "3>1.1", "3>2.1"}
		if got := collect(t, c, kindAnswered, 6); !slices.Equal(got, want) {
			t.Fatalf("answers %v, want %v", got, want)
		}
		if _, _, err := g.Start(2); err == nil {
			t.Fatal("a second life was started beside the first")
		}

		if err := Signal(workers[2].Pidfd(), unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		awaitStopped(t, workers[2].Pidfd())
		askAll([2]int{1, 2}, [2]int{1, 3}, [2]int{3, 2}, [2]int{3, 1})
		if got := collect(t, c, kindAnswered, 2); !slices.Equal(got, []string{"1>3.1", "3>1.1"}) {
			t.Fatalf("beside a stopped worker: %v", got)
		}

		if err := workers[2].Kill(); err != nil {
			t.Fatal(err)
		}
		await(t, workers[2].Done(), "the death of a stopped worker")
		if exit := workers[2].Exit(); exit != (Exit{Code: -1, Signal: syscall.SIGKILL, Ours: true}) {
			t.Fatalf("exit %+v", exit)
		}
		workers[2], links[2] = startHearing(t, g, 2, c)
		if got := collect(t, c, kindLinked, 4); !slices.Equal(got, []string{"1>2.2", "2>1.1", "2>3.1", "3>2.2"}) {
			t.Fatalf("new links %v", got)
		}
		askAll([2]int{1, 2}, [2]int{2, 3})
		if got := collect(t, c, kindAnswered, 2); !slices.Equal(got, []string{"1>2.2", "2>3.1"}) {
			t.Fatalf("answers of the new life %v", got)
		}
	})
	if after := openFDs(t); after != before {
		t.Fatalf("%d files are open, %d were", after, before)
	}
}

// The marker alone makes no worker.
func TestMarkedByHandIsRefused(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), workerEnv+"=x")
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), ErrNotSpawned.Error()) {
		t.Fatalf("started by hand: %v, %s", err, out)
	}
}

// A worker has a process group of its own, which is where an interrupt does not
// arrive.
func TestWorkerHasItsOwnGroup(t *testing.T) {
	var out bytes.Buffer
	w, err := Spawn(7, 1, SpawnOptions{Log: slog.New(slog.NewTextHandler(&out, nil))})
	if err != nil {
		t.Fatal(err)
	}
	group, err := unix.Getpgid(w.cmd.Process.Pid)
	if err != nil || group != w.cmd.Process.Pid || group == unix.Getpgrp() {
		t.Errorf("group %d, %v", group, err)
	}
	if err := ResetAffinity(w.Pidfd()); err != nil {
		t.Error(err)
	}
	if err := Signal(w.Pidfd(), unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if exit := w.Exit(); exit.Signal != syscall.SIGTERM || exit.Ours {
		t.Errorf("exit %+v", exit)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	n, err := TakeName("jobs")
	if err != nil {
		t.Fatal(err)
	}
	_, err = TakeName("jobs")
	if want := fmt.Sprintf("process %d holds", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("taken twice: %v", err)
	}
	if left, err := Leftovers(true); err != nil || len(left) != 0 {
		t.Fatalf("a held name is called a leftover: %v %v", left, err)
	}
	n.file.Close() // As the kernel does at death.
	if left, err := Leftovers(false); err != nil || !slices.Equal(left, []string{"jobs"}) {
		t.Fatalf("leftovers %v %v", left, err)
	}
	again, err := TakeName("jobs")
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := Leftovers(false); err != nil || len(left) != 0 {
		t.Fatalf("after Close: %v %v", left, err)
	}
	for _, bad := range []string{"", ".x", "a/b", strings.Repeat("x", 65)} {
		if _, err := TakeName(bad); err == nil {
			t.Errorf("name %q was taken", bad)
		}
	}
}
