package runq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/runq"
	"github.com/coreplica/coreplica/runq/internal/trial"
)

func init() {
	runq.Register("pid", func(context.Context, *runq.Task) ([]byte, error) { return fmt.Append(nil, os.Getpid()), nil })
	runq.Register("sleep", func(ctx context.Context, t *runq.Task) ([]byte, error) {
		d, err := time.ParseDuration(string(t.Payload))
		time.Sleep(d)
		return t.Payload, err
	})
	runq.Register("spin", func(ctx context.Context, t *runq.Task) ([]byte, error) {
		d, err := time.ParseDuration(string(t.Payload))
		for end := time.Now().Add(d); time.Now().Before(end); {
		}
		return t.Payload, err
	})
	runq.Register("die", func(context.Context, *runq.Task) ([]byte, error) {
		return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	})
}

// logTo keeps what a queue logs, and shows it if the test fails.
func logTo(t *testing.T) *slog.Logger {
	var b bytes.Buffer
	t.Cleanup(func() {
		if t.Failed() || os.Getenv("SHOW") != "" {
			t.Logf("log:\n%s", b.String())
		}
	})
	return slog.New(slog.NewTextHandler(&lockedWriter{w: &b}, nil))
}

// ofProcesses skips a test that waits for what workers do. The opener's goroutines
// meet in the others too.
func ofProcesses(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip(testkit.SkipLine("short", "the race detector sees nothing of another process"))
	}
}

func openProcesses(t *testing.T, o runq.Options) *runq.Queue {
	t.Helper()
	o.AllowSharedDomain = true // The machine may have one core.
	if o.Workers == 0 {
		o.Workers = 2
	}
	if o.Lease == 0 {
		// Deaths are seen at once; a lease would only find what the machine
		// lets wait while other tests run.
		o.Lease = 2 * time.Second
	}
	if o.Logger == nil {
		o.Logger = logTo(t)
	}
	q, err := runq.Open(soon(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, q) })
	return q
}

func TestProcessesRunTasks(t *testing.T) {
	q := openProcesses(t, runq.Options{})
	ctx := soon(t)
	const tasks = 2003
	jobs := make([]runq.Job, tasks)
	for i := range jobs {
		jobs[i] = runq.Job{Name: "echo", Payload: fmt.Append(nil, "payload ", i)}
	}
	for i, id := range submitAll(t, q, jobs) {
		r, err := q.Wait(ctx, id)
		if err != nil || r.Err != nil || string(r.Payload) != fmt.Sprint("payload ", i) {
			t.Fatalf("%v: %+v, %v", id, r, err)
		}
	}
	s := q.Stats()
	if s.Completed != tasks || s.Pending != 0 {
		t.Errorf("stats %+v", s)
	}
	if r := result(t, q, runq.Job{Name: "pid"}); string(r.Payload) == fmt.Sprint(os.Getpid()) {
		t.Error("the task ran in this process")
	}
}

// killOne sends SIGKILL to a worker, as a core failure would, and loses its
// memory.
func killOne(t *testing.T, q *runq.Queue, worker int) {
	t.Helper()
	pid := q.Stats().Workers[worker].PID
	// It stands still while its memory goes: a neighbour is quicker than we are.
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := trial.Punch(q, worker); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestKilledWorkerLosesNothing(t *testing.T) {
	q := openProcesses(t, runq.Options{Handlers: 4})
	ctx := soon(t)
	jobs := make([]runq.Job, 2003)
	for i := range jobs {
		jobs[i] = runq.Job{Name: "sleep", Payload: []byte("1ms"), Mode: []runq.Mode{runq.AtLeastOnce, runq.OnceRecorded}[i%2]}
	}
	ids := submitAll(t, q, jobs)
	killOne(t, q, 0)
	for _, id := range ids {
		r, err := q.Wait(ctx, id)
		if err != nil || r.Err != nil {
			t.Fatalf("%v: %+v, %v", id, r, err)
		}
	}
	if s := q.Stats(); s.Takeovers == 0 || s.Crashes != 1 {
		t.Errorf("stats %+v", s)
	}
}

// The control: with one copy the same failure loses tasks, and says so.
func TestKilledWorkerWithoutReplicasLosesTasks(t *testing.T) {
	q := openProcesses(t, runq.Options{K: 1})
	ctx := soon(t)
	jobs := make([]runq.Job, 500)
	for i := range jobs {
		jobs[i] = runq.Job{Name: "sleep", Payload: []byte("1ms"), Affinity: runq.OnWorker(0)}
	}
	ids := submitAll(t, q, jobs)
	killOne(t, q, 0)
	lost := 0
	for _, id := range ids {
		r, err := q.Wait(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		var loss *runq.LostError
		if errors.As(r.Err, &loss) {
			lost++
		}
	}
	if lost == 0 {
		t.Errorf("control: nothing was lost without replicas: %+v", q.Stats())
	}
}
