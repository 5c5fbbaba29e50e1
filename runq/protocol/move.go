package protocol

// Bounds of one round of hand-offs: what one step appends must fit a small ring
// many times over, and one thief must not stall its victim.
const (
	maxStolen = 8
	maxResent = 16
)

// steal asks the owner of another log for half of its tasks. The thief asks, so
// the bound on exceptions is checked where the exceptions would be. It does not
// ask for what it would refuse.
func (n *Node) steal(ev *Event) {
	l := n.logs[n.core]
	if l == nil || l.stage != serving || n.draining || l.giving != noCore || ev.Log == n.core || int(ev.Log) >= n.cfg.Cores || l.q.seen.extras+maxStolen > n.cfg.MaxExceptions {
		return
	}
	n.send(Message{Kind: MessageSteal, FromLog: n.core, ToLog: ev.Log, Count: maxStolen})
}

// send sends a message behind what this step publishes.
func (n *Node) send(m Message) {
	m.From = n.core
	n.later(Effect{Kind: EffectSend, Log: m.FromLog, ID: m.Task.ID, Message: &m})
}

func (n *Node) message(m *Message) {
	if m == nil || int(m.ToLog) >= n.cfg.Cores || int(m.FromLog) >= n.cfg.Cores || int(m.From) >= n.cfg.Cores {
		return
	}
	l := n.logs[m.ToLog]
	id := m.Task.ID
	if l == nil || l.stage != serving || m.Kind != MessageSteal && m.Kind != MessageHandBack && id.Run != n.cfg.Run {
		return // Whoever sent it will send it again.
	}
	t := l.q.find(id)
	switch m.Kind {
	case MessageSteal:
		n.give(l, m)
	case MessageOffer:
		n.offered(l, m)
	case MessageAccept:
		if t != nil && t.state == StateMoving && t.Hop == m.Task.Hop && Core(t.Arg) == m.FromLog {
			n.append(l, &Record{Kind: KindMoved, ID: id, Hop: t.Hop, Arg: t.Arg})
		}
	case MessageRefuse:
		if t != nil && t.state == StateMoving && t.Hop == m.Task.Hop && Core(t.Arg) == m.FromLog {
			n.append(l, &Record{Kind: KindMoveBack, ID: id, Hop: t.Hop, Arg: t.Arg})
		}
	case MessageQuery:
		if t == nil && l.q.seen.has(id) || t != nil && t.state.Terminal() {
			n.send(Message{Kind: MessageEnded, FromLog: l.id, ToLog: m.FromLog, Task: Record{ID: id}})
		}
	case MessageEnded:
		if t != nil && t.state == StateMoved && Core(t.Arg) == m.FromLog {
			n.append(l, &Record{Kind: KindRetire, ID: id})
		}
	case MessageHandBack:
		if m.From == l.id && m.From != n.core && !n.isAway(m.From) {
			l.giving = m.From
		}
	case MessageFloor:
		n.raiseFloor(l, m.Task)
	}
}

// give offers half of the ready tasks, from the far end of the queue. A log that
// its core gives away for want of a CPU may have to wait for long attempts, and
// then its tasks are better off elsewhere.
func (n *Node) give(l *log, m *Message) {
	if m.FromLog == l.id || l.giving != noCore && !n.isAway(n.core) {
		return
	}
	count := min(m.Count, maxStolen, (l.q.waiting-len(l.q.delayed)+1)/2)
	var ids []TaskID
	for t := range l.q.far {
		if len(ids) >= count {
			break
		}
		if t.Hop < MaxHop && (t.Affinity == 0 || t.Affinity-1 == m.FromLog) {
			ids = append(ids, t.ID)
		}
	}
	if n.mut&mutMoveClaimed != 0 {
		for _, i := range l.q.sorted() {
			if t := &l.q.tasks[i]; t.state == StateClaimed {
				l.q.set(t, StateReady)
				ids = append(ids, t.ID)
			}
		}
	}
	for _, id := range ids {
		t := l.q.find(id)
		n.append(l, &Record{Kind: KindMoveOut, ID: id, Hop: t.Hop + 1, Arg: uint16(m.FromLog)})
		n.offer(l, id)
	}
}

// offer sends a moving task to where it moves.
func (n *Node) offer(l *log, id TaskID) {
	t := l.q.find(id)
	task := t.Record
	task.Arg, task.Arg2 = 0, 0
	n.later(Effect{
		Kind: EffectSend, Log: l.id, ID: id, Ref: t.Payload, Epoch: l.epoch, Members: l.members,
		Message: &Message{Kind: MessageOffer, From: n.core, FromLog: l.id, ToLog: Core(t.Arg), Task: task},
	})
}

// offered answers an offer. The answer to one pair of ID and hop is always the
// same: it stands in the log.
func (n *Node) offered(l *log, m *Message) {
	id, hop := m.Task.ID, m.Task.Hop
	reply := Message{Kind: MessageAccept, FromLog: l.id, ToLog: m.FromLog, Task: Record{ID: id, Hop: hop}}
	t := l.q.find(id)
	switch {
	case n.mut&mutNoDedupe != 0:
		if t != nil {
			l.q.remove(t)
		}
		l.q.seen.forget(id.Stream)
		n.take(l, m, &reply)
	case t == nil && l.q.seen.has(id), t != nil && t.Hop > hop, n.mut&mutHopless != 0 && t != nil:
		// It was here, and it has ended or gone on.
	case t != nil && t.Hop == hop:
		if t.refused {
			reply.Kind = MessageRefuse
		}
	case t != nil && t.state != StateMoved && t.state != StateRefused && t.state != StateMoving:
		return
	default:
		if !n.take(l, m, &reply) {
			return
		}
	}
	n.send(reply)
}

// take logs that an offered task is here now, or that it is refused.
func (n *Node) take(l *log, m *Message, reply *Message) bool {
	if l.q.find(m.Task.ID) == nil && !n.grow(l, m.Task.ID) {
		return false // Not even a refusal fits. It will be offered again.
	}
	r := m.Task
	r.Kind, r.Arg, r.Arg2, r.Payload, r.NotBefore = KindMoveIn, 0, 0, Ref{}, 0
	ref, room := Ref{}, !n.draining && l.giving == noCore
	if room {
		ref, room = n.store(l, m.Payload)
	}
	if !room {
		reply.Kind = MessageRefuse
		n.append(l, &Record{Kind: KindRefuse, ID: r.ID, Hop: r.Hop})
		return true
	}
	r.Payload = ref
	n.append(l, &r)
	return true
}

// retry sends again what was not answered, asks after tasks that moved away, and
// publishes low watermarks.
func (n *Node) retry() {
	for l := range n.owned {
		budget := maxResent
		for _, i := range l.q.sorted() {
			t := &l.q.tasks[i]
			if budget == 0 {
				break
			}
			switch t.state {
			case StateMoving:
				n.offer(l, t.ID)
				budget--
			case StateMoved:
				n.send(Message{Kind: MessageQuery, FromLog: l.id, ToLog: Core(t.Arg), Task: Record{ID: t.ID}})
				budget--
			}
		}
		n.floors(l)
	}
}

// floors publishes, for each stream of the log's own core, below which number
// everything has ended everywhere, and closes streams whose submitter is gone
// and whose tasks have all ended. This is what keeps the vectors of other logs,
// and our own, from growing with history. What was published may be lost, and a log
// at its bound of exceptions that misses it can neither take nor refuse an offer: so
// it is said again as long as a task of the stream is offered, or elsewhere.
func (n *Node) floors(l *log) {
	open := map[Stream]uint64{} // The first task of a stream that has not ended.
	away := map[Stream]bool{}
	for i := range l.q.tasks {
		t := &l.q.tasks[i]
		if t.used && t.ID.Core == l.id && !t.state.Terminal() {
			if first, ok := open[t.ID.Stream]; !ok || t.ID.N < first {
				open[t.ID.Stream] = t.ID.N
			}
			if t.state == StateMoving || t.state == StateMoved {
				away[t.ID.Stream] = true
			}
		}
	}
	floor := max(l.q.seen.floor.of(l.id), 1)
	closing := floor
	for n.closed[Stream{l.id, closing}] {
		if _, busy := open[Stream{l.id, closing}]; busy {
			break
		}
		closing++
	}
	if closing > floor {
		n.append(l, &Record{Kind: KindFloor, ID: TaskID{Stream: Stream{l.id, closing}}})
		n.publish(l, Record{ID: TaskID{n.cfg.Run, Stream{l.id, closing}, 0}})
	}
	for stream := range n.closed {
		if stream.Core == l.id && stream.Incarnation < closing {
			delete(n.closed, stream)
		}
	}
	for _, stream := range l.q.seen.sorted() {
		if stream.Core != l.id {
			continue
		}
		low := l.q.seen.find(stream).upto
		if first, busy := open[stream]; busy {
			low = min(low, first-1)
		}
		if low > l.lows[stream] || away[stream] && low > 0 {
			if l.lows == nil {
				l.lows = map[Stream]uint64{}
			}
			l.lows[stream] = low
			n.publish(l, Record{ID: TaskID{n.cfg.Run, stream, low}, Arg: floorLow})
		}
	}
}

// publish tells the other logs about a floor of ours.
func (n *Node) publish(l *log, floor Record) {
	for i := range n.cfg.Cores {
		if Core(i) != l.id {
			n.send(Message{Kind: MessageFloor, FromLog: l.id, ToLog: Core(i), Task: floor})
		}
	}
}

// raiseFloor takes what an origin has published, if it shortens our vector.
func (n *Node) raiseFloor(l *log, r Record) {
	v := &l.q.seen
	news := r.ID.Incarnation > v.floor.of(r.ID.Core)
	if r.Arg == floorLow {
		s := v.find(r.ID.Stream)
		news = s != nil && s.upto < r.ID.N
	}
	if news && r.ID.Core != l.id {
		n.append(l, &Record{Kind: KindFloor, ID: r.ID, Arg: r.Arg})
	}
}
