package runq_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/coreplica/coreplica/runq"
)

// result submits a job and waits for how it ends.
func result(t *testing.T, q *runq.Queue, j runq.Job) runq.Result {
	t.Helper()
	id := submitAll(t, q, []runq.Job{j})[0]
	r, err := q.Wait(soon(t), id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRetries(t *testing.T) {
	q := openThreads(t, runq.Options{})
	r := result(t, q, runq.Job{Name: "flaky", Retry: runq.Retry{Attempts: 5, Backoff: time.Millisecond}})
	if string(r.Payload) != "attempt 3" || r.Attempts != 3 || r.Err != nil {
		t.Errorf("with retries: %+v", r)
	}
	r = result(t, q, runq.Job{Name: "flaky", Retry: runq.Retry{Attempts: 2, Backoff: time.Millisecond}})
	var failed *runq.HandlerError
	if !errors.As(r.Err, &failed) || failed.Text != "attempt 2" || r.Attempts != 2 {
		t.Errorf("with too few: %+v", r)
	}
	r = result(t, q, runq.Job{Name: "flaky", Mode: runq.AtMostOnce, Retry: runq.Retry{Attempts: 5}})
	if !errors.As(r.Err, &failed) || failed.Text != "attempt 1" {
		t.Errorf("at most once: %+v", r)
	}
}

func TestPanicIsAnError(t *testing.T) {
	q := openThreads(t, runq.Options{})
	r := result(t, q, runq.Job{Name: "panic", Retry: runq.Retry{Attempts: 4}})
	var failed *runq.HandlerError
	if !errors.As(r.Err, &failed) || failed.Text != "at the disco" || failed.Stack == "" || r.Attempts != 4 {
		t.Errorf("a handler that panics for ever: %+v", r)
	}
	if s := q.Stats(); s.Crashes != 0 || s.Failed != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestJSONHandler(t *testing.T) {
	q := openThreads(t, runq.Options{})
	if r := result(t, q, runq.Job{Name: "double", Payload: []byte("21")}); string(r.Payload) != "42" {
		t.Errorf("%+v", r)
	}
	if r := result(t, q, runq.Job{Name: "double", Payload: []byte("x")}); r.Err == nil {
		t.Error("a payload that is not JSON is accepted")
	}
}

func TestCancel(t *testing.T) {
	q := openThreads(t, runq.Options{})
	ctx := soon(t)
	for name, job := range map[string]runq.Job{
		"delayed": {Name: "echo", Delay: time.Hour}, "running": {Name: "wait"}, "unacknowledged": {Name: "wait", Mode: runq.OnceRecorded},
	} {
		id, err := q.Submit(ctx, job)
		if err != nil {
			t.Fatal(err)
		}
		if name == "running" {
			for s := runq.Unknown; s != runq.Running; {
				if s, err = q.Resolve(ctx, id); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := q.Cancel(ctx, id); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r, err := q.Wait(ctx, id); err != nil || !errors.Is(r.Err, runq.ErrCancelled) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if s, err := q.Resolve(ctx, id); err != nil || s != runq.Ended {
			t.Errorf("%s: state %v after the result was handed over, %v", name, s, err)
		}
	}
}

func TestResolve(t *testing.T) {
	q := openThreads(t, runq.Options{})
	ctx := soon(t)
	id, err := q.Submit(ctx, runq.Job{Name: "echo", Delay: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := q.Resolve(ctx, id); s != runq.Ready || err != nil {
		t.Errorf("a delayed task is %v, %v", s, err)
	}
	later := id
	later.N += 1000
	if s, err := q.Resolve(ctx, later); s != runq.Absent || err != nil {
		t.Errorf("an ID that was never given out is %v, %v", s, err)
	}
	later.Run++
	if _, err := q.Resolve(ctx, later); !errors.Is(err, runq.ErrOtherRun) {
		t.Errorf("an ID of another run: %v", err)
	}
	if _, err := q.Wait(ctx, later); !errors.Is(err, runq.ErrOtherRun) {
		t.Errorf("wait for an ID of another run: %v", err)
	}
	back, err := runq.ParseID(id.String())
	if err != nil || back != id {
		t.Errorf("%v comes back as %v, %v", id, back, err)
	}
	for _, text := range []string{"", "1/2.3", "1/2.3.x", "1/300.1.1", "x/0.1.1"} {
		if _, err := runq.ParseID(text); err == nil {
			t.Errorf("%q is an ID", text)
		}
	}
}

func TestPriorityAndDeadline(t *testing.T) {
	var mu sync.Mutex
	var order []string
	release := make(chan struct{})
	registerOnce("ordered", func(_ context.Context, task *runq.Task) ([]byte, error) {
		if string(task.Payload) == "first" {
			<-release
		}
		mu.Lock()
		defer mu.Unlock()
		order = append(order, string(task.Payload))
		return nil, nil
	})
	q := openThreads(t, runq.Options{Workers: 1})
	ctx := soon(t)
	now := time.Now()
	var ids []runq.ID
	for _, j := range []runq.Job{
		{Payload: []byte("first"), Priority: 9}, {Payload: []byte("low")}, {Payload: []byte("late"), Deadline: now.Add(2 * time.Hour)},
		{Payload: []byte("early"), Deadline: now.Add(time.Hour)}, {Payload: []byte("high"), Priority: 5},
	} {
		j.Name = "ordered"
		id, err := q.Submit(ctx, j)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	close(release)
	for _, id := range ids {
		if _, err := q.Wait(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"first", "high", "early", "late", "low"}
	for i := range want {
		if i >= len(order) || order[i] != want[i] {
			t.Fatalf("order %v, want %v", order, want)
		}
	}
	if r := result(t, q, runq.Job{Name: "echo", Deadline: now}); !errors.Is(r.Err, context.DeadlineExceeded) {
		t.Errorf("a deadline that has passed: %+v", r)
	}
	if r := result(t, q, runq.Job{Name: "wait", Deadline: time.Now().Add(20 * time.Millisecond)}); r.Err == nil {
		t.Error("the context of a handler does not end with its deadline")
	}
}

func TestRefusals(t *testing.T) {
	q := openThreads(t, runq.Options{MaxPayload: 100})
	ctx := soon(t)
	for want, job := range map[error]runq.Job{
		runq.ErrTooLarge:  {Name: "echo", Payload: make([]byte, 101)},
		runq.ErrNoHandler: {Name: "nobody"},
		runq.ErrInvalid:   {Name: "echo", Priority: 64},
	} {
		if id, err := q.Submit(ctx, job); !errors.Is(err, want) || id != (runq.ID{}) {
			t.Errorf("%+v: %v, %v, want %v", job, id, err, want)
		}
	}
	if _, err := q.Submit(ctx, runq.Job{Name: "echo", Affinity: runq.OnWorker(7)}); !errors.Is(err, runq.ErrInvalid) {
		t.Errorf("a worker that is not there: %v", err)
	}
	if _, err := runq.Open(ctx, runq.Options{Threads: true, Workers: 2, K: 3}); !errors.Is(err, runq.ErrInvalid) {
		t.Errorf("more copies than workers: %v", err)
	}
	if _, err := runq.Open(ctx, runq.Options{CPUs: []int{0}, Workers: 2, K: 2}); !errors.Is(err, runq.ErrInvalid) {
		t.Errorf("more copies than failure domains: %v", err)
	}
}

func TestAffinity(t *testing.T) {
	q := openThreads(t, runq.Options{Workers: 3, K: 1})
	for worker := range 3 {
		if r := result(t, q, runq.Job{Name: "echo", Affinity: runq.OnWorker(worker)}); r.Worker != worker {
			t.Errorf("a task for worker %d ran at %d", worker, r.Worker)
		}
	}
}

func TestFullWaitsForRoom(t *testing.T) {
	q := openThreads(t, runq.Options{Workers: 1, MaxPending: 4, Slots: 64})
	ctx := soon(t)
	var ids []runq.ID
	for range 4 {
		id, err := q.Submit(ctx, runq.Job{Name: "wait"})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	if _, err := q.Submit(short, runq.Job{Name: "echo"}); !errors.Is(err, runq.ErrFull) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a full queue: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := q.Submit(ctx, runq.Job{Name: "echo"})
		done <- err
	}()
	if err := q.Cancel(ctx, ids[0]); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("there is room again: %v", err)
	}
	for _, id := range ids[1:] {
		if err := q.Cancel(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDrainAndClose(t *testing.T) {
	q := openThreads(t, runq.Options{})
	ctx := soon(t)
	id, err := q.Submit(ctx, runq.Job{Name: "echo", Delay: 30 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Submit(ctx, runq.Job{Name: "echo"}); !errors.Is(err, runq.ErrDraining) {
		t.Errorf("submit to a draining queue: %v", err)
	}
	if r, err := q.Wait(ctx, id); err != nil || r.Err != nil {
		t.Errorf("a result after the drain: %+v, %v", r, err)
	}
	for range 2 {
		if err := q.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.Submit(ctx, runq.Job{Name: "echo"}); !errors.Is(err, runq.ErrClosed) {
		t.Errorf("submit to a closed queue: %v", err)
	}
}

func TestCloseEndsWaits(t *testing.T) {
	q := openThreads(t, runq.Options{})
	ctx := soon(t)
	id, err := q.Submit(ctx, runq.Job{Name: "echo", Delay: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := q.Wait(ctx, id)
		ended <- err
	}()
	if err := q.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, runq.ErrClosed) && !errors.Is(err, runq.ErrUnknown) {
		t.Errorf("wait of a closed queue: %v", err)
	}
}

func TestStuckHandlerIsReportedAndCloseEnds(t *testing.T) {
	release := make(chan struct{})
	registerOnce("stuck", func(context.Context, *runq.Task) ([]byte, error) { <-release; return nil, nil })
	stuck := make(chan runq.Happening, 8)
	q, err := runq.Open(soon(t), runq.Options{Threads: true, Workers: 2, TaskLease: 20 * time.Millisecond, Observe: func(h runq.Happening) {
		if h.Kind == runq.TaskStuck {
			stuck <- h
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := q.Submit(soon(t), runq.Job{Name: "stuck"})
	if err != nil {
		t.Fatal(err)
	}
	if h := <-stuck; h.ID != id {
		t.Errorf("%v is reported as stuck, not %v", h.ID, id)
	}
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := q.Close(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close with a handler that never returns: %v", err)
	}
	close(release)
}

func TestDetachedTasksKeepNothing(t *testing.T) {
	q := openThreads(t, runq.Options{})
	ctx := soon(t)
	before := counted.Load()
	jobs := make([]runq.Job, 300)
	for i := range jobs {
		jobs[i] = runq.Job{Name: "count", Detached: true}
	}
	if _, err := q.SubmitBatch(ctx, jobs); err != nil {
		t.Fatal(err)
	}
	if err := q.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if s := q.Stats(); s.Retained != 0 || counted.Load()-before != 300 {
		t.Errorf("%d ran, stats %+v", counted.Load()-before, s)
	}
}

func TestResultsAreKeptForAWhile(t *testing.T) {
	q := openThreads(t, runq.Options{ResultRetention: time.Millisecond})
	ctx := soon(t)
	id, err := q.Submit(ctx, runq.Job{Name: "echo"})
	if err != nil {
		t.Fatal(err)
	}
	for q.Stats().Completed == 0 || q.Stats().Retained > 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := q.Wait(ctx, id); !errors.Is(err, runq.ErrUnknown) {
		t.Errorf("wait for a result that was dropped: %v", err)
	}
}

// submitAll submits jobs, and those again that were refused for want of copies.
func submitAll(t *testing.T, q *runq.Queue, jobs []runq.Job) []runq.ID {
	t.Helper()
	ids, err := q.SubmitBatch(soon(t), jobs)
	if err == nil {
		return ids
	}
	if !errors.Is(err, runq.ErrDegraded) {
		t.Fatal(err)
	}
	var rest []runq.Job
	var taken []runq.ID
	for i, id := range ids {
		if id.N == 0 {
			rest = append(rest, jobs[i])
		} else {
			taken = append(taken, id)
		}
	}
	time.Sleep(time.Millisecond)
	return append(taken, submitAll(t, q, rest)...)
}

// A worker that is ended leaves its tasks to its neighbour; the results of all of
// them arrive.
func TestThreadTakeover(t *testing.T) {
	q := openThreads(t, runq.Options{})
	ctx := soon(t)
	jobs := make([]runq.Job, 1000)
	for i := range jobs {
		jobs[i] = runq.Job{Name: "echo", Payload: []byte("payload"), Mode: runq.OnceRecorded}
	}
	for round := range 5 {
		ids := submitAll(t, q, jobs)
		q.Doom(0)
		for _, id := range ids {
			if r, err := q.Wait(ctx, id); err != nil || r.Err != nil || string(r.Payload) != "payload" {
				t.Fatalf("%v: %+v, %v", id, r, err)
			}
		}
		for s := q.Stats(); s.Restarts <= uint64(round) || len(s.Workers[0].Queues) == 0; s = q.Stats() {
			time.Sleep(time.Millisecond)
		}
	}
	if s := q.Stats(); s.Takeovers < 5 || s.Restarts < 5 {
		t.Errorf("stats %+v", s)
	}
}
