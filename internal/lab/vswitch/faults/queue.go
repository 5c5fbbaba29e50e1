package faults

import "time"

// MaxHold is how long a reordered frame waits for others to overtake it. The
// last frame of a conversation has none behind it. Half of the 200 ms that Linux
// waits before it sends a TCP segment again: late, and not lost.
const MaxHold = 100 * time.Millisecond

// Queue holds the frames of one link until they are due. It keeps their order
// but for frames with a gap. It is bounded by frames and by bytes. It is not safe
// for concurrent use.
//
// Times are durations since any fixed moment.
type Queue[F any] struct {
	maxFrames, maxBytes int
	ready               []queued[F] // in the order of sending; due never falls
	held                []queued[F] // in the order of coming; limit never falls
	bytes               int
}

type queued[F any] struct {
	frame F
	bytes int
	due   time.Duration
	limit time.Duration // of a held frame: when it goes at the latest
	gap   int           // of a held frame: how many are still to overtake it
}

// NewQueue returns an empty queue for at most so many frames and bytes.
func NewQueue[F any](maxFrames, maxBytes int) *Queue[F] {
	return &Queue[F]{maxFrames: maxFrames, maxBytes: maxBytes}
}

// Push adds a frame of the given size that comes now, once per copy, and
// returns how many copies found room.
func (q *Queue[F]) Push(now time.Duration, d Decision, frame F, bytes int) (accepted int) {
	for range d.Copies {
		if q.Len() >= q.maxFrames || q.bytes+bytes > q.maxBytes {
			break
		}
		q.bytes += bytes
		accepted++
		copied := queued[F]{frame: frame, bytes: bytes, due: now + d.Delay, gap: d.Gap}
		if d.Gap == 0 {
			q.append(copied)
			continue
		}
		copied.limit = copied.due + MaxHold
		if n := len(q.held); n > 0 {
			copied.limit = max(copied.limit, q.held[n-1].limit)
		}
		q.held = append(q.held, copied)
	}
	if d.Gap == 0 && accepted > 0 {
		q.overtake()
	}
	return accepted
}

// append puts a frame behind all that are ready.
func (q *Queue[F]) append(f queued[F]) {
	if n := len(q.ready); n > 0 {
		f.due = max(f.due, q.ready[n-1].due)
	}
	q.ready = append(q.ready, f)
}

// overtake tells the held frames that one more frame has gone before them.
func (q *Queue[F]) overtake() {
	waiting := q.held[:0]
	for _, h := range q.held {
		if h.gap--; h.gap > 0 {
			waiting = append(waiting, h)
		} else {
			q.append(h)
		}
	}
	clear(q.held[len(waiting):])
	q.held = waiting
}

// Pop returns the next frame that is due now.
func (q *Queue[F]) Pop(now time.Duration) (frame F, ok bool) {
	for len(q.held) > 0 && q.held[0].limit <= now {
		q.append(q.held[0])
		q.held[0] = queued[F]{} // The array may live on; the frame need not.
		q.held = q.held[1:]
	}
	if len(q.ready) == 0 || q.ready[0].due > now {
		return frame, false
	}
	first := q.ready[0]
	q.ready[0] = queued[F]{}
	q.ready = q.ready[1:]
	q.bytes -= first.bytes
	return first.frame, true
}

// Next returns when [Queue.Pop] should be tried again.
func (q *Queue[F]) Next() (due time.Duration, ok bool) {
	switch {
	case len(q.ready) > 0 && len(q.held) > 0:
		return min(q.ready[0].due, q.held[0].limit), true
	case len(q.ready) > 0:
		return q.ready[0].due, true
	case len(q.held) > 0:
		return q.held[0].limit, true
	}
	return 0, false
}

// Len returns how many frames wait.
func (q *Queue[F]) Len() int { return len(q.ready) + len(q.held) }
