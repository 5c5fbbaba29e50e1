package timeline

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/coreplica/coreplica/runq/protocol"
)

// Kind is what a mark says.
type Kind string

// The kinds of marks.
const (
	Started  Kind = "started"  // A worker began its life.
	Exited   Kind = "exited"   // A core learnt that Other's process is gone.
	Suspects Kind = "suspects" // A core was told that Other hangs.
	Takes    Kind = "takes"    // An arbiter word says RECOVERING for this core.
	Kills    Kind = "kills"    // A core kills Other.
	Seals    Kind = "seals"    // A region at Other is sealed.
	Reads    Kind = "reads"    // A region at Other is read.
	Opens    Kind = "opens"    // A fresh region at Other is opened.
	Serves   Kind = "serves"   // An arbiter word says ACTIVE for this core.
	Claims   Kind = "claims"   // The first claim out of a log that was taken over.
	Fenced   Kind = "fenced"   // A publish of this core failed.
	Leaves   Kind = "leaves"   // A worker ends itself: it was fenced off.
)

// Mark is a moment of a core.
type Mark struct {
	AtNs  int64         `json:"at_ns"`
	Core  protocol.Core `json:"core"`
	Kind  Kind          `json:"kind"`
	Log   protocol.Core `json:"log"`
	Other protocol.Core `json:"other"`
	Epoch uint32        `json:"epoch,omitempty"`
}

// Span is a time in which a core owned a log.
type Span struct {
	Log    protocol.Core `json:"log"`
	Owner  protocol.Core `json:"owner"`
	Epoch  uint32        `json:"epoch"`
	Active bool          `json:"active"` // Else it was recovering.
	FromNs int64         `json:"from_ns"`
	ToNs   int64         `json:"to_ns"`
}

// Takeover is the way of one log from an owner to another. A time of zero is a
// step that did not happen.
type Takeover struct {
	Log   protocol.Core `json:"log"`
	From  protocol.Core `json:"from"`
	To    protocol.Core `json:"to"`
	Epoch uint32        `json:"epoch"`
	// LastStepNs is the last step of the earlier owner before.
	LastStepNs int64 `json:"last_step_ns"`
	TakenNs    int64 `json:"taken_ns"`
	KilledNs   int64 `json:"killed_ns,omitempty"`
	ExitedNs   int64 `json:"exited_ns,omitempty"`
	SealedNs   int64 `json:"sealed_ns,omitempty"`
	ReadNs     int64 `json:"read_ns,omitempty"`
	ActiveNs   int64 `json:"active_ns,omitempty"`
	ClaimedNs  int64 `json:"claimed_ns,omitempty"`
}

// Timeline is what one or several traces of a run show.
type Timeline struct {
	Schema    string     `json:"schema"`
	Cores     int        `json:"cores"`
	FromNs    int64      `json:"from_ns"`
	ToNs      int64      `json:"to_ns"`
	Steps     int        `json:"steps"`
	Marks     []Mark     `json:"marks"`
	Spans     []Span     `json:"spans"`
	Takeovers []Takeover `json:"takeovers"`
}

// Schema is the version of [Timeline] in JSON.
const Schema = "coreplica.runq.timeline/1"

// reader collects marks while traces are played.
type reader struct {
	t Timeline
	// asked is the effect that a core waits for.
	asked map[protocol.Core]protocol.Effect
	steps map[protocol.Core][]int64
	taken map[protocol.Core]bool // Logs whose next claim is an inherited one.
	first bool
}

// Read plays the traces of one run, one for each core or all in one.
func Read(traces ...io.Reader) (*Timeline, error) {
	r := &reader{
		t: Timeline{Schema: Schema}, asked: map[protocol.Core]protocol.Effect{}, steps: map[protocol.Core][]int64{},
		first: true,
	}
	for _, trace := range traces {
		r.taken = map[protocol.Core]bool{}
		steps, err := protocol.Play(trace, r.step)
		if err != nil {
			return nil, fmt.Errorf("play trace: %w", err)
		}
		r.t.Steps += steps
	}
	if r.t.Steps == 0 {
		return nil, fmt.Errorf("play trace: it has no steps: %w", protocol.ErrCorrupt)
	}
	slices.SortStableFunc(r.t.Marks, func(a, b Mark) int { return cmp.Compare(a.AtNs, b.AtNs) })
	r.spans()
	r.takeovers()
	return &r.t, nil
}

func (r *reader) mark(m Mark) { r.t.Marks = append(r.t.Marks, m) }

// step is one step of a core.
func (r *reader) step(cfg protocol.Config, core protocol.Core, evs []protocol.Event, effects []protocol.Effect) {
	r.t.Cores = cfg.Cores
	now := int64(0)
	for i := range evs {
		now = max(now, int64(evs[i].Now))
		r.event(core, &evs[i], int64(evs[i].Now))
	}
	if r.first {
		r.t.FromNs, r.first = now, false
	}
	r.t.FromNs, r.t.ToNs = min(r.t.FromNs, now), max(r.t.ToNs, now)
	r.steps[core] = append(r.steps[core], now)
	for i := range effects {
		r.effect(core, &effects[i], now)
	}
}

func (r *reader) event(core protocol.Core, ev *protocol.Event, at int64) {
	m := Mark{AtNs: at, Core: core, Other: ev.Core}
	switch ev.Kind {
	case protocol.EventStart:
		m.Kind, m.Other = Started, core
		r.mark(m)
	case protocol.EventExited:
		m.Kind = Exited
		r.mark(m)
	case protocol.EventSuspect:
		m.Kind = Suspects
		r.mark(m)
	case protocol.EventAborted:
		if len(ev.Rest) > 0 && ev.Rest[0].Kind == protocol.EffectPublish {
			e := &ev.Rest[0]
			m.Kind, m.Log, m.Other, m.Epoch = Fenced, e.Region.Log, e.Region.Host, e.Region.Epoch
			r.mark(m)
		}
	case protocol.EventResult:
		e := r.asked[core]
		m.Log, m.Other, m.Epoch = e.Log, e.Region.Host, e.Region.Epoch
		switch {
		case !ev.OK:
		case e.Kind == protocol.EffectSeal:
			m.Kind = Seals
			r.mark(m)
		case e.Kind == protocol.EffectRead:
			m.Kind = Reads
			r.mark(m)
		case e.Kind == protocol.EffectArbiter:
			r.swapped(core, protocol.UnpackArbiter(e.Old), protocol.UnpackArbiter(e.New), e.Log, at)
		}
	}
}

// swapped is an arbiter word that a core has swapped in.
func (r *reader) swapped(core protocol.Core, before, word protocol.ArbiterWord, log protocol.Core, at int64) {
	m := Mark{AtNs: at, Core: core, Log: log, Other: before.ActiveOwner, Epoch: word.Epoch}
	switch {
	case word.Owner != core:
		return
	case word.Phase == protocol.Active:
		m.Kind = Serves
	case before.Phase == protocol.Vacant:
		m.Kind, m.Other = Takes, core
	default:
		m.Kind = Takes
		r.taken[log] = before.ActiveOwner != core
	}
	r.mark(m)
}

func (r *reader) effect(core protocol.Core, e *protocol.Effect, now int64) {
	m := Mark{AtNs: now, Core: core, Log: e.Log, Other: e.Core, Epoch: e.Epoch}
	switch e.Kind {
	case protocol.EffectKill:
		m.Kind = Kills
		r.mark(m)
	case protocol.EffectOpen:
		m.Kind, m.Log, m.Other, m.Epoch = Opens, e.Region.Log, e.Region.Host, e.Region.Epoch
		r.mark(m)
	case protocol.EffectExit:
		m.Kind, m.Other = Leaves, core
		r.mark(m)
	case protocol.EffectBegin:
		if r.taken[e.Log] {
			delete(r.taken, e.Log)
			m.Kind, m.Other = Claims, core
			r.mark(m)
		}
	}
	if e.Kind.Asks() {
		r.asked[core] = *e
	}
}

// spans turns what owners swapped in into times. Clocks may differ a little, so
// the order of a log's owners is that of their epochs.
func (r *reader) spans() {
	swaps := slices.DeleteFunc(slices.Clone(r.t.Marks), func(m Mark) bool { return m.Kind != Takes && m.Kind != Serves })
	slices.SortStableFunc(swaps, func(a, b Mark) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), -cmp.Compare(a.Kind, b.Kind)) // "takes" comes before "serves".
	})
	open := map[protocol.Core]int{}
	for _, m := range swaps {
		if i, ok := open[m.Log]; ok {
			r.t.Spans[i].ToNs = max(m.AtNs, r.t.Spans[i].FromNs)
		}
		open[m.Log] = len(r.t.Spans)
		r.t.Spans = append(r.t.Spans, Span{m.Log, m.Core, m.Epoch, m.Kind == Serves, m.AtNs, r.t.ToNs})
	}
}

// takeovers follows each log from the swap by another core to its first claim.
func (r *reader) takeovers() {
	for i, m := range r.t.Marks {
		if m.Kind != Takes || m.Other == m.Core {
			continue
		}
		over := Takeover{Log: m.Log, From: m.Other, To: m.Core, Epoch: m.Epoch, TakenNs: m.AtNs}
		for _, at := range r.steps[m.Other] {
			if at <= m.AtNs {
				over.LastStepNs = max(over.LastStepNs, at)
			}
		}
		// The exit may have been what made the core act.
		for _, before := range r.t.Marks[:i] {
			if before.Core == m.Core && before.Kind == Exited && before.Other == m.Other && before.AtNs >= over.LastStepNs {
				over.ExitedNs = before.AtNs
			}
		}
		for _, after := range r.t.Marks[i+1:] {
			if after.Log == m.Log && after.Kind == Takes && after.Epoch > m.Epoch {
				break // Somebody else went on.
			}
			if after.Core == m.Core {
				over.note(after)
			}
		}
		r.t.Takeovers = append(r.t.Takeovers, over)
	}
}

func (o *Takeover) note(m Mark) {
	ofLog := m.Log == o.Log
	switch {
	case m.Kind == Kills && m.Other == o.From && o.KilledNs == 0:
		o.KilledNs = m.AtNs
	case m.Kind == Exited && m.Other == o.From && o.ExitedNs == 0:
		o.ExitedNs = m.AtNs
	case m.Kind == Seals && ofLog && o.ActiveNs == 0:
		o.SealedNs = m.AtNs
	case m.Kind == Reads && ofLog && o.ActiveNs == 0:
		o.ReadNs = m.AtNs
	case m.Kind == Serves && ofLog && o.ActiveNs == 0:
		o.ActiveNs = m.AtNs
	case m.Kind == Claims && ofLog && o.ClaimedNs == 0:
		o.ClaimedNs = m.AtNs
	}
}
