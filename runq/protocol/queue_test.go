package protocol

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// The vector against a set that remembers each ID.
func TestVectorMatchesSet(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 0))
		v, naive := newVector(), map[TaskID]bool{}
		closed := uint32(0)
		all := func(yield func(TaskID) bool) {
			for stream := range uint32(4) {
				for n := uint64(1); n <= 30; n++ {
					if !yield(TaskID{0, Stream{2, stream + 1}, n}) {
						return
					}
				}
			}
		}
		for range 120 {
			id := TaskID{0, Stream{2, 1 + rng.Uint32N(4)}, 1 + rng.Uint64N(30)}
			switch rng.IntN(12) {
			case 0:
				v.raise(id.Stream, id.N)
				for other := range all {
					if other.Stream == id.Stream && other.N <= id.N {
						naive[other] = true
					}
				}
			case 1:
				if rng.IntN(8) == 0 {
					closed = max(closed, id.Incarnation)
					v.close(2, id.Incarnation)
				}
			default:
				v.add(id)
				naive[id] = true
			}
			if rng.IntN(20) == 0 { // By way of a snapshot.
				q := newQueue(0)
				v.snapshot(0, func(r Record) { q.apply(&r, q.find(r.ID)) })
				v = q.seen
			}
			extras := 0
			for _, s := range v.streams {
				extras += len(s.extra)
			}
			if extras != v.extras {
				t.Fatalf("seed %d: %d exceptions are counted as %d", seed, extras, v.extras)
			}
			for other := range all {
				if want := naive[other] || other.Incarnation < closed; v.has(other) != want {
					t.Fatalf("seed %d: has(%v) = %v, want %v", seed, other, v.has(other), want)
				}
			}
		}
	}
}

// Low watermarks collapse gaps (correction 6).
func TestFloorCollapsesExceptions(t *testing.T) {
	v := newVector()
	for n := uint64(2); n <= 40; n += 2 {
		v.add(TaskID{0, Stream{1, 1}, n})
	}
	if v.extras != 20 {
		t.Fatalf("%d exceptions, want 20", v.extras)
	}
	v.raise(Stream{1, 1}, 39)
	if v.extras != 0 || v.records() != 1 || !v.has(TaskID{0, Stream{1, 1}, 40}) || v.has(TaskID{0, Stream{1, 1}, 41}) {
		t.Errorf("%d exceptions and %d records are left", v.extras, v.records())
	}
	v.close(1, 2)
	if v.records() != 1 || !v.has(TaskID{0, Stream{1, 1}, 99}) || v.has(TaskID{0, Stream{1, 2}, 1}) {
		t.Error("a closed stream is not forgotten as a whole")
	}
}

// The heaps against sorting: priority first, then deadline, then order.
func TestQueueServesInOrder(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 2))
		q := newQueue(1)
		var want []Record
		for n := range uint64(40) {
			r := Record{Kind: KindEnqueue, ID: TaskID{1, Stream{0, 1}, n + 1}, Prio: uint8(rng.IntN(3)), Deadline: rng.Uint64N(4), NotBefore: rng.Uint64N(3) * 100}
			q.apply(&r, q.find(r.ID))
			if rng.IntN(5) == 0 {
				q.apply(&Record{Kind: KindCancel, ID: r.ID}, q.find(r.ID))
			} else if r.NotBefore <= 100 {
				want = append(want, r)
			}
		}
		slices.SortStableFunc(want, func(a, b Record) int {
			if a.Prio != b.Prio {
				return int(b.Prio) - int(a.Prio)
			}
			late := func(d uint64) uint64 { return d - 1 } // None is last.
			switch {
			case late(a.Deadline) < late(b.Deadline):
				return -1
			case late(a.Deadline) > late(b.Deadline):
				return 1
			}
			return 0
		})
		q.wake(100)
		for _, r := range want {
			got := q.first()
			if got == nil || got.ID != r.ID {
				t.Fatalf("seed %d: %v comes, want %v", seed, got, r.ID)
			}
			q.apply(&Record{Kind: KindClaim, ID: r.ID, Attempt: 1, Token: 1}, q.find(r.ID))
		}
		if q.first() != nil || q.claimed != len(want) {
			t.Fatalf("seed %d: %d are claimed of %d", seed, q.claimed, len(want))
		}
	}
}

// A queue that went through a snapshot behaves as the queue itself, whatever
// records it has seen, sensible or not.
func TestSnapshotIsTheQueue(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		q := newQueue(1)
		for range 60 {
			r := randomRecord(rng)
			r.ID = TaskID{1, Stream{Core(rng.IntN(2)), 1 + rng.Uint32N(2)}, 1 + rng.Uint64N(8)}
			r.Hop, r.Attempt, r.Token, r.Arg, r.Arg2 = uint16(rng.IntN(4)), 1, 1, uint16(rng.IntN(2)), 0
			if r.Kind != KindSnapTask && r.Kind != KindSnapSeen {
				q.apply(&r, q.find(r.ID))
			}
		}
		copied := newQueue(1)
		q.snapshot(func(r Record) { copied.apply(&r, copied.find(r.ID)) })
		if a, b := string(q.appendState(nil)), string(copied.appendState(nil)); a != b {
			t.Fatalf("seed %d: the snapshot of the snapshot differs", seed)
		}
		if q.claimed != copied.claimed || q.waiting != copied.waiting {
			t.Fatalf("seed %d: %d/%d claimed, %d/%d ready", seed, q.claimed, copied.claimed, q.waiting, copied.waiting)
		}
	}
}
