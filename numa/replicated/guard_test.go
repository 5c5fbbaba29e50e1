package replicated

import (
	"context"
	"testing"
	"time"
)

// Each guard is switched off in turn, and a scripted interleaving must then give
// a history that is not linearizable. With the guard, the same script must give
// one that is, or stop a thread that has to wait.

func TestReadsNeedTheTailCheck(t *testing.T) {
	run := func(off guard) bool {
		var s script
		x := newRep(t, 2, Options{})
		s.install(x, off)
		h := newHistory()
		_ = h.write(context.Background(), 0, x.HandleOn(0), 1, 1)
		_ = h.read(1, x.HandleOn(1), 1)
		return h.linearizable(t)
	}
	if !run(0) {
		t.Error("the read is not linearizable")
	}
	if run(guardTailCheck) {
		t.Error("without the check of the completed tail, the read is still linearizable: the test is blind")
	}
}

// A writer's operation is decided in another thread's batch, and that thread
// stalls before the completed tail has moved. Answering then would let a reader
// on another node miss the write.
func TestAnAnswerNeedsTheCompletedTail(t *testing.T) {
	run := func(off guard) bool {
		var s script
		x := newRep(t, 2, Options{DetachAfter: time.Hour})
		s.install(x, off)
		h := newHistory()
		holder := s.stop(t, stepLocked, 0)
		published := s.stop(t, stepPublished, 0)
		first := background(func() { _ = h.write(context.Background(), 0, x.HandleOn(0), 2, 1) })
		holder.wait(t)
		second := background(func() { _ = h.write(context.Background(), 1, x.HandleOn(0), 1, 1) })
		published.wait(t)
		stalled := s.stop(t, stepCaughtUp, 0)
		holder.release()
		stalled.wait(t) // Both operations are decided, and the completed tail stands at 0.
		published.release()
		soon(t, "the answer", func() { <-second })
		_ = h.read(2, x.HandleOn(1), 1)
		stalled.release()
		<-first
		return h.linearizable(t)
	}
	if !run(0) {
		t.Error("the history is not linearizable")
	}
	if run(guardCompletedTail) {
		t.Error("with answers before the completed tail, the history is still linearizable: the test is blind")
	}
}

// A combiner lets readers in before the completed tail has moved: one reader sees
// the write, and a later one on another node misses it.
func TestReadersWaitForTheCompletedTail(t *testing.T) {
	run := func(off guard) bool {
		var s script
		x := newRep(t, 2, Options{DetachAfter: time.Hour})
		s.install(x, off)
		h := newHistory()
		opened := s.stop(t, stepOpened, 0)
		writer := background(func() { _ = h.write(context.Background(), 0, x.HandleOn(0), 1, 1) })
		opened.wait(t)
		_ = h.read(1, x.HandleOn(0), 1)
		_ = h.read(2, x.HandleOn(1), 1)
		opened.release()
		<-writer
		return h.linearizable(t)
	}
	if !run(0) {
		t.Error("the history is not linearizable")
	}
	if run(guardCompletedTail) {
		t.Error("with readers before the completed tail, the history is still linearizable: the test is blind")
	}
}

// A reader is inside while a combiner wants to apply.
func TestACombinerWaitsForReaders(t *testing.T) {
	run := func(off guard) (torn bool) {
		var s script
		x := newRep(t, 2, Options{DetachAfter: time.Hour})
		s.install(x, off)
		drained := s.stop(t, stepDrained, 0)
		entered := make(chan struct{})
		leave := make(chan struct{})
		reader := background(func() {
			_ = x.HandleOn(0).Read(func(s *kv) {
				before := s.ops
				close(entered)
				<-leave
				torn = s.ops != before
			})
		})
		<-entered
		writer := background(func() { _, _ = x.HandleOn(0).Write(context.Background(), kvOp{key: 1, delta: 1}) })
		if off != 0 {
			drained.wait(t)
			drained.release()
			soon(t, "the write", func() { <-writer })
		} else {
			eventually(t, "the gate is shut", func() bool { return x.members.Load().home[0].gate.Load()&writeBit != 0 })
			select {
			case <-drained.reached:
				t.Error("the combiner went past a reader")
			case <-time.After(20 * time.Millisecond):
			}
			drained.release()
		}
		close(leave)
		<-reader
		<-writer
		return torn
	}
	if run(0) {
		t.Error("the structure changed under a reader")
	}
	// The reader races on purpose here, and the detector would fail the test.
	if !raceEnabled && !run(guardReaderSlot) {
		t.Error("without reader slots, the structure does not change under a reader: the test is blind")
	}
}

// The log laps a replica whose combiner sleeps. Reusing entries then loses the
// operations that it has not applied.
func TestEntriesAreReusedAfterAllAppliedThem(t *testing.T) {
	run := func(off guard) (lapped bool) {
		var s script
		x := newRep(t, 2, Options{LogSize: 16, DetachAfter: time.Hour})
		s.install(x, off)
		b := s.stop(t, stepLocked, 1)
		sleeper := background(func() { _, _ = x.HandleOn(1).Write(context.Background(), kvOp{key: 2, delta: 1}) })
		b.wait(t)
		writer := background(func() {
			h := x.HandleOn(0)
			for range 40 {
				_, _ = h.Write(context.Background(), kvOp{key: 1, delta: 1})
			}
		})
		if off != 0 {
			soon(t, "the writer that laps", func() { <-writer })
		} else {
			eventually(t, "the writer waits at the end of the ring", func() bool { return x.Stats().Operations == 16 })
			select {
			case <-writer:
				t.Error("the writer lapped a replica")
			case <-time.After(20 * time.Millisecond):
			}
		}
		lapped = x.log.at(0) == nil
		b.release()
		<-sleeper
		<-writer
		return lapped
	}
	if run(0) {
		t.Error("an entry was reused that a replica had not applied")
	}
	if !run(guardRoom) {
		t.Error("without the check for room, no entry is reused: the test is blind")
	}
}

// A reader without a slot finds the gate open and sleeps. Meanwhile a writer changes
// the replica and stalls before the completed tail has moved. Without the second
// look at the gate, the reader sees the write, and a later one on another node
// misses it.
func TestReadsWithoutASlotLookTwice(t *testing.T) {
	run := func(off guard) bool {
		var s script
		m, err := NewMap[uint64, uint64](Options{Topology: Simulated(2, 2), DetachAfter: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		m.core.words[0].probe = &probe{at: s.at, off: off}
		h := newHistory()
		read := func(client, node int) {
			call := h.now()
			v, _ := m.On(node).Load(1)
			h.add(client, kvInput{key: 1}, kvOutput{value: v}, call)
		}
		peeked, stalled := s.stop(t, stepPeeked, 0), s.stop(t, stepCaughtUp, 0)
		reader := background(func() { read(0, 0) })
		peeked.wait(t)
		writer := background(func() {
			call := h.now()
			was, _ := m.On(0).Swap(1, 1)
			h.add(1, kvInput{key: 1, delta: 1}, kvOutput{value: was}, call)
		})
		stalled.wait(t)
		peeked.release()
		if off&guardStands != 0 {
			soon(t, "the read", func() { <-reader })
		} else {
			select {
			case <-reader:
				t.Error("the read counts, though the replica was changed meanwhile")
			case <-time.After(20 * time.Millisecond):
			}
		}
		read(2, 1)
		stalled.release()
		<-writer
		<-reader
		return h.linearizable(t)
	}
	if !run(0) {
		t.Error("the history is not linearizable")
	}
	if run(guardStands) {
		t.Error("without the second look at the gate, the history is still linearizable: the test is blind")
	}
}

func TestDuplicatesAreGuarded(t *testing.T) {
	if got := requestTwice(t, guardDuplicates); got != 2 {
		t.Errorf("the counter is %d: a request that is in the log twice does not run twice without the guard, so the test is blind", got)
	}
}
