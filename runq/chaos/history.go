package chaos

import (
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// A task is a small register: absent, queued, and then one of several ends, which
// it never leaves.
type phase uint8

const (
	absent phase = iota
	queued
	begun
	done
	dropped
	gone
)

type taskState struct {
	phase                phase
	attempt, token, doer uint32
}

// call is an operation on a task. Its outcome is part of it, since the journals are
// read when all is over.
type call struct {
	kind                 Kind
	mode                 Mode
	attempt, token, doer uint32
	// known is false for an operation whose outcome nobody was told: it may
	// take effect at any time after its call, or never.
	known bool
}

var taskModel = porcupine.Model{
	Init: func() any { return taskState{} },
	Step: func(state, input, _ any) (bool, any) {
		s, c := state.(taskState), input.(call)
		legal, next := s.step(c)
		return legal, next
	},
	Equal: func(a, b any) bool { return a == b },
}

// step says whether an operation may happen now, and what it leaves. What nobody
// was told about may happen without effect.
func (s taskState) step(c call) (legal bool, next taskState) {
	open := s.phase == queued || s.phase == begun
	next = s
	switch c.kind {
	case Submitting:
		legal = s.phase == absent
		next.phase = queued
	case Began:
		legal = open && (c.mode != AtMostOnce || s.phase == queued)
		next.phase = begun
	case Accepted:
		legal = s.phase == begun
		next = taskState{done, c.attempt, c.token, c.doer}
	case Seen:
		legal = s == taskState{done, c.attempt, c.token, c.doer}
	case Cancelled:
		// An attempt may have begun and been given back before.
		legal = open
		next.phase = dropped
	case CancelLate:
		legal = s.phase != absent
	case Lost:
		legal = open
		next.phase = gone
	}
	if !legal && !c.known {
		return true, s
	}
	return legal, next
}

// historyOf turns a task's records into operations with their intervals.
func historyOf(records []Record) []porcupine.Operation {
	var ops []porcupine.Operation
	add := func(kind Kind, r Record, from, to int64, known bool) {
		ops = append(ops, porcupine.Operation{
			ClientId: len(ops), Input: call{kind, r.Mode, r.Attempt, r.Token, r.Doer, known}, Call: from, Return: to,
		})
	}
	var submitting, cancelling *Record
	var ack, refused, answered bool
	accepting := map[[3]uint32]int64{}
	accepted := map[[3]uint32]bool{}
	for i := range records {
		r := &records[i]
		attempt := [3]uint32{r.Attempt, r.Token, r.Doer}
		switch r.Kind {
		case Submitting:
			submitting = r
		case Acknowledged:
			ack = true
			if submitting != nil {
				add(Submitting, *r, submitting.TimeNs, r.TimeNs, true)
			}
		case Refused:
			refused = true
		case Cancelling:
			cancelling = r
		case Cancelled, CancelLate:
			answered = true
			if cancelling != nil {
				add(r.Kind, *r, cancelling.TimeNs, r.TimeNs, true)
			}
		case Began:
			add(Began, *r, r.TimeNs, r.TimeNs, true)
		case Accepting:
			accepting[attempt] = r.TimeNs
		case Accepted:
			if !accepted[attempt] {
				accepted[attempt] = true
				add(Accepted, *r, accepting[attempt], r.TimeNs, true)
			}
		case Lost:
			add(Lost, *r, 0, r.TimeNs, true)
		case Seen:
			add(Seen, *r, r.TimeNs, r.TimeNs, true)
		}
	}
	if submitting != nil && !ack && !refused {
		add(Submitting, *submitting, submitting.TimeNs, math.MaxInt64, false)
	}
	if cancelling != nil && !answered {
		add(Cancelled, *cancelling, cancelling.TimeNs, math.MaxInt64, false)
	}
	for attempt, at := range accepting {
		if !accepted[attempt] {
			r := records[0]
			r.Attempt, r.Token, r.Doer = attempt[0], attempt[1], attempt[2]
			add(Accepted, r, at, math.MaxInt64, false)
		}
	}
	return ops
}

// historyTimeout is how long porcupine may look at one task. A task has a dozen
// operations; what takes longer is undecided, and that is a failure.
const historyTimeout = 5 * time.Second

// checkHistories looks at each task by itself: tasks share nothing but the queue,
// so the histories of all are legal if each one is.
func (v *Verdict) checkHistories(tasks map[uint64][]Record) {
	for _, id := range sortedKeys(tasks) {
		v.Histories++
		switch porcupine.CheckOperationsTimeout(taskModel, historyOf(tasks[id]), historyTimeout) {
		case porcupine.Illegal:
			v.Illegal++
			v.example(id, "has a history that nothing explains", tasks[id])
		case porcupine.Unknown:
			v.Undecided++
		}
	}
}
