package replicated

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// stallAfter is short, so that a test need not wait for long, and long enough
// that a loaded machine seldom takes a working thread for a stalled one. If it
// does, the tests still hold.
const stallAfter = 20 * time.Millisecond

// writerSteps are the steps that a lone writer passes.
var writerSteps = []step{stepLocked, stepCollected, stepReserved, stepFilled, stepShut, stepDrained, stepClaimed,
	stepTried, stepDecided, stepCaughtUp, stepCompleted, stepOpened, stepUnlocked}

// readerSteps are the steps that a reader passes.
var readerSteps = []step{stepSawTail, stepEntered, stepInside}

// A writer stalls for good at each of its steps in turn. Nobody waits for it for
// longer than a moment: not on the other nodes, and not on its own.
func TestAStalledWriterBlocksNobody(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		for _, at := range writerSteps {
			t.Run(fmt.Sprintf("%d replicas, %v", nodes, at), func(t *testing.T) {
				t.Parallel()
				var s script
				x := newRep(t, nodes, Options{LogSize: 16, DetachAfter: stallAfter})
				s.install(x, 0)
				b := s.stop(t, at, 0)
				h := newHistory()
				stalled := background(func() {
					if err := h.write(context.Background(), 0, x.HandleOn(0), 1, 1000); err != nil {
						t.Error(err)
					}
				})
				b.wait(t)
				othersGoOn(t, x, h)
				b.release()
				<-stalled
				h.check(t)
				eventually(t, "all replicas are back", func() bool { return len(x.Replicas()) == nodes })
				if err := x.Verify(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// othersGoOn writes and reads on all nodes, more than the log holds.
func othersGoOn(t *testing.T, x *kvRep, h *history) {
	t.Helper()
	for node := range x.nodes {
		soon(t, fmt.Sprintf("node %d", node), func() {
			via := x.HandleOn(node)
			for i := range 40 {
				if err := h.write(context.Background(), 1+node, via, 1, 1); err != nil {
					t.Errorf("write %d: %v", i, err)
				}
				if err := h.read(1+node, via, 1); err != nil {
					t.Errorf("read %d: %v", i, err)
				}
			}
		})
	}
}

func TestAStalledReaderBlocksNobody(t *testing.T) {
	for _, nodes := range []int{1, 2, 3} {
		for _, at := range readerSteps {
			t.Run(fmt.Sprintf("%d replicas, %v", nodes, at), func(t *testing.T) {
				t.Parallel()
				var s script
				x := newRep(t, nodes, Options{LogSize: 16, DetachAfter: stallAfter})
				s.install(x, 0)
				b := s.stop(t, at, 0)
				h := newHistory()
				stalled := background(func() {
					if err := h.read(0, x.HandleOn(0), 1); err != nil {
						t.Error(err)
					}
				})
				b.wait(t)
				othersGoOn(t, x, h)
				b.release()
				<-stalled
				h.check(t)
			})
		}
	}
}

// A write that waits in a slot is taken along by others, even by another node's
// writers, and its own thread finds it done.
func TestAWriterThatSleepsAfterPublishing(t *testing.T) {
	var s script
	x := newRep(t, 2, Options{LogSize: 16, DetachAfter: time.Hour})
	s.install(x, 0)
	holder := s.stop(t, stepLocked, 0)
	published := s.stop(t, stepPublished, 0)
	h := newHistory()
	first := background(func() { _ = h.write(context.Background(), 0, x.HandleOn(0), 1, 1) })
	holder.wait(t)
	second := background(func() { _ = h.write(context.Background(), 1, x.HandleOn(0), 1, 10) })
	published.wait(t)
	holder.release()
	<-first
	if err := h.read(2, x.HandleOn(1), 1); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, x.HandleOn(1), 1); got != 11 {
		t.Errorf("the counter is %d: the published write was not taken along", got)
	}
	published.release()
	<-second
	h.check(t)
}

// A node whose threads all sleep is helped: its replica follows without them, is
// not detached, and is up to date when they wake.
func TestADormantReplicaIsHelped(t *testing.T) {
	x := newRep(t, 3, Options{LogSize: 16, DetachAfter: time.Hour})
	h := x.HandleOn(0)
	for range 1000 {
		mustWrite(t, h, 1, 1)
	}
	stats := x.Stats()
	if stats.Helped == 0 || stats.Detached != 0 {
		t.Errorf("helped %d times, detached %d", stats.Helped, stats.Detached)
	}
	for _, r := range stats.Replicas {
		if r.Lag > 16 {
			t.Errorf("node %d lags by %d, more than the log holds", r.Node, r.Lag)
		}
	}
	for node := range 3 {
		if got := mustRead(t, x.HandleOn(node), 1); got != 1000 {
			t.Errorf("node %d reads %d", node, got)
		}
	}
}

// The thread of another node stops in the middle of helping: its own replica is
// fine, and the one that it helped is detached, rebuilt and attached.
func TestAHelperThatStalls(t *testing.T) {
	var s script
	x := newRep(t, 2, Options{LogSize: 16, DetachAfter: stallAfter})
	s.install(x, 0)
	b := s.stop(t, stepShut, 1)
	h := newHistory()
	helper := background(func() {
		via := x.HandleOn(0)
		for range 20 {
			if err := h.write(context.Background(), 0, via, 1, 1); err != nil {
				t.Error(err)
			}
		}
	})
	b.wait(t)
	othersGoOn(t, x, h)
	eventually(t, "the replica is rebuilt", func() bool { return x.Stats().Rebuilt > 0 })
	b.release()
	<-helper
	h.check(t)
	if err := x.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// A combiner that was given up wakes with requests that were meanwhile done
// through another replica, and appends them again. They run once.
func TestARequestInTheLogTwiceRunsOnce(t *testing.T) {
	if got := requestTwice(t, 0); got != 1 {
		t.Errorf("the counter is %d after one addition of 1", got)
	}
}

// requestTwice gets one addition into the log twice and returns the counter.
func requestTwice(t *testing.T, off guard) uint64 {
	var s script
	x := newRep(t, 2, Options{LogSize: 64, DetachAfter: stallAfter})
	s.install(x, off)
	holder := s.stop(t, stepLocked, 0)
	published := s.stop(t, stepPublished, 0)
	collected := s.stop(t, stepCollected, 0)
	first := background(func() { mustWrite(t, x.HandleOn(0), 2, 1) })
	holder.wait(t)
	second := background(func() { mustWrite(t, x.HandleOn(0), 1, 1) })
	published.wait(t)
	holder.release()
	collected.wait(t) // It holds both requests, and sleeps.
	published.release()
	soon(t, "the write goes through another replica", func() { <-second })
	collected.release()
	<-first
	mustWrite(t, x.HandleOn(1), 3, 1) // Behind everything else in the log.
	return mustRead(t, x.HandleOn(1), 1)
}

// Who clones a replica stops while the donor stands still for it. Nobody knows how
// long a clone may take, so the donor is given up late, but it is.
func TestAStalledCloneBlocksNobody(t *testing.T) {
	var s script
	x := newRep(t, 3, Options{LogSize: 16, DetachAfter: 2 * time.Millisecond})
	if err := x.RemoveReplica(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	s.install(x, 0)
	b := s.stop(t, stepCloned, 0)
	adding := background(func() { _ = x.AddReplica(context.Background(), 0) })
	b.wait(t)
	h := newHistory()
	othersGoOn(t, x, h)
	b.release()
	<-adding
	h.check(t)
	if err := x.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}
