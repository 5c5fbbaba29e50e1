package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
)

// caught runs a check with the rule and without it: the first must pass, the
// second must not.
func caught(t *testing.T, mut mutations, check func(*testing.T, mutations) error) {
	t.Helper()
	if err := check(t, 0); err != nil {
		t.Errorf("with the rule: %v", err)
	}
	if check(t, mut) == nil {
		t.Error("without the rule, nothing is noticed")
	}
}

// Only the end of the latest attempt counts (correction 8).
func TestStaleResultIsRejected(t *testing.T) {
	caught(t, mutStaleDone, func(t *testing.T, mut mutations) error {
		m := newMachine(t, testConfig(1, 1), mut)
		m.submit(0, Record{Mode: OnceRecorded}, "x")
		first := m.begin(0)
		m.step(0, finished(first, OutcomeRetry, ""))
		if second := m.begin(0); second.Token <= first.Token || second.Attempt != first.Attempt+1 {
			t.Fatalf("attempt %d has token %d after %d", second.Attempt, second.Token, first.Token)
		}
		if got := m.step(0, finished(first, OutcomeDone, "late")); len(only(got, EffectReject)) != 1 {
			return errors.New("the end of an earlier attempt is accepted")
		}
		return nil
	})
}

// Cells are used again only after the record that frees them is published in
// every copy (correction 13).
func TestCellsAreNotReusedEarly(t *testing.T) {
	caught(t, mutReuseCells, func(t *testing.T, mut mutations) error {
		cfg := testConfig(1, 1)
		m := newMachine(t, cfg, mut)
		m.submit(0, Record{Flags: Detached}, "first")
		e := m.begin(0)
		next := Record{ID: m.nodes[0].Allocate()}
		for _, got := range m.step(0, finished(e, OutcomeDone, ""), Event{Kind: EventSubmit, Task: next, Payload: []byte("second")}) {
			if got.Kind == EffectPublish {
				return nil
			}
			if got.Kind == EffectStoreCells && got.Seq == uint64(e.Ref.Cell) {
				return errors.New("the payload of a task that has not ended in the log is overwritten")
			}
		}
		return errors.New("nothing was published")
	})
}

// k counts the owner's copy, needs as many failure domains, and fewer copies
// than promised take no tasks (corrections 1 and 2).
func TestCopiesAndDomains(t *testing.T) {
	cfg := testConfig(3, 3)
	cfg.Domain = []int{0, 0, 1}
	if _, err := NewNode(cfg, 0); !errors.Is(err, ErrConfig) {
		t.Errorf("three copies in two domains: %v", err)
	}
	cfg.AllowSharedDomain = true
	if _, err := NewNode(cfg, 0); err != nil {
		t.Errorf("shared domains were allowed: %v", err)
	}
	m := newMachine(t, testConfig(2, 2), 0)
	if _, code := m.submit(0, Record{}, "x"); code != CodeAccepted {
		t.Fatalf("with two copies: %v", code)
	}
	m.lose(1)
	m.step(0, Event{Kind: EventExited, Core: 1, Incarnation: 1})
	if _, code := m.submit(0, Record{}, "x"); code != CodeDegraded {
		t.Errorf("with one copy of two: %v, want degraded", code)
	}
}

// Losing a region under the owner's hands is answered, after new ones are there,
// as if nothing had happened.
func TestLostCopyIsReplacedBeforeTheAnswer(t *testing.T) {
	m := newMachine(t, testConfig(3, 2), 0)
	m.lose(1)
	_, code := m.submit(0, Record{}, "x")
	if code != CodeAccepted {
		t.Fatalf("answered %v", code)
	}
	w := UnpackArbiter(m.control.Arbiters[0])
	if w.InSync(3) != set([]Core{0, 2}) || w.Phase != Active {
		t.Errorf("the log is %v", w)
	}
}

// Two copies with one hole each make a whole (correction 4).
func TestHolesAtDifferentPlaces(t *testing.T) {
	caught(t, mutTruncate, func(t *testing.T, mut mutations) error {
		m := newMachine(t, testConfig(2, 2), mut)
		var ids []TaskID
		for range 6 {
			id, _ := m.submit(0, Record{}, "x")
			ids = append(ids, id)
		}
		for host, hole := range []uint64{6, 4} {
			id := RegionID{0, Core(host), UnpackArbiter(m.control.Arbiters[0]).Epoch}
			m.slots[id][hole*RecordWords] ^= 1
		}
		m.step(1, Event{Kind: EventExited, Core: 0, Incarnation: 1})
		for _, id := range ids {
			got := m.step(1, Event{Kind: EventResolve, ID: id, Log: 0})
			if answer(got) != CodeKnown || only(got, EffectAnswer)[0].Seq != uint64(StateReady) {
				return fmt.Errorf("%v is answered %v", id, answer(got))
			}
		}
		return nil
	})
}

// A victim's affinity is reset before it is killed; one that does not die is
// left behind the seal, and its attempts in quarantine (correction 10).
func TestVictimThatDoesNotDie(t *testing.T) {
	m := newMachine(t, testConfig(2, 2), 0)
	running, _ := m.submit(0, Record{Mode: AtMostOnce}, "x")
	m.begin(0)
	m.submit(0, Record{}, "y")
	got := m.step(1, Event{Kind: EventSuspect, Core: 0})
	if len(got) < 3 || got[1].Kind != EffectResetAffinity || got[2].Kind != EffectKill || m.nodes[1].Serves(0) {
		t.Fatalf("a suspect is met with %v", got)
	}
	got = m.tick(1, clock.Instant(6*time.Millisecond))
	if len(only(got, EffectUnkillable)) != 1 || !m.nodes[1].Serves(0) {
		t.Fatalf("after the deadline: %v", got)
	}
	if e := m.begin(1); e.ID == running || e.Mode != AtLeastOnce {
		t.Errorf("%v starts, whose first attempt may still run", e.ID)
	}
	got = m.step(1, Event{Kind: EventExited, Core: 0, Incarnation: 1})
	if reports := only(got, EffectReport); len(reports) != 1 || reports[0].ID != running || reports[0].Seq != LossInFlight {
		t.Errorf("when it is gone at last, %v is reported", reports)
	}
}

// A handler that runs for ten leases completes once, while the loop renews
// (correction 11).
func TestLongHandlerKeepsItsQueue(t *testing.T) {
	m := newMachine(t, testConfig(2, 2), 0)
	m.submit(0, Record{}, "x")
	e := m.begin(0)
	for now := time.Duration(0); now < 100*time.Millisecond; now += 2 * time.Millisecond {
		for c := range Core(2) {
			if got := m.tick(c, clock.Instant(now)); len(only(got, EffectArbiter)) > 0 {
				t.Fatalf("a takeover at %v", now)
			}
		}
	}
	if code := answer(m.step(0, finished(e, OutcomeDone, "r"))); code != CodeDone {
		t.Errorf("answered %v", code)
	}
}

// A silent owner is taken over after its lease, not before.
func TestSilentOwnerIsTakenOver(t *testing.T) {
	m := newMachine(t, testConfig(2, 2), 0)
	patience := clock.Instant(m.cfg.Lease.Patience())
	if got := m.tick(1, patience-1); len(only(got, EffectKill)) > 0 {
		t.Error("killed before the lease was over")
	}
	if got := m.tick(1, patience); len(only(got, EffectKill)) != 1 {
		t.Errorf("after the lease: %v", got)
	}
}

// A delayed task does not pin the ring: snapshots carry it along (correction 13).
func TestDelayedTaskDoesNotPinTheRing(t *testing.T) {
	m := newMachine(t, testConfig(1, 1), 0)
	late, _ := m.submit(0, Record{NotBefore: 1e6}, "late")
	for i := range 500 {
		if _, code := m.submit(0, Record{Flags: Detached}, "x"); code != CodeAccepted {
			t.Fatalf("task %d: %v", i, code)
		}
		if code := answer(m.step(0, finished(m.begin(0), OutcomeDone, ""))); code != CodeDone {
			t.Fatalf("task %d: %v", i, code)
		}
	}
	if e := m.step(0, Event{Kind: EventResolve, ID: late, Log: 0}); only(e, EffectAnswer)[0].Seq != uint64(StateReady) {
		t.Errorf("the delayed task is %v", only(e, EffectAnswer))
	}
}

// Requests that cannot be served say why (corrections 7, 9, 14, 19).
func TestAnswers(t *testing.T) {
	m := newMachine(t, testConfig(1, 1), 0)
	id := m.nodes[0].Allocate()
	other := id
	other.Run++
	tests := []struct {
		name string
		ev   Event
		want Code
	}{
		{"another run's ID", Event{Kind: EventResolve, ID: other}, CodeOtherRun},
		{"another core's log", Event{Kind: EventResolve, ID: id, Log: 7}, CodeInvalid},
		{"no number", Event{Kind: EventSubmit, Task: Record{ID: TaskID{9, id.Stream, 0}}}, CodeInvalid},
		{"a payload larger than the arena", Event{Kind: EventSubmit, Task: Record{ID: id}, Payload: make([]byte, 33*CellBytes)}, CodeTooLarge},
		{"an ID that never came", Event{Kind: EventResolve, ID: id}, CodeAbsent},
		{"and comes too late", Event{Kind: EventSubmit, Task: Record{ID: id}}, CodeKnown},
	}
	for _, tt := range tests {
		if got := answer(m.step(0, tt.ev)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	for {
		if _, code := m.submit(0, Record{}, ""); code != CodeAccepted {
			if code != CodeFull {
				t.Errorf("a full log answers %v", code)
			}
			break
		}
	}
	m.step(0, Event{Kind: EventDrain})
	if _, code := m.submit(0, Record{}, ""); code != CodeDraining {
		t.Errorf("while draining: %v", code)
	}
}

// The last epoch is the last: there is no takeover with one that was used
// (correction 14).
func TestEpochsEnd(t *testing.T) {
	cfg := testConfig(2, 1)
	cfg.EpochLimit = 1
	m := newMachine(t, cfg, 0)
	got := m.step(1, Event{Kind: EventExited, Core: 0, Incarnation: 1})
	if reports := only(got, EffectReport); len(reports) != 1 || reports[0].Seq != LossEpochs || len(only(got, EffectArbiter)) > 0 {
		t.Errorf("past the last epoch: %v", got)
	}
}

// What an owner does all day allocates nothing, checkpoints and their snapshots
// included: over a long run not a single object.
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	for k := 1; k <= 3; k++ {
		for _, batch := range []int{1, 8} {
			t.Run(fmt.Sprintf("k=%d/batch=%d", k, batch), func(t *testing.T) {
				n := newMachine(t, testConfig(3, k), 0).nodes[0]
				n.held = 1 << 62 // Nothing ticks here.
				// Some stand in the queue all the time: a snapshot has to list them.
				var buf []Effect
				payload, events := []byte("sixty-four bytes or so"), make([]Event, batch)
				payloads := bytes.Repeat(payload, batch)
				runs := false // Batches come as runs and as single tasks in turn.
				for range 8 {
					buf = n.Step(&Event{Kind: EventSubmit, Task: Record{ID: n.Allocate(), NotBefore: MaxTime}}, buf[:0])
				}
				l := n.logs[0]
				checkpoints, head := 0, l.head
				cycle := func() {
					for i := range events {
						events[i] = Event{Kind: EventSubmit, Task: Record{ID: n.Allocate(), Flags: Detached}, Payload: payload}
					}
					first, parts := events[0].Task.ID, events
					if runs = !runs; runs {
						events[0].More, events[0].Payload, parts = uint16(batch-1), payloads, events[:1]
					}
					buf = n.StepAll(parts, buf[:0])
					events[0] = Event{Kind: EventIdle, Count: batch}
					buf = n.StepAll(events[:1], buf[:0])
					for i := range events {
						id := first
						id.N += uint64(i)
						events[i] = Event{Kind: EventFinished, ID: id, Attempt: 1, Token: 1}
					}
					if events[0].More = 0; runs {
						events[0].More = uint16(batch - 1)
					}
					buf = n.StepAll(parts, buf[:0])
					if l.head != head {
						checkpoints, head = checkpoints+1, l.head
					}
				}
				for range 1000 {
					cycle()
				}
				runtime.GC()
				defer debug.SetGCPercent(debug.SetGCPercent(-1)) // A collection allocates for itself.
				checkpoints = 0
				// The runtime may start a thread meanwhile, but not each time.
				least := ^uint64(0)
				for range 3 {
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					for range 1000 {
						cycle()
					}
					runtime.ReadMemStats(&after)
					least = min(least, after.Mallocs-before.Mallocs)
				}
				if least > 0 {
					t.Errorf("%d allocations in %d tasks", least, 1000*batch)
				}
				if checkpoints < 100 || l.q.index.n > 8+2*batch {
					t.Errorf("%d checkpoints, %d tasks left: this is not what an owner does", checkpoints, l.q.index.n)
				}
			})
		}
	}
}

// A submitter that was not answered asks again. That the log has too few copies
// by then must not be the answer about a task that it has.
func TestResubmitToADegradedLogIsKnown(t *testing.T) {
	m := newMachine(t, testConfig(2, 2), 0)
	id, code := m.submit(0, Record{}, "x")
	if code != CodeAccepted {
		t.Fatal(code)
	}
	m.lose(1)
	m.step(0, Event{Kind: EventExited, Core: 1, Incarnation: m.nodes[1].Incarnation()})
	m.tick(0, 1)
	again := answer(m.step(0, Event{Kind: EventSubmit, Task: Record{ID: id}, Payload: []byte("x")}))
	if again != CodeKnown {
		t.Errorf("the task that was taken is answered %v", again)
	}
	if _, code := m.submit(0, Record{}, "y"); code != CodeDegraded {
		t.Errorf("control: a new task is answered %v", code)
	}
}
