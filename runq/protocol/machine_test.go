package protocol

import (
	"testing"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
)

// machine performs the effects of nodes one at a time, without faults but those
// that a test makes: the smallest executor there can be.
type machine struct {
	t       *testing.T
	cfg     Config
	nodes   []*Node
	control Control
	commits map[RegionID]uint64
	slots   map[RegionID][]uint64
	arenas  map[RegionID][]byte
	gone    map[Core]bool // Cores whose memory is gone.
	// log is all that was performed, in order.
	log []Effect
}

func testConfig(cores, k int) Config {
	return Config{
		Geometry: Geometry{Cores: cores, Slots: 64, Cells: 32}, Run: 9, K: k,
		Lease: clock.Lease{Length: 10 * time.Millisecond, Epsilon: time.Millisecond}, Retry: time.Millisecond,
		KillDeadline: 5 * time.Millisecond,
	}
}

// newMachine brings all cores up; mut switches rules off in all of them.
func newMachine(t *testing.T, cfg Config, mut mutations) *machine {
	t.Helper()
	m := &machine{
		t: t, cfg: cfg, commits: map[RegionID]uint64{}, slots: map[RegionID][]uint64{}, arenas: map[RegionID][]byte{}, gone: map[Core]bool{},
		control: Control{make([]uint64, cfg.Cores), make([]uint64, cfg.Cores), make([]uint64, cfg.Cores)},
	}
	for c := range cfg.Cores {
		n, err := NewNode(cfg, Core(c))
		if err != nil {
			t.Fatal(err)
		}
		n.mut = mut
		m.nodes = append(m.nodes, n)
		m.step(Core(c), Event{Kind: EventStart})
	}
	for range 3 {
		for c := range cfg.Cores {
			m.tick(Core(c), 0)
		}
	}
	return m
}

func (m *machine) tick(core Core, now clock.Instant) []Effect {
	return m.step(core, Event{Kind: EventTick, Now: now, Control: &m.control})
}

// step feeds events and performs everything that follows. It returns all of it.
func (m *machine) step(core Core, evs ...Event) []Effect {
	n := m.nodes[core]
	from := len(m.log)
	program := CloneEffects(n.StepAllOrOne(evs))
	for len(program) > 0 {
		e := program[0]
		result, ok := m.do(&e)
		if !ok {
			program = CloneEffects(n.Step(&Event{Kind: EventAborted, Word: m.commits[e.Region], Rest: program}, nil))
			continue
		}
		m.log = append(m.log, e)
		if program = program[1:]; result != nil {
			program = append(program, CloneEffects(n.Step(result, nil))...)
		}
	}
	return m.log[from:]
}

// StepAllOrOne is Step for one event and StepAll for more.
func (n *Node) StepAllOrOne(evs []Event) []Effect {
	if len(evs) == 1 {
		return n.Step(&evs[0], nil)
	}
	return n.StepAll(evs, nil)
}

func (m *machine) do(e *Effect) (result *Event, ok bool) {
	_, there := m.commits[e.Region]
	switch e.Kind {
	case EffectHeartbeat:
		m.control.Heartbeats[e.Core] = e.New
	case EffectOpen:
		if m.gone[e.Region.Host] {
			return nil, false
		}
		m.commits[e.Region] = CommitWord{Epoch: e.Region.Epoch}.Pack()
		m.slots[e.Region] = make([]uint64, m.cfg.Slots*RecordWords)
		m.arenas[e.Region] = make([]byte, m.cfg.Cells*CellBytes)
	case EffectStoreSlots:
		if there {
			copy(m.slots[e.Region][e.Seq&(m.cfg.Slots-1)*RecordWords:], e.Words)
		}
	case EffectStoreCells:
		if there {
			copy(m.arenas[e.Region][e.Seq*CellBytes:], e.Data)
		}
	case EffectPublish:
		if !there || m.commits[e.Region] != e.Old {
			return nil, false
		}
		m.commits[e.Region] = e.New
	case EffectDraw:
		m.control.Incarnations[e.Log]++
		return &Event{Kind: EventResult, OK: true, Word: m.control.Incarnations[e.Log]}, true
	case EffectArbiter:
		swapped := m.control.Arbiters[e.Log] == e.Old
		if swapped {
			m.control.Arbiters[e.Log] = e.New
		}
		return &Event{Kind: EventResult, OK: swapped, Word: m.control.Arbiters[e.Log]}, true
	case EffectSeal:
		if there {
			m.commits[e.Region] |= 1 << 43
		}
		return &Event{Kind: EventResult, OK: there, Word: m.commits[e.Region]}, true
	case EffectRead:
		return &Event{Kind: EventResult, OK: there, Word: m.commits[e.Region], Slots: m.slots[e.Region], Arena: m.arenas[e.Region]}, true
	}
	return nil, true
}

// lose punches a core's regions out.
func (m *machine) lose(core Core) {
	m.gone[core] = true
	for id := range m.commits {
		if id.Host == core {
			delete(m.commits, id)
			delete(m.slots, id)
			delete(m.arenas, id)
		}
	}
}

// submit submits a task of a core's own and returns its ID and the answer.
func (m *machine) submit(core Core, task Record, payload string) (TaskID, Code) {
	task.ID = m.nodes[core].Allocate()
	return task.ID, answer(m.step(core, Event{Kind: EventSubmit, Task: task, Payload: []byte(payload)}))
}

// answer returns the last answer among effects, 0 for none.
func answer(effects []Effect) (code Code) {
	for i := range effects {
		if effects[i].Kind == EffectAnswer {
			code = effects[i].Code
		}
	}
	return code
}

// only returns the effects of one kind, and attempts that begin together one by one.
func only(effects []Effect, kind EffectKind) (some []Effect) {
	for i := range effects {
		switch {
		case effects[i].Kind != kind:
		case kind == EffectBegin:
			for one := range effects[i].Each {
				some = append(some, *one)
			}
		default:
			some = append(some, effects[i])
		}
	}
	return some
}

// begin claims one task of a core and returns its start.
func (m *machine) begin(core Core) Effect {
	m.t.Helper()
	begins := only(m.step(core, Event{Kind: EventIdle, Count: 1}), EffectBegin)
	if len(begins) != 1 {
		m.t.Fatalf("%d attempts begin", len(begins))
	}
	return begins[0]
}

func finished(e Effect, outcome Outcome, result string) Event {
	return Event{Kind: EventFinished, Log: e.Log, ID: e.ID, Attempt: e.Attempt, Token: e.Token, Outcome: outcome, Payload: []byte(result)}
}
