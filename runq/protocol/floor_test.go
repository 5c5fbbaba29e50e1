package protocol

import "testing"

// A low watermark is said again as long as a task of its stream is offered: the log
// that it is offered to may be at its bound of exceptions, and have missed it. A log
// whose tasks are all at home says it once.
func TestFloorIsRepeatedWhileTasksAreAway(t *testing.T) {
	for _, away := range []bool{true, false} {
		m := newMachine(t, testConfig(2, 2), 0)
		m.submit(0, Record{Flags: Detached}, "ended")
		e := m.begin(0)
		m.step(0, Event{Kind: EventFinished, ID: e.ID, Attempt: e.Attempt, Token: e.Token})
		m.submit(0, Record{}, "stays")
		m.submit(0, Record{}, "may go")
		if away {
			got := m.step(0, Event{Kind: EventMessage, Message: &Message{Kind: MessageSteal, FromLog: 1, ToLog: 0, From: 1, Count: 1}})
			if offers := sent(got, MessageOffer); offers != 1 {
				t.Fatalf("%d tasks are offered", offers)
			}
		}
		now := m.nodes[0].now
		for retry := 1; retry <= 3; retry++ {
			now = now.Add(2 * m.cfg.Retry)
			floors := sent(m.tick(0, now), MessageFloor)
			if want := away || retry == 1; (floors > 0) != want {
				t.Errorf("away %v: %d floors are published with retry %d", away, floors, retry)
			}
		}
	}
}

// sent counts messages of a kind.
func sent(effects []Effect, kind MessageKind) (n int) {
	for i := range effects {
		if m := effects[i].Message; m != nil && m.Kind == kind {
			n++
		}
	}
	return n
}
