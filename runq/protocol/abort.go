package protocol

import "slices"

// aborted takes back the rest of a program whose first effect failed. What
// belongs to other logs is done all the same; what waited for the publication
// that failed is answered with "unknown", or held back until fresh regions are
// there.
func (n *Node) aborted(ev *Event) {
	if len(ev.Rest) == 0 {
		return
	}
	failed := ev.Rest[0]
	l := n.logs[failed.Log]
	if n.mut&mutIgnoreFence != 0 && failed.Kind == EffectPublish {
		n.out = append(n.out, ev.Rest[1:]...)
		return
	}
	if n.asking == failed.Log {
		n.asking = noCore // The question went with the program.
	}
	if l != nil && l.rec != nil && l.rec.self && (l.stage == swapping || l.stage == handingOver) {
		// The swap stood behind what failed, so it was not performed.
		l.stage, l.rec = serving, nil
	}
	mine := func(e *Effect) bool { return e.Log == failed.Log && e.belongs() }
	w := UnpackCommit(ev.Word)
	if l != nil && (l.stage == serving || l.stage == broken) && failed.Kind == EffectPublish && w.Epoch == l.epoch && w.Sealed {
		for i := range ev.Rest {
			n.unknown(&ev.Rest[i])
		}
		n.fence(l)
		return
	}
	if l != nil {
		n.lostCopy(l, failed.Region.Host)
	}
	for i := range ev.Rest {
		switch e := &ev.Rest[i]; {
		case !mine(e):
			n.emit(*e)
		case l != nil && l.stage == broken && e.waits():
			for one := range e.Each { // Each payload may lie elsewhere then.
				l.held = append(l.held, *one)
			}
		case l != nil && l.stage == broken && e.Kind == EffectStoreCells && n.mut&mutForgetStored == 0:
			l.unstored = append(l.unstored, storedCells{uint32(e.Seq), slices.Clone(e.Data)})
		}
	}
}

// storedCells are payloads that were to be stored when a copy was found lost. What
// was to be published behind that is in the queue already, and perhaps in no copy.
type storedCells struct {
	cell uint32
	data []byte
}

// read returns a payload that lies within.
func (s *storedCells) read(ref Ref) ([]byte, bool) {
	if ref.Cell < s.cell {
		return nil, false
	}
	return Ref{ref.Cell - s.cell, ref.Bytes, ref.CRC}.Read(s.data)
}

// lostCopy notes that a region cannot be written: its memory is gone, or has no
// room for a fresh one.
func (n *Node) lostCopy(l *log, host Core) {
	if l.stage == serving || l.stage == broken {
		l.stage = broken
	} else {
		l.stage, l.rec.asked = copying, false
	}
	if host == n.core {
		if l.rec != nil {
			l.rec.blocked = true
		}
		return
	}
	for i, member := range l.members {
		if member == host {
			n.peers[host].lost = max(n.peers[host].lost, l.lives[i])
		}
	}
}

// belongs reports whether an effect's Log means something.
func (e *Effect) belongs() bool {
	switch e.Kind {
	case EffectHeartbeat, EffectExit:
		return false
	}
	return true
}

// waits reports whether an effect tells the world of something published.
func (e *Effect) waits() bool {
	switch e.Kind {
	case EffectAnswer, EffectBegin, EffectStop, EffectReject, EffectSend, EffectReport:
		return true
	}
	return false
}

// unknown answers what will never be published by us.
func (n *Node) unknown(e *Effect) {
	if e.Kind == EffectAnswer {
		n.emit(Effect{Kind: EffectAnswer, Log: e.Log, ID: e.ID, More: e.More, Code: CodeUnknown})
	}
}

// fence ends the node after another one has taken a log of it.
func (n *Node) fence(l *log) {
	for i := range l.held {
		n.unknown(&l.held[i])
	}
	n.logs[l.id] = nil
	n.exit()
}

// superseded gives a log up that another node has a newer epoch of.
func (n *Node) superseded(l *log) {
	if l.stage == serving || l.stage == broken || l.rec != nil && l.rec.self {
		n.fence(l)
		return
	}
	n.logs[l.id] = nil
}

// resume does what was held back, with payloads where they lie now.
func (n *Node) resume(l *log) {
	for _, e := range l.held {
		if t := l.q.find(e.ID); t != nil && e.Ref.Bytes > 0 {
			e.Ref, e.Epoch, e.Members = t.Payload, l.epoch, l.members
		}
		n.later(e)
	}
	l.held = nil
}
