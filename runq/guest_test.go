package runq_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/numa"
	"github.com/coreplica/coreplica/runq"
)

// Neighbours take the copies from the start, whichever worker came up first.
func TestCopiesLieWithTheNextWorkers(t *testing.T) {
	ofProcesses(t)
	for _, o := range []runq.Options{{Workers: 4}, {Workers: 4, K: 3}, {Workers: 6, Threads: true, Lease: 10 * time.Second}} {
		q := openProcesses(t, o)
		for queue := range o.Workers {
			want := []int{queue, (queue + 1) % o.Workers}
			if o.K == 3 {
				want = append(want, (queue+2)%o.Workers)
			}
			if got := q.Hosts(queue); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%+v: copies of queue %d lie with %v, want %v", o, queue, got, want)
			}
		}
	}
}

// openGuest opens a queue with a worker for each CPU, small, since guests are.
func openGuest(t *testing.T, observe func(runq.Happening)) (context.Context, *runq.Queue) {
	t.Helper()
	top, err := numa.Local()
	if err != nil {
		t.Fatal(err)
	}
	// A translated guest is slow, and what it does not do in time is no death.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	q, err := runq.Open(ctx, runq.Options{
		Workers: len(top.Limits.CPUs), K: 2, Lease: 20 * time.Second, Slots: 512, ArenaBytes: 1 << 17, Logger: logTo(t), Observe: observe,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, q) })
	return ctx, q
}

// Each worker's memory is on its node, wholly, and no queue has all of its copies
// on one node.
func TestGuestCopiesLieOnOtherNodes(t *testing.T) {
	testkit.Need(t, testkit.NUMA, testkit.TwoCPUs)
	_, q := openGuest(t, nil)
	workers := q.Stats().Workers
	nodes := map[int]int{}
	for i, w := range workers {
		nodes[w.Node]++
		p, err := q.Placement(i)
		if err != nil || p.Absent > 0 || p.Percent(w.Node) != 100 {
			t.Errorf("memory of worker %d on CPU %d, node %d: %v, %v", i, w.CPU, w.Node, p, err)
		}
		t.Logf("worker %d, CPU %d, node %d: %v", i, w.CPU, w.Node, p)
	}
	for node, n := range nodes {
		if 2*n > len(workers) {
			testkit.Skip(t, testkit.NUMA, fmt.Sprintf("node %d has more than half of the CPUs that this process may use", node))
		}
	}
	for queue := range workers {
		hosts := q.Hosts(queue)
		if len(hosts) != 2 || workers[hosts[0]].Node == workers[hosts[1]].Node {
			t.Errorf("copies of queue %d lie with workers %v, one node", queue, hosts)
		}
	}
}

// boundTo counts the threads of a process that may run on one CPU alone.
func boundTo(pid, cpu int) (n int) {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, name := range names {
		status, _ := os.ReadFile(name) // A thread may end meanwhile.
		if strings.Contains(string(status), fmt.Sprintf("\nCpus_allowed_list:\t%d\n", cpu)) {
			n++
		}
	}
	return n
}

// threads counts the threads of a process.
func threads(pid int) int {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	return len(names)
}

// switchCPU takes a CPU away or brings it back.
func switchCPU(t *testing.T, cpu int, on string) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/online", cpu), []byte(on), 0); err != nil {
		t.Fatal(err)
	}
}

// heard keeps what happens to one worker.
type heard struct {
	worker int
	kinds  chan runq.HappeningKind
}

func (h *heard) observe(what runq.Happening) {
	if what.Worker != h.worker {
		return
	}
	switch what.Kind {
	case runq.WorkerMoved, runq.WorkerBound, runq.WorkerUp:
		h.kinds <- what.Kind
	}
}

func (h *heard) want(ctx context.Context, t *testing.T, kind runq.HappeningKind) {
	t.Helper()
	select {
	case got := <-h.kinds:
		if got != kind {
			t.Fatalf("%v, want %v", got, kind)
		}
	case <-ctx.Done():
		t.Fatalf("no %v", kind)
	}
}

// homework are tasks of one worker's queue, half of which nobody may steal.
type homework struct {
	q             *runq.Queue
	worker, tasks int
	ids           []runq.ID
}

func (w *homework) submit(ctx context.Context, t *testing.T) {
	t.Helper()
	jobs := make([]runq.Job, w.tasks)
	for i := range jobs {
		jobs[i] = runq.Job{Name: "sleep", Payload: []byte("5ms"), Mode: runq.OnceRecorded}
		if i%2 == 0 {
			jobs[i].Affinity = runq.OnWorker(w.worker)
		}
	}
	more, err := w.q.SubmitBatch(ctx, jobs)
	if err != nil {
		t.Fatal(err)
	}
	w.ids = append(w.ids, more...)
}

// wait waits for all of them and returns how many each worker ended.
func (w *homework) wait(ctx context.Context, t *testing.T) map[int]int {
	t.Helper()
	by := map[int]int{}
	for _, id := range w.ids {
		r, err := w.q.Wait(ctx, id)
		if err != nil || r.Err != nil || r.Attempts != 1 {
			t.Fatalf("%v: %+v, %v", id, r, err)
		}
		by[r.Worker]++
	}
	w.ids = nil
	return by
}

// When a worker's CPU goes offline its queue is handed to another worker, whether
// it lives on or dies meanwhile; when the CPU is back it is bound again and serves
// again. Every task ends, and none is attempted twice but by that death.
func TestGuestCPUGoesOffline(t *testing.T) {
	testkit.Need(t, testkit.Hotplug)
	const tasks = 40
	h := &heard{worker: 1, kinds: make(chan runq.HappeningKind, 16)}
	ctx, q := openGuest(t, h.observe)
	h.want(ctx, t, runq.WorkerUp)
	w := q.Stats().Workers[h.worker]
	if n, all := boundTo(w.PID, w.CPU), threads(w.PID); n != all || all == 0 {
		t.Errorf("%d of %d threads of worker %d are bound to CPU %d", n, all, h.worker, w.CPU)
	}
	load := &homework{q: q, worker: h.worker, tasks: tasks}
	submit, wait := func() { t.Helper(); load.submit(ctx, t) }, func() map[int]int { t.Helper(); return load.wait(ctx, t) }
	served := func(home bool) {
		t.Helper()
		for owner := -1; (owner == h.worker) != home || owner < 0; time.Sleep(10 * time.Millisecond) {
			if owner, _ = q.Owner(h.worker); ctx.Err() != nil {
				t.Fatalf("queue %d is served by worker %d", h.worker, owner)
			}
		}
	}
	submit()
	switchCPU(t, w.CPU, "0")
	back := false
	defer func() {
		if !back {
			switchCPU(t, w.CPU, "1")
		}
	}()
	h.want(ctx, t, runq.WorkerMoved)
	if n := boundTo(w.PID, w.CPU); n != 0 {
		t.Errorf("%d threads are bound to a CPU that has left", n)
	}
	submit()
	served(false)
	wait()
	submit()
	if by := wait(); by[h.worker] > 0 {
		t.Errorf("tasks ended by workers %v, and worker %d has no CPU", by, h.worker)
	}
	if s := q.Stats(); s.Crashes+s.Restarts+s.Lost != 0 || s.Workers[h.worker].PID != w.PID {
		t.Errorf("a CPU has left, and nothing failed: %+v", s)
	}
	submit()
	if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.want(ctx, t, runq.WorkerUp)
	h.want(ctx, t, runq.WorkerMoved)
	if by := wait(); by[h.worker] > 0 {
		t.Errorf("tasks ended by workers %v, and worker %d has no CPU", by, h.worker)
	}
	submit()
	switchCPU(t, w.CPU, "1")
	back = true
	h.want(ctx, t, runq.WorkerBound)
	served(true)
	wait()
	submit()
	if by := wait(); by[h.worker] < tasks/2 {
		t.Errorf("tasks ended by workers %v, and worker %d has its CPU again", by, h.worker)
	}
	if again := q.Stats().Workers[h.worker]; again.PID == w.PID || boundTo(again.PID, w.CPU) != threads(again.PID) {
		t.Errorf("worker %d, a process after %d, is not bound to CPU %d again", again.PID, w.PID, w.CPU)
	}
}
