package protocol

import (
	"bytes"
	"testing"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
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
	if twin.scratch != nil {
		t.Error("a clone shares the scratch")
	}
	for _, dead := range []Core{0, 1} {
		m.step(2, Event{Kind: EventExited, Core: dead, Incarnation: 1, Crashed: true})
	}
	m.tick(2, 0)
	for _, log := range []Core{0, 1} {
		if l := m.nodes[2].logs[log]; l == nil || l.stage != serving || l.q.index.n != 67 {
			t.Fatalf("log %d is not served with its 67 tasks", log)
		}
	}
	if bytes.Equal(memory, make([]byte, len(memory))) {
		t.Error("nothing lives in the scratch")
	}
	s := m.nodes[2].scratch
	if s.owner == nil || m.nodes[2].logs[s.owner.id] != s.owner {
		t.Fatal("the scratch belongs to no log that is served")
	}
	if &s.owner.q.tasks[0] != &s.tasks[0] {
		t.Error("the queue of the scratch's log lives elsewhere")
	}
	if other := m.nodes[2].logs[1-s.owner.id]; s.of(other) != nil || &other.q.tasks[0] == &s.tasks[0] {
		t.Error("two logs live in one scratch")
	}
}

// The first lease to run out is when the next look is due, and a core that has exited
// holds none.
func TestExpiryIsTheFirstLeaseToRunOut(t *testing.T) {
	m := newMachine(t, testConfig(3, 2), 0)
	n, now := m.nodes[0], clock.Instant(3e6)
	m.tick(0, now)
	n.peers[1].watch.Observe(1<<40, now)
	n.peers[2].watch.Observe(1<<40, now+1e6)
	patience := n.cfg.Lease.Patience()
	if at, ok := n.Expiry(now + 2e6); !ok || at != now.Add(patience) {
		t.Errorf("the first lease runs out at %v (%v), want %v", at, ok, now.Add(patience))
	}
	m.step(0, Event{Kind: EventExited, Now: now, Core: 1, Incarnation: 1})
	if at, ok := n.Expiry(now + 2e6); !ok || at != (now+1e6).Add(patience) {
		t.Errorf("after core 1 has exited: %v (%v), want %v", at, ok, (now + 1e6).Add(patience))
	}
	if at, ok := n.Expiry(now + clock.Instant(time.Hour)); ok {
		t.Errorf("a lease that has run out long ago runs out at %v", at)
	}
}
