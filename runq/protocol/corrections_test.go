package protocol

import (
	"errors"
	"fmt"
	"testing"
)

// A core failure takes the core's memory along (correction 1). A process that is
// only killed leaves its regions, so with one copy nothing would be lost, and
// nothing shown; k counts the owner's copy.
func TestFailureTakesMemoryAlong(t *testing.T) {
	tests := []struct {
		name    string
		k       int
		punched bool
		want    TaskState
		loss    int
	}{
		{"one copy, killed", 1, false, StateReady, 0},
		{"one copy, failed", 1, true, StateLost, 1},
		{"two copies, failed", 2, true, StateReady, 0},
	}
	for _, tt := range tests {
		m := newMachine(t, testConfig(3, tt.k), 0)
		id, _ := m.submit(0, Record{}, "x")
		if tt.punched {
			m.lose(0)
		}
		reports := only(m.step(1, Event{Kind: EventExited, Core: 0, Incarnation: 1}), EffectReport)
		answers := only(m.step(1, Event{Kind: EventResolve, ID: id, Log: 0}), EffectAnswer)
		if len(reports) != tt.loss || answers[0].Code != CodeKnown || TaskState(answers[0].Seq) != tt.want {
			t.Errorf("%s: %d losses are reported, and the task is %v", tt.name, len(reports), TaskState(answers[0].Seq))
		}
	}
}

// With fewer copies than promised nothing is taken, unless that was asked for
// (correction 2).
func TestMinInSync(t *testing.T) {
	for least, want := range map[int]Code{0: CodeDegraded, 2: CodeDegraded, 1: CodeAccepted} {
		cfg := testConfig(2, 2)
		cfg.MinInSync = least
		m := newMachine(t, cfg, 0)
		m.lose(1)
		m.step(0, Event{Kind: EventExited, Core: 1, Incarnation: 1})
		if _, code := m.submit(0, Record{}, "x"); code != want {
			t.Errorf("at least %d copies, and one is left: %v, want %v", least, code, want)
		}
	}
}

// stolen moves a task of core 0 to core 1 and returns its ID.
func stolen(t *testing.T, m *machine, mode Mode) TaskID {
	t.Helper()
	id, _ := m.submit(0, Record{Mode: mode}, "x")
	first := m.begin(0)
	m.step(0, finished(first, OutcomeRetry, ""))
	m.convey(m.step(1, Event{Kind: EventSteal, Log: 0}))
	return id
}

// convey delivers messages, and those that answer them, until there are none.
func (m *machine) convey(effects []Effect) {
	for _, e := range only(effects, EffectSend) {
		message := *e.Message
		if e.Ref.Bytes > 0 {
			message.Payload, _ = e.Ref.Read(m.arenas[RegionID{e.Log, e.Members[0], e.Epoch}])
		}
		for c, n := range m.nodes {
			if n.Serves(message.ToLog) {
				m.convey(m.step(Core(c), Event{Kind: EventMessage, Message: &message}))
			}
		}
	}
}

// Cancel and resolve follow a task that has moved (correction 5).
func TestRequestsFollowMoves(t *testing.T) {
	for _, kind := range []EventKind{EventResolve, EventCancel} {
		m := newMachine(t, testConfig(2, 1), 0)
		id := stolen(t, m, AtLeastOnce)
		here := only(m.step(0, Event{Kind: kind, ID: id, Log: 0}), EffectAnswer)[0]
		if here.Code != CodeMoved || here.Core != 1 {
			t.Fatalf("%v where it came from is answered %v %d, want moved 1", kind, here.Code, here.Core)
		}
		there := answer(m.step(1, Event{Kind: kind, ID: id, Log: here.Core}))
		if want := map[EventKind]Code{EventResolve: CodeKnown, EventCancel: CodeCancelled}[kind]; there != want {
			t.Errorf("%v where it went is answered %v, want %v", kind, there, want)
		}
		if begins := only(m.step(0, Event{Kind: EventIdle, Count: 1}), EffectBegin); len(begins) > 0 {
			t.Errorf("it starts where it was: %v", begins)
		}
	}
}

// A fencing token grows with each attempt of a task, wherever that is
// (correction 8): epochs of two logs cannot be compared.
func TestTokenTravelsWithItsTask(t *testing.T) {
	m := newMachine(t, testConfig(2, 1), 0)
	id := stolen(t, m, OnceRecorded)
	e := m.begin(1)
	if e.ID != id || e.Token != 2 || e.Attempt != 2 {
		t.Errorf("after a move attempt %d of %v has token %d", e.Attempt, e.ID, e.Token)
	}
	// And with a takeover: it is in the snapshot.
	m.step(0, Event{Kind: EventExited, Core: 1, Incarnation: 1})
	if e = m.begin(0); e.ID != id || e.Token != 3 {
		t.Errorf("after a takeover %v has token %d", e.ID, e.Token)
	}
}

// Past its bound of exceptions a log asks for no more tasks of others
// (correction 6), and the low watermark of their origin lets it ask again.
func TestStealsStopAtTheBound(t *testing.T) {
	cfg := testConfig(2, 1)
	cfg.MaxExceptions = maxStolen + 1
	m := newMachine(t, cfg, 0)
	var ids []TaskID
	for range 6 {
		id, _ := m.submit(0, Record{}, "")
		ids = append(ids, id)
	}
	asked := func() int { return len(only(m.step(1, Event{Kind: EventSteal, Log: 0}), EffectSend)) }
	if asked() != 1 {
		t.Fatal("control: it does not steal at all")
	}
	m.convey(m.step(1, Event{Kind: EventSteal, Log: 0}))
	if extras := m.nodes[1].logs[1].q.seen.extras; extras < 2 || asked() != 0 {
		t.Fatalf("with %d exceptions it asks for %d more", extras, cfg.MaxExceptions)
	}
	for _, id := range ids {
		for core := range Core(2) {
			m.step(core, Event{Kind: EventCancel, ID: id, Log: core})
		}
	}
	for range 4 { // Ends are asked after, then the floor is published.
		for core := range Core(2) {
			m.convey(m.tick(core, m.nodes[core].now.Add(2*cfg.Retry)))
		}
	}
	if extras := m.nodes[1].logs[1].q.seen.extras; extras != 0 || asked() != 1 {
		t.Errorf("after all have ended %d exceptions are left", extras)
	}
}

// A result stays until it was handed over, through snapshots and takeovers, and
// its tombstone then goes at the safe point (correction 13).
func TestResultStaysUntilCollected(t *testing.T) {
	m := newMachine(t, testConfig(3, 2), 0)
	id, _ := m.submit(0, Record{}, "x")
	m.step(0, finished(m.begin(0), OutcomeDone, "the result"))
	churn := func(core Core) {
		for i := range 100 {
			next := TaskID{m.cfg.Run, Stream{0, 1}, 1000*uint64(core+1) + uint64(i)}
			m.step(core, Event{Kind: EventSubmit, Task: Record{ID: next, Flags: Detached}, Payload: []byte("x")})
			m.step(core, Event{Kind: EventCancel, ID: next, Log: 0})
		}
	}
	read := func(core Core) (string, error) {
		e := only(m.step(core, Event{Kind: EventResolve, ID: id, Log: 0}), EffectAnswer)[0]
		if e.Code != CodeResult {
			return "", fmt.Errorf("answered %v", e.Code)
		}
		data, ok := e.Ref.Read(m.arenas[RegionID{0, e.Members[0], e.Epoch}])
		if !ok {
			return "", errors.New("no copy of the result is valid")
		}
		return string(data), nil
	}
	churn(0)
	if got, err := read(0); err != nil || got != "the result" {
		t.Fatalf("after many tasks: %q, %v", got, err)
	}
	m.lose(0)
	m.step(1, Event{Kind: EventExited, Core: 0, Incarnation: 1})
	churn(1)
	if got, err := read(1); err != nil || got != "the result" {
		t.Fatalf("after a takeover: %q, %v", got, err)
	}
	m.step(1, Event{Kind: EventCollect, ID: id, Log: 0})
	forgotten := only(m.step(1, Event{Kind: EventResolve, ID: id, Log: 0}), EffectForget)
	if len(forgotten) != 1 || forgotten[0].ID != id || m.nodes[1].logs[0].q.find(id) != nil {
		t.Errorf("collected, and its tombstone stays: %v", forgotten)
	}
	if code := answer(m.step(1, Event{Kind: EventSubmit, Task: Record{ID: id}})); code != CodeKnown {
		t.Errorf("submitted again it is %v, want known", code)
	}
}
