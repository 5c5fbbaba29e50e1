package runq_test

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coreplica/coreplica/runq"
	"github.com/coreplica/coreplica/runq/internal/trial"
)

// What worker processes of the test below are told: where to note their starts, and
// whether to begin without a look at the lease.
const (
	startsEnv = "COREPLICA_TEST_RUNQ_STARTS"
	lateEnv   = "COREPLICA_TEST_RUNQ_LATE"
)

func init() {
	trial.Hooks.Late = os.Getenv(lateEnv) != ""
	name := os.Getenv(startsEnv)
	var once sync.Once
	var f *os.File
	runq.Register("note", func(context.Context, *runq.Task) ([]byte, error) {
		var err error
		once.Do(func() { f, err = os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) })
		if err == nil {
			_, err = f.Write(binary.LittleEndian.AppendUint64(nil, uint64(os.Getpid())))
		}
		return nil, err
	})
}

// startsOf counts the starts that a process has noted.
func startsOf(t *testing.T, name string, pid int) (n int) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for ; len(data) >= 8; data = data[8:] {
		if int(binary.LittleEndian.Uint64(data)) == pid {
			n++
		}
	}
	return n
}

// zombieStarts stops a worker amid short tasks until its queue was taken over, lets
// it go on, and returns how many handlers it begins then.
func zombieStarts(t *testing.T, env ...string) int {
	t.Helper()
	name := filepath.Join(t.TempDir(), "starts")
	spared := true
	var mu sync.Mutex
	trial.Hooks.Spare = func(worker int, _ uint32) bool {
		mu.Lock()
		defer mu.Unlock()
		return spared && worker == 0
	}
	defer func() { trial.Hooks.Spare = nil }()
	q := openProcesses(t, runq.Options{Lease: 300 * time.Millisecond, KillDeadline: 50 * time.Millisecond, MinInSync: 1, Handlers: 2, Env: append(env, startsEnv+"="+name)})
	pid := q.Stats().Workers[0].PID
	jobs := make([]runq.Job, 20_000)
	for i := range jobs {
		jobs[i] = runq.Job{Name: "note", Affinity: runq.OnWorker(0)}
	}
	var ids []runq.ID
	var failed error
	submitted := make(chan struct{})
	go func() {
		defer close(submitted)
		ids, failed = q.SubmitBatch(context.Background(), jobs)
	}()
	eventually(t, "tasks run", func() bool { return startsOf(t, name, pid) > 500 })
	signalWorker(t, q, 0, syscall.SIGSTOP)
	eventually(t, "the queue is taken over", func() bool { owner, state := q.Owner(0); return owner == 1 && len(state) > 7 && state[1:7] == "ACTIVE" })
	before := startsOf(t, name, pid)
	signalWorker(t, q, 0, syscall.SIGCONT)
	eventually(t, "the zombie's end", func() bool { return !alive(pid) })
	mu.Lock()
	spared = false
	mu.Unlock()
	if <-submitted; failed != nil {
		t.Fatal(failed)
	}
	for _, id := range ids {
		if r, err := q.Wait(soon(t), id); err != nil || r.Err != nil {
			t.Fatalf("%v: %+v, %v", id, r, err)
		}
	}
	n := startsOf(t, name, pid) - before
	shut(t, q)
	return n
}

// A worker that goes on after its lease begins nothing that it had claimed, but for
// what stood between the look at the lease and the handler.
func TestZombieBeginsNothing(t *testing.T) {
	ofProcesses(t)
	const rounds, controls = 4, 12
	with, without := 0, 0
	for range rounds {
		with += zombieStarts(t)
	}
	// How much is claimed at the moment of the stop is chance.
	for i := 0; i < controls && without <= 2*rounds; i++ {
		without += zombieStarts(t, lateEnv+"=1")
	}
	t.Logf("zombies begin %d handlers, and %d where nobody looks at the lease", with, without)
	if with > 2*rounds || without <= 2*rounds { // A handler each may have looked.
		t.Errorf("zombies begin %d handlers, and %d where nobody looks at the lease", with, without)
	}
}
