package numa

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/testkit"
)

// start starts a worker on the last usable CPU and closes it with the test.
func start[T any](t testing.TB, handle Handler[T], o WorkerOptions) *Worker[T] {
	t.Helper()
	cpus := local(t).Limits.CPUs
	w, err := StartWorker(Binding{Node: Unknown, CPUs: cpus[len(cpus)-1:]}, handle, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := w.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	})
	return w
}

// Every request is handled once, in order, on the worker's CPU.
func TestWorkerHandlesInOrderOnItsCPU(t *testing.T) {
	var got []int
	var elsewhere atomic.Int64
	w := start(t, func(at Binding, batch []int) {
		if cpu, _ := getcpu(); !at.CPUs.Has(cpu) {
			elsewhere.Add(1)
		}
		got = append(got, batch...)
	}, WorkerOptions{Ring: 64, Batch: 10})
	const requests = 10_000
	for i := 0; i < requests; i += 4 {
		if n, err := w.Submit(t.Context(), i, i+1, i+2, i+3); n != 4 || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(got) != requests || !slices.IsSorted(got) || got[requests-1] != requests-1 {
		t.Errorf("%d requests arrived, in order: %v", len(got), slices.IsSorted(got))
	}
	if n := elsewhere.Load(); n > 0 {
		t.Errorf("%d batches ran elsewhere", n)
	}
	s, err := w.Status()
	if err != nil || s.Displaced() || s.Handled != requests || s.Waiting != 0 || s.Moves != 0 {
		t.Errorf("status %+v, %v", s, err)
	}
}

// Run runs on the worker's thread, while it idles and while it works.
func TestWorkerRun(t *testing.T) {
	w := start(t, func(Binding, []int) {}, WorkerOptions{})
	for i := range 100 {
		if i%3 == 0 {
			_, _ = w.TrySubmit(make([]int, 50))
		}
		tid := 0
		if err := w.Run(t.Context(), func() { tid = unix.Gettid() }); err != nil || tid != w.tid {
			t.Fatalf("ran on thread %d, want %d; %v", tid, w.tid, err)
		}
	}
}

// Close handles what was submitted, answers calls that came before, and refuses
// what comes after.
func TestWorkerClose(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	for range rounds {
		handled := 0
		w := start(t, func(_ Binding, batch []int) { handled += len(batch) }, WorkerOptions{Ring: 8})
		var wait sync.WaitGroup
		var submitted atomic.Int64
		for range 3 {
			wait.Go(func() {
				for {
					n, err := w.Submit(context.Background(), 1, 2, 3)
					submitted.Add(int64(n))
					if err != nil {
						return
					}
					if err := w.Run(context.Background(), func() {}); err != nil && !errors.Is(err, ErrWorkerClosed) {
						t.Errorf("Run: %v", err)
					}
				}
			})
		}
		runtime.Gosched()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		wait.Wait()
		if int64(handled) != submitted.Load() {
			t.Fatalf("%d submitted, %d handled", submitted.Load(), handled)
		}
		if _, err := w.Submit(t.Context(), 1); !errors.Is(err, ErrWorkerClosed) {
			t.Fatalf("Submit after Close: %v", err)
		}
		if _, err := w.Status(); !errors.Is(err, ErrWorkerClosed) {
			t.Fatalf("Status after Close: %v", err)
		}
	}
}

// A worker gives its thread back as it was: no thread of the process keeps a
// binding.
func TestWorkerRestoresAffinity(t *testing.T) {
	testkit.Need(t, testkit.TwoCPUs)
	before := affinities(t)
	for range 20 {
		w := start(t, func(Binding, []int) {}, WorkerOptions{})
		if s, err := w.Status(); err != nil || len(s.Affinity) != 1 {
			t.Fatalf("a worker's affinity is %s, %v", s.Affinity, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for tid, cpus := range affinities(t) {
		if was, known := before[tid]; known && was != cpus || cpus != local(t).Limits.CPUs.String() {
			t.Errorf("thread %s may run on %s, before %s", tid, cpus, before[tid])
		}
	}
}

func affinities(t *testing.T) map[string]string {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, thread := range threads {
		tid, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			t.Fatal(err)
		}
		if cpus, err := Affinity(tid); err == nil { // It may have ended.
			all[filepath.Base(thread)] = cpus.String()
		}
	}
	return all
}

// Somebody takes the binding away, as the kernel does when a CPU goes offline.
// The worker notices at its next batches, binds itself again and says so.
func TestWorkerNoticesThatItWasMoved(t *testing.T) {
	testkit.Need(t, testkit.TwoCPUs)
	var log bytes.Buffer
	w := start(t, func(Binding, []int) {}, WorkerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	cpus := local(t).Limits.CPUs
	if err := unix.SchedSetaffinityDynamic(w.tid, newMask(cpus[:1])); err != nil {
		t.Fatal(err)
	}
	s, err := w.Status()
	if err != nil || !s.Displaced() || !s.Affinity.Equal(cpus[:1]) {
		t.Fatalf("status after it was moved: %+v, %v", s, err)
	}
	if _, err := w.Submit(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err = w.Status()
	if err != nil || s.Displaced() || s.Moves != 1 || s.Rebounds != 1 {
		t.Errorf("status after a batch: %+v, %v", s, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "the kernel moved a bound thread") {
		t.Errorf("the log says %q", log.String())
	}
}

// The same by a CPU that goes away and comes back.
func TestWorkerSurvivesHotplug(t *testing.T) {
	testkit.Need(t, testkit.Hotplug)
	w := start(t, func(Binding, []int) {}, WorkerOptions{})
	name := filepath.Join("/", cpuDir, "cpu"+w.Binding().CPUs.String(), "online")
	if err := os.WriteFile(name, []byte("0"), 0); err != nil {
		testkit.Skip(t, testkit.Hotplug, err.Error())
	}
	online := func() {
		if err := os.WriteFile(name, []byte("1"), 0); err != nil {
			t.Error(err)
		}
	}
	defer online()
	handle := func() Status {
		if _, err := w.Submit(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		s, err := w.Status()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := handle(); !s.Displaced() || s.Moves == 0 || s.Rebounds != 0 || s.Handled != 1 {
		t.Errorf("while its CPU is off: %+v", s)
	}
	online()
	if s := handle(); s.Displaced() || s.Rebounds == 0 || s.Handled != 2 {
		t.Errorf("when its CPU is back: %+v", s)
	}
}

// A profile tells nodes apart.
func TestWorkerHasLabels(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	w := start(t, func(Binding, []int) {
		entered <- true
		<-leave
	}, WorkerOptions{Labels: []string{"role", "replica"}})
	if _, err := w.TrySubmit([]int{1}); err != nil {
		t.Fatal(err)
	}
	<-entered
	var text bytes.Buffer
	err := pprof.Lookup("goroutine").WriteTo(&text, 1)
	close(leave)
	if err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{`"numa_node":"-1"`, `"numa_cpus":"` + w.Binding().CPUs.String() + `"`, `"numa_worker":"0"`, `"role":"replica"`} {
		if !strings.Contains(text.String(), label) {
			t.Errorf("the profile has no label %s", label)
		}
	}
}

func TestStartWorkerRefuses(t *testing.T) {
	cpus := local(t).Limits.CPUs
	handle := func(Binding, []int) {}
	for name, tt := range map[string]struct {
		cpus    List
		options WorkerOptions
		typed   bool
	}{
		"no CPU":            {nil, WorkerOptions{}, true},
		"a CPU that is not": {List{maxCPUs - 1}, WorkerOptions{}, true},
		"a negative CPU":    {List{-1}, WorkerOptions{}, true},
		"a partly bad set":  {cpus[:1].Or(List{maxCPUs - 1}), WorkerOptions{}, true},
		"too large a CPU":   {List{maxCPUs}, WorkerOptions{}, true},
		"negative ring":     {cpus[:1], WorkerOptions{Ring: -1}, false},
		"negative batch":    {cpus[:1], WorkerOptions{Batch: -1}, false},
		"odd labels":        {cpus[:1], WorkerOptions{Labels: []string{"x"}}, false},
	} {
		w, err := StartWorker(Binding{CPUs: tt.cpus}, handle, tt.options)
		var refused *CPUError
		if err == nil || errors.As(err, &refused) != tt.typed {
			t.Errorf("%s: %v", name, err)
		}
		if w != nil {
			t.Errorf("%s: there is a worker", name)
		}
	}
	if got := affinities(t); len(got) == 0 {
		t.Error("there are no threads")
	} else {
		for tid, may := range got {
			if may != cpus.String() {
				t.Errorf("thread %s keeps the binding %s", tid, may)
			}
		}
	}
}

func TestWorkerContext(t *testing.T) {
	leave := make(chan bool)
	w := start(t, func(Binding, []int) { <-leave }, WorkerOptions{Ring: 1, Batch: 1})
	defer close(leave)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if n, err := w.Submit(ctx, 1, 2, 3); n == 3 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Submit to a stuck worker: %d, %v", n, err)
	}
	if err := w.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Flush of a stuck worker: %v", err)
	}
}

func TestBindings(t *testing.T) {
	for _, tt := range []struct {
		shape int
		o     PoolOptions
		want  string
	}{
		{3, PoolOptions{Per: PerNode}, "0: 0-3,8-11; 1: 4-7,12-15"},
		{3, PoolOptions{Per: PerCore, CPUs: List{0, 5, 8, 13}}, "0: 0; 1: 5"},
		{3, PoolOptions{CPUs: List{8, 15}}, "0: 8; 1: 15"},
		{7, PoolOptions{Per: PerNode}, "0: 0-1; 1: 2-3"},
		{8, PoolOptions{Per: PerCore}, "0: 0; 1: 2; 1: 3"},
		{9, PoolOptions{}, "1: 3"},
		{9, PoolOptions{CPUs: List{2, 3}}, "error: plan pool: this process may not use CPUs 2, only 3"},
		{9, PoolOptions{CPUs: List{}}, "error: plan pool: there is no CPU to put a worker on"},
		{9, PoolOptions{Per: 9}, "error: plan pool: there is no kind 9 of pool"},
	} {
		topo, err := Read(shapes[tt.shape].files())
		if err != nil {
			t.Fatal(err)
		}
		bindings, err := tt.o.Bindings(topo)
		var parts []string
		for i, b := range bindings {
			if b.Index != i {
				t.Errorf("binding %d has index %d", i, b.Index)
			}
			parts = append(parts, strconv.Itoa(b.Node)+": "+b.CPUs.String())
		}
		got := strings.Join(parts, "; ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != tt.want {
			t.Errorf("%s, %+v: got %s, want %s", shapes[tt.shape].name, tt.o, got, tt.want)
		}
	}
}

// Every CPU has a worker near to it: its own, the core's, the node's, or that of
// the nearest node.
func TestPoolAdopts(t *testing.T) {
	topo, err := Read(shapes[3].files())
	if err != nil {
		t.Fatal(err)
	}
	p := &Pool[int]{byCPU: map[int]*Worker[int]{}, byNode: map[int][]*Worker[int]{}}
	w := &Worker[int]{at: Binding{Node: 0, CPUs: List{2}}}
	p.workers = []*Worker[int]{w, {at: Binding{Node: 0, CPUs: List{3}}}}
	p.byNode[0] = p.workers
	p.byCPU[2] = w
	p.adopt(topo)
	if p.byCPU[10] != w {
		t.Error("the sibling of CPU 2 is not served by its worker")
	}
	for _, c := range topo.CPUs {
		if p.byCPU[c.ID] == nil {
			t.Errorf("CPU %d has no worker", c.ID)
		}
	}
	if len(p.OnNode(1)) != 2 || p.OnNode(7) != nil {
		t.Errorf("node 1 has %d workers, node 7 %d", len(p.OnNode(1)), len(p.OnNode(7)))
	}
}

func TestPool(t *testing.T) {
	topo := local(t)
	for _, per := range []Per{PerCPU, PerCore, PerNode} {
		var handled atomic.Int64
		p, err := StartPool(topo, func(at Binding, batch []int) {
			if cpu, node := getcpu(); !at.CPUs.Has(cpu) || node != at.Node {
				t.Errorf("the worker of %+v runs on CPU %d, node %d", at, cpu, node)
			}
			handled.Add(int64(len(batch)))
		}, PoolOptions{Per: per})
		if err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			if _, err := p.Near().Submit(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if handled.Load() != 1000 {
			t.Errorf("%d of 1000 handled", handled.Load())
		}
		for _, n := range topo.Nodes {
			if len(p.OnNode(n.ID)) == 0 {
				t.Errorf("node %d has no worker", n.ID)
			}
		}
		for range 2 {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
