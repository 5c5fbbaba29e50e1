package protocol

// claim starts up to count tasks, of the node's own queue first.
func (n *Node) claim(count int) {
	if n.now >= n.held {
		return // The lease ran out. Others may be at our queues already: look first.
	}
	r := Record{Kind: KindClaim}
	for l := range n.owned {
		if l.giving != noCore {
			continue
		}
		l.q.wake(uint64(n.now) / 1000)
		for count > 0 {
			t := l.q.first()
			if t == nil {
				break
			}
			if t.Attempt == 1<<16-1 || t.Token == 1<<32-1 {
				n.lose(l, t, LossPoison)
				continue
			}
			n.begin(l, t, &r)
			count--
		}
	}
}

func (n *Node) begin(l *log, t *task, r *Record) {
	r.ID, r.Attempt, r.Token, r.Mode = t.ID, t.Attempt+1, t.Token+1, t.Mode
	// What this very step enqueued has no payload in memory yet.
	early := t.Mode == AtLeastOnce && t.seq < l.published || t.Mode == AtMostOnce && n.mut&mutClaimAsync != 0 || t.Mode == OnceRecorded && n.mut&mutTokenAsync != 0
	program := &n.post
	if early {
		program = &n.out
	}
	if last := len(*program) - 1; last < 0 || !n.beginsToo(&(*program)[last], l, r, t.Payload) {
		e := add(program, EffectBegin, l.id)
		e.ID, e.Attempt, e.Token, e.Mode = t.ID, r.Attempt, r.Token, t.Mode
		e.Ref, e.Epoch, e.Members = t.Payload, l.epoch, l.members
	}
	n.record(l, r)
	l.q.attempt(t, r)
}

// beginsToo lets an effect begin another attempt too, if it begins one like it at
// the task before.
func (n *Node) beginsToo(e *Effect, l *log, r *Record, payload Ref) bool {
	if e.Kind != EffectBegin || !e.precedes(r.ID) || e.Log != l.id || e.Epoch != l.epoch || e.Attempt != r.Attempt || e.Token != r.Token || e.Mode != r.Mode {
		return false
	}
	at := len(n.refs) - int(e.More)
	if e.More == 0 {
		at = len(n.refs)
	} else if at < 0 || &n.refs[at] != &e.Refs[0] {
		return false // Those of another begin stand in between, or it is of another program.
	}
	n.refs = append(n.refs, payload)
	e.Refs = n.refs[at:]
	e.More++
	return true
}

// finish takes the ends of attempts, of those that the log knows.
func (n *Node) finish(ev *Event) {
	l, code := n.serves(ev.ID, ev.Log)
	done := Record{Kind: KindDone, ID: ev.ID, Attempt: ev.Attempt, Token: ev.Token}
	var t *task
	for i := range int(ev.More) + 1 {
		done.ID.N = ev.ID.N + uint64(i)
		switch code {
		case 0:
			t = l.q.after(t, &done.ID)
			n.end(l, ev, &done, t)
		case CodeBusy:
			n.tell(ev.Log, done.ID, 0, CodeBusy, ev.Attempt, ev.Token)
		default:
			n.reject(ev, done.ID)
		}
	}
}

// end takes the end of an attempt of t, if it is the one that the log knows. The
// record says that it is done.
func (n *Node) end(l *log, ev *Event, done *Record, t *task) {
	id := done.ID
	stale := t == nil || t.state != StateClaimed || t.Attempt != ev.Attempt || t.Token != ev.Token || t.Arg2&snapWarded != 0
	if stale && t != nil && n.mut&mutStaleDone != 0 && !t.state.Terminal() {
		l.q.set(t, StateClaimed)
		t.Attempt, t.Token, stale = ev.Attempt, ev.Token, false
	}
	if stale {
		n.reject(ev, id)
		return
	}
	// Another attempt would be a second run, so such a task ends as it is.
	once := t.Mode == AtMostOnce && t.Flags&CancelAsked == 0
	if ev.Outcome != OutcomeDone && !once {
		n.appendTo(l, &Record{Kind: KindRetry, ID: id, Attempt: ev.Attempt, Token: ev.Token, NotBefore: min(ev.NotBefore, MaxTime), Crashes: t.Crashes, Affinity: t.Affinity}, t)
		n.tell(l.id, id, 0, CodeRetry, ev.Attempt, ev.Token)
		return
	}
	ref, ok := Ref{}, true
	if ev.More == 0 { // A run has no results.
		ref, ok = n.store(l, ev.Payload)
	}
	if !ok {
		n.tell(l.id, id, 0, CodeFull, ev.Attempt, ev.Token)
		return
	}
	done.Payload = ref
	n.record(l, done)
	n.free(l, l.q.attempt(t, done))
	if t.collected {
		l.doomed = append(l.doomed, laneEntry{t.place, t.order})
	}
	if ref.Bytes == 0 {
		n.tell(l.id, id, 0, CodeDone, ev.Attempt, ev.Token)
		return
	}
	n.later(Effect{
		Kind: EffectAnswer, Log: l.id, ID: id, Attempt: ev.Attempt, Token: ev.Token, Code: CodeDone,
		Ref: ref, Epoch: l.epoch, Members: l.members,
	})
}

func (n *Node) reject(ev *Event, id TaskID) {
	n.later(Effect{Kind: EffectReject, Log: ev.Log, ID: id, Attempt: ev.Attempt, Token: ev.Token})
}

// lose ends a task that may not be run again, and says so.
func (n *Node) lose(l *log, t *task, reason uint64) {
	n.later(Effect{Kind: EffectReport, Log: l.id, ID: t.ID, Attempt: t.Attempt, Seq: reason})
	n.appendTo(l, &Record{Kind: KindLost, ID: t.ID, Arg: uint16(reason)}, t)
}
