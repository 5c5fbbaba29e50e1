package runq_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coreplica/coreplica/runq"
)

// A worker whose CPU leaves ends what it runs, and then another one serves its
// queue; when the CPU is back, it does again. Nobody dies, every task starts once
// and ends, and the long one where it began.
func TestQueueIsHandedOverWhileTheCPUIsAway(t *testing.T) {
	online := filepath.Join(t.TempDir(), "online")
	write := func(cpus string) {
		t.Helper()
		// At once: what is read halfway is no list of CPUs.
		if err := os.WriteFile(online+".new", []byte(cpus+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(online+".new", online); err != nil {
			t.Fatal(err)
		}
	}
	write("0-1")
	// Behind the end of the queue, which reads the file.
	t.Cleanup(runq.SetOnlineFile(online))
	var w watched
	q := openProcesses(t, runq.Options{CPUs: []int{0, 1}, Handlers: 2, Observe: w.observe})
	before := q.Stats()
	long, err := q.Submit(soon(t), runq.Job{Name: "sleep", Payload: []byte("2500ms"), Mode: runq.AtMostOnce, Affinity: runq.OnWorker(0)})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the task runs", func() bool { s, err := q.Resolve(soon(t), long); return err == nil && s == runq.Running })
	jobs := make([]runq.Job, 60)
	for i := range jobs {
		jobs[i] = runq.Job{Name: "sleep", Payload: []byte("1ms"), Mode: runq.AtMostOnce, Affinity: runq.OnWorker(0)}
	}
	ends := func(ids []runq.ID, worker int) {
		t.Helper()
		for _, id := range ids {
			if r, err := q.Wait(soon(t), id); err != nil || r.Err != nil || r.Attempts != 1 || worker >= 0 && r.Worker != worker {
				t.Fatalf("%v, wanted from worker %d: %+v, %v", id, worker, r, err)
			}
		}
	}
	under := submitAll(t, q, jobs)
	write("1")
	eventually(t, "it is told", func() bool { return w.count(runq.CPULeft) == 1 })
	under = append(under, submitAll(t, q, jobs)...)
	if owner, state := q.Owner(0); owner != 0 {
		t.Errorf("a task runs, and its queue is %s", state)
	}
	ends([]runq.ID{long}, 0)
	eventually(t, "the queue is handed over", func() bool { owner, _ := q.Owner(0); return owner == 1 })
	ends(under, -1)
	ends(submitAll(t, q, jobs), 1)
	write("0-1")
	eventually(t, "the queue is handed back", func() bool { owner, _ := q.Owner(0); return owner == 0 && w.count(runq.CPUBack) == 1 })
	ends(submitAll(t, q, jobs), 0)
	s := q.Stats()
	if s.Crashes+s.Restarts+s.Lost+s.Fenced+s.Unkillable > 0 || w.count(runq.VictimKilled) > 0 {
		t.Errorf("nothing failed, and %+v", s)
	}
	for i := range s.Workers {
		if s.Workers[i].PID != before.Workers[i].PID {
			t.Errorf("worker %d is another process", i)
		}
	}
	write("0")
	eventually(t, "the other queue is handed over", func() bool { owner, _ := q.Owner(1); return owner == 0 })
	write("2")
	time.Sleep(1500 * time.Millisecond) // A look, with nobody to hand over to.
	ends(submitAll(t, q, jobs), 0)
}
