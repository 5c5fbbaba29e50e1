package runq_test

import (
	"context"
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/runq"
)

func init() {
	runq.Register("mallocs", func(context.Context, *runq.Task) ([]byte, error) {
		return binary.LittleEndian.AppendUint64(nil, mallocs()), nil
	})
}

// mallocs is how many objects this process has allocated.
func mallocs() uint64 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.Mallocs
}

// In steady state the queue allocates nothing for a task, on either side of it:
// what is left are a dozen objects a batch, which the submitter gets, and what the
// runtime does by itself.
func TestTasksAllocateNothing(t *testing.T) {
	if testing.Short() {
		t.Skip(testkit.SkipLine("short", "the race detector allocates by itself"))
	}
	const (
		batch   = 256
		batches = 211
		bound   = 0.2 // Objects a task. One for each task would be 1.
	)
	for _, threads := range []bool{true, false} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		q, err := runq.Open(ctx, runq.Options{Threads: threads, Workers: 2, K: 2, AllowSharedDomain: true, Lease: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close(context.Background())
		jobs := make([]runq.Job, batch)
		for i := range jobs {
			jobs[i] = runq.Job{Name: "nothing", Payload: make([]byte, 64), Detached: true}
		}
		run := func() {
			for range batches {
				if _, err := q.SubmitBatch(ctx, jobs); err != nil {
					t.Fatal(err)
				}
			}
			for q.Stats().Pending > 0 && ctx.Err() == nil {
				time.Sleep(5 * time.Millisecond)
			}
		}
		count := func() (n uint64) {
			for worker := range 2 {
				if threads && worker > 0 {
					break // It is one process.
				}
				id, err := q.Submit(ctx, runq.Job{Name: "mallocs", Affinity: runq.OnWorker(worker)})
				if err != nil {
					t.Fatal(err)
				}
				r, err := q.Wait(ctx, id)
				if err != nil || len(r.Payload) != 8 {
					t.Fatalf("ask worker %d: %v, %v", worker, r, err)
				}
				n += binary.LittleEndian.Uint64(r.Payload)
			}
			if !threads {
				n += mallocs()
			}
			return n
		}
		run()
		before := count()
		run()
		if each := float64(count()-before) / (batch * batches); each > bound {
			t.Errorf("threads %v: %.3f objects are allocated for a task, want %v at most", threads, each, bound)
		} else {
			t.Logf("threads %v: %.4f objects a task", threads, each)
		}
	}
}
