package protocol

import "testing"

// A batch that is claimed and ended together costs one record for the claims and
// one for the ends, and what they say holds for each task after a takeover.
func TestOneRecordSpeaksOfABatch(t *testing.T) {
	cfg := testConfig(3, 2)
	m := newMachine(t, cfg, 0)
	ids := make([]TaskID, 5)
	var evs []Event
	for i := range ids {
		ids[i] = m.nodes[0].Allocate()
		evs = append(evs, Event{Kind: EventSubmit, Task: Record{ID: ids[i]}, Payload: []byte{byte(i)}})
	}
	got := m.step(0, evs...)
	if answers := only(got, EffectAnswer); len(answers) != 1 || answers[0].Code != CodeAccepted || int(answers[0].More) != len(ids)-1 {
		t.Fatalf("a batch of %d is answered by %v", len(ids), answers)
	}
	before := m.nodes[0].logs[0].next
	begun := only(m.step(0, Event{Kind: EventIdle, Count: len(ids)}), EffectBegin)
	if written := m.nodes[0].logs[0].next - before; len(begun) != len(ids) || written != 1 {
		t.Errorf("%d attempts began with %d records, want %d with one", len(begun), written, len(ids))
	}
	evs = evs[:0]
	for _, e := range begun[:3] {
		evs = append(evs, Event{Kind: EventFinished, ID: e.ID, Attempt: e.Attempt, Token: e.Token})
	}
	before = m.nodes[0].logs[0].next
	m.step(0, evs...)
	if written := m.nodes[0].logs[0].next - before; written != 1 {
		t.Errorf("three ends took %d records, want one", written)
	}
	copyAt := RegionID{0, 1, m.nodes[0].logs[0].epoch}
	state, seen := QueueOf(cfg, copyAt, UnpackCommit(m.commits[copyAt]), m.slots[copyAt])
	for i, id := range ids {
		want := StateDone
		if i >= 3 {
			want = StateClaimed
		}
		if got := state(id); got != want || !seen(id) {
			t.Errorf("task %d is %v in the copy, want %v", i, got, want)
		}
	}
	before = m.nodes[0].logs[0].next
	m.step(0, Event{Kind: EventCollect, ID: ids[0], Log: 0, More: uint16(len(ids) - 1)})
	if written := m.nodes[0].logs[0].next - before; written != 1 {
		t.Errorf("collecting three results took %d records, want one", written)
	}
	m.tick(0, 0)
	for i, id := range ids {
		if gone := m.nodes[0].logs[0].q.find(id) == nil; gone != (i < 3) {
			t.Errorf("task %d is forgotten: %v", i, gone)
		}
	}
}

// A span ends where the next record says something else.
func TestSpansEndWhereTheyMust(t *testing.T) {
	r := Record{Kind: KindClaim, ID: TaskID{1, Stream{1, 1}, 7}, Attempt: 1, Token: 1}
	next := r
	next.ID.N++
	if !r.joins(&next) {
		t.Error("the next task of the stream does not join")
	}
	for name, change := range map[string]func(r *Record){
		"kind":    func(r *Record) { r.Kind = KindDone },
		"stream":  func(r *Record) { r.ID.Incarnation++ },
		"number":  func(r *Record) { r.ID.N++ },
		"attempt": func(r *Record) { r.Attempt++ },
		"token":   func(r *Record) { r.Token++ },
		"mode":    func(r *Record) { r.Mode = AtMostOnce },
		"payload": func(r *Record) { r.Payload.Bytes = 1 },
	} {
		other := next
		if change(&other); r.joins(&other) {
			t.Errorf("a record of another %s joins", name)
		}
	}
	r.Arg2 = 1<<16 - 1
	next.ID.N = r.ID.N + 1<<16
	if r.joins(&next) {
		t.Error("a span grows beyond what its field holds")
	}
	for _, kind := range Kinds() {
		if want := kind == KindClaim || kind == KindDone || kind == KindCollect; kind.spans() != want {
			t.Errorf("%v may speak of several tasks: %v", kind, kind.spans())
		}
	}
}
