package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/runq"
)

// aSnapshot is a queue in which one worker has died.
func aSnapshot() runq.Snapshot {
	at := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	return runq.Snapshot{
		Schema: runq.SnapshotSchema, Name: "mail", PID: 77, Run: "1", State: "open", Time: at, Opened: at.Add(-time.Minute), K: 2,
		Stats: runq.Stats{Submitted: 120, Accepted: 110, Completed: 100, Failed: 3, Lost: 1, Pending: 6, Crashes: 1, Takeovers: 1, Workers: []runq.WorkerStats{
			{CPU: 2, Node: 0, Up: true, Incarnation: 2, PID: 78, Queues: []int{0, 1}, Pending: 6, Completed: 80},
			{CPU: 3, Node: -1, Incarnation: 2, Queues: []int{}, Completed: 20},
		}},
		Happenings: []runq.PastHappening{{Time: at, Kind: "worker-died", Worker: 1, Incarnation: 2, Error: "ended by signal killed"}},
	}
}

func TestTopTable(t *testing.T) {
	before, now := aSnapshot(), aSnapshot()
	before.Time = now.Time.Add(-2 * time.Second)
	before.Stats.Completed, before.Stats.Workers = 60, slices.Clone(before.Stats.Workers)
	before.Stats.Workers[0].Completed = 40
	text, err := topTable(&before, &now)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"queue mail  open  pid 77  k=2  open for 1m0s\n", "pending 6  rate 20/s\n", "takeovers 1 ",
		"0       2    0     78   2     up    20       6        0-1\n",
		"1       3    -     -    2     down  0        0        -\n",
		"worker-died     worker 1 life 2  queue 0  ended by signal killed\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	// Counters of another run are no rates.
	before.Run = "2"
	if text, _ = topTable(&before, &now); !strings.Contains(text, "rate -/s") {
		t.Errorf("a rate across runs:\n%s", text)
	}
}

func TestFitToScreen(t *testing.T) {
	if got, want := fit("äbcd\nx\ny\nz\n", 3, 3), "\x1b[Häbc\x1b[K\r\nx\x1b[K\r\ny\x1b[K\x1b[J"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestMetricsAreInOrder(t *testing.T) {
	s := aSnapshot()
	for _, c := range []snapshotCollector{{"mail", &s}, {"mail", nil}} {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(c)
		problems, err := testutil.GatherAndLint(registry)
		if err != nil || len(problems) > 0 {
			t.Errorf("%v, %v", problems, err)
		}
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(snapshotCollector{"mail", &s})
	err := testutil.GatherAndCompare(registry, strings.NewReader(`# HELP coreplica_runq_tasks_ended_total Tasks that have ended, by how: completed, failed, cancelled or lost.
# TYPE coreplica_runq_tasks_ended_total counter
coreplica_runq_tasks_ended_total{outcome="cancelled",queue="mail"} 0
coreplica_runq_tasks_ended_total{outcome="completed",queue="mail"} 100
coreplica_runq_tasks_ended_total{outcome="failed",queue="mail"} 3
coreplica_runq_tasks_ended_total{outcome="lost",queue="mail"} 1
# HELP coreplica_runq_worker_up Whether the worker lives.
# TYPE coreplica_runq_worker_up gauge
coreplica_runq_worker_up{queue="mail",worker="0"} 1
coreplica_runq_worker_up{queue="mail",worker="1"} 0
`), metricPrefix+"tasks_ended_total", metricPrefix+"worker_up")
	if err != nil {
		t.Error(err)
	}
}

// The control of the lint: a name that it should refuse.
func TestMetricLintCanFail(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: metricPrefix + "takeover_milliseconds"}))
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) == 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// scrape asks a queue's exporter.
func scrape(t *testing.T, name, host string) (int, string) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil)
	req.Host = host
	rec := httptest.NewRecorder()
	metricsHandler(name, "127.0.0.1:9464").ServeHTTP(rec, req)
	return rec.Code, rec.Body.String()
}

// startDemo runs `coreplica runq demo` as a process and returns the pids of its
// workers as they are born.
func startDemo(t *testing.T, args ...string) (pids <-chan string, demo *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{"coreplica", "runq", "demo", "--workers", "2"}, args...)
	r, w := io.Pipe()
	out = &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = io.MultiWriter(w, out), os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	go func() {
		for s := bufio.NewScanner(r); s.Scan(); {
			if fields := strings.Fields(s.Text()); len(fields) == 6 && fields[0] == "worker" {
				lines <- fields[5]
			}
		}
	}()
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		w.Close()
	})
	return lines, cmd, out
}

// next waits for a worker to be born.
func next(t *testing.T, pids <-chan string) string {
	t.Helper()
	select {
	case pid := <-pids:
		return pid
	case <-time.After(20 * time.Second):
		t.Fatal("no worker came to life")
		return ""
	}
}

// topOnce runs `coreplica runq top` and returns what it prints.
func topOnce(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), append([]string{"runq", "top"}, args...), &stdout, &stderr)
	return stdout.String() + stderr.String(), code
}

// A queue in one process, its reader in another, and a worker that is killed by
// hand.
func TestWatchAndKill(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	if text, code := topOnce(t); code != exitFailed || !strings.Contains(text, "runq demo") {
		t.Errorf("without a queue: exit %d, %s", code, text)
	}
	if code, text := scrape(t, "demo", "localhost"); code != http.StatusOK || !strings.Contains(text, "coreplica_runq_up{queue=\"demo\"} 0\n") {
		t.Errorf("scraped before: %d %s", code, text)
	}
	pids, demo, out := startDemo(t)
	old := next(t, pids)
	next(t, pids)
	text, code := topOnce(t, "--once", "-o", "json")
	var first runq.Snapshot
	if err := json.Unmarshal([]byte(text), &first); err != nil || code != 0 || first.Name != "demo" || first.PID != demo.Process.Pid {
		t.Fatalf("%v, exit %d: %s", err, code, text)
	}
	worker := slices.IndexFunc(first.Stats.Workers, func(w runq.WorkerStats) bool { return fmt.Sprint(w.PID) == old })
	if worker < 0 {
		t.Fatalf("no worker with pid %s: %s", old, text)
	}
	if err := syscall.Kill(first.Stats.Workers[worker].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	next(t, pids)
	// A birth of the other worker may have come first, on a busy machine.
	// The table shows the last few happenings, and a takeover has more.
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && !strings.Contains(text, "signal killed"); time.Sleep(time.Millisecond) {
		text, code = topOnce(t, "demo", "--once", "-o", "json")
	}
	if code != 0 || !strings.Contains(text, "worker-died") || !strings.Contains(text, "signal killed") {
		t.Errorf("exit %d: %q", code, text)
	}
	if text, code = topOnce(t, "demo", "--once"); code != 0 || !strings.Contains(text, "queue-served") || strings.Contains(text, "\x1b") {
		t.Errorf("exit %d: %q", code, text)
	}
	if code, text := scrape(t, "demo", "127.0.0.1:9464"); code != http.StatusOK || !strings.Contains(text, "coreplica_runq_up{queue=\"demo\"} 1\n") ||
		!strings.Contains(text, "coreplica_runq_crashes_total{queue=\"demo\"} 1\n") {
		t.Errorf("scraped after: %d %s", code, text)
	}
	if code, _ := scrape(t, "demo", "evil.example"); code != http.StatusForbidden {
		t.Errorf("another host's page: %d", code)
	}
	screenIsGivenBack(t)
	if err := demo.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := demo.Wait(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), " lost 0 ") {
		t.Errorf("the demo's last words: %s", out)
	}
	if names, err := runq.Names(t.Context()); err != nil || len(names) > 0 {
		t.Errorf("still open: %v, %v", names, err)
	}
}

// screenIsGivenBack runs top on a terminal and interrupts it.
func screenIsGivenBack(t *testing.T) {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ptmx.Close()
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	ended := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		ended <- run(ctx, []string{"runq", "top", "--interval", "10ms"}, tty, &stderr)
		tty.Close()
	}()
	var seen bytes.Buffer
	part := make([]byte, 4096)
	for {
		n, err := ptmx.Read(part)
		seen.Write(part[:n])
		if strings.Count(seen.String(), "\x1b[H") >= 3 {
			interrupt()
		}
		if err != nil {
			break // The other side is closed.
		}
	}
	text := seen.String()
	if code := <-ended; code != 0 || stderr.Len() > 0 || !strings.HasPrefix(text, enterScreen) || !strings.HasSuffix(text, leaveScreen) || !strings.Contains(text, "WORKER") {
		t.Errorf("exit %d, %s, %q", code, &stderr, text)
	}
}

// Two queues, and nobody says which.
func TestTopAsksWhich(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	for _, name := range []string{"b", "a"} {
		q, err := runq.Open(t.Context(), runq.Options{Name: name, Threads: true, Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := q.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}()
	}
	if text, code := topOnce(t); code != exitUsage || !strings.Contains(text, "several queues are open: a, b;") {
		t.Errorf("exit %d: %s", code, text)
	}
	if text, code := topOnce(t, "b", "--once"); code != 0 || !strings.Contains(text, "queue b  open") {
		t.Errorf("exit %d: %s", code, text)
	}
}

// A demonstration that is killed leaves a name, which clean removes. One that lives
// is spared.
func TestCleanRemovesNames(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	pids, demo, _ := startDemo(t, "--name", "killed")
	next(t, pids)
	var out bytes.Buffer
	if n, err := cleanQueues(&out); err != nil || n != 0 {
		t.Fatalf("a living queue was cleaned away: %d, %v, %s", n, err, &out)
	}
	if err := demo.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = demo.Wait() // It was killed.
	if n, err := cleanQueues(&out); err != nil || n != 1 || out.String() != "name of run queue killed\n" {
		t.Errorf("%d, %v, %q", n, err, &out)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "coreplica")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
