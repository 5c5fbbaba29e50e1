package replicated

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// An operation that panics wherever it is tried is in error, and everything else
// goes on as if it had not been.
func TestAPanicEverywhereIsTheOperationsError(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		x := newRep(t, nodes, Options{})
		h := x.HandleOn(0)
		mustWrite(t, h, 1, 10)
		_, err := h.Write(t.Context(), kvOp{key: 1, delta: 100, panics: func(int) bool { return true }})
		var perr *PanicError
		if !errors.As(err, &perr) || perr.Value != "as asked" || !strings.Contains(string(perr.Stack), "Apply") || errors.Is(err, ErrPoisoned) {
			t.Fatalf("%d nodes: the operation returned %v", nodes, err)
		}
		eventually(t, "the canary is rebuilt", func() bool { return len(x.Replicas()) == nodes })
		for node := range nodes {
			if got := mustRead(t, x.HandleOn(node), 1); got != 10 {
				t.Errorf("%d nodes: node %d reads %d, half of the operation is there", nodes, node, got)
			}
		}
		mustWrite(t, x.HandleOn(nodes-1), 1, 1)
		if err := x.Verify(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A batch of which one operation panics has no effect at all.
func TestAPanicInABatchUndoesIt(t *testing.T) {
	x := newRep(t, 2, Options{})
	h := x.HandleOn(0)
	ops := []kvOp{{key: 1, delta: 2}, {key: 2, delta: 2, panics: func(int) bool { return true }}, {key: 3, delta: 2}}
	var perr *PanicError
	if _, err := h.WriteBatch(t.Context(), ops); !errors.As(err, &perr) {
		t.Fatalf("the batch returned %v", err)
	}
	for key := range uint64(4) {
		if got := mustRead(t, h, key); got != 0 {
			t.Errorf("key %d holds %d", key, got)
		}
	}
}

// A replica on which a sound operation panics is the one in error: the operation
// counts, and the replica is rebuilt.
func TestAPanicOnOneReplicaRebuildsIt(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		for sick := range nodes {
			x := newRep(t, nodes, Options{})
			mustWrite(t, x.HandleOn(0), 1, 10)
			built := x.members.Load().home[sick].data.built
			old, err := x.HandleOn(0).Write(t.Context(), kvOp{key: 1, delta: 100, panics: func(b int) bool { return b == built }})
			if err != nil || old != 10 {
				t.Errorf("sick replica %d of %d: the operation returned %d, %v", sick, nodes, old, err)
			}
			for node := range nodes {
				if got := mustRead(t, x.HandleOn(node), 1); got != 110 {
					t.Errorf("sick replica %d of %d: node %d reads %d", sick, nodes, node, got)
				}
			}
			eventually(t, "the sick replica is rebuilt", func() bool { return x.Stats().Rebuilt >= 1 && len(x.Replicas()) == nodes })
			if err := x.Verify(t.Context()); err != nil {
				t.Error(err)
			}
			if got := x.Stats().Panics; got != 1 {
				t.Errorf("%d panics were counted", got)
			}
		}
	}
}

// Without a way to clone, a panic costs a replica for good, and the operation is
// skipped so that the others stay whole.
func TestAPanicWithoutCloning(t *testing.T) {
	x, err := New(func() plainKV { return plainKV{newKV()} }, Options{Topology: Simulated(2, 2)})
	if err != nil {
		t.Fatal(err)
	}
	always := kvOp{key: 1, delta: 100, panics: func(int) bool { return true }}
	h := x.HandleOn(0)
	if _, err := h.Write(t.Context(), always); !errors.Is(err, ErrPoisoned) {
		t.Errorf("the first panic returned %v", err)
	}
	if got := x.Replicas(); len(got) != 1 || got[0] != 1 {
		t.Fatalf("replicas %v are left, want that of node 1", got)
	}
	if old, err := h.Write(t.Context(), kvOp{key: 1, delta: 1}); old != 0 || err != nil {
		t.Errorf("the next operation returned %d, %v", old, err)
	}
	if err := x.AddReplica(t.Context(), 0); !errors.Is(err, ErrNotCloneable) {
		t.Errorf("adding a replica returned %v", err)
	}
	if _, err := h.Write(t.Context(), always); !errors.Is(err, ErrPoisoned) {
		t.Errorf("the last panic returned %v", err)
	}
	if _, err := h.Write(t.Context(), kvOp{}); !errors.Is(err, ErrPoisoned) {
		t.Errorf("a write to a poisoned structure returned %v", err)
	}
	if err := h.Read(func(plainKV) { t.Error("read what is poisoned") }); !errors.Is(err, ErrPoisoned) {
		t.Errorf("a read returned %v", err)
	}
}

// The only replica has no peer. A snapshot brings the structure back.
func TestAPoisonedStructureIsRestored(t *testing.T) {
	for _, nodes := range []int{1, 2} {
		x := newRep(t, nodes, Options{})
		h := x.HandleOn(nodes - 1)
		mustWrite(t, h, 1, 10)
		var text bytes.Buffer
		if err := x.Snapshot(&text); err != nil {
			t.Fatal(err)
		}
		if nodes == 2 {
			if err := x.RemoveReplica(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
		_, err := h.Write(t.Context(), kvOp{key: 1, delta: 100, panics: func(int) bool { return true }})
		if !errors.Is(err, ErrPoisoned) {
			t.Fatalf("%d nodes: %v", nodes, err)
		}
		if err := x.AddReplica(t.Context(), 0); !errors.Is(err, ErrPoisoned) {
			t.Errorf("%d nodes: adding to a poisoned structure returned %v", nodes, err)
		}
		if err := x.Restore(t.Context(), &text); err != nil {
			t.Fatal(err)
		}
		if old := mustWrite(t, h, 1, 1); old != 10 {
			t.Errorf("%d nodes: the restored counter was %d", nodes, old)
		}
		if got := mustRead(t, x.HandleOn(0), 1); got != 11 {
			t.Errorf("%d nodes: reads %d", nodes, got)
		}
	}
}

func TestVerifyFindsADifference(t *testing.T) {
	for _, sick := range []int{0, 1, 2} {
		x := newRep(t, 3, Options{})
		mustWrite(t, x.HandleOn(0), 1, 10)
		if err := x.Verify(t.Context()); err != nil {
			t.Fatal(err)
		}
		x.members.Load().home[sick].data.m[1]++ // As bad memory would.
		if err := x.Verify(t.Context()); !errors.Is(err, ErrDiverged) {
			t.Errorf("a difference on node %d: %v", sick, err)
		}
		eventually(t, "the replica is rebuilt", func() bool { return len(x.Replicas()) == 3 })
		if err := x.Verify(t.Context()); err != nil {
			t.Errorf("after the rebuild: %v", err)
		}
		if got := mustRead(t, x.HandleOn(sick), 1); got != 10 {
			t.Errorf("node %d reads %d", sick, got)
		}
	}
}

func TestReplicasAreAddedAndRemoved(t *testing.T) {
	x := newRep(t, 2, Options{})
	ctx := t.Context()
	a, b := x.HandleOn(0), x.HandleOn(1)
	for i := range uint64(20) {
		if err := x.RemoveReplica(ctx, int(i)%2); err != nil {
			t.Fatal(err)
		}
		if err := x.RemoveReplica(ctx, int(i+1)%2); !errors.Is(err, ErrLastReplica) {
			t.Fatalf("removing the last replica returned %v", err)
		}
		before := x.Stats().Operations
		mustWrite(t, a, 1, 1)
		if x.Stats().Operations != before {
			t.Error("one replica is left, and the log was not bypassed")
		}
		if got := mustRead(t, b, 1); got != 2*i+1 {
			t.Fatalf("round %d: %d", i, got)
		}
		if err := x.AddReplica(ctx, int(i)%2); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, b, 1, 1)
		if got := mustRead(t, a, 1); got != 2*i+2 {
			t.Fatalf("round %d: %d", i, got)
		}
	}
	if err := x.AddReplica(ctx, 5); err == nil {
		t.Error("a replica was added to a node that is not there")
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if err := x.AddReplica(ctx, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// slowKV is slow to clone, and may then fail.
type slowKV struct{ *kv }

var (
	slowClone   atomic.Int64 // nanoseconds
	failedClone atomic.Bool
)

func (s slowKV) Clone() slowKV {
	time.Sleep(time.Duration(slowClone.Load()))
	if failedClone.Load() {
		panic("no memory")
	}
	return slowKV{s.kv.Clone()}
}

// A donor is not taken for stalled while it is cloned, and a clone that fails
// costs nothing but the replica that it would have been.
func TestASlowOrFailedCloneHarmsNobody(t *testing.T) {
	slowClone.Store(int64(300 * time.Millisecond))
	defer slowClone.Store(0)
	x, err := New(func() slowKV { return slowKV{newKV()} }, Options{Topology: Simulated(3, 3), DetachAfter: 50 * time.Millisecond, LogSize: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := x.RemoveReplica(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	adding := background(func() {
		if err := x.AddReplica(context.Background(), 0); err != nil {
			t.Error(err)
		}
	})
	h := x.HandleOn(0)
	for range 100 {
		if _, err := h.Write(t.Context(), kvOp{key: 1, delta: 1}); err != nil {
			t.Fatal(err)
		}
	}
	<-adding
	if s := x.Stats(); s.Detached != 0 || len(s.Replicas) != 3 {
		t.Errorf("%d replicas were detached, %d are left", s.Detached, len(s.Replicas))
	}
	failedClone.Store(true)
	defer failedClone.Store(false)
	if err := x.RemoveReplica(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := x.AddReplica(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "no memory") {
		t.Errorf("the clone failed, and AddReplica returned %v", err)
	}
	if _, err := h.Write(t.Context(), kvOp{key: 1, delta: 1}); err != nil {
		t.Error(err)
	}
}
