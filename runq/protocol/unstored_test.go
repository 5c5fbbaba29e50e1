package protocol

import (
	"fmt"
	"testing"
)

// A copy is lost under a batch that a snapshot parts: what comes behind the snapshot
// was stored nowhere yet, payloads included, and is acknowledged all the same once
// there are fresh copies. So its payloads must be there.
func TestPayloadsSurviveALostCopyAndASnapshot(t *testing.T) {
	const batch = 6
	parted := 0
	for before := range 70 {
		cfg := testConfig(3, 2)
		m := newMachine(t, cfg, 0)
		for range before {
			m.submit(0, Record{Flags: Detached}, "passes by")
			e := m.begin(0)
			m.step(0, finished(e, OutcomeDone, ""))
		}
		l := m.nodes[0].logs[0]
		head := l.head
		var evs []Event
		for i := range batch {
			evs = append(evs, Event{Kind: EventSubmit, Task: Record{ID: m.nodes[0].Allocate()}, Payload: fmt.Appendf(nil, "payload %d", i)})
		}
		m.lose(1)
		all := m.step(0, evs...)
		if l.head != head {
			parted++
		}
		for range 3 {
			all = append(all, m.tick(0, 0)...)
		}
		accepted := 0
		for _, e := range only(all, EffectAnswer) {
			for one := range e.Each {
				if one.Code == CodeAccepted {
					accepted++
				}
			}
		}
		if lost := only(all, EffectReport); len(lost) > 0 || accepted != batch {
			t.Fatalf("after %d tasks: %d of %d accepted, and reported lost: %v", before, accepted, batch, lost)
		}
		for i := range evs {
			task := m.nodes[0].logs[0].q.find(evs[i].Task.ID)
			for _, host := range m.nodes[0].logs[0].members {
				data, ok := task.Payload.Read(m.arenas[RegionID{0, host, m.nodes[0].logs[0].epoch}])
				if !ok || string(data) != string(evs[i].Payload) {
					t.Fatalf("after %d tasks: payload %d at core %d is %q (%v)", before, i, host, data, ok)
				}
			}
		}
	}
	if parted == 0 {
		t.Error("no snapshot parted a batch")
	}
}
