package protocol

import (
	"testing"
	"time"

	"github.com/coreplica/coreplica/replica/quorum"
)

// leave tells all cores that some are without a CPU.
func (m *machine) leave(away ...int) {
	for c := range m.nodes {
		m.convey(m.step(Core(c), Event{Kind: EventCPUs, Word: uint64(quorum.SetOf(away...))}))
	}
}

// pass lets some time pass, while all cores in turn renew their leases.
func (m *machine) pass(d time.Duration) {
	now := m.nodes[0].now
	for end := now.Add(d); now < end; {
		now = now.Add(m.cfg.Retry)
		for c := range m.nodes {
			if !m.nodes[c].Exited() {
				m.convey(m.tick(Core(c), max(now, m.nodes[c].now)))
			}
		}
	}
}

// owner returns who serves a log.
func (m *machine) owner(log Core) Core {
	w := UnpackArbiter(m.control.Arbiters[log])
	if w.Phase != Active || !m.nodes[w.Owner].Serves(log) {
		return noCore
	}
	return w.Owner
}

// A log whose core loses its CPU is handed over when what runs has ended, with
// its tasks, and handed back when the CPU is there again: nobody is killed, and no
// attempt and no crash is counted.
func TestLogIsHandedOverWithoutACPU(t *testing.T) {
	for mut, want := range map[mutations]Core{0: 1, mutKeepLeft: 0} {
		m := newMachine(t, testConfig(3, 2), mut)
		first, _ := m.submit(0, Record{Mode: AtMostOnce}, "x")
		second, _ := m.submit(0, Record{Mode: OnceRecorded}, "y")
		e := m.begin(0)
		from := len(m.log)
		m.leave(0)
		m.pass(3 * m.cfg.Retry)
		if m.owner(0) != 0 {
			t.Fatalf("%b: handed to %d while %v runs", mut, m.owner(0), first)
		}
		if mut == 0 && len(only(m.step(0, Event{Kind: EventIdle, Count: 1}), EffectBegin)) > 0 {
			t.Error("a core without a CPU begins with more")
		}
		if code := answer(m.step(0, finished(e, OutcomeDone, "r"))); code != CodeDone {
			t.Errorf("the end of what ran is answered %v", code)
		}
		m.pass(3 * m.cfg.Retry)
		if m.owner(0) != want || m.owner(1) != 1 {
			t.Fatalf("%b: served by %d, want %d", mut, m.owner(0), want)
		}
		if mut != 0 {
			continue
		}
		e = m.begin(1)
		if e.ID != second || e.Attempt != 1 || e.Token != 1 {
			t.Errorf("%v begins as attempt %d", e.ID, e.Attempt)
		}
		m.leave()
		m.pass(3 * m.cfg.Retry)
		if m.owner(0) != 1 {
			t.Errorf("handed back while %v runs", second)
		}
		if code := answer(m.step(1, finished(e, OutcomeDone, "r"))); code != CodeDone {
			t.Errorf("its end is answered %v", code)
		}
		m.pass(3 * m.cfg.Retry)
		if m.owner(0) != 0 {
			t.Errorf("when the CPU is back, %d serves", m.owner(0))
		}
		if done := m.log[from:]; len(only(done, EffectKill))+len(only(done, EffectReport))+len(only(done, EffectExit)) > 0 {
			t.Error("somebody was killed, or something lost")
		}
	}
}

// Who has no CPU takes nothing over while another one has; where nobody has, all go
// on as if nothing had happened.
func TestTakeoversAreForWhoHasACPU(t *testing.T) {
	for _, tt := range []struct {
		away []int
		want Core
	}{{nil, 1}, {[]int{1}, 2}, {[]int{1, 2}, 1}} {
		m := newMachine(t, testConfig(3, 2), 0)
		m.submit(0, Record{}, "x")
		m.leave(tt.away...)
		for _, c := range []Core{1, 2} {
			m.step(c, Event{Kind: EventExited, Core: 0, Incarnation: 1})
		}
		if m.owner(0) != tt.want {
			t.Errorf("without CPUs for %v, %d serves the log of the dead, want %d", tt.away, m.owner(0), tt.want)
		}
	}
	m := newMachine(t, testConfig(2, 2), 0)
	m.leave(0, 1)
	m.pass(3 * m.cfg.Retry)
	if m.owner(0) != 0 || m.owner(1) != 1 {
		t.Errorf("nobody has a CPU, and %d and %d serve", m.owner(0), m.owner(1))
	}
	m.submit(0, Record{}, "x")
	m.begin(0)
}

// While long attempts hold a hand-over up, others may take what waits.
func TestTasksAreStolenFromWhoLeaves(t *testing.T) {
	m := newMachine(t, testConfig(2, 2), 0)
	m.submit(0, Record{}, "long")
	m.begin(0)
	id, _ := m.submit(0, Record{}, "x")
	m.leave(0)
	if got := m.step(0, Event{Kind: EventSteal, Log: 1}); len(only(got, EffectSend)) > 0 {
		t.Error("who leaves asks for tasks of others")
	}
	m.convey(m.step(1, Event{Kind: EventSteal, Log: 0}))
	if e := m.begin(1); e.ID != id {
		t.Errorf("%v begins, want %v", e.ID, id)
	}
}

// A drained log refuses what it is offered, so its core does not ask.
func TestDrainingCoreDoesNotSteal(t *testing.T) {
	m := newMachine(t, testConfig(2, 2), 0)
	m.submit(0, Record{}, "x")
	m.step(1, Event{Kind: EventDrain})
	if got := m.step(1, Event{Kind: EventSteal, Log: 0}); len(only(got, EffectSend)) > 0 {
		t.Error("a core that drains asks for tasks")
	}
}

// revive starts another life of a core, with memory.
func (m *machine) revive(core Core) {
	m.t.Helper()
	n, err := NewNode(m.cfg, core)
	if err != nil {
		m.t.Fatal(err)
	}
	n.mut, m.nodes[core] = m.nodes[core].mut, n
	delete(m.gone, core)
	m.step(core, Event{Kind: EventStart})
}

// die ends a core with its memory, and tells the others.
func (m *machine) die(core Core) {
	life := m.nodes[core].Incarnation()
	m.lose(core)
	m.nodes[core].life = exited
	for c, n := range m.nodes {
		if !n.Exited() {
			m.step(Core(c), Event{Kind: EventExited, Now: n.now, Core: core, Incarnation: life})
		}
	}
}

// hosts returns where the copies of a log lie.
func (m *machine) hosts(log Core) quorum.Set {
	return UnpackArbiter(m.control.Arbiters[log]).InSync(m.cfg.Cores)
}

// After a failure a copy goes to the next best core, and when the best lives
// again it goes there: in another domain, or earlier around the ring. But not
// soon, and however often that core dies, once in so many leases at most.
func TestCopiesReturnToTheBestHost(t *testing.T) {
	pause := settleLeases * testConfig(3, 2).Lease.Length
	for name, domains := range map[string][]int{"nearer": nil, "another domain": {0, 1, 0}} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(3, 2)
			cfg.Domain, cfg.AllowSharedDomain = domains, true
			m := newMachine(t, cfg, 0)
			m.die(1)
			if got := m.hosts(0); got != quorum.SetOf(0, 2) {
				t.Fatalf("after the death of core 1 the copies lie at %b", got)
			}
			m.revive(1)
			m.pass(pause / 2)
			if got := m.hosts(0); got != quorum.SetOf(0, 2) {
				t.Errorf("after half of the pause they lie at %b", got)
			}
			m.pass(pause)
			if got := m.hosts(0); got != quorum.SetOf(0, 1) {
				t.Errorf("after the pause they lie at %b", got)
			}
			before := UnpackArbiter(m.control.Arbiters[0])
			m.pass(3 * pause)
			if after := UnpackArbiter(m.control.Arbiters[0]); after != before {
				t.Errorf("they lie well, and go from %v to %v", before, after)
			}
		})
	}
	m := newMachine(t, testConfig(3, 2), 0)
	begin := m.nodes[0].now
	for range 20 {
		m.die(1)
		m.revive(1)
		m.pass(pause / 4)
	}
	moves := 0
	for _, e := range only(m.log, EffectArbiter) {
		if w := UnpackArbiter(e.New); e.Log == 0 && w.Phase == Active && w.InSync(3) == quorum.SetOf(0, 1) {
			moves++
		}
	}
	if most := 2 + int(m.nodes[0].now.Sub(begin)/pause); moves > most {
		t.Errorf("in %v copies went to the core that dies %d times, want %d at most", m.nodes[0].now.Sub(begin), moves, most)
	}
}

// The last epoch is for a takeover: no copies are moved for better with it.
func TestLastEpochIsKept(t *testing.T) {
	cfg := testConfig(3, 2)
	cfg.EpochLimit = 3
	m := newMachine(t, cfg, 0)
	m.die(1)
	m.revive(1)
	m.pass(3 * settleLeases * cfg.Lease.Length)
	if w := UnpackArbiter(m.control.Arbiters[0]); w.Epoch != 2 || m.hosts(0) != quorum.SetOf(0, 2) {
		t.Errorf("the log is %v", w)
	}
}
