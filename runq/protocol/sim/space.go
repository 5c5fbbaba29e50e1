package sim

import (
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/coreplica/coreplica/runq/protocol"
)

// successors returns the states that one action leads to.
func (x *explorer) successors(s *state) []*state {
	var next []*state
	try := func(name string, do func(*state)) {
		c := s.clone()
		c.depth++
		c.path = &trail{name, s.path}
		do(c)
		if !x.opts.Full {
			c.settle(&x.opts)
		}
		next = append(next, c)
	}
	page := s.w.controlPage()
	looks := make([]bool, len(s.w.procs)) // Before the states are copied: what is learnt goes along.
	for core, p := range s.w.procs {
		looks[core] = p != nil && !p.dead && !s.busy(p) && len(p.inbox) == 0 && s.learns(p, page)
	}
	for core, p := range s.w.procs {
		if p == nil || p.dead {
			continue
		}
		if s.busy(p) || len(p.inbox) > 0 {
			try(fmt.Sprintf("go %d", core), func(c *state) { c.advance(c.w.procs[core]) })
		} else {
			x.idle(s, p, try)
			if looks[core] {
				try(fmt.Sprintf("look %d", core), func(c *state) { c.w.step(c.w.procs[core], protocol.Event{Kind: protocol.EventTick}) })
			}
		}
		if s.doomed>>core&1 == 1 {
			try(fmt.Sprintf("die %d", core), func(c *state) {
				c.doomed &^= 1 << core
				c.w.procs[core].doomed = true
				c.w.exit(protocol.Core(core))
			})
		}
		if s.failures < x.opts.Failures {
			x.fail(s, p, try)
		}
	}
	return next
}

// settle performs what may be performed at once without a difference to anyone:
// a partial-order reduction (Godefroid, 1996). Each such action commutes with
// all that other cores can do before its own core's next action, and no check
// tells the two orders apart. A crash or death of its own core makes no
// difference either: what the core knew is gone then, and so are its regions.
func (s *state) settle(opts *ExploreOptions) {
	for again := true; again; {
		again = false
		for _, p := range s.w.procs {
			for p != nil && !p.dead && s.local(p, opts) {
				s.advance(p)
				again = true
			}
		}
	}
}

// local reports whether the next thing that a process must do can be told apart
// by nobody else, now or later:
//
//   - It takes in an answer, or news of a death or of a judgement. Nothing is
//     read for that, and it can do nothing else before.
//   - It stores in a region of an epoch that is not served, or in one that no
//     other copy is ahead of. A taker reads up to the highest tail of all copies,
//     so a copy that is behind is read above its own tail; no other is.
//   - It opens or publishes a region of an epoch that is not served. Only who
//     opened it looks at it, before the arbiter word names that epoch; or it was
//     served once and is sealed. But whether its host's memory is lost matters: so
//     the host is its own core, or no core can fail any more. And there must be an
//     area for it, whatever the other cores open meanwhile.
//   - It seals or reads a region whose writer has exited, or reads one that is
//     sealed and not behind: that changes no more, but by the loss of its host's
//     memory, which is as above.
func (s *state) local(p *process, opts *ExploreOptions) bool {
	if p.pc >= len(p.program) {
		return p.abort != nil || p.next != nil || len(p.inbox) > 0 && p.inbox[0].Kind != protocol.EventTick
	}
	e := &p.program[p.pc]
	r := s.w.regions[e.Region]
	calm := e.Region.Host == p.core || s.failures >= opts.Failures
	unserved := s.w.arbiter(e.Log).ActiveEpoch != e.Region.Epoch
	switch e.Kind {
	case protocol.EffectHeartbeat, protocol.EffectForget, protocol.EffectResetAffinity, protocol.EffectReport, protocol.EffectReject,
		protocol.EffectSend, protocol.EffectUnkillable:
		return true
	case protocol.EffectAnswer:
		return opts.hasty
	case protocol.EffectStoreCells, protocol.EffectStoreSlots:
		return unserved || !s.behind(e.Region)
	case protocol.EffectPublish:
		return calm && unserved
	case protocol.EffectOpen:
		return calm && unserved && s.roomFor(e.Region)
	case protocol.EffectSeal:
		return r == nil || calm && s.writerGone(r)
	case protocol.EffectRead:
		return r == nil || calm && (s.writerGone(r) || protocol.UnpackCommit(r.commit).Sealed && !s.behind(e.Region))
	}
	return false
}

// behind reports whether another copy of a region has a higher tail.
func (s *state) behind(id protocol.RegionID) bool {
	r := s.w.regions[id]
	if r == nil {
		return false
	}
	tail := protocol.UnpackCommit(r.commit).Tail
	for other, o := range s.w.regions {
		if other.Log == id.Log && other.Epoch == id.Epoch && protocol.UnpackCommit(o.commit).Tail > tail {
			return true
		}
	}
	return false
}

// roomFor reports whether there is an area for a region, even if each other core
// opens one before.
func (s *state) roomFor(id protocol.RegionID) bool {
	taken := 0
	for other := range s.w.regions {
		if other.Log == id.Log && other.Host == id.Host && other.Epoch != id.Epoch {
			taken++
		}
	}
	for _, p := range s.w.procs {
		if p != nil && !p.dead {
			taken++ // Its own core is counted for the region itself.
		}
	}
	return taken <= protocol.SpareAreas
}

// writerGone reports whether nobody writes a region any more.
func (s *state) writerGone(r *region) bool {
	p := s.w.procs[r.writer.Writer]
	return p == nil || p.dead || p.life != r.writer.Incarnation
}

// idle lists what may happen to a node that has nothing under way.
func (x *explorer) idle(s *state, p *process, try func(string, func(*state))) {
	core := p.core
	if s.tasks < x.opts.Tasks && p.node.Serves(0) {
		try(fmt.Sprintf("submit %d", core), func(c *state) {
			c.tasks++
			id := protocol.TaskID{Run: 1, Stream: protocol.Stream{Core: 0, Incarnation: 1}, N: uint64(c.tasks)}
			h := c.w.check.task(id)
			h.mode, h.payload = protocol.Mode(c.tasks%3), []byte{byte(c.tasks)}
			c.w.step(c.w.procs[core], protocol.Event{Kind: protocol.EventSubmit, Task: protocol.Record{ID: id, Mode: h.mode}, Payload: h.payload})
		})
	}
	if p.node.Ready() > 0 && len(p.running) == 0 {
		try(fmt.Sprintf("claim %d", core), func(c *state) {
			c.w.step(c.w.procs[core], protocol.Event{Kind: protocol.EventIdle, Count: 1})
		})
	}
	for i := range p.running {
		if p.running[i].sent {
			continue
		}
		try(fmt.Sprintf("finish %d", core), func(c *state) {
			a := &c.w.procs[core].running[i]
			a.sent = true
			c.w.step(c.w.procs[core], protocol.Event{
				Kind: protocol.EventFinished, Log: a.log, ID: a.id, Attempt: a.attempt, Token: a.token, Payload: resultOf(a.id, a.token),
			})
		})
	}
}

// pageSeed makes the hashes of control pages comparable within one process.
var pageSeed = maphash.MakeSeed()

// controlPage is the identity of what a node would read.
func (w *world) controlPage() uint64 {
	var h maphash.Hash
	h.SetSeed(pageSeed)
	for i := range w.arbiters {
		maphash.WriteComparable(&h, [3]uint64{w.arbiters[i], w.incarnations[i], w.heartbeats[i]})
	}
	return max(h.Sum64(), 1)
}

// learns reports whether a look at the control page would change anything for a
// node, and remembers the page if it would not.
func (s *state) learns(p *process, page uint64) bool {
	if p.dull == page {
		return false
	}
	node := p.node.Clone()
	before := string(node.AppendState(nil))
	tick := protocol.Event{Kind: protocol.EventTick, Control: &protocol.Control{
		Arbiters: s.w.arbiters, Incarnations: s.w.incarnations, Heartbeats: s.w.heartbeats,
	}}
	if len(node.Step(&tick, nil)) == 0 && string(node.AppendState(nil)) == before {
		p.dull = page
		return false
	}
	return true
}

// fail lists how a core may fail: with its memory, or in the eyes of others.
func (x *explorer) fail(s *state, p *process, try func(string, func(*state))) {
	alive := 0
	for _, q := range s.w.procs {
		if q != nil && !q.dead {
			alive++
		}
	}
	if alive > 1 && s.survives(p.core) {
		try(fmt.Sprintf("crash %d", p.core), func(c *state) {
			c.failures++
			c.w.crash(p.core)
		})
	}
	if alive > 1 && s.zombies < x.opts.Zombies {
		try(fmt.Sprintf("suspect %d", p.core), func(c *state) {
			c.failures++
			c.zombies++
			if !x.opts.AllLogs {
				c.doomed |= 1 << p.core // By who takes a log over that is not followed.
			}
			for _, q := range c.w.procs {
				if q != nil && q.core != p.core && !q.dead {
					// What was read of the control page is read anew, then judged.
					q.inbox = append(slices.Clone(q.inbox), protocol.Event{Kind: protocol.EventTick}, protocol.Event{Kind: protocol.EventSuspect, Core: p.core})
				}
			}
		})
	}
}

// survives is as in the simulator: a log must keep a copy.
func (s *state) survives(core protocol.Core) bool {
	return (&sim{w: s.w}).survives(core)
}
