package sim

import (
	"github.com/coreplica/coreplica/runq/protocol"
)

// request is a task as its submitter sees it.
type request struct {
	id       protocol.TaskID
	task     protocol.Record
	payload  []byte
	where    protocol.Core // The log to ask.
	own      bool          // The worker submitted it by itself.
	acked    bool
	resolved bool // Known to have ended, or never to have begun.
	asked    int64
}

// parcel is something under way to a node.
type parcel struct {
	to  protocol.Core
	due int64
	ev  protocol.Event
}

// act lets a submitter do something.
func (s *sim) act() {
	if len(s.requests) < s.tasks && s.rng.IntN(3) > 0 {
		log := protocol.Core(s.rng.IntN(s.w.cfg.Cores))
		if s.crowded {
			log = 0
			if s.unresolved() > crowd {
				return // More than a small ring has room for would be refused.
			}
		}
		s.submitNew(log, s.burst())
		return
	}
	if len(s.requests) == 0 {
		return
	}
	if !s.crowded && s.rng.IntN(80) == 0 {
		s.post(protocol.Core(s.rng.IntN(s.w.cfg.Cores)), protocol.Event{Kind: protocol.EventDrain})
	}
	r := s.requests[s.rng.IntN(len(s.requests))]
	switch n := s.rng.IntN(12); {
	case r.resolved && n < 4:
		s.request(r, protocol.Event{Kind: protocol.EventCollect, More: s.ripe(r)})
	case r.resolved:
		// Asked again, a submit that was repeated must find its tombstone.
		s.request(r, protocol.Event{Kind: protocol.EventSubmit})
	case n == 0:
		s.request(r, protocol.Event{Kind: protocol.EventCancel})
	case n < 4 && !r.acked:
		s.request(r, protocol.Event{Kind: protocol.EventSubmit})
	default:
		s.request(r, protocol.Event{Kind: protocol.EventResolve})
	}
}

// ripe returns how many of the next tasks of a stream can be collected with one.
func (s *sim) ripe(r *request) (more uint16) {
	id := r.id
	for {
		id.N++
		if next := s.byID[id]; next == nil || !next.resolved || next.where != r.where {
			return more
		}
		more++
	}
}

// smallArena is one that a burst fills. Results need room too, which submitters have
// to leave, or nothing ends any more.
const smallArena = 64

// crowd is how many tasks a small ring has at once.
const crowd = 6

// unresolved counts tasks whose submitters do not know that they ended.
func (s *sim) unresolved() (n int) {
	for _, r := range s.requests {
		if !r.resolved {
			n++
		}
	}
	return n
}

// burst draws how many tasks are submitted together.
func (s *sim) burst() int {
	if !s.crowded && s.rng.IntN(16) > 0 || s.w.cfg.Cells < smallArena {
		return 1
	}
	return min(2+s.rng.IntN(12), s.tasks-len(s.requests))
}

// submitNew submits tasks, those of a burst half of the time as runs of tasks that
// are alike.
func (s *sim) submitNew(log protocol.Core, burst int) {
	alike := burst > 1 && s.rng.IntN(2) == 0
	var first *request
	var payloads []byte
	var evs []protocol.Event
	for range burst {
		r := s.newRequest(log, first)
		if r == nil {
			return
		}
		if !alike {
			s.request(r, protocol.Event{Kind: protocol.EventSubmit})
			continue
		}
		if first == nil {
			first, payloads = r, make([]byte, 0, burst*len(r.payload))
		}
		from := len(payloads)
		payloads = append(payloads, r.payload...)
		r.asked, r.payload = s.w.now, payloads[from:]
		evs = protocol.Join(evs, &protocol.Event{Kind: protocol.EventSubmit, ID: r.id, Log: log, Task: r.task, Payload: r.payload})
	}
	for _, ev := range evs {
		s.post(s.w.arbiter(log).Owner, ev)
	}
}

// newRequest allocates an ID and draws a task for it, or one like another one.
func (s *sim) newRequest(log protocol.Core, like *request) *request {
	if s.streams[log] == 0 || like == nil && s.rng.IntN(12) == 0 && !s.crowded {
		if s.streams[log] != 0 {
			s.broadcast(protocol.Event{Kind: protocol.EventStreamClosed, Core: log, Incarnation: s.streams[log]})
		}
		s.w.incarnations[log]++
		s.streams[log], s.numbers[log] = uint32(s.w.incarnations[log]), 0
	}
	var id protocol.TaskID
	own := like != nil && like.own || like == nil && !s.crowded && s.rng.IntN(3) == 0
	if p := s.w.procs[log]; own && !p.dead && p.life > 0 {
		id = p.node.Allocate() // The worker submits by itself.
	} else {
		s.numbers[log]++
		id = protocol.TaskID{Run: s.w.cfg.Run, Stream: protocol.Stream{Core: log, Incarnation: s.streams[log]}, N: s.numbers[log]}
	}
	if s.byID[id] != nil {
		s.w.check.fail("identities", "%v was given out twice", id)
		return nil
	}
	r := &request{id: id, where: log, own: own, task: protocol.Record{
		ID: id, Mode: protocol.Mode(s.rng.IntN(3)), Prio: uint8(s.rng.IntN(3)),
	}}
	if s.rng.IntN(4) == 0 || s.crowded {
		r.task.Flags = protocol.Detached
	}
	if s.rng.IntN(4) == 0 {
		r.task.NotBefore = uint64(s.w.now)/1000 + uint64(s.rng.IntN(300))
	}
	size := 1 + s.rng.IntN(90)
	if like != nil {
		r.task, size = like.task, len(like.payload)
		r.task.ID = id
	}
	r.payload = make([]byte, size)
	for i := range r.payload {
		r.payload[i] = byte(id.N) + byte(i)
	}
	h := s.w.check.task(id)
	h.mode, h.payload = r.task.Mode, r.payload
	s.requests = append(s.requests, r)
	s.byID[id] = r
	return r
}

// request sends an event about a task to whoever owns its log now.
func (s *sim) request(r *request, ev protocol.Event) {
	r.asked = s.w.now
	ev.ID, ev.Log = r.id, r.where
	if ev.Kind == protocol.EventSubmit {
		ev.Log, ev.Task, ev.Payload = r.id.Core, r.task, r.payload
	}
	s.post(s.w.arbiter(ev.Log).Owner, ev)
}

func (s *sim) broadcast(ev protocol.Event) {
	for core := range s.w.procs {
		s.post(protocol.Core(core), ev)
	}
}

// post puts an event on its way, past whatever the network does to it.
func (s *sim) post(to protocol.Core, ev protocol.Event) {
	if s.faulty(Loss, 10) {
		s.w.check.count("fault", "loss")
		return
	}
	delay := int64(1000)
	if s.faulty(Reorder, 3) {
		s.w.check.count("fault", "reorder")
		delay = s.rng.Int64N(int64(s.w.cfg.Lease.Length))
	}
	s.parcels = append(s.parcels, parcel{to, s.w.now + delay, ev})
	if s.faulty(Duplicate, 8) {
		s.w.check.count("fault", "duplicate")
		s.parcels = append(s.parcels, parcel{to, s.w.now + delay + s.rng.Int64N(2*int64(s.w.cfg.Lease.Length)), ev})
	}
}

// faulty draws a fault of messages, one in so many, while faults are on.
func (s *sim) faulty(fault Faults, oneIn int) bool {
	return !s.draining && s.opts.Faults&fault != 0 && s.rng.IntN(oneIn) == 0
}

// onAnswer takes an answer to its submitter or to the attempt that it is about.
func (s *sim) onAnswer(p *process, e *protocol.Effect) {
	s.settleAttempt(p, e)
	r := s.byID[e.ID]
	if r == nil || e.Kind == protocol.EffectReject {
		return
	}
	if s.faulty(Loss, 10) {
		s.w.check.count("fault", "answer lost")
		return
	}
	switch e.Code {
	case protocol.CodeAccepted:
		r.acked = true
	case protocol.CodeMoved:
		r.where = e.Core
	case protocol.CodeResult, protocol.CodeDone, protocol.CodeCancelled, protocol.CodeAbsent:
		r.resolved = true
	case protocol.CodeClosed:
		r.resolved = true
	case protocol.CodeKnown:
		s.known(r, e)
	}
}

// known judges an answer about a task's state. That it was forgotten is an end
// only if some record said so.
func (s *sim) known(r *request, e *protocol.Effect) {
	state := protocol.TaskState(e.Seq)
	h := s.w.check.task(r.id)
	switch {
	case state.Terminal():
		r.resolved = true
	case state == protocol.StateNone && !r.resolved && e.Log == r.id.Core && h.acked && !h.over() && !h.ended && !s.w.check.lossy:
		s.w.check.fail("I8 conservation", "%v was acknowledged and forgotten before it ended", r.id)
	case state == protocol.StateNone && e.Log == r.id.Core:
		r.resolved = true
	case state == protocol.StateNone:
		r.where = r.id.Core
	}
}

// settleAttempt takes the answer to the end of an attempt.
func (s *sim) settleAttempt(p *process, e *protocol.Effect) {
	for i := range p.running {
		a := &p.running[i]
		if a.id != e.ID || !a.sent || e.Attempt != a.attempt && e.Code != protocol.CodeUnknown {
			continue
		}
		switch {
		case e.Kind == protocol.EffectReject, e.Code == protocol.CodeDone, e.Code == protocol.CodeRetry:
			p.running = append(p.running[:i], p.running[i+1:]...)
		case e.Code == protocol.CodeBusy, e.Code == protocol.CodeFull:
			a.sent, a.ends = false, s.w.now+20_000
		}
		return
	}
}

// onBegin runs a body.
func (s *sim) onBegin(p *process, e *protocol.Effect) {
	took := s.rng.Int64N(60_000)
	if s.rng.IntN(20) == 0 {
		took = 10 * int64(s.w.cfg.Lease.Length) // A long body is no fault.
	}
	ends := s.w.now + took
	if last := len(p.running) - 1; last >= 0 && !hasResult(e.ID) && p.running[last].id.N+1 == e.ID.N {
		ends = p.running[last].ends // Runs of them end at once.
	}
	p.running = append(p.running, attempt{log: e.Log, id: e.ID, attempt: e.Attempt, token: e.Token, ends: ends})
}

// hasResult reports whether a task ends with a result: those of some streams do not.
func hasResult(id protocol.TaskID) bool { return id.Incarnation%2 != 0 }

// finished returns the end of an attempt that is due.
func (s *sim) finished(p *process) (protocol.Event, bool) {
	for i := range p.running {
		a := &p.running[i]
		if a.sent || a.ends > s.w.now && !a.stop && !s.draining {
			continue
		}
		a.sent = true
		ev := protocol.Event{Kind: protocol.EventFinished, Log: a.log, ID: a.id, Attempt: a.attempt, Token: a.token}
		if a.stop || s.rng.IntN(6) == 0 && !s.draining {
			ev.Outcome, ev.NotBefore = protocol.OutcomeRetry, uint64(s.w.now)/1000+uint64(s.rng.IntN(100))
		} else if hasResult(a.id) {
			ev.Payload = resultOf(a.id, a.token)
		}
		return ev, true
	}
	return protocol.Event{}, false
}
