package sim

import (
	"encoding/binary"
	"hash/maphash"
	"maps"
	"slices"
	"sync"

	"github.com/coreplica/coreplica/runq/protocol"
)

// set holds hashes of states, 64 bits each (hash compaction: Wolper and Leroy,
// 1993). Two states with one hash are taken for one, and what only the second
// leads to is not seen: among n states that happens with a chance of about
// n²/2^65, which is one in a million for six million states and one in 3,700 for
// a hundred million. The seed is drawn anew for each walk, so a second walk
// squares it.
type set struct {
	seed   maphash.Seed
	shards [64]shard
}

// shard is an open-addressed table; 0 is an empty place.
type shard struct {
	mu    sync.Mutex
	table []uint64
	n     int
}

func newSet() *set { return &set{seed: maphash.MakeSeed()} }

// add reports whether a state's encoding was new.
func (s *set) add(encoded []byte) bool {
	key := max(maphash.Bytes(s.seed, encoded), 1)
	h := &s.shards[key>>58]
	h.mu.Lock()
	defer h.mu.Unlock()
	if 4*h.n >= 3*len(h.table) {
		h.grow()
	}
	if !h.put(key) {
		return false
	}
	h.n++
	return true
}

func (h *shard) put(key uint64) bool {
	mask := uint64(len(h.table) - 1)
	for at := key & mask; ; at = (at + 1) & mask {
		switch h.table[at] {
		case key:
			return false
		case 0:
			h.table[at] = key
			return true
		}
	}
}

func (h *shard) grow() {
	old := h.table
	h.table = make([]uint64, max(1024, 2*len(old)))
	for _, key := range old {
		if key != 0 {
			h.put(key)
		}
	}
}

func (s *set) len() int {
	n := 0
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.Lock()
		n += h.n
		h.mu.Unlock()
	}
	return n
}

// part is a field of a state, in the order of its encoding. Its ends are kept so
// that a walk can count how many values each field takes.
type part struct {
	name string
	end  int
}

// encode writes all of a state that what comes after depends on. What is left
// out is what nothing reads any more.
func (s *state) encode(b []byte, parts *[]part) []byte {
	word := func(w uint64) { b = binary.AppendUvarint(b, w) }
	end := func(name string, b []byte) {
		if parts != nil {
			*parts = append(*parts, part{name, len(b)})
		}
	}
	word(uint64(s.tasks)<<32 | uint64(s.failures)<<16 | uint64(s.zombies))
	word(s.doomed)
	end("budgets", b)
	for i := range s.w.arbiters {
		word(s.w.arbiters[i])
		word(s.w.heartbeats[i])
	}
	end("control page", b)
	for _, id := range s.w.sortedRegions() {
		b = s.encodeRegion(b, id)
	}
	end("regions", b)
	for _, p := range s.w.procs {
		if p != nil {
			b = encodeProcess(b, p, end)
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(s.w.check.tasks), compareIDs) {
		h := s.w.check.tasks[id]
		starts, token, maxToken := 0, uint32(0), uint32(0)
		switch { // As far as the mode makes a difference.
		case h.mode == protocol.AtMostOnce:
			starts = h.starts
		case h.mode == protocol.OnceRecorded:
			maxToken = h.maxToken
		}
		if h.done {
			token = h.token
		}
		word(uint64(starts)<<5 | bit(h.acked)<<4 | bit(h.done)<<3 | bit(h.lost)<<2 | bit(h.ended)<<1 | bit(h.stopped))
		word(uint64(token)<<32 | uint64(maxToken))
	}
	end("journals", b)
	return b
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// encodeRegion writes a region up to its tail: what stands above was not
// published, and the records there are in their writer's program too. Of a
// region that is below the served epoch and whose writer is gone only the name
// matters, because it takes an area: nobody begins to read it any more, and a
// taker that has begun will find that it was overtaken.
func (s *state) encodeRegion(b []byte, id protocol.RegionID) []byte {
	r := s.w.regions[id]
	b = binary.AppendUvarint(b, uint64(id.Log)<<40|uint64(id.Host)<<32|uint64(id.Epoch))
	if id.Epoch < s.w.arbiter(id.Log).ActiveEpoch && s.writerGone(r) {
		return b
	}
	b = binary.AppendUvarint(b, r.commit)
	tail := protocol.UnpackCommit(r.commit).Tail
	for seq := tail - min(tail, s.w.cfg.Slots); seq < tail; seq++ {
		at := (seq & (s.w.cfg.Slots - 1)) * protocol.RecordWords
		b = binary.LittleEndian.AppendUint64(b, r.slots[at+protocol.RecordWords-1])
	}
	return b
}

func encodeProcess(b []byte, p *process, end func(string, []byte)) []byte {
	b = append(b, '|')
	if p.dead {
		b = append(b, 'x')
		for _, name := range []string{"node", "program", "inbox", "attempts"} {
			end(name, b)
		}
		return b
	}
	if p.encoded == nil {
		p.encoded = p.node.AppendState(binary.AppendUvarint(nil, uint64(p.life)))
	}
	b = append(b, p.encoded...)
	end("node", b)
	b = binary.AppendUvarint(b, uint64(p.part))
	for i := p.pc; i < len(p.program); i++ {
		e := &p.program[i]
		b = binary.AppendUvarint(b, uint64(e.Kind)<<16|uint64(e.Code)<<8|uint64(e.Log))
		b = binary.AppendUvarint(b, e.New)
		b = binary.AppendUvarint(b, e.Seq<<8|uint64(e.Region.Host))
		b = binary.AppendUvarint(b, e.ID.N|uint64(e.More)<<48)
	}
	end("program", b)
	for _, ev := range []*protocol.Event{p.abort, p.next} {
		if b = append(b, '|'); ev != nil {
			b = binary.AppendUvarint(b, uint64(ev.Kind))
			b = binary.AppendUvarint(b, ev.Word)
		}
	}
	for i := range p.inbox {
		b = binary.AppendUvarint(b, uint64(p.inbox[i].Kind)<<16|uint64(p.inbox[i].Core)<<8|uint64(p.inbox[i].Incarnation))
	}
	end("inbox", b)
	b = append(b, '|')
	for i := range p.running {
		a := &p.running[i]
		b = binary.AppendUvarint(b, a.id.N<<2|bit(a.sent)<<1|bit(a.stop))
		b = binary.AppendUvarint(b, uint64(a.token)<<16|uint64(a.attempt))
	}
	end("attempts", b)
	return b
}
