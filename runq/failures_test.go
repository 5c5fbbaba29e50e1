package runq_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/runq"
	"github.com/coreplica/coreplica/runq/internal/trial"
)

// eventually waits for something that other processes do.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for ctx := soon(t); !is(); time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("not yet: %s", what)
		}
	}
}

// watched keeps what happens to a queue.
type watched struct {
	mu   sync.Mutex
	seen []runq.Happening
}

func (w *watched) observe(h runq.Happening) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, h)
}

func (w *watched) count(kind runq.HappeningKind) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.seen {
		if h.Kind == kind {
			n++
		}
	}
	return n
}

func signalWorker(t *testing.T, q *runq.Queue, worker int, sig syscall.Signal) {
	t.Helper()
	if _, err := trial.Signal(q, worker, sig); err != nil {
		t.Fatal(err)
	}
}

// A worker that stands still for longer than its lease, and that nobody can
// kill, loses its queue; when it goes on, what it publishes is refused.
func TestZombieIsFenced(t *testing.T) {
	ofProcesses(t)
	var w watched
	var spare sync.Map
	trial.Hooks.Spare = func(worker int, incarnation uint32) bool { _, ok := spare.Load(worker); return ok }
	t.Cleanup(func() { trial.Hooks.Spare = nil })
	q := openProcesses(t, runq.Options{Lease: 300 * time.Millisecond, KillDeadline: 50 * time.Millisecond, Observe: w.observe, Handlers: 2})
	jobs := make([]runq.Job, 400)
	for i := range jobs {
		jobs[i] = runq.Job{Name: "sleep", Payload: []byte("1ms"), Mode: runq.OnceRecorded, Affinity: runq.OnWorker(0)}
	}
	spare.Store(0, true)
	ids := submitAll(t, q, jobs)
	signalWorker(t, q, 0, syscall.SIGSTOP)
	eventually(t, "the victim is reported as unkillable", func() bool { return w.count(runq.Unkillable) > 0 })
	eventually(t, "the queue is served by the neighbour", func() bool { owner, _ := q.Owner(0); return owner == 1 })
	eventually(t, "a task of it starts there", func() bool { return w.count(runq.FirstClaim) > 0 })
	spare.Delete(0)
	signalWorker(t, q, 0, syscall.SIGCONT)
	for _, id := range ids {
		if r, err := q.Wait(soon(t), id); err != nil || r.Err != nil {
			t.Fatalf("%v: %+v, %v", id, r, err)
		}
	}
	eventually(t, "the zombie's end", func() bool { return w.count(runq.WorkerFenced)+w.count(runq.WorkerKilled) > 0 })
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.seen {
		if h.Kind == runq.Unkillable && !errors.Is(h.Err, runq.ErrOwnerUnkillable) {
			t.Errorf("%+v", h)
		}
	}
}

func TestAllWorkersDeadAtOnce(t *testing.T) {
	for _, memory := range []string{"left", "lost"} {
		t.Run(memory, func(t *testing.T) {
			q := openProcesses(t, runq.Options{})
			jobs := make([]runq.Job, 100)
			for i := range jobs {
				jobs[i] = runq.Job{Name: "echo", Payload: []byte("x"), Delay: 200 * time.Millisecond}
			}
			ids := submitAll(t, q, jobs)
			for worker := range 2 {
				signalWorker(t, q, worker, syscall.SIGSTOP)
			}
			for worker := range 2 {
				if memory == "lost" {
					if err := trial.Punch(q, worker); err != nil {
						t.Fatal(err)
					}
				}
				signalWorker(t, q, worker, syscall.SIGKILL)
			}
			lost := 0
			for _, id := range ids {
				r, err := q.Wait(soon(t), id)
				var loss *runq.LostError
				switch {
				case err != nil:
					t.Fatal(err)
				case errors.As(r.Err, &loss) && memory == "lost":
					lost++
				case r.Err != nil || string(r.Payload) != "x":
					t.Fatalf("%v: %+v", id, r)
				}
			}
			if memory == "lost" && lost != len(ids) {
				t.Errorf("%d of %d losses are reported", lost, len(ids))
			}
			eventually(t, "the queue is whole", func() bool { return trial.Whole(q) })
			if got := submitAll(t, q, jobs[:1]); len(got) != 1 {
				t.Error("the queue takes nothing any more")
			}
		})
	}
}

func TestPoisonStops(t *testing.T) {
	q := openProcesses(t, runq.Options{MaxCrashes: 1})
	r := result(t, q, runq.Job{Name: "die", Mode: runq.AtLeastOnce})
	var loss *runq.LostError
	if !errors.As(r.Err, &loss) || loss.Reason != runq.LostPoison {
		t.Errorf("a task that kills its workers: %+v", r)
	}
	if s := q.Stats(); s.Crashes != 2 {
		t.Errorf("%d workers died of it, want one more than MaxCrashes: %+v", s.Crashes, s)
	}
	eventually(t, "the queue is whole", func() bool { return trial.Whole(q) })
	if r := result(t, q, runq.Job{Name: "die", Mode: runq.AtMostOnce}); !errors.As(r.Err, &loss) || loss.Reason != runq.LostInFlight {
		t.Errorf("at most once: %+v", r)
	}
}

// The death of a worker takes no attempt from a task.
func TestDeathTakesNoAttempt(t *testing.T) {
	q := openProcesses(t, runq.Options{})
	ctx := soon(t)
	id, err := q.Submit(ctx, runq.Job{Name: "sleep", Payload: []byte("300ms"), Affinity: runq.OnWorker(0)})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the task runs", func() bool { s, err := q.Resolve(ctx, id); return err == nil && s == runq.Running })
	killOne(t, q, 0)
	if r, err := q.Wait(ctx, id); err != nil || r.Err != nil || r.Attempts != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestBitFlips(t *testing.T) {
	ofProcesses(t)
	const tasks = 20
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprint("all copies ", all), func(t *testing.T) {
			q := openProcesses(t, runq.Options{})
			jobs := make([]runq.Job, tasks)
			for i := range jobs {
				jobs[i] = runq.Job{Name: "echo", Payload: []byte("x"), Delay: 300 * time.Millisecond, Affinity: runq.OnWorker(0)}
			}
			ids := submitAll(t, q, jobs)
			want := tasks
			if all {
				want *= 2
			}
			if n := q.Rot(0, tasks, all); n != want {
				t.Fatalf("%d records were damaged, want %d", n, want)
			}
			signalWorker(t, q, 0, syscall.SIGKILL)
			lost := 0
			for _, id := range ids {
				r, err := q.Wait(soon(t), id)
				if err != nil {
					t.Fatal(err)
				}
				var loss *runq.LostError
				if errors.As(r.Err, &loss) {
					lost++
				}
			}
			if all && lost != tasks || !all && lost != 0 {
				t.Errorf("%d of %d tasks are lost", lost, tasks)
			}
		})
	}
}

func TestLogIsFull(t *testing.T) {
	ofProcesses(t)
	q := openProcesses(t, runq.Options{Workers: 1, Slots: 64, MaxPending: 1000})
	jobs := make([]runq.Job, 100)
	for i := range jobs {
		jobs[i] = runq.Job{Name: "echo", Delay: time.Hour}
	}
	short, stop := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer stop()
	ids, err := q.SubmitBatch(short, jobs)
	if !errors.Is(err, runq.ErrFull) {
		t.Fatalf("a queue of 64 slots takes 100 tasks: %v", err)
	}
	taken := 0
	for _, id := range ids {
		if id.N > 0 {
			taken++
			if err := q.Cancel(soon(t), id); err != nil {
				t.Error(err)
			}
		}
	}
	if taken == 0 {
		t.Error("none was taken")
	}
	for i := range jobs {
		jobs[i].Delay = 0
	}
	if got := submitAll(t, q, jobs); len(got) != len(jobs) {
		t.Error("there is room again, and not all were taken")
	}
}

func TestNameIsTaken(t *testing.T) {
	name := fmt.Sprint("runq-test-", os.Getpid())
	q := openProcesses(t, runq.Options{Name: name})
	if _, err := runq.Open(soon(t), runq.Options{Name: name, Workers: 1}); !errors.Is(err, runq.ErrNameTaken) {
		t.Errorf("a second queue of the name: %v", err)
	}
	if err := q.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	openProcesses(t, runq.Options{Name: name, Workers: 1})
}

const openerEnv = "COREPLICA_TEST_RUNQ_OPENER"

// opener opens a queue, says who its workers are and waits to be killed.
func opener(name string) {
	q, err := runq.Open(context.Background(), runq.Options{Name: name, Workers: 2, AllowSharedDomain: true, Lease: 2 * time.Second, Grace: 100 * time.Millisecond})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if _, err := q.Submit(context.Background(), runq.Job{Name: "sleep", Payload: []byte("1h")}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, w := range q.Stats().Workers {
		fmt.Println(w.PID)
	}
	fmt.Println()
	select {}
}

// When the opener is killed its workers end within their grace, also in the midst
// of a handler, and the name can be taken again.
func TestOpenerDies(t *testing.T) {
	name := fmt.Sprint("runq-orphan-", os.Getpid())
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), openerEnv+"="+name)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var workers []int
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != ""; {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(lines.Text())
		}
		workers = append(workers, pid)
	}
	if err := cmd.Process.Kill(); err != nil || len(workers) != 2 {
		t.Fatal(workers, err)
	}
	_ = cmd.Wait() // It was killed.
	eventually(t, "the workers end", func() bool { return !alive(workers[0]) && !alive(workers[1]) })
	openProcesses(t, runq.Options{Name: name, Workers: 1})
}

// alive reports whether a process runs: whoever inherits an orphan may not wait
// for it.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func TestCloseKillsStuckWorkers(t *testing.T) {
	q, err := runq.Open(soon(t), runq.Options{Workers: 2, AllowSharedDomain: true, Lease: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	id, err := q.Submit(soon(t), runq.Job{Name: "sleep", Payload: []byte("1h")})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the task runs", func() bool { s, err := q.Resolve(soon(t), id); return err == nil && s == runq.Running })
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := q.Close(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close: %v", err)
	}
}

// A handler that takes ten leases runs once, without a takeover: the loop renews
// the lease beside it.
func TestLongHandlerKeepsItsQueue(t *testing.T) {
	ofProcesses(t)
	testkit.Quiet(t, 4, func() string {
		var w watched
		q := openProcesses(t, runq.Options{Lease: 300 * time.Millisecond, Observe: w.observe})
		if r := result(t, q, runq.Job{Name: "spin", Payload: []byte("3s")}); r.Err != nil || r.Attempts != 1 {
			t.Errorf("%+v", r)
		}
		if n := w.count(runq.TakeoverBegan); n != 0 {
			return fmt.Sprintf("%d takeovers", n)
		}
		return ""
	})
}

// A control page that says what cannot be ends the queue with an error for all
// who wait.
func TestControlPageIsLost(t *testing.T) {
	q := openThreads(t, runq.Options{})
	id, err := q.Submit(soon(t), runq.Job{Name: "echo", Delay: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := q.Wait(soon(t), id)
		ended <- err
	}()
	q.LoseControl()
	if err := <-ended; !errors.Is(err, runq.ErrControlLost) && !errors.Is(err, runq.ErrUnknown) {
		t.Errorf("wait: %v", err)
	}
	eventually(t, "submissions are refused", func() bool {
		_, err := q.Submit(soon(t), runq.Job{Name: "echo"})
		return errors.Is(err, runq.ErrControlLost)
	})
}

// When all workers stand still, the opener ends them, and what they had goes on.
func TestAllWorkersHang(t *testing.T) {
	ofProcesses(t)
	var w watched
	q := openProcesses(t, runq.Options{Observe: w.observe, Lease: 500 * time.Millisecond})
	id, err := q.Submit(soon(t), runq.Job{Name: "echo", Payload: []byte("x"), Delay: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for worker := range 2 {
		signalWorker(t, q, worker, syscall.SIGSTOP)
	}
	if r, err := q.Wait(soon(t), id); err != nil || string(r.Payload) != "x" {
		t.Errorf("%+v, %v", r, err)
	}
	if w.count(runq.WorkersHang) == 0 {
		t.Error("nobody noticed")
	}
}

// A worker whose CPU has left gets no new tasks while there are others.
func TestCPULeaves(t *testing.T) {
	var w watched
	q := openThreads(t, runq.Options{Workers: 2, CPUs: []int{0, 1}, Observe: w.observe})
	q.CPUsOnline(1)
	for range 20 {
		if r := result(t, q, runq.Job{Name: "echo"}); r.Worker != 1 {
			t.Fatalf("a task went to worker %d, whose CPU has left", r.Worker)
		}
	}
	q.CPUsOnline(0, 1)
	if w.count(runq.CPULeft) != 1 || w.count(runq.CPUBack) != 1 {
		t.Error("it is not told")
	}
	if r := result(t, q, runq.Job{Name: "echo", Affinity: runq.OnCPU(0)}); r.Err != nil {
		t.Error(r.Err)
	}
}
