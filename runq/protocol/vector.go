package protocol

import (
	"maps"
	"slices"
)

// vector remembers every ID that a log ever saw, without remembering each: per
// stream a contiguous run and exceptions beyond it, and per core the streams
// that are closed. It is the version vector with exceptions of Malkhi and Terry
// (Concise Version Vectors in WinFS, 2005); the low watermark that an origin
// publishes is causal stability.
type vector struct {
	// floor is the first stream of a core that is not closed.
	floor map[Core]uint32
	// lost is the first stream that was not given out yet when all copies of
	// the log were lost: what earlier ones submitted is not known any more.
	lost    map[Core]uint32
	streams map[Stream]*seen
	extras  int
}

// seen is the part of a stream that was seen: 1 to upto, and extra beyond it.
type seen struct {
	upto  uint64
	extra []uint64 // Sorted, all above upto+1.
}

func newVector() vector {
	return vector{floor: map[Core]uint32{}, lost: map[Core]uint32{}, streams: map[Stream]*seen{}}
}

func (v *vector) clone() vector {
	c := vector{maps.Clone(v.floor), maps.Clone(v.lost), make(map[Stream]*seen, len(v.streams)), v.extras}
	for stream, s := range v.streams {
		c.streams[stream] = &seen{s.upto, slices.Clone(s.extra)}
	}
	return c
}

// has reports whether the ID was seen or belongs to a closed stream.
func (v *vector) has(id TaskID) bool {
	if id.Incarnation < v.floor[id.Core] {
		return true
	}
	s := v.streams[id.Stream]
	if s == nil {
		return false
	}
	if id.N <= s.upto {
		return true
	}
	_, found := slices.BinarySearch(s.extra, id.N)
	return found
}

// closed reports whether no new ID of the stream may be accepted.
func (v *vector) closed(s Stream) bool {
	return s.Incarnation < v.floor[s.Core] || s.Incarnation < v.lost[s.Core]
}

// follows reports whether remembering the ID takes no exception.
func (v *vector) follows(id TaskID) bool {
	s := v.streams[id.Stream]
	return id.N == 1 || s != nil && id.N == s.upto+1
}

// add remembers an ID.
func (v *vector) add(id TaskID) {
	if v.has(id) {
		return
	}
	s := v.stream(id.Stream)
	v.extras -= len(s.extra)
	if id.N == s.upto+1 {
		s.upto++
		s.collapse()
	} else {
		at, _ := slices.BinarySearch(s.extra, id.N)
		s.extra = slices.Insert(s.extra, at, id.N)
	}
	v.extras += len(s.extra)
}

// raise remembers everything of a stream up to n.
func (v *vector) raise(stream Stream, n uint64) {
	if stream.Incarnation < v.floor[stream.Core] {
		return
	}
	s := v.stream(stream)
	v.extras -= len(s.extra)
	if n > s.upto {
		s.upto = n
		at, _ := slices.BinarySearch(s.extra, n+1)
		s.extra = slices.Delete(s.extra, 0, at)
		s.collapse()
	}
	v.extras += len(s.extra)
}

// close forgets streams before an incarnation: has answers true for all of them.
func (v *vector) close(core Core, before uint32) {
	if before <= v.floor[core] {
		return
	}
	v.floor[core] = before
	for stream, s := range v.streams {
		if stream.Core == core && stream.Incarnation < before {
			v.extras -= len(s.extra)
			delete(v.streams, stream)
		}
	}
}

func (v *vector) stream(stream Stream) *seen {
	s := v.streams[stream]
	if s == nil {
		s = &seen{}
		v.streams[stream] = s
	}
	return s
}

// collapse moves exceptions that have become contiguous into the run.
func (s *seen) collapse() {
	n := 0
	for n < len(s.extra) && s.extra[n] == s.upto+1 {
		s.upto++
		n++
	}
	s.extra = slices.Delete(s.extra, 0, n)
}

// records is how many records a snapshot needs for the vector.
func (v *vector) records() uint64 {
	return uint64(len(v.floor) + len(v.lost) + len(v.streams) + v.extras)
}

// snapshot yields the vector as records, in a fixed order.
func (v *vector) snapshot(run uint64, yield func(Record)) {
	for _, core := range slices.Sorted(maps.Keys(v.floor)) {
		yield(Record{Kind: KindFloor, ID: TaskID{Run: run, Stream: Stream{core, v.floor[core]}}})
	}
	for _, core := range slices.Sorted(maps.Keys(v.lost)) {
		yield(Record{Kind: KindFloor, ID: TaskID{Run: run, Stream: Stream{core, v.lost[core]}}, Arg: floorLost})
	}
	for _, stream := range slices.SortedFunc(maps.Keys(v.streams), Stream.compare) {
		s := v.streams[stream]
		yield(Record{Kind: KindSnapSeen, ID: TaskID{run, stream, s.upto}})
		for _, n := range s.extra {
			yield(Record{Kind: KindSnapSeen, ID: TaskID{run, stream, n}, Arg2: 1})
		}
	}
}
