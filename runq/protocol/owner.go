package protocol

import (
	"slices"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/replica/quorum"
)

// stage is what a node is doing with a log.
type stage uint8

const (
	serving     stage = iota
	swapping          // Raising the epoch in the arbiter word.
	killing           // Waiting for the earlier owners to exit.
	sealing           // Sealing the regions of the last active epoch.
	reading           // Reading them.
	copying           // Writing a snapshot into fresh regions.
	activating        // Making them the log.
	handingOver       // Giving the log to another core.
	broken            // A copy was lost under a publish: nothing goes on before there are fresh ones.
)

// log is a log that the node owns or is about to own.
type log struct {
	id    Core
	epoch uint32
	stage stage
	word  ArbiterWord
	// members hold the copies, in the order in which they are published, and
	// lives are the incarnations of their cores when the copies were made.
	members []Core
	lives   []uint32
	q       *queue
	arena   arena
	// next is the sequence number of the next record, head of the snapshot that
	// the log starts with, published of the first record that may not be in all
	// copies yet.
	next, head, published uint64
	// words are the records that this step appended, flushed up to sent; first
	// is the sequence number of the next one to flush.
	words []uint64
	sent  int
	first uint64
	// span is the last of them while it may grow to speak of more tasks, and
	// spanAt where it stands.
	span   Record
	spanAt int
	// data are the payloads of this step, padded to cells, and payloads where
	// they belong: runs of cells that were not flushed yet.
	data     []byte
	payloads []cellRun
	freed    []Ref
	// doomed are tombstones that nobody waits for, in the order of their end.
	doomed []laneEntry
	// wanted asks for new regions: a copy was lost, or a core came back.
	wanted bool
	// settled is when the copies were made.
	settled clock.Instant
	// giving is the core that the log is to be handed to, or noCore.
	giving Core
	// held are effects behind a publish that failed for want of a copy: they
	// are due when the log is served again.
	held []Effect
	// unstored are payloads of the program that failed.
	unstored []storedCells
	// lows are the low watermarks that were published, by stream.
	lows map[Stream]uint64
	rec  *recovery
}

// cellRun is a part of data that goes to adjacent cells.
type cellRun struct {
	cell     uint32
	from, to int
}

// serves returns the log that a request is about, or the answer to it.
func (n *Node) serves(id TaskID, log Core) (*log, Code) {
	switch {
	case id.Run != n.cfg.Run:
		return nil, CodeOtherRun
	case int(log) >= n.cfg.Cores || int(id.Core) >= n.cfg.Cores:
		return nil, CodeInvalid
	case n.logs[log] == nil:
		return nil, CodeNotOwner
	case n.logs[log].stage != serving:
		return nil, CodeBusy
	}
	return n.logs[log], 0
}

// known answers about an ID that the log has seen.
func (n *Node) known(l *log, id TaskID, t *task) {
	e := Effect{Kind: EffectAnswer, Log: l.id, ID: id, Code: CodeKnown}
	if t == nil && (l.q.seen.has(id) || !l.q.seen.closed(id.Stream)) {
		n.answer(l.id, id, CodeKnown)
		return
	}
	if t == nil {
		e.Seq = uint64(StateLost)
	} else {
		e.Seq = uint64(t.state)
		switch t.state {
		case StateMoved:
			e.Code, e.Core = CodeMoved, Core(t.Arg)
		case StateMoving:
			e.Code = CodeBusy
		case StateDone:
			e.Code, e.Ref, e.Epoch, e.Members, e.Attempt, e.Token = CodeResult, t.Payload, l.epoch, l.members, t.Attempt, t.Token
		}
	}
	n.later(e)
}

// cancel ends a task that has not started, asks one that has to stop, and
// follows one that has moved.
func (n *Node) cancel(ev *Event) {
	l, code := n.serves(ev.ID, ev.Log)
	if code != 0 {
		n.answer(ev.Log, ev.ID, code)
		return
	}
	t := l.q.find(ev.ID)
	switch {
	case t == nil && !l.q.seen.has(ev.ID) && ev.Log == ev.ID.Core && !l.q.seen.closed(ev.ID.Stream):
		n.bury(l, ev.ID, CodeCancelled)
	case t == nil || t.state != StateReady && t.state != StateClaimed:
		n.known(l, ev.ID, t)
	default:
		code = CodeCancelled
		if t.state == StateClaimed {
			code = CodeCancelAsked
			n.later(Effect{Kind: EffectStop, Log: l.id, ID: ev.ID, Attempt: t.Attempt, Token: t.Token})
		}
		n.appendTo(l, &Record{Kind: KindCancel, ID: ev.ID}, t)
		n.answer(l.id, ev.ID, code)
	}
}

// resolve says what became of an ID. "Absent" is a promise, so it is logged: a
// submit that is still under way will find the tombstone.
func (n *Node) resolve(ev *Event) {
	l, code := n.serves(ev.ID, ev.Log)
	if code != 0 {
		n.answer(ev.Log, ev.ID, code)
		return
	}
	t := l.q.find(ev.ID)
	if t != nil || l.q.seen.has(ev.ID) || ev.Log != ev.ID.Core || l.q.seen.closed(ev.ID.Stream) {
		n.known(l, ev.ID, t)
		return
	}
	if n.mut&mutAbsentUnlogged != 0 {
		n.answer(l.id, ev.ID, CodeAbsent)
		return
	}
	n.bury(l, ev.ID, CodeAbsent)
}

// bury logs a tombstone for an ID that was never seen.
func (n *Node) bury(l *log, id TaskID, code Code) {
	if !n.grow(l, id) {
		n.answer(l.id, id, CodeFull)
		return
	}
	n.appendTo(l, &Record{Kind: KindCancel, ID: id}, nil)
	n.answer(l.id, id, code)
}

// collect lets a result be dropped: whoever waited has it.
func (n *Node) collect(ev *Event) {
	l, code := n.serves(ev.ID, ev.Log)
	if code != 0 {
		n.answer(ev.Log, ev.ID, code)
		return
	}
	r := Record{Kind: KindCollect, ID: ev.ID}
	for i := range uint64(ev.More) + 1 {
		r.ID.N = ev.ID.N + i
		t := l.q.find(r.ID)
		n.known(l, r.ID, nil)
		if t != nil && t.state.Terminal() && !t.collected {
			n.appendTo(l, &r, t)
		}
	}
}

// grow reports whether the log has room for one more entry and its ID. What ends
// a task that is there needs neither, and never finds the log full. The reserve
// is for the vector; a gap in a stream's numbers costs an exception there, which
// lasts until the gap is filled or the origin publishes a floor.
func (n *Node) grow(l *log, id TaskID) bool {
	return (l.q.seen.follows(id) || l.q.seen.extras < n.cfg.MaxExceptions) && n.hasRoom(l)
}

// hasRoom is grow for an ID that follows those before it.
func (n *Node) hasRoom(l *log) bool {
	return l.q.records()+3+uint64(n.cfg.Cores) < n.cfg.capacity()
}

// store puts a payload into the arena, to be written with the batch.
func (n *Node) store(l *log, payload []byte) (Ref, bool) {
	if len(payload) == 0 {
		return Ref{}, true
	}
	cell, ok := n.put(l, payload)
	if !ok {
		return Ref{}, false
	}
	return Ref{cell, uint32(len(payload)), PayloadCRC(payload)}, true
}

// put is store for a payload that has bytes and whose checksum is known.
func (n *Node) put(l *log, payload []byte) (uint32, bool) {
	cell, ok := l.arena.take(cells(len(payload)))
	if !ok {
		return 0, false
	}
	from := len(l.data)
	l.data = append(l.data, payload...)
	if over := len(payload) % CellBytes; over > 0 {
		l.data = append(l.data, zeroCell[over:]...)
	}
	if last := len(l.payloads) - 1; last >= 0 && l.payloads[last].follows(cell) && l.payloads[last].to == from {
		l.payloads[last].to = len(l.data)
	} else {
		l.payloads = append(l.payloads, cellRun{cell, from, len(l.data)})
	}
	return cell, true
}

// zeroCell fills the last cell of a payload up.
var zeroCell [CellBytes]byte

// follows reports whether a cell comes right after the run, which may still grow.
func (r cellRun) follows(cell uint32) bool {
	cells := uint32((r.to - r.from) / CellBytes)
	return cell == r.cell+cells && cells < maxRun
}

// maxRun is how many cells or slots one effect stores at most: between two stores
// of a program a core can be made to look alive or dead, so none may last long.
const maxRun = 16

// append adds a record to the log, which takes effect when it is published.
func (n *Node) append(l *log, r *Record) { n.appendTo(l, r, l.q.find(r.ID)) }

// appendTo is append for a record about the task t, nil for one that is not there.
func (n *Node) appendTo(l *log, r *Record, t *task) {
	n.record(l, r)
	n.free(l, l.q.apply(r, t))
	if r.Kind == KindEnqueue || r.Kind == KindClaim {
		return // Most records; they end nothing.
	}
	if t == nil {
		t = l.q.find(r.ID)
	}
	if t != nil && t.state.Terminal() && t.collected {
		l.doomed = append(l.doomed, laneEntry{t.place, t.order})
	}
}

// record adds a record to the batch, or lets the last one say the same.
func (n *Node) record(l *log, r *Record) {
	if l.span.joins(r) {
		l.span.Arg2++
		r.Epoch, r.Seq = l.span.Epoch, l.span.Seq
		return
	}
	n.makeRoom(l)
	n.write(l, r)
}

// free notes a payload that nobody needs any more.
func (n *Node) free(l *log, freed Ref) {
	if freed.Bytes == 0 {
		return
	}
	l.freed = append(l.freed, freed)
	if n.mut&mutReuseCells != 0 {
		n.giveBack(l)
	}
}

// makeRoom makes room for a record in the ring. One may add an entry and an
// exception to what a snapshot needs.
func (n *Node) makeRoom(l *log) {
	if l.next+4-l.head+l.q.records() > n.cfg.Slots {
		n.checkpoint(l)
	}
}

// write encodes a record into the batch, and gives it its place there.
func (n *Node) write(l *log, r *Record) {
	l.closeSpan()
	if len(l.words) == l.sent {
		l.first = l.next
	}
	r.Epoch, r.Seq = l.epoch, l.next
	r.ID.Run = n.cfg.Run
	at := len(l.words)
	if cap(l.words) < at+RecordWords {
		l.words = slices.Grow(l.words, RecordWords)
	}
	l.words = l.words[:at+RecordWords]
	r.Encode(l.words[at:])
	l.next++
	if r.Kind.spans() {
		l.span, l.spanAt = *r, at
	}
}

// closeSpan writes the last record as long as it has become.
func (l *log) closeSpan() {
	if l.span.Kind != KindNone && l.span.Arg2 > 0 {
		l.span.Encode(l.words[l.spanAt:])
	}
	l.span.Kind = KindNone
}

// checkpoint starts the log anew with a snapshot, so that old records can be
// overwritten. What follows in the program is performed only if all copies have
// the snapshot.
func (n *Node) checkpoint(l *log) {
	n.flush(l)
	head := l.next
	l.q.snapshot(func(r Record) {
		if r.Kind != KindFloor && r.Kind != KindSnapSeen || n.mut&mutNoVector == 0 {
			n.write(l, &r)
		}
	})
	n.flush(l)
	l.head = head
}

// flushAll publishes what the step appended and then lets the world know.
func (n *Node) flushAll() {
	for _, l := range n.logs {
		if l != nil && l.stage == serving {
			n.flush(l)
		}
	}
	n.out = append(n.out, n.post...)
	n.post = n.post[:0]
}

// flush copies the batch to every member and publishes it there, one member
// after the other. No wait is in it: the copies' cores take no part.
func (n *Node) flush(l *log) {
	if len(l.words) == l.sent {
		return
	}
	l.closeSpan()
	reached := quorum.Set(0)
	for i, member := range l.members {
		if i == len(l.members)-1 && n.mut&mutAckEarly != 0 {
			n.out = append(n.out, n.post...)
			n.post = n.post[:0]
		}
		n.copyTo(l, RegionID{l.id, member, l.epoch}, i == 0)
		reached = reached.With(int(member))
	}
	if members := set(l.members); !quorum.All(members).Reached(reached) {
		panic("protocol: a batch was not written to every in-sync copy")
	}
	l.sent = len(l.words)
	l.payloads = l.payloads[:0]
	n.giveBack(l)
}

// copyTo writes the batch into one region and publishes it.
func (n *Node) copyTo(l *log, region RegionID, first bool) {
	if first || n.mut&mutPayloadOnce == 0 {
		for _, p := range l.payloads {
			e := add(&n.out, EffectStoreCells, l.id)
			e.Region, e.Seq, e.Data = region, uint64(p.cell), l.data[p.from:p.to]
		}
	}
	seq := l.first
	for at := l.sent; at < len(l.words); {
		if at > l.sent {
			n.pulse() // A snapshot may take longer than a lease, and whoever writes one is not dead.
		}
		// A run ends at the end of the ring.
		run := min(uint64(len(l.words)-at)/RecordWords, maxRun, n.cfg.Slots-seq&(n.cfg.Slots-1))
		end := at + int(run)*RecordWords
		e := add(&n.out, EffectStoreSlots, l.id)
		e.Region, e.Seq, e.Words = region, seq, l.words[at:end]
		at, seq = end, seq+run
	}
	e := add(&n.out, EffectPublish, l.id)
	e.Region = region
	e.Old, e.New = CommitWord{l.epoch, false, l.first}.Pack(), CommitWord{l.epoch, false, l.next}.Pack()
}

// giveBack frees cells whose last record is on its way: a later batch may write
// to them, because it comes after this one is published.
func (n *Node) giveBack(l *log) {
	for _, ref := range l.freed {
		l.arena.give(ref.Cell, cells(int(ref.Bytes)))
	}
	l.freed = l.freed[:0]
}

// collectGarbage drops tombstones at the safe point: all copies have them, all
// earlier epochs are sealed (or the log would not be served) and no hand-off is
// open (or the entry would not be a tombstone). The vector remembers the ID.
func (n *Node) collectGarbage(l *log) {
	done := 0
	defer func() { l.doomed = slices.Delete(l.doomed, 0, done) }()
	for ; done < len(l.doomed); done++ {
		t := &l.q.tasks[l.doomed[done].place]
		if t.used && t.order == l.doomed[done].order && t.state.Terminal() && t.collected {
			if t.seq >= l.published {
				return
			}
			id := t.ID
			l.q.remove(t)
			if n.mut&mutTimeTombstones != 0 {
				l.q.seen.forget(id.Stream)
			}
			n.forgotten(l.id, id)
		}
	}
}

// forgotten says that a tombstone is gone, or lets the last effect say it too.
func (n *Node) forgotten(log Core, id TaskID) {
	if last := len(n.out) - 1; last >= 0 && n.out[last].Kind == EffectForget && n.out[last].Log == log && n.out[last].precedes(id) {
		n.out[last].More++
		return
	}
	add(&n.out, EffectForget, log).ID = id
}

func set(cores []Core) quorum.Set {
	var s quorum.Set
	for _, c := range cores {
		s = s.With(int(c))
	}
	return s
}
