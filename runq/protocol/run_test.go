package protocol

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

// runs are what random events that speak of one task each come to, and what they
// come to joined.
func joined(evs []Event) (runs []Event) {
	for i := range evs {
		runs = Join(runs, &evs[i])
	}
	return runs
}

// split has effects that speak of several tasks once for each.
func split(effects []Effect) (all []Effect) {
	for i := range effects {
		for one := range effects[i].Each {
			e := *one
			e.Refs = nil
			all = append(all, e)
		}
	}
	return all
}

// A run of tasks is each of them by itself: two nodes, one of which gets what the
// other gets in runs one by one, have the same copies and say the same, with IDs
// that are known, gaps between them, and logs and arenas that become full.
func TestARunIsItsTasks(t *testing.T) {
	runs, rejects, full, known := 0, 0, 0, 0
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		cfg := testConfig(3, 2)
		cfg.Cells = 24 + uint32(rng.IntN(200))
		cfg.MaxExceptions = 8
		single, many := newMachine(t, cfg, 0), newMachine(t, cfg, 0)
		stream := Stream{0, 900}
		var attempts []Effect
		next := uint64(1)
		for range 60 {
			var evs []Event
			switch rng.IntN(4) {
			case 0:
				if rng.IntN(4) == 0 {
					next += uint64(rng.IntN(3))
				}
				n := next - min(next-1, uint64(rng.IntN(10)/7)) // Perhaps one that is known.
				size, task := 1+rng.IntN(100), Record{Mode: Mode(rng.IntN(3)), Flags: Flags(rng.IntN(2))}
				bytes := make([]byte, 0, 12*size)
				for i := range 1 + rng.IntN(12) {
					task.ID = TaskID{cfg.Run, stream, n + uint64(i)}
					bytes = append(bytes, make([]byte, size)...)
					bytes[len(bytes)-1] = byte(task.ID.N)
					evs = append(evs, Event{Kind: EventSubmit, ID: task.ID, Task: task, Payload: bytes[len(bytes)-size:]})
					next = max(next, task.ID.N+1)
				}
			case 1:
				evs = append(evs, Event{Kind: EventIdle, Count: 1 + rng.IntN(8)})
			case 2:
				for len(attempts) > 0 && rng.IntN(12) > 0 {
					e := attempts[0]
					if attempts = attempts[1:]; rng.IntN(12) == 0 {
						attempts = append(attempts, e) // It is told again.
					}
					evs = append(evs, Event{Kind: EventFinished, Log: e.Log, ID: e.ID, Attempt: e.Attempt, Token: e.Token})
				}
			case 3:
				id := TaskID{cfg.Run, stream, 1 + rng.Uint64N(next)}
				evs = append(evs, Event{Kind: EventCollect, ID: id, More: uint16(rng.IntN(4))}, Event{Kind: EventCancel, ID: id.at(1)})
			}
			if len(evs) == 0 {
				continue
			}
			together := joined(evs)
			runs += len(evs) - len(together)
			want, got := split(single.step(0, evs...)), split(many.step(0, together...))
			if !reflect.DeepEqual(want, got) {
				t.Fatalf("seed %d: %s\nin runs:   %s", seed, fmt.Sprint(want), fmt.Sprint(got))
			}
			attempts = append(attempts, only(got, EffectBegin)...)
			rejects += len(only(got, EffectReject))
			for _, e := range only(got, EffectAnswer) {
				switch e.Code {
				case CodeFull:
					full++
				case CodeKnown:
					known++
				}
			}
		}
		if !reflect.DeepEqual(single.slots, many.slots) || !reflect.DeepEqual(single.arenas, many.arenas) || !reflect.DeepEqual(single.commits, many.commits) {
			t.Fatalf("seed %d: the copies differ", seed)
		}
	}
	if runs < 1000 || rejects < 20 || full < 20 || known < 20 {
		t.Errorf("%d tasks came in runs, %d ends were rejected, %d tasks found no room and %d were known: this is no test", runs, rejects, full, known)
	}
}

// What is not alike, or does not follow, is not one event.
func TestRunsEndWhereTheyMust(t *testing.T) {
	bytes := []byte("aabbcc")
	id := TaskID{9, Stream{1, 2}, 5}
	submit := Event{Kind: EventSubmit, Task: Record{ID: id}, Payload: bytes[0:2]}
	end := Event{Kind: EventFinished, ID: id, Attempt: 1, Token: 3}
	for name, change := range map[string]func(s, e *Event){
		"":                  func(_, _ *Event) {},
		"a gap":             func(s, e *Event) { s.Task.ID.N++; e.ID.N++ },
		"another stream":    func(s, e *Event) { s.Task.ID.Incarnation++; e.ID.Incarnation++ },
		"another run":       func(s, e *Event) { s.Task.ID.Run++; e.ID.Run++ },
		"another log":       func(s, e *Event) { s.Log++; e.Log++ },
		"other promises":    func(s, e *Event) { s.Task.Mode++; e.Attempt++ },
		"another order":     func(s, e *Event) { s.Task.Prio++; e.Token++ },
		"another time":      func(s, e *Event) { s.Task.NotBefore++; e.NotBefore++ },
		"another end":       func(s, e *Event) { s.Task.Deadline++; e.Outcome++ },
		"another payload":   func(s, e *Event) { s.Payload = []byte("bb"); e.Payload = []byte("b") },
		"a longer payload":  func(s, e *Event) { s.Payload = bytes[2:5]; e.Payload = bytes[2:5] },
		"a payload apart":   func(s, e *Event) { s.Payload = bytes[4:6]; e.Payload = bytes[4:6] },
		"several tasks":     func(s, e *Event) { s.More++; e.More++ },
		"another happening": func(s, e *Event) { s.Kind, e.Kind = EventCancel, EventCancel },
	} {
		s, nextSubmit, e, nextEnd := submit, submit, end, end
		nextSubmit.Task.ID, nextSubmit.Payload, nextEnd.ID = id.at(1), bytes[2:4], id.at(1)
		change(&nextSubmit, &nextEnd)
		if joins := s.Joins(&nextSubmit); joins != (name == "") || joins && (s.More != 1 || string(s.Payload) != "aabb") {
			t.Errorf("%s: joined %v, %d more with the payloads %q", name, joins, s.More, s.Payload)
		}
		if joins := e.Joins(&nextEnd); joins != (name == "") || joins && e.More != 1 {
			t.Errorf("%s: the ends are joined: %v", name, joins)
		}
		if nextEnd.Kind == EventFinished && nextEnd.Outcome == OutcomeDone && len(nextEnd.Payload) == 0 && nextEnd.NotBefore == 0 && nextEnd.More == 0 {
			if evs := AppendFinished([]Event{end}, nextEnd.Log, nextEnd.ID, nextEnd.Attempt, nextEnd.Token); (len(evs) == 1) != (name == "") {
				t.Errorf("%s: %d events", name, len(evs))
			}
		}
	}
	var many []Event
	for i := range 1<<16 + 1 {
		many = AppendFinished(many, 1, id.at(i), 1, 1)
	}
	if len(many) != 2 || many[0].More != 1<<16-1 {
		t.Errorf("65,537 ends are %d events", len(many))
	}
}

// A run whose payloads do not divide is refused, and so is one whose numbers end
// before it does.
func TestRunsThatMakeNoSense(t *testing.T) {
	m := newMachine(t, testConfig(1, 1), 0)
	id := m.nodes[0].Allocate()
	for _, ev := range []Event{
		{Kind: EventSubmit, Task: Record{ID: id}, More: 2, Payload: []byte("four")},
		{Kind: EventSubmit, Task: Record{ID: TaskID{id.Run, id.Stream, MaxN - 1}}, More: 2, Payload: []byte("six by")},
	} {
		if answers := split(m.step(0, ev)); len(only(answers, EffectAnswer)) != 3 || answer(answers) != CodeInvalid {
			t.Errorf("%v is answered by %v", ev.Task.ID, answers)
		}
	}
}

// An effect begins several attempts only if they are of one number, token and
// promise: each end is judged by what its begin said.
func TestBeginsOfARunAreAlike(t *testing.T) {
	for name, change := range map[string]func(*task){
		"":        func(*task) {},
		"token":   func(t *task) { t.Token = 6 },
		"attempt": func(t *task) { t.Attempt = 6 },
		"mode":    func(t *task) { t.Mode = OnceRecorded },
	} {
		m := newMachine(t, testConfig(1, 1), 0)
		m.submit(0, Record{}, "one")
		id, _ := m.submit(0, Record{}, "two")
		second := m.nodes[0].logs[0].q.find(id)
		change(second)
		begun := m.step(0, Event{Kind: EventIdle, Count: 2})
		together := 0
		for i := range begun {
			together += int(begun[i].More)
		}
		begins := only(begun, EffectBegin)
		if len(begins) != 2 || (together == 1) != (name == "") {
			t.Fatalf("%s: %d attempts began, %d of them with another", name, len(begins), together)
		}
		if e := begins[1]; e.ID != id || e.Token != second.Token || e.Attempt != second.Attempt || e.Mode != second.Mode || e.Ref != second.Payload {
			t.Errorf("%s: %+v begins, and the log has %+v", name, e, second.Record)
		}
	}
}

// A log that is full takes of a run what it has room for.
func TestARunEndsWhereTheLogIsFull(t *testing.T) {
	m := newMachine(t, testConfig(2, 2), 0)
	m.submit(0, Record{}, "") // So that the stream is known.
	accepted := 0
	got := split(m.step(0, Event{Kind: EventSubmit, Task: Record{ID: m.nodes[0].Allocate()}, More: 63}))
	for i, e := range only(got, EffectAnswer) {
		switch {
		case e.Code == CodeAccepted && i == accepted:
			accepted++
		case e.Code != CodeFull:
			t.Errorf("task %d is answered %v", i, e.Code)
		}
	}
	l := m.nodes[0].logs[0]
	if accepted == 0 || l.q.records() > m.cfg.capacity() {
		t.Errorf("%d tasks were taken, and a snapshot has %d records, at most %d", accepted, l.q.records(), m.cfg.capacity())
	}
}

// Attempts that were to begin together when a copy was lost begin when there are
// fresh ones, each with its payload where that lies then.
func TestARunHeldBackFindsItsPayloads(t *testing.T) {
	m := newMachine(t, testConfig(3, 2), 0)
	m.submit(0, Record{Flags: Detached}, "passes by") // What comes after lies elsewhere in fresh copies.
	first := m.begin(0)
	payloads := make(map[TaskID]string)
	for i := range 3 {
		payload := fmt.Sprint("payload ", i)
		id, _ := m.submit(0, Record{Mode: OnceRecorded}, payload)
		payloads[id] = payload
	}
	m.step(0, finished(first, OutcomeDone, ""))
	m.lose(1)
	all := m.step(0, Event{Kind: EventIdle, Count: len(payloads)})
	for range 3 {
		all = append(all, m.tick(0, 0)...)
	}
	l := m.nodes[0].logs[0]
	begins := 0
	for _, e := range only(all, EffectBegin) {
		if e.Epoch != l.epoch {
			continue // It was not performed.
		}
		begins++
		for _, host := range e.Members {
			if data, ok := e.Ref.Read(m.arenas[RegionID{0, host, e.Epoch}]); !ok || string(data) != payloads[e.ID] {
				t.Errorf("%v begins with %q (%v), not with %q", e.ID, data, ok, payloads[e.ID])
			}
		}
	}
	if begins != len(payloads) {
		t.Errorf("%d of %d attempts began", begins, len(payloads))
	}
}
