package runq_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreplica/coreplica/runq"
)

func init() {
	runq.Register("echo", func(_ context.Context, t *runq.Task) ([]byte, error) { return t.Payload, nil })
	runq.Register("fail", func(context.Context, *runq.Task) ([]byte, error) { return nil, errors.New("as asked") })
	runq.Register("panic", func(context.Context, *runq.Task) ([]byte, error) { panic("at the disco") })
	runq.Register("flaky", func(_ context.Context, t *runq.Task) ([]byte, error) {
		if t.Attempt < 3 {
			return nil, fmt.Errorf("attempt %d", t.Attempt)
		}
		return fmt.Appendf(nil, "attempt %d", t.Attempt), nil
	})
	runq.Register("wait", func(ctx context.Context, _ *runq.Task) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	runq.Register("count", func(context.Context, *runq.Task) ([]byte, error) {
		counted.Add(1)
		return nil, nil
	})
	runq.RegisterJSON("double", func(_ context.Context, n int) (int, error) { return 2 * n, nil })
}

var counted atomic.Int64

// soon bounds what a test waits for.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// shut closes a queue when its test has ended, and with it the test's context.
func shut(t *testing.T, q *runq.Queue) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := q.Close(ctx); err != nil {
		t.Error(err)
	}
}

func openThreads(t *testing.T, o runq.Options) *runq.Queue {
	t.Helper()
	o.Threads = true
	if o.Workers == 0 {
		o.Workers = 2
	}
	q, err := runq.Open(soon(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, q) })
	return q
}

func TestSubmitAndWait(t *testing.T) {
	q := openThreads(t, runq.Options{})
	ctx := soon(t)
	id, err := q.Submit(ctx, runq.Job{Name: "echo", Payload: []byte("hello")})
	if err != nil {
		t.Fatal(err)
	}
	r, err := q.Wait(ctx, id)
	if err != nil || r.Err != nil || string(r.Payload) != "hello" || r.Attempts != 1 {
		t.Errorf("result %+v, error %v", r, err)
	}
	t.Logf("%+v", q.Stats())
}

func TestManyTasks(t *testing.T) {
	q := openThreads(t, runq.Options{})
	ctx := soon(t)
	const tasks = 2003
	before := counted.Load()
	jobs := make([]runq.Job, tasks)
	for i := range jobs {
		jobs[i] = runq.Job{Name: "count", Payload: fmt.Append(nil, i)}
	}
	ids, err := q.SubmitBatch(ctx, jobs)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if r, err := q.Wait(ctx, id); err != nil || r.Err != nil {
			t.Fatalf("%v: %+v %v", id, r, err)
		}
	}
	if n := counted.Load() - before; n != tasks {
		t.Errorf("%d of %d tasks ran", n, tasks)
	}
	t.Logf("%+v", q.Stats())
}

// registered are names that this process knows already: tests run again under
// -count.
var registered sync.Map

// registerOnce registers a handler that the latest caller decides on.
func registerOnce(name string, h runq.Handler) {
	current, again := registered.LoadOrStore(name, &atomic.Value{})
	current.(*atomic.Value).Store(h)
	if !again {
		runq.Register(name, func(ctx context.Context, t *runq.Task) ([]byte, error) {
			return current.(*atomic.Value).Load().(runq.Handler)(ctx, t)
		})
	}
}

// lockedWriter is for loggers whose output a test reads.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
