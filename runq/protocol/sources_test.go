package protocol

import "testing"

// The first record of the last snapshot may be damaged in one copy; where no copy has
// it, that is reported, and what the snapshot says is kept all the same.
func TestSnapshotWithoutItsBeginning(t *testing.T) {
	for _, damaged := range []int{1, 2} {
		m := newMachine(t, testConfig(2, 2), 0)
		early, _ := m.submit(0, Record{}, "early") // In the snapshot alone, soon.
		epoch := UnpackArbiter(m.control.Arbiters[0]).Epoch
		l := m.nodes[0].logs[0]
		for head := l.head; l.head == head || l.next < l.head+m.cfg.Slots/2; {
			m.submit(0, Record{Flags: Detached}, "x")
			e := m.begin(0)
			for e.ID == early { // It stays where it is.
				m.step(0, Event{Kind: EventFinished, ID: e.ID, Attempt: e.Attempt, Token: e.Token, Outcome: OutcomeRetry, NotBefore: MaxTime})
				e = m.begin(0)
			}
			m.step(0, Event{Kind: EventFinished, ID: e.ID, Attempt: e.Attempt, Token: e.Token})
		}
		begin := l.head & (m.cfg.Slots - 1) * RecordWords
		for host := range damaged {
			ring := m.slots[RegionID{0, Core(host), epoch}]
			if kindOf(ring[begin]) != KindSnapBegin {
				t.Fatalf("a %v stands where the snapshot begins", kindOf(ring[begin]))
			}
			ring[begin] ^= uint64(KindSnapBegin^KindEnqueue) << 16
		}
		got := m.step(1, Event{Kind: EventExited, Core: 0, Incarnation: 1})
		if !m.nodes[1].Serves(0) {
			t.Fatal("the log is not served")
		}
		if reports := only(got, EffectReport); (len(reports) > 0) != (damaged == 2) {
			t.Errorf("%d copies damaged: %d losses are reported", damaged, len(reports))
		}
		answered := m.step(1, Event{Kind: EventResolve, ID: early, Log: 0})
		if answer(answered) != CodeKnown || only(answered, EffectAnswer)[0].Seq != uint64(StateReady) {
			t.Errorf("%d copies damaged: the task that the snapshot has is answered %v", damaged, answer(answered))
		}
	}
}
