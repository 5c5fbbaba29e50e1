package replicated

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestEachReplicaSeesEachWrite(t *testing.T) {
	for nodes := 1; nodes <= 8; nodes++ {
		x := newRep(t, nodes, Options{LogSize: 16})
		for i := range uint64(100) {
			writer := x.HandleOn(int(i) % nodes)
			if old := mustWrite(t, writer, i%3, 1); old != i/3 {
				t.Fatalf("%d nodes: addition %d found %d", nodes, i, old)
			}
			for node := range nodes {
				if got := mustRead(t, x.HandleOn(node), i%3); got != i/3+1 {
					t.Fatalf("%d nodes: node %d reads %d after addition %d", nodes, node, got, i)
				}
			}
		}
		if err := x.Verify(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// shaken runs writers and readers on all nodes and records what they saw.
func shaken(t *testing.T, x *kvRep, seed uint64, workers, opsEach int, meanwhile func(stop <-chan struct{})) *history {
	t.Helper()
	h := newHistory()
	var wg sync.WaitGroup
	for client := range workers {
		rng := rand.New(rand.NewPCG(seed, uint64(client)))
		via := x.HandleOn(client % x.nodes)
		wg.Go(func() {
			for range opsEach {
				key := rng.Uint64N(4)
				var err error
				if rng.IntN(2) == 0 {
					err = h.write(t.Context(), client, via, key, 1+rng.Uint64N(100))
				} else {
					err = h.read(client, via, key)
				}
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
			}
		})
	}
	stop := make(chan struct{})
	var disturber <-chan struct{}
	if meanwhile != nil {
		disturber = background(func() { meanwhile(stop) })
	}
	wg.Wait()
	close(stop)
	if disturber != nil {
		<-disturber
	}
	return h
}

// shaker yields and naps at random steps, so that threads meet in ways in which
// they seldom do.
func shaker(seed uint64, maxNap time.Duration) *probe {
	var n atomic.Uint64
	return &probe{at: func(step, int) {
		rng := rand.New(rand.NewPCG(seed, n.Add(1)))
		switch rng.IntN(40) {
		case 0, 1, 2, 3, 4:
			runtime.Gosched()
		case 5:
			time.Sleep(time.Duration(rng.Int64N(int64(maxNap))))
		}
	}}
}

// rounds is how many seeds a random test tries.
func rounds(t *testing.T, n int) int {
	if testing.Short() {
		return max(n/4, 1)
	}
	return n
}

func TestHistoriesAreLinearizable(t *testing.T) {
	for _, nodes := range []int{1, 2, 3, 4} {
		for _, workers := range []int{nodes, 8} {
			t.Run(fmt.Sprintf("%d replicas, %d workers", nodes, workers), func(t *testing.T) {
				for seed := range uint64(rounds(t, 8)) {
					x := newRep(t, nodes, Options{LogSize: 16})
					if seed%4 != 0 { // Those without a probe take the straight way.
						x.probe = shaker(seed, 100*time.Microsecond)
					}
					shaken(t, x, seed, workers, 400/workers, nil).check(t)
				}
			})
		}
	}
}

func TestHistoriesOnOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, nodes := range []int{1, 2, 3} {
		for seed := range uint64(rounds(t, 4)) {
			x := newRep(t, nodes, Options{LogSize: 16})
			x.probe = shaker(seed, 100*time.Microsecond)
			shaken(t, x, seed, 8, 40, nil).check(t)
		}
	}
}

// Replicas are detached because they stall, rebuilt, removed and added, while
// everybody goes on.
func TestHistoriesWhileReplicasComeAndGo(t *testing.T) {
	for _, nodes := range []int{2, 3, 4} {
		t.Run(fmt.Sprintf("%d replicas", nodes), func(t *testing.T) {
			for seed := range uint64(rounds(t, 6)) {
				x := newRep(t, nodes, Options{LogSize: 16, DetachAfter: time.Millisecond})
				if seed%3 != 0 {
					x.probe = shaker(seed, 8*time.Millisecond)
				}
				rng := rand.New(rand.NewPCG(seed, 99))
				shaken(t, x, seed, 6, 60, func(stop <-chan struct{}) {
					for {
						select {
						case <-stop:
							return
						default:
						}
						node := rng.IntN(nodes)
						var err error
						if rng.IntN(2) == 0 {
							err = x.RemoveReplica(context.Background(), node)
						} else {
							err = x.AddReplica(context.Background(), node)
						}
						if err != nil && !errors.Is(err, ErrLastReplica) && !errors.Is(err, ErrReplicaExists) {
							t.Errorf("seed %d: %v", seed, err)
						}
						time.Sleep(time.Millisecond)
					}
				}).check(t)
				if err := x.Verify(context.Background()); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
			}
		})
	}
}

func TestABatchIsOneOperation(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		x := newRep(t, nodes, Options{LogSize: 64})
		var wg sync.WaitGroup
		for node := range nodes {
			wg.Go(func() {
				h := x.HandleOn(node)
				for range 200 {
					old, err := h.WriteBatch(t.Context(), []kvOp{{key: 1, delta: 1}, {key: 2, delta: 1}, {key: 1, delta: 1}})
					if err != nil || old[0] != 2*old[1] || old[2] != old[0]+1 {
						t.Errorf("batch returned %v, %v", old, err)
					}
				}
			})
			wg.Go(func() {
				h := x.HandleOn(node)
				for range 400 {
					if err := h.View(func(s *kv) {
						if s.m[1] != 2*s.m[2] {
							t.Errorf("half of a batch is visible: %v", s.m)
						}
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if got := mustRead(t, x.HandleOn(0), 2); got != uint64(200*nodes) {
			t.Errorf("%d nodes: %d batches arrived, want %d", nodes, got, 200*nodes)
		}
	}
}

func TestBatchLimits(t *testing.T) {
	x := newRep(t, 2, Options{LogSize: 16})
	if res, err := x.WriteBatch(t.Context(), nil); res != nil || err != nil {
		t.Errorf("no operations: %v, %v", res, err)
	}
	if _, err := x.WriteBatch(t.Context(), make([]kvOp, 4)); err != nil {
		t.Errorf("a quarter of the log: %v", err)
	}
	if _, err := x.WriteBatch(t.Context(), make([]kvOp, 5)); !errors.Is(err, ErrBatchTooLarge) {
		t.Errorf("more than a quarter of the log: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, opts := range []Options{{LogSize: 8}, {LogSize: 100}, {LogSize: 1 << 30}, {DetachAfter: -1}, {Shards: -1}, {Shards: 1000}} {
		if _, err := New(newKV, opts); err == nil {
			t.Errorf("%+v: no error", opts)
		}
	}
}

func TestStaleReadsLagByNoMoreThanAllowed(t *testing.T) {
	x := newRep(t, 2, Options{LogSize: 64})
	writer, reader := x.HandleOn(0), x.HandleOn(1)
	for range 10 {
		mustWrite(t, writer, 1, 1)
	}
	read := func(h *Handle[*kv, kvOp, uint64], lag uint64) (v uint64) {
		if err := h.ReadStale(lag, func(s *kv) { v = s.m[1] }); err != nil {
			t.Fatal(err)
		}
		return v
	}
	if got := read(reader, 10); got != 0 {
		t.Errorf("lag 10 of 10 reads %d: it caught up without need", got)
	}
	if got := read(reader, 9); got < 1 {
		t.Errorf("lag 9 of 10 reads %d", got)
	}
	if got := read(reader, 0); got != 10 {
		t.Errorf("lag 0 reads %d", got)
	}
	mustWrite(t, writer, 1, 1)
	mustWrite(t, reader, 2, 1)
	if got := read(reader, 100); got != 11 {
		t.Errorf("a handle that wrote at position 12 reads %d: it misses what preceded its own write", got)
	}
	for range 10 {
		mustWrite(t, writer, 1, 1)
	}
	mustRead(t, reader, 1)
	// Another replica takes over, and is not older than what the handle saw.
	if err := x.RemoveReplica(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if got := read(reader, 100); got != 21 {
		t.Errorf("after its replica went, the handle reads %d: time went back", got)
	}
}

func TestAContextEndsAWaitingWrite(t *testing.T) {
	var s script
	x := newRep(t, 2, Options{DetachAfter: time.Hour})
	s.install(x, 0)
	holder := s.stop(t, stepCollected, 0)
	first := background(func() { mustWrite(t, x.HandleOn(0), 1, 1) })
	holder.wait(t)

	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Millisecond, errors.New("too slow"))
	defer cancel()
	_, err := x.HandleOn(0).Write(ctx, kvOp{key: 1, delta: 10})
	if err == nil || errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "too slow") {
		t.Errorf("a write that nobody began returned %v", err)
	}
	holder.release()
	<-first
	if got := mustRead(t, x.HandleOn(1), 1); got != 1 {
		t.Errorf("the counter is %d: the withdrawn write took effect", got)
	}
	if got := x.Stats().Withdrawn; got != 1 {
		t.Errorf("%d writes were withdrawn", got)
	}
}

func TestAContextEndsDuringApply(t *testing.T) {
	var s script
	x := newRep(t, 2, Options{DetachAfter: time.Hour})
	s.install(x, 0)
	ctx, cancel := context.WithCancel(t.Context())
	locked := s.stop(t, stepLocked, 0)
	tried := s.stop(t, stepTried, 0)
	combiner := background(func() { mustWrite(t, x.HandleOn(0), 2, 1) })
	locked.wait(t)
	var err error
	writer := background(func() { _, err = x.HandleOn(0).Write(ctx, kvOp{key: 1, delta: 10}) })
	eventually(t, "the second write is published", func() bool {
		r := x.members.Load().home[0]
		for i := range r.writers {
			if r.writers[i].request.Load() != nil {
				return true
			}
		}
		return false
	})
	// The combiner tries its own write first, and is let go to stop at the other.
	own := tried
	other := &stop{}
	locked.release()
	own.wait(t)
	other = s.stop(t, stepTried, 0)
	own.release()
	other.wait(t)
	cancel()
	<-writer
	if !errors.Is(err, ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("a write under way returned %v", err)
	}
	other.release()
	<-combiner
	if got := mustRead(t, x.HandleOn(1), 1); got != 10 {
		t.Errorf("the counter is %d", got)
	}
}

func TestReadsAllocateNothing(t *testing.T) {
	for _, nodes := range []int{1, 2} {
		x := newRep(t, nodes, Options{})
		h := x.HandleOn(nodes - 1)
		mustWrite(t, h, 1, 5)
		mustRead(t, x.HandleOn(0), 1)
		var sum uint64
		for name, read := range map[string]func(){
			"Read":         func() { _ = x.Read(func(s *kv) { sum += s.m[1] }) },
			"ReadStale":    func() { _ = x.ReadStale(3, func(s *kv) { sum += s.m[1] }) },
			"Handle.Read":  func() { _ = h.Read(func(s *kv) { sum += s.m[1] }) },
			"Handle.Stale": func() { _ = h.ReadStale(3, func(s *kv) { sum += s.m[1] }) },
		} {
			if n := testing.AllocsPerRun(1000, read); n != 0 {
				t.Errorf("%d nodes: %s allocates %g times", nodes, name, n)
			}
		}
		if sum == 0 {
			t.Error("the reads read nothing")
		}
	}
}

func TestAReaderThatPanicsLeaves(t *testing.T) {
	x := newRep(t, 2, Options{DetachAfter: time.Hour})
	h := x.HandleOn(0)
	func() {
		defer func() { _ = recover() }()
		_ = h.Read(func(*kv) { panic("in a reader") })
	}()
	soon(t, "a write after a reader's panic", func() { mustWrite(t, h, 1, 1) })
}

func TestSnapshotAndRestore(t *testing.T) {
	x := newRep(t, 3, Options{})
	for i := range uint64(50) {
		mustWrite(t, x.HandleOn(int(i)%3), i, i)
	}
	var text bytes.Buffer
	if err := x.Snapshot(&text); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, x.HandleOn(0), 7, 1000)
	if err := x.Restore(t.Context(), bytes.NewReader([]byte("{"))); err == nil {
		t.Error("half a snapshot was restored")
	}
	if err := x.Restore(t.Context(), &text); err != nil {
		t.Fatal(err)
	}
	for node := range 3 {
		if got := mustRead(t, x.HandleOn(node), 7); got != 7 {
			t.Errorf("node %d reads %d after the restore", node, got)
		}
	}
	if err := x.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}
