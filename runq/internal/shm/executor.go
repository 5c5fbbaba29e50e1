package shm

import (
	"sync/atomic"
	"unsafe"

	"github.com/coreplica/coreplica/runq/protocol"
)

// Outside does what a program wants of the world outside of the memory: answers,
// attempts, messages, reports and deaths.
type Outside interface {
	// Do performs an effect. It belongs to the node and is valid until Do
	// returns.
	Do(e *protocol.Effect)
}

// Executor performs the programs of one node. It belongs to the scheduling loop.
type Executor struct {
	m    *Memory
	node *protocol.Node
	out  Outside
	// Before is called before each effect; nil in production. A trial stops the
	// process there.
	Before func(*protocol.Effect)
	// dead has the last life of each core that is known to have exited.
	dead []uint32
	// last is the region that was stored to last: stores come in runs.
	last      protocol.RegionID
	lastWords []uint64
	// copies are of regions that a recovery has read, spare for those to come.
	copies map[protocol.RegionID]copied
	spare  []copied
}

// copied is a copy of a region.
type copied struct {
	slots []uint64
	arena []byte
}

// NewExecutor returns the executor of a node.
func NewExecutor(m *Memory, node *protocol.Node, out Outside) *Executor {
	return &Executor{m: m, node: node, out: out, dead: make([]uint32, m.geo.Cores), copies: map[protocol.RegionID]copied{}}
}

// Exited notes a life that is over, before the node hears of it: what it wrote
// may be freed.
func (x *Executor) Exited(core protocol.Core, incarnation uint32) {
	if int(core) < len(x.dead) {
		x.dead[core] = max(x.dead[core], incarnation)
	}
}

// Perform performs a program. If it returns true, ev is to be fed to the node:
// at once where its kind is EventAborted, else when that suits, and once.
func (x *Executor) Perform(program []protocol.Effect, ev *protocol.Event) bool {
	for i := range program {
		e := &program[i]
		if x.Before != nil {
			x.Before(e)
		}
		word, ok := x.do(e)
		if !ok {
			*ev = protocol.Event{Kind: protocol.EventAborted, Word: word, Rest: program[i:]}
			return true
		}
		if e.Kind.Asks() {
			x.ask(e, ev)
			return true
		}
	}
	return false
}

// do performs an effect that is not answered. Where it fails, it returns the
// word that was there.
func (x *Executor) do(e *protocol.Effect) (word uint64, ok bool) {
	g := &x.m.geo
	switch e.Kind {
	case protocol.EffectStoreSlots:
		at := g.SlotOffset(e.Seq)
		if words := x.region(e.Region); words != nil && at+len(e.Words) <= g.ArenaOffset() {
			storeWords(words[at:at+len(e.Words)], e.Words)
		}
	case protocol.EffectStoreCells:
		words := x.region(e.Region)
		if at := e.Seq * protocol.CellBytes / 8; words != nil && at <= uint64(g.Cells)*protocol.CellBytes/8 {
			arena := words[uint64(g.ArenaOffset())+at:]
			if len(e.Data) <= len(arena)*8 {
				storeBytes(arena, e.Data)
			}
		}
	case protocol.EffectPublish:
		words := x.region(e.Region)
		if words == nil {
			return 0, false
		}
		if !atomic.CompareAndSwapUint64(&words[g.CommitOffset()], e.Old, e.New) {
			return x.m.commit(words, e.Region.Epoch), false
		}
	case protocol.EffectHeartbeat:
		atomic.StoreUint64(&x.m.control[g.HeartbeatOffset(e.Core)], e.New)
	case protocol.EffectOpen:
		x.lastWords = nil
		return 0, x.m.open(e.Region, e.New, x.pulse) != nil
	case protocol.EffectFreeBelow:
		x.lastWords = nil
		x.m.free(e.Log, e.Epoch, uint32(e.Old), x.over)
	default:
		if !e.Kind.Asks() {
			x.out.Do(e)
		}
	}
	return 0, true
}

// over reports whether the writer of a region writes there no more. We do not
// either: the protocol frees what it has left.
func (x *Executor) over(d protocol.DirectoryWord) bool {
	if int(d.Writer) >= x.m.geo.Cores {
		return false
	}
	if d.Writer == x.node.Core() {
		return d.Incarnation <= x.node.Incarnation()
	}
	// A life begins when the one before is gone.
	return x.dead[d.Writer] >= d.Incarnation || x.m.Heartbeat(d.Writer).Incarnation > d.Incarnation
}

// ask performs an effect that is answered.
func (x *Executor) ask(e *protocol.Effect, ev *protocol.Event) {
	*ev = protocol.Event{Kind: protocol.EventResult, OK: true}
	switch e.Kind {
	case protocol.EffectDraw:
		ev.Word = uint64(x.m.Draw(e.Log).Incarnation)
	case protocol.EffectArbiter:
		x.done(e.Log, 0)
		word := &x.m.control[x.m.geo.ArbiterOffset(e.Log)]
		if ev.OK = atomic.CompareAndSwapUint64(word, e.Old, e.New); ev.OK {
			ev.Word = e.New
		} else {
			ev.Word = atomic.LoadUint64(word)
		}
	case protocol.EffectSeal:
		ev.Word, ev.OK = x.seal(e.Region)
	case protocol.EffectRead:
		x.read(e.Region, ev)
	}
}

func (x *Executor) seal(id protocol.RegionID) (word uint64, ok bool) {
	words := x.m.find(id)
	if words == nil {
		return 0, false
	}
	at := &words[x.m.geo.CommitOffset()]
	for {
		old := atomic.LoadUint64(at)
		c := protocol.UnpackCommit(old)
		if c.Epoch != id.Epoch {
			return 0, false
		}
		c.Sealed = true
		if atomic.CompareAndSwapUint64(at, old, c.Pack()) {
			return c.Pack(), true
		}
	}
}

// Reserve makes memory ready for copies of so many regions: a takeover has no time
// to touch fresh pages. It is this process's until its end.
func (x *Executor) Reserve(regions int) {
	g := &x.m.geo
	slots, arena := int(g.Slots)*protocol.RecordWords*8, int(g.Cells)*protocol.CellBytes
	for range regions {
		memory := Ready(slots + arena)
		x.spare = append(x.spare, copied{unsafe.Slice((*uint64)(unsafe.Pointer(&memory[0])), slots/8), memory[slots : slots+arena]})
	}
}

func (x *Executor) newCopy() copied {
	g := &x.m.geo
	return copied{make([]uint64, g.Slots*protocol.RecordWords), make([]byte, uint64(g.Cells)*protocol.CellBytes)}
}

// copyOf returns memory for a copy of a region. A recovery keeps what it has read
// until it swaps the arbiter word again, and one of another epoch is over.
func (x *Executor) copyOf(id protocol.RegionID) copied {
	x.done(id.Log, id.Epoch)
	c, ok := x.copies[id]
	if n := len(x.spare); !ok && n > 0 {
		c, x.spare = x.spare[n-1], x.spare[:n-1]
	} else if !ok {
		c = x.newCopy()
	}
	x.copies[id] = c
	return c
}

// done takes the copies of a log back, but for those of one epoch.
func (x *Executor) done(log protocol.Core, but uint32) {
	for id, c := range x.copies {
		if id.Log == log && id.Epoch != but {
			delete(x.copies, id)
			x.spare = append(x.spare, c)
		}
	}
}

// read copies a region out.
func (x *Executor) read(id protocol.RegionID, ev *protocol.Event) {
	words := x.m.find(id)
	if words == nil {
		ev.OK = false
		return
	}
	if ev.Word = x.m.commit(words, id.Epoch); ev.Word == 0 {
		ev.OK = false
		return
	}
	g := &x.m.geo
	c := x.copyOf(id)
	ev.Slots, ev.Arena = c.slots, c.arena
	ring := words[g.SlotOffset(0):g.ArenaOffset()]
	for at := 0; at < len(ring); at += pulseWords {
		end := min(at+pulseWords, len(ring))
		loadWords(ev.Slots[at:end], ring[at:end])
		x.pulse()
	}
	arena := words[g.ArenaOffset():]
	for at := 0; at*8 < len(ev.Arena); at += pulseWords {
		end := min(at+pulseWords, len(ev.Arena)/8)
		loadBytes(ev.Arena[at*8:end*8], arena[at:end])
		x.pulse()
	}
}

// pulseWords is how much memory is copied or cleared between two signs of life: a
// quarter of a millisecond, or a few when the pages are fresh.
const pulseWords = 32 << 10

// pulse shows that this worker gets on with an effect that takes long. It flips the
// highest bit of the heartbeat's counter, which the node does not count up to: those
// who watch see a change, and nothing else depends on it. Like the node's own pulses
// it makes others wait and gives no right to act.
func (x *Executor) pulse() {
	word := &x.m.control[x.m.geo.HeartbeatOffset(x.node.Core())]
	old := atomic.LoadUint64(word)
	if protocol.UnpackHeartbeat(old).Incarnation == x.node.Incarnation() {
		atomic.StoreUint64(word, old^1<<31) // Nobody else writes it.
	}
}

// region returns the words of a region that is stored to, or nil.
func (x *Executor) region(id protocol.RegionID) []uint64 {
	if x.lastWords == nil || x.last != id {
		x.last, x.lastWords = id, x.m.find(id)
	}
	return x.lastWords
}

// Payload appends to dst the payload that an effect refers to, from any copy of
// it that is valid.
func (x *Executor) Payload(dst []byte, e *protocol.Effect) ([]byte, bool) {
	if e.Ref.Bytes == 0 {
		return dst, true
	}
	from := uint64(e.Ref.Cell) * protocol.CellBytes
	if from+uint64(e.Ref.Bytes) > uint64(x.m.geo.Cells)*protocol.CellBytes {
		return dst, false
	}
	start := len(dst)
	for _, member := range e.Members {
		words := x.m.find(protocol.RegionID{Log: e.Log, Host: member, Epoch: e.Epoch})
		if words == nil {
			continue
		}
		if need := start + int(e.Ref.Bytes); cap(dst) < need {
			dst = append(dst[:start], make([]byte, e.Ref.Bytes)...)
		}
		dst = dst[:start+int(e.Ref.Bytes)]
		loadBytes(dst[start:], words[uint64(x.m.geo.ArenaOffset())+from/8:])
		if protocol.PayloadCRC(dst[start:]) == e.Ref.CRC {
			return dst, true
		}
	}
	return dst[:start], false
}
