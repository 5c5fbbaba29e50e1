package protocol

import (
	"encoding/binary"
	"maps"
	"slices"
)

// Clone returns a node that goes on from the same state on its own.
func (n *Node) Clone() *Node {
	c := *n
	c.peers, c.views = slices.Clone(n.peers), slices.Clone(n.views)
	c.closed = maps.Clone(n.closed)
	c.out, c.post, c.refs, c.scratch = nil, nil, nil, nil
	c.logs = make([]*log, len(n.logs))
	for i, l := range n.logs {
		if l != nil {
			c.logs[i] = l.clone()
		}
	}
	return &c
}

func (l *log) clone() *log {
	c := *l
	c.members, c.lives = slices.Clone(l.members), slices.Clone(l.lives)
	if l.q != nil {
		c.q = l.q.clone()
	}
	c.arena = l.arena.clone()
	c.words, c.payloads, c.freed = slices.Clone(l.words), slices.Clone(l.payloads), slices.Clone(l.freed)
	c.data = slices.Clone(l.data) // Both go on appending.
	c.doomed, c.held, c.lows = slices.Clone(l.doomed), slices.Clone(l.held), maps.Clone(l.lows)
	c.unstored = slices.Clone(l.unstored) // Their data do not change.
	if l.rec != nil {
		rec := *l.rec
		rec.victims, rec.sources, rec.words = slices.Clone(rec.victims), slices.Clone(rec.sources), slices.Clone(rec.words)
		rec.read = sources{slices.Clone(rec.read.rings), slices.Clone(rec.read.arenas)} // What they refer to stays.
		rec.origins, rec.all = slices.Clone(rec.origins), slices.Clone(rec.all)
		rec.reports = slices.Clone(rec.reports)
		c.rec = &rec
	}
	return &c
}

// CloneEffects copies effects with the memory that they refer to, so that they
// outlive the next step.
func CloneEffects(effects []Effect) []Effect {
	c := slices.Clone(effects)
	for i := range c {
		c[i].Words, c[i].Data, c[i].Refs = slices.Clone(c[i].Words), slices.Clone(c[i].Data), slices.Clone(c[i].Refs)
	}
	return c
}

// AppendState appends an encoding of the node's state to b: nodes with the same
// encoding behave the same from here on. Clocks and timers are left out, so it
// is for drivers that keep the time still.
func (n *Node) AppendState(b []byte) []byte {
	b = put(b, uint64(n.life), uint64(n.incarnation), flag(n.draining), uint64(n.away), flag(n.risen), uint64(n.asking))
	for i := range n.peers {
		p := &n.peers[i]
		b = put(b, uint64(p.incarnation), flag(p.exited), flag(p.suspect), uint64(p.lost), uint64(p.crashed))
	}
	for i := range n.views {
		v := &n.views[i]
		b = put(b, v.word.Pack(), uint64(v.ownerLife), uint64(v.activeLife), uint64(v.mine), flag(v.known), flag(v.formerly), flag(v.exhausted))
	}
	for _, s := range slices.SortedFunc(maps.Keys(n.closed), Stream.compare) {
		b = put(b, uint64(s.Core), uint64(s.Incarnation))
	}
	for _, l := range n.logs {
		if b = put(b, flag(l != nil)); l != nil {
			b = l.appendState(b, &n.cfg)
		}
	}
	return b
}

func put(b []byte, words ...uint64) []byte {
	for _, w := range words {
		b = binary.AppendUvarint(b, w)
	}
	return b
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func (l *log) appendState(b []byte, cfg *Config) []byte {
	b = put(b, uint64(l.epoch), uint64(l.stage), l.word.Pack(), l.next, l.head, l.published, flag(l.wanted), uint64(l.giving))
	for i, m := range l.members {
		b = put(b, uint64(m), uint64(l.lives[i]))
	}
	l.arena.spans(func(from, to uint32) { b = put(b, uint64(from), uint64(to)) })
	b = put(b, uint64(len(l.held)), uint64(len(l.doomed)), uint64(len(l.unstored)))
	for i := range l.held {
		b = put(b, uint64(l.held[i].Kind), uint64(l.held[i].Code), l.held[i].ID.N)
	}
	if l.q != nil {
		b = l.q.appendState(b)
	}
	if rec := l.rec; rec != nil {
		b = put(b, rec.from.Pack(), flag(rec.self), uint64(rec.at), rec.best, flag(rec.asked), flag(rec.blocked))
		for _, v := range rec.victims {
			b = put(b, uint64(v.Core), uint64(v.Incarnation))
		}
		for _, w := range rec.words {
			b = put(b, w.Pack())
		}
		var r Record
		for seq := rec.best; len(rec.read.rings) > 0 && seq > rec.best-min(rec.best, cfg.Slots) && !rec.begins(cfg, seq); {
			if seq--; rec.record(cfg, seq, &r) {
				b = put(b, seq, uint64(r.Kind), r.ID.N)
			}
		}
		b = put(b, uint64(len(rec.reports)))
	}
	return b
}

func (q *queue) appendState(b []byte) []byte {
	var words [RecordWords]uint64
	q.snapshot(func(r Record) {
		r.Encode(words[:])
		b = put(b, words[0], words[1], words[2], words[3], words[4], words[5], words[6])
	})
	return b
}

// QueueOf rebuilds a log from the words of one region, for checks that trust no
// node's memory: the state of each task, and whether an ID was ever seen.
func QueueOf(cfg Config, region RegionID, commit CommitWord, slots []uint64) (state func(TaskID) TaskState, seen func(TaskID) bool) {
	rec := &recovery{epoch: region.Epoch, best: commit.Tail, read: sources{rings: [][]uint64{slots}}, sources: []Core{region.Host}}
	n := &Node{cfg: cfg, views: make([]view, cfg.Cores), logs: make([]*log, cfg.Cores)}
	l := &log{id: region.Log, q: newQueue(cfg.Run), rec: rec}
	n.replay(l)
	state = func(id TaskID) TaskState {
		if t := l.q.find(id); t != nil {
			return t.state
		}
		return StateNone
	}
	return state, l.q.seen.has
}
