package faults

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// arrivals sends n frames, one a millisecond, over a link with the given faults
// and returns the numbers in the order of arrival.
func arrivals(t *testing.T, f Faults, n int) []int {
	t.Helper()
	l, q := NewLink(11, "a", "b"), NewQueue[int](n+1, 1<<20)
	var got []int
	for now := range time.Duration(n + 1000) {
		now *= time.Millisecond
		if i := int(now / time.Millisecond); i < n {
			if d := l.Decide(f); q.Push(now, d, i, 1) != d.Copies {
				t.Fatal("a frame found no room")
			}
		}
		for {
			frame, ok := q.Pop(now)
			if !ok {
				break
			}
			got = append(got, frame)
		}
	}
	if q.Len() != 0 {
		t.Fatalf("%d frames never came", q.Len())
	}
	return got
}

// inversions counts the frames that come after a later one.
func inversions(frames []int) int {
	late, highest := 0, -1
	for _, frame := range frames {
		if frame < highest {
			late++
		}
		highest = max(highest, frame)
	}
	return late
}

func TestReorderingReorders(t *testing.T) {
	const n = 5000
	for _, tt := range []struct {
		p    Probability
		gap  int
		want int // late frames
	}{
		{0, 1, 0}, // the control
		{Always, 1, n / 2},
		{Always, 4, n / 5},
	} {
		got := arrivals(t, Faults{Reorder: tt.p, Gap: tt.gap}, n)
		if late := inversions(got); late != tt.want {
			t.Errorf("reorder %s gap %d: %d frames came late, want %d", tt.p, tt.gap, late, tt.want)
		}
		if slices.Sort(got); len(slices.Compact(got)) != n {
			t.Errorf("reorder %s gap %d: not every frame came", tt.p, tt.gap)
		}
	}
	// At one in twenty a frame may be held unless the one before it is: the
	// rate is p/(1+p).
	late := inversions(arrivals(t, Faults{Reorder: Always / 20, Gap: 1}, n))
	within(t, "reorder 5%", late, n, 0.05/1.05)
}

func TestGapIsHowManyOvertake(t *testing.T) {
	q := NewQueue[int](10, 100)
	q.Push(0, Decision{Copies: 1, Gap: 2}, 0, 1)
	for i := 1; i <= 4; i++ {
		q.Push(0, Decision{Copies: 1}, i, 1)
	}
	var got []int
	for frame, ok := q.Pop(0); ok; frame, ok = q.Pop(0) {
		got = append(got, frame)
	}
	if want := []int{1, 2, 0, 3, 4}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

func TestTheLastFrameIsNotHeldForEver(t *testing.T) {
	q := NewQueue[int](10, 100)
	q.Push(0, Decision{Copies: 1, Gap: 1, Delay: 5}, 7, 1)
	if due, ok := q.Next(); !ok || due != MaxHold+5 {
		t.Fatalf("next at %s, %v", due, ok)
	}
	if _, ok := q.Pop(MaxHold + 4); ok {
		t.Error("it came early")
	}
	if frame, ok := q.Pop(MaxHold + 5); !ok || frame != 7 {
		t.Errorf("got %d, %v", frame, ok)
	}
}

func TestJitterKeepsTheOrder(t *testing.T) {
	got := arrivals(t, Faults{Delay: 20 * time.Millisecond, Jitter: 20 * time.Millisecond}, 2000)
	if late := inversions(got); late != 0 || len(got) != 2000 {
		t.Errorf("%d of %d frames came late", late, len(got))
	}
}

func TestOverflowIsCountedByCopies(t *testing.T) {
	q := NewQueue[int](3, 100)
	if got := q.Push(0, Decision{Copies: 2}, 0, 30); got != 2 {
		t.Errorf("%d copies accepted, want 2", got)
	}
	if got := q.Push(0, Decision{Copies: 2}, 1, 30); got != 1 {
		t.Errorf("%d copies accepted, want 1 for frames", got)
	}
	q = NewQueue[int](10, 100)
	if got := q.Push(0, Decision{Copies: 2}, 1, 51); got != 1 {
		t.Errorf("%d copies accepted, want 1 for bytes", got)
	}
	q.Pop(0)
	if got := q.Push(0, Decision{Copies: 1}, 1, 100); got != 1 {
		t.Error("bytes that left are still counted")
	}
}

// sent is what the oracle remembers of a copy.
type sent struct {
	id, gap    int
	earliest   time.Duration
	out        int // place in the order of leaving, or -1
	left       time.Duration
	overtakers []int
}

// The queue against the promises of its comment, frame by frame.
func TestQueuePromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		maxFrames := rapid.IntRange(1, 20).Draw(t, "frames")
		maxBytes := rapid.IntRange(1, 200).Draw(t, "bytes")
		q := NewQueue[*sent](maxFrames, maxBytes)
		var all []*sent
		var now time.Duration
		inside, insideBytes, left := 0, 0, 0
		sizes := map[*sent]int{}
		drain := func() {
			for s, ok := q.Pop(now); ok; s, ok = q.Pop(now) {
				if s.out >= 0 {
					t.Fatalf("frame %d left twice", s.id)
				}
				s.out, s.left = left, now
				left++
				inside--
				insideBytes -= sizes[s]
			}
			if due, ok := q.Next(); ok != (inside > 0) || ok && due <= now {
				t.Fatalf("next is at %s, %v; now is %s with %d inside", due, ok, now, inside)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 60).Draw(t, "wait")) * time.Millisecond
			drain()
			s := &sent{id: len(all), gap: rapid.SampledFrom([]int{0, 0, 0, 1, 3}).Draw(t, "gap"), out: -1}
			delay := time.Duration(rapid.IntRange(0, 80).Draw(t, "delay")) * time.Millisecond
			s.earliest = now + delay
			sizes[s] = rapid.IntRange(1, 50).Draw(t, "size")
			room := inside < maxFrames && insideBytes+sizes[s] <= maxBytes
			if accepted := q.Push(now, Decision{Copies: 1, Delay: delay, Gap: s.gap}, s, sizes[s]); (accepted == 1) != room {
				t.Fatalf("accepted %d with %d of %d frames and %d of %d bytes inside", accepted, inside, maxFrames, insideBytes, maxBytes)
			}
			if room {
				all = append(all, s)
				inside++
				insideBytes += sizes[s]
			}
			drain()
		}
		for now < time.Hour && inside > 0 {
			due, _ := q.Next()
			now = due
			drain()
		}
		judge(t, all)
	})
}

func judge(t *rapid.T, all []*sent) {
	last := -1
	for i, s := range all {
		if s.out < 0 {
			t.Fatalf("frame %d never left", s.id)
		}
		if s.left < s.earliest {
			t.Fatalf("frame %d left at %s, before it was due at %s", s.id, s.left, s.earliest)
		}
		if s.gap == 0 {
			if s.out < last {
				t.Fatalf("frame %d has no gap and was overtaken by one that has none", s.id)
			}
			last = s.out
			continue
		}
		for _, later := range all[i+1:] {
			if later.gap == 0 && later.out < s.out {
				s.overtakers = append(s.overtakers, later.id)
			}
		}
		if len(s.overtakers) < s.gap && s.left < s.earliest+MaxHold {
			t.Fatalf("frame %d with gap %d left after %d others and before its time", s.id, s.gap, len(s.overtakers))
		}
	}
}
