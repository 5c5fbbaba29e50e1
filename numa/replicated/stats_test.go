package replicated

import (
	"errors"
	"testing"
)

// Each batch is counted once, by the replica that appended it, in the bucket of its
// size.
func TestStatsCountBatches(t *testing.T) {
	x := newRep(t, 2, Options{LogSize: 1024})
	want := [2][batchBuckets]uint64{}
	for _, b := range []struct{ node, size, bucket int }{{0, 1, 0}, {0, 2, 1}, {0, 3, 1}, {0, 4, 2}, {1, 4, 2}, {1, 1, 0}} {
		combineBatch(t, x, b.node, b.size)
		want[b.node][b.bucket]++
	}
	s := x.Stats()
	if s.Operations != 1+2+3+4+4+1 || len(s.Replicas) != 2 {
		t.Fatalf("%d operations on %d replicas", s.Operations, len(s.Replicas))
	}
	for node, r := range s.Replicas {
		if r.Node != node || r.Batches != want[node] {
			t.Errorf("node %d: %v, want %v", r.Node, r.Batches, want[node])
		}
	}
}

// The lag is what a replica has not applied yet, and a read there ends it.
func TestStatsShowTheLag(t *testing.T) {
	x := newRep(t, 3, Options{})
	const writes = 5
	for range writes {
		mustWrite(t, x.HandleOn(0), 1, 1)
	}
	mustRead(t, x.HandleOn(1), 1)
	for node, want := range []uint64{0, 0, writes} {
		if r := x.Stats().Replicas[node]; r.Lag != want {
			t.Errorf("node %d lags by %d, want %d", node, r.Lag, want)
		}
	}
	if s := x.Stats(); s.Helped != 0 || s.Detached != 0 || s.Rebuilt != 0 {
		t.Errorf("nothing happened, and the figures are %+v", s)
	}
}

// drifting is a structure that is not deterministic: one of those that were built adds
// more than it should. Its clones are sound.
type drifting struct {
	*kv
	drifts bool
}

func (s drifting) Apply(op kvOp) uint64 {
	if s.drifts {
		op.delta++
	}
	return s.kv.Apply(op)
}

func (s drifting) Clone() drifting { return drifting{kv: s.kv.Clone()} }

// Hash finds that Apply is not deterministic; the replica that differs from the
// others is counted, given up, and made anew.
func TestVerifyFindsAStructureThatDrifts(t *testing.T) {
	for _, sick := range []int{0, 1, 2} {
		built := 0
		x, err := New(func() drifting { built++; return drifting{newKV(), built == sick+1} }, Options{Topology: Simulated(3, 3)})
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Verify(t.Context()); err != nil {
			t.Errorf("before any operation: %v", err)
		}
		for range 3 {
			if _, err := x.HandleOn(0).Write(t.Context(), kvOp{key: 1, delta: 10}); err != nil {
				t.Fatal(err)
			}
		}
		if err := x.Verify(t.Context()); !errors.Is(err, ErrDiverged) {
			t.Errorf("a structure that drifts on node %d: %v", sick, err)
		}
		eventually(t, "the replica is rebuilt", func() bool { return x.Stats().Rebuilt == 1 })
		if s := x.Stats(); s.Verified != 2 || s.Diverged != 1 || s.Detached != 1 || len(s.Replicas) != 3 {
			t.Errorf("node %d: %+v", sick, s)
		}
		if err := x.Verify(t.Context()); err != nil {
			t.Errorf("after the rebuild: %v", err)
		}
		for node := range 3 {
			if err := x.HandleOn(node).Read(func(s drifting) {
				if s.m[1] != 30 {
					t.Errorf("node %d reads %d", node, s.m[1])
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
