package protocol

import "slices"

// vector remembers every ID that a log ever saw, without remembering each: per
// stream a contiguous run and exceptions beyond it, and per core the streams
// that are closed. It is the version vector with exceptions of Malkhi and Terry
// (Concise Version Vectors in WinFS, 2005); the low watermark that an origin
// publishes is causal stability.
type vector struct {
	// floor is the first stream of a core that is not closed.
	floor perCore
	// lost is the first stream that was not given out yet when all copies of
	// the log were lost: what earlier ones submitted is not known any more.
	lost    perCore
	streams map[uint64]*seen // By Stream.word.
	extras  int
	// hot is the stream that was asked for last: one submitter comes often.
	hot     Stream
	hotSeen *seen
	words   []uint64 // For snapshot alone.
}

// perCore has an incarnation for some cores, which only rises.
type perCore struct {
	at [MaxCores]uint32
	n  int // How many are not 0.
}

// of returns a core's incarnation, or 0.
func (p *perCore) of(core Core) uint32 {
	if int(core) >= len(p.at) {
		return 0
	}
	return p.at[core]
}

func (p *perCore) raise(core Core, to uint32) {
	if int(core) >= len(p.at) || to <= p.at[core] {
		return
	}
	if p.at[core] == 0 {
		p.n++
	}
	p.at[core] = to
}

// word packs a stream so that words are in the order of streams.
func (s Stream) word() uint64 { return uint64(s.Core)<<32 | uint64(s.Incarnation) }

func streamOf(word uint64) Stream { return Stream{Core(word >> 32), uint32(word)} }

// seen is the part of a stream that was seen: 1 to upto, and extra beyond it.
type seen struct {
	upto  uint64
	extra []uint64 // Sorted, all above upto+1.
}

func newVector() vector {
	return vector{streams: map[uint64]*seen{}}
}

func (v *vector) clone() vector {
	c := vector{floor: v.floor, lost: v.lost, streams: make(map[uint64]*seen, len(v.streams)), extras: v.extras}
	for stream, s := range v.streams {
		c.streams[stream] = &seen{s.upto, slices.Clone(s.extra)}
	}
	return c
}

// has reports whether the ID was seen or belongs to a closed stream.
func (v *vector) has(id TaskID) bool {
	if id.Incarnation < v.floor.of(id.Core) {
		return true
	}
	s := v.find(id.Stream)
	if s == nil {
		return false
	}
	if id.N <= s.upto || len(s.extra) == 0 {
		return id.N <= s.upto
	}
	_, found := slices.BinarySearch(s.extra, id.N)
	return found
}

// closed reports whether no new ID of the stream may be accepted.
func (v *vector) closed(s Stream) bool {
	return s.Incarnation < v.floor.of(s.Core) || s.Incarnation < v.lost.of(s.Core)
}

// follows reports whether remembering the ID takes no exception.
func (v *vector) follows(id TaskID) bool {
	s := v.find(id.Stream)
	return id.N == 1 || s != nil && id.N == s.upto+1
}

// add remembers an ID, and reports whether it is new.
func (v *vector) add(id TaskID) bool {
	if s := v.find(id.Stream); s != nil && id.N == s.upto+1 && len(s.extra) == 0 {
		s.upto++ // Its stream is open, or it would not be there.
		return true
	}
	if v.has(id) {
		return false
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
	return true
}

// raise remembers everything of a stream up to n.
func (v *vector) raise(stream Stream, n uint64) {
	if stream.Incarnation < v.floor.of(stream.Core) {
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
	if before <= v.floor.of(core) {
		return
	}
	v.floor.raise(core, before)
	for word, s := range v.streams {
		if stream := streamOf(word); stream.Core == core && stream.Incarnation < before {
			v.extras -= len(s.extra)
			v.forget(stream)
		}
	}
}

// find returns what was seen of a stream, or nil.
func (v *vector) find(stream Stream) *seen {
	if v.hotSeen != nil && v.hot == stream {
		return v.hotSeen
	}
	s := v.streams[stream.word()]
	if s != nil {
		v.hot, v.hotSeen = stream, s
	}
	return s
}

// forget drops a stream.
func (v *vector) forget(stream Stream) {
	delete(v.streams, stream.word())
	v.hotSeen = nil
}

// sorted lists the streams that are open, in a fixed order.
func (v *vector) sorted() []Stream {
	var list []Stream
	for _, word := range v.appendSorted(nil) {
		list = append(list, streamOf(word))
	}
	return list
}

// appendSorted appends the words of the streams that are open to an empty slice, in
// a fixed order.
func (v *vector) appendSorted(words []uint64) []uint64 {
	for word := range v.streams {
		words = append(words, word)
	}
	slices.Sort(words)
	return words
}

func (v *vector) stream(stream Stream) *seen {
	s := v.find(stream)
	if s == nil {
		s = &seen{}
		v.streams[stream.word()] = s
		v.hot, v.hotSeen = stream, s
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
	return uint64(v.floor.n + v.lost.n + len(v.streams) + v.extras)
}

// snapshot yields the vector as records, in a fixed order.
func (v *vector) snapshot(run uint64, yield func(Record)) {
	for core, first := range v.floor.at {
		if first > 0 {
			yield(Record{Kind: KindFloor, ID: TaskID{Run: run, Stream: Stream{Core(core), first}}})
		}
	}
	for core, first := range v.lost.at {
		if first > 0 {
			yield(Record{Kind: KindFloor, ID: TaskID{Run: run, Stream: Stream{Core(core), first}}, Arg: floorLost})
		}
	}
	v.words = v.appendSorted(v.words[:0])
	for _, word := range v.words {
		stream := streamOf(word)
		s := v.streams[word]
		yield(Record{Kind: KindSnapSeen, ID: TaskID{run, stream, s.upto}})
		for _, n := range s.extra {
			yield(Record{Kind: KindSnapSeen, ID: TaskID{run, stream, n}, Arg2: 1})
		}
	}
}
