package protocol

import (
	"bytes"
	"testing"
)

// A taker with memory of its own rebuilds the same queue there, keeps it there while
// it serves the log, and takes a second log over on the heap meanwhile.
func TestScratchServesOneLogAtATime(t *testing.T) {
	cfg := testConfig(3, 2)
	cfg.Slots, cfg.Cells = 256, 128
	m := newMachine(t, cfg, 0)
	memory := make([]byte, ScratchBytes(cfg.Geometry))
	if NewScratch(cfg.Geometry, memory[1:]) != nil {
		t.Error("a scratch is made of too little memory")
	}
	for core := Core(0); core < 2; core++ {
		for i := range 67 {
			if _, code := m.submit(core, Record{}, string(rune('a'+i))); code != CodeAccepted {
				t.Fatalf("task %d of core %d: %v", i, core, code)
			}
		}
	}
	twin := m.nodes[2].Clone()
	m.nodes[2].Lend(NewScratch(cfg.Geometry, memory))
	taken := func(log Core) *queue {
		for _, dead := range []Core{0, 1} {
			if dead <= log {
				m.step(2, Event{Kind: EventExited, Core: dead, Incarnation: 1, Crashed: true})
			}
		}
		m.tick(2, 0)
		if !m.nodes[2].Serves(log) {
			t.Fatalf("core 2 does not serve log %d", log)
		}
		return m.nodes[2].logs[log].q
	}
	if twin.scratch != nil {
		t.Error("a clone shares the scratch")
	}
	q := taken(1)
	if bytes.Equal(memory, make([]byte, len(memory))) {
		t.Error("the queue that was taken over does not live in the scratch")
	}
	for _, log := range []Core{0, 1} {
		if l := m.nodes[2].logs[log]; l != nil && l.q.index.n != 67 {
			t.Errorf("log %d has %d tasks after the takeover, want 67", log, l.q.index.n)
		}
	}
	s := m.nodes[2].scratch
	if owner := s.owner; owner == nil || m.nodes[2].logs[owner.id] != owner {
		t.Errorf("the scratch belongs to nobody")
	}
	other := m.nodes[2].logs[1-s.owner.id]
	if s.of(other) != nil || &other.q.tasks[0] == &s.tasks[:1][0] {
		t.Error("two logs live in one scratch")
	}
	_ = q
}
