package protocol

// submit takes a task, or a run of tasks that differ in their payloads alone. What
// holds for all of them is looked at once.
func (n *Node) submit(ev *Event) {
	id := ev.Task.ID
	l, code := n.serves(id, id.Core)
	refused := code
	var stream *seen
	if code == 0 {
		refused = n.admit(l, ev)
		stream = l.q.seen.find(id.Stream)
	}
	r := ev.Task
	r.Kind, r.Attempt, r.Token, r.Hop, r.Crashes, r.Arg, r.Arg2 = KindEnqueue, 0, 0, 0, 0, 0, 0
	r.Flags &= Detached
	size := ev.size()
	// Answers to a run are one, and are given when it ends.
	accepted := 0
	for i := range int(ev.More) + 1 {
		r.ID.N = id.N + uint64(i)
		answer := code
		if code == 0 {
			// A task that is known was taken, whatever is refused now: its
			// submitter asks again because it was not answered. The very next one
			// of its stream is new.
			next := stream
			if next != nil && (next.upto+1 != r.ID.N || len(next.extra) > 0) {
				next = nil
			}
			if next == nil && l.q.seen.has(r.ID) {
				if t := l.q.find(r.ID); t != nil || !l.q.seen.closed(r.ID.Stream) {
					n.accepted(l, id.at(i-accepted), &accepted)
					n.known(l, r.ID, t)
					continue
				}
			}
			if answer = refused; answer == 0 {
				answer = n.enqueue(l, &r, ev.Payload[i*size:(i+1)*size], next)
			}
		}
		if answer == 0 {
			accepted++
			continue
		}
		if accepted > 0 {
			n.accepted(l, id.at(i-accepted), &accepted)
		}
		n.answer(id.Core, r.ID, answer)
	}
	n.accepted(l, id.at(int(ev.More)+1-accepted), &accepted)
}

// accepted answers that a run of tasks was taken, if it is one.
func (n *Node) accepted(l *log, first TaskID, run *int) {
	if *run > 0 {
		n.tell(l.id, first, uint16(*run-1), CodeAccepted, 0, 0)
	}
	*run = 0
}

// enqueue takes a task that is new, or returns why not. It may be the very next one
// of a stream.
func (n *Node) enqueue(l *log, r *Record, payload []byte, next *seen) Code {
	if next != nil && !n.hasRoom(l) || next == nil && !n.grow(l, r.ID) {
		return CodeFull
	}
	ref, ok := n.store(l, payload)
	if !ok {
		return CodeFull
	}
	r.Payload = ref
	n.makeRoom(l)
	n.write(l, r)
	if next == nil {
		l.q.apply(r, nil)
		return 0
	}
	next.upto++
	l.q.insert(r, StateReady)
	return 0
}

// admit says why a log does not take a task, or returns 0.
func (n *Node) admit(l *log, ev *Event) Code {
	id := ev.Task.ID
	switch {
	case id.N == 0 || id.N+uint64(ev.More) > MaxN || len(ev.Payload)%(int(ev.More)+1) > 0 || ev.Task.Mode >= modes || ev.Task.Prio > MaxPrio ||
		ev.Task.NotBefore > MaxTime || ev.Task.Deadline > MaxTime || ev.Task.Affinity > MaxCores:
		return CodeInvalid
	case n.draining:
		return CodeDraining
	case len(l.members) < n.cfg.MinInSync:
		return CodeDegraded
	case l.q.seen.closed(id.Stream):
		return CodeClosed
	case cells(ev.size()) > n.cfg.Cells:
		return CodeTooLarge
	}
	return 0
}
