package runq_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreplica/coreplica/runq"
)

// lookerEnv makes this program a process that looks at a queue and prints what
// it sees.
const lookerEnv = "COREPLICA_RUNQ_TEST_LOOKER"

func looker(name string) {
	s, err := runq.Look(context.Background(), name)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// lookFromOutside looks at a queue from another process.
func lookFromOutside(t *testing.T, name string) (s runq.Snapshot) {
	t.Helper()
	cmd := exec.CommandContext(soon(t), "/proc/self/exe")
	cmd.Env = append(os.Environ(), lookerEnv+"="+name)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return s
}

// A folder whose path is longer than a socket's address may be.
func namesHere(t *testing.T) (folder string) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 25))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", dir)
	return filepath.Join(dir, "coreplica")
}

func hasHappening(s runq.Snapshot, kind runq.HappeningKind, worker int) bool {
	return slices.ContainsFunc(s.Happenings, func(h runq.PastHappening) bool { return h.Kind == kind.String() && h.Worker == worker })
}

func TestAnotherProcessLooks(t *testing.T) {
	folder := namesHere(t)
	q := openProcesses(t, runq.Options{Name: "watched"})
	result(t, q, runq.Job{Name: "echo", Payload: []byte("a")})
	first := lookFromOutside(t, "watched")
	pid := q.Stats().Workers[1].PID
	w := first.Stats.Workers
	if first.Schema != runq.SnapshotSchema || first.Name != "watched" || first.State != "open" || first.PID != os.Getpid() || first.K != 2 ||
		first.Stats.Completed != 1 || len(w) != 2 || w[1].PID != pid || !w[1].Up || !hasHappening(first, runq.WorkerUp, 1) {
		t.Fatalf("%+v", first)
	}
	if names, err := runq.Names(soon(t)); err != nil || !slices.Equal(names, []string{"watched"}) {
		t.Fatal(names, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the death and the next life are seen from outside", func() bool {
		s, err := runq.Look(soon(t), "watched")
		if err != nil {
			t.Fatal(err)
		}
		w := s.Stats.Workers[1]
		return w.Up && w.PID != pid && w.Incarnation > first.Stats.Workers[1].Incarnation && s.Stats.Crashes == 1 && hasHappening(s, runq.WorkerDied, 1)
	})
	second := lookFromOutside(t, "watched")
	if second.Run != first.Run || second.Stats.Workers[1].PID == pid {
		t.Errorf("%+v", second)
	}
	info, err := os.Lstat(filepath.Join(folder, "watched.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	shut(t, q)
	if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
		t.Errorf("after Close: %v %v", left, err)
	}
	if _, err := runq.Look(soon(t), "watched"); !errors.Is(err, runq.ErrNotOpen) {
		t.Errorf("look at a closed queue: %v", err)
	}
}

func TestThreadsHoldTheirName(t *testing.T) {
	namesHere(t)
	openThreads(t, runq.Options{Name: "goroutines"})
	if s, err := runq.Look(soon(t), "goroutines"); err != nil || len(s.Stats.Workers) != 2 || s.Stats.Workers[0].PID != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if q, err := runq.Open(soon(t), runq.Options{Name: "goroutines", Threads: true, Workers: 1}); !errors.Is(err, runq.ErrNameTaken) {
		t.Errorf("opened twice: %v, %v", q, err)
	}
}

// What a killed opener leaves does not look open, and does not stand in the way.
func TestStaleSocket(t *testing.T) {
	folder := namesHere(t)
	stale := func() {
		for _, suffix := range []string{".runq", ".sock"} {
			if err := os.Remove(filepath.Join(folder, "left"+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		t.Chdir(folder) // The folder's own path is too long for an address.
		l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: "left.sock"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		if err := errors.Join(l.Close(), os.WriteFile("left.runq", []byte("1\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	stale()
	if names, err := runq.Names(soon(t)); err != nil || len(names) != 0 {
		t.Errorf("names %v, %v", names, err)
	}
	if _, err := runq.Look(soon(t), "left"); !errors.Is(err, runq.ErrNotOpen) {
		t.Errorf("look at what is dead: %v", err)
	}
	q := openThreads(t, runq.Options{Name: "left"})
	if s, err := runq.Look(soon(t), "left"); err != nil || s.PID != os.Getpid() {
		t.Errorf("%+v, %v", s, err)
	}
	if left, err := runq.Leftovers(true); err != nil || len(left) != 0 {
		t.Errorf("an open queue is called a leftover: %v %v", left, err)
	}
	shut(t, q)
	stale()
	if left, err := runq.Leftovers(true); err != nil || !slices.Equal(left, []string{"left"}) {
		t.Errorf("leftovers %v %v", left, err)
	}
	if files, err := os.ReadDir(folder); err != nil || len(files) != 0 {
		t.Errorf("not removed: %v %v", files, err)
	}
}

// Those who connect and say nothing, or nonsense, harm neither the queue nor its
// end.
func TestRudeLookers(t *testing.T) {
	folder := namesHere(t)
	q := openThreads(t, runq.Options{Name: "rude"})
	t.Chdir(folder)
	ask := func(text string) string {
		conn, err := net.Dial("unix", "rude.sock")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if text == "" {
			return ""
		}
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		var reply [512]byte
		n, _ := conn.Read(reply[:]) // Nothing is an answer too.
		return string(reply[:n])
	}
	if reply := ask("{\"want\":\"coreplica.runq.stats/99\"}\n"); !strings.Contains(reply, `"error"`) || !strings.Contains(reply, "stats/1") {
		t.Errorf("another schema: %q", reply)
	}
	if reply := ask("nonsense\n"); !strings.Contains(reply, `"error"`) {
		t.Errorf("nonsense: %q", reply)
	}
	if reply := ask(strings.Repeat("x", 8<<10)); reply != "" {
		t.Errorf("a question without an end: %q", reply)
	}
	for range 9 {
		ask("")
	}
	if _, err := runq.Look(soon(t), "rude"); err != nil {
		t.Errorf("behind silent ones: %v", err)
	}
	for range 9 {
		ask("")
	}
	began := time.Now()
	shut(t, q)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("silent ones delay Close by %v", took)
	}
}
