package protocol

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/coreplica/coreplica/replica/clock"
)

// Runs that one can read: each file of testdata is a history, and its first line
// says why it is there. `go test -run Transcripts ./runq/protocol -rewrite`
// writes what happens now; the difference is then for a person to judge.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		p := &play{t: t, tasks: map[string]TaskID{}, names: map[TaskID]string{}, begun: map[string]Effect{}}
		datadriven.RunTest(t, path, p.run)
	})
}

// play is a machine whose cores may stand still between two effects, and which
// tells what they do.
type play struct {
	t       *testing.T
	m       *machine
	now     time.Duration
	pending [][]Effect
	tasks   map[string]TaskID
	names   map[TaskID]string
	begun   map[string]Effect
	logs    Core // How many logs are told about.
	post    []Message
	out     strings.Builder
}

func (p *play) run(t *testing.T, d *datadriven.TestData) string {
	p.t = t
	p.out.Reset()
	arg := func(key string, otherwise int) int {
		n := otherwise
		d.MaybeScanArgs(t, key, &n)
		return n
	}
	text := func(key string) (s string) {
		d.MaybeScanArgs(t, key, &s)
		return s
	}
	core, halt := Core(arg("core", 0)), text("until")
	ev := Event{Log: Core(arg("log", 0)), ID: p.tasks[text("task")], Core: Core(arg("of", 0)), Incarnation: 1}
	switch d.Cmd {
	case "boot":
		p.m = newMachine(t, testConfig(arg("cores", 3), arg("k", 2)), 0)
		p.pending, p.logs = make([][]Effect, arg("cores", 3)), Core(arg("logs", 1))
		p.sayArbiter()
		return p.out.String()
	case "submit":
		ev.Kind, ev.Task, ev.Payload = EventSubmit, Record{ID: p.name(core, text("task")), Mode: modeOf(text("mode"))}, []byte(text("payload"))
	case "claim":
		ev.Kind, ev.Count = EventIdle, 1
	case "finish":
		ev = finished(p.begun[text("attempt")], OutcomeDone, text("result"))
	case "cancel":
		ev.Kind = EventCancel
	case "resolve":
		ev.Kind = EventResolve
	case "steal":
		ev.Kind = EventSteal
	case "suspect":
		ev.Kind = EventSuspect
	case "exited":
		ev.Kind = EventExited
	case "tick":
		ev.Kind, ev.Control = EventTick, &p.m.control
		p.now += time.Duration(arg("ms", 0)) * time.Millisecond
	case "crash":
		p.m.lose(core)
		p.pending[core] = nil
		return fmt.Sprintf("core %d is gone, and so is all in its memory\n", core)
	case "go-on":
		p.perform(core, halt)
		return p.out.String()
	case "deliver":
		return p.deliver()
	default:
		d.Fatalf(t, "there is no command %s", d.Cmd)
	}
	ev.Now = clock.Instant(p.now)
	p.pending[core] = append(p.pending[core], CloneEffects(p.m.nodes[core].Step(&ev, nil))...)
	p.perform(core, halt)
	return p.out.String()
}

func modeOf(text string) Mode {
	for m := range modes {
		if m.String() == text {
			return m
		}
	}
	return AtLeastOnce
}

func (p *play) name(core Core, task string) TaskID {
	id := p.m.nodes[core].Allocate()
	p.tasks[task], p.names[id] = id, task
	return id
}

// perform does what a core has to do, until it comes to an effect that it shall
// stand still before.
func (p *play) perform(core Core, halt string) {
	n := p.m.nodes[core]
	step := func(ev *Event) { p.pending[core] = append(p.pending[core], CloneEffects(n.Step(ev, nil))...) }
	for len(p.pending[core]) > 0 {
		e := p.pending[core][0]
		if e.Log == 0 && halt != "" && strings.HasPrefix(fmt.Sprintf("%v@%d", e.Kind, e.Region.Host), halt) {
			fmt.Fprintf(&p.out, "core %d stands still before its %v\n", core, e.Kind)
			return
		}
		result, ok := p.m.do(&e)
		p.say(core, &e, result, ok)
		if !ok {
			rest := p.pending[core]
			p.pending[core] = nil
			step(&Event{Kind: EventAborted, Now: clock.Instant(p.now), Word: p.m.commits[e.Region], Rest: rest})
			continue
		}
		p.pending[core] = p.pending[core][1:]
		switch {
		case result != nil:
			result.Now = clock.Instant(p.now)
			step(result)
		case e.Kind == EffectSend && e.Message.Kind != MessageFloor:
			m := *e.Message
			if e.Ref.Bytes > 0 {
				m.Payload, _ = e.Ref.Read(p.m.arenas[RegionID{e.Log, e.Members[0], e.Epoch}])
			}
			p.post = append(p.post, m)
		}
	}
}

// deliver hands over the oldest message.
func (p *play) deliver() string {
	if len(p.post) == 0 {
		return "there is no message\n"
	}
	m := p.post[0]
	p.post = p.post[1:]
	for c, n := range p.m.nodes {
		if n.Serves(m.ToLog) {
			fmt.Fprintf(&p.out, "core %d hears from core %d: %s\n", c, m.From, strings.TrimSpace(m.Kind.String()+" "+p.names[m.Task.ID]))
			p.pending[c] = append(p.pending[c], CloneEffects(n.Step(&Event{Kind: EventMessage, Now: clock.Instant(p.now), Message: &m}, nil))...)
			p.perform(Core(c), "")
			return p.out.String()
		}
	}
	return "nobody serves the log that it is for\n"
}

func (p *play) sayArbiter() {
	w := UnpackArbiter(p.m.control.Arbiters[0])
	copies := ""
	for _, c := range slices.SortedFunc(slices.Values(members(w, p.m.cfg.Cores)), cmp.Compare) {
		copies += fmt.Sprintf(" %d", c)
	}
	fmt.Fprintf(&p.out, "log 0 is %v in epoch %d, owned by core %d; epoch %d lies at%s\n", w.Phase, w.Epoch, w.Owner, w.ActiveEpoch, copies)
}

// say tells an effect. What happens to other logs meanwhile is another story.
func (p *play) say(core Core, e *Effect, result *Event, ok bool) {
	f := func(format string, args ...any) {
		fmt.Fprintf(&p.out, "core %d %s\n", core, strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
	name, place := p.names[e.ID], fmt.Sprintf("the copy of log %d at %d", e.Region.Log, e.Region.Host)
	if e.Log >= p.logs {
		return
	}
	switch e.Kind {
	case EffectStoreSlots:
		for words := range slices.Chunk(e.Words, RecordWords) {
			r, err := Decode(words, p.m.cfg.Run)
			if err != nil {
				p.t.Fatal(err)
			}
			what := strings.TrimSpace(r.Kind.String() + " " + p.names[r.ID])
			switch r.Kind {
			case KindSnapTask:
				what += " " + TaskState(r.Arg2&0xff).String()
			case KindSnapSeen:
				what = fmt.Sprintf("%v up to %s", r.Kind, p.names[r.ID])
			}
			f("writes %d %s into %s", r.Seq, what, place)
		}
	case EffectPublish:
		if ok {
			f("publishes %s up to %d", place, UnpackCommit(e.New).Tail)
		} else {
			f("cannot publish %s: it is %v", place, UnpackCommit(p.m.commits[e.Region]))
		}
	case EffectOpen:
		f("opens %s, epoch %d", place, e.Region.Epoch)
	case EffectSeal:
		if result.OK {
			f("seals %s: %v", place, UnpackCommit(result.Word))
		} else {
			f("cannot seal %s: it is lost", place)
		}
	case EffectRead:
		f("reads %s: %v", place, result.OK)
	case EffectArbiter:
		f("swaps the arbiter word: %v", result.OK)
		p.sayArbiter()
	case EffectAnswer:
		f("answers %s: %v", name, e.Code)
	case EffectBegin:
		f("begins %s, attempt %d, token %d, %v", name, e.Attempt, e.Token, e.Mode)
		p.begun[fmt.Sprintf("%s%d", name, e.Attempt)] = *e
	case EffectSend:
		if e.Message.Kind != MessageFloor {
			f("tells log %d: %v %s", e.Message.ToLog, e.Message.Kind, name)
		}
	case EffectReject, EffectStop, EffectForget:
		f("%vs %s", e.Kind, name)
	case EffectReport:
		f("reports %s: loss %d", name, e.Seq)
	case EffectKill:
		f("kills core %d", e.Core)
	case EffectUnkillable:
		f("cannot kill core %d", e.Core)
	case EffectExit:
		f("exits")
	}
}
