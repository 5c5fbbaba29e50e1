package protocol

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A trace is what an executor fed to its nodes and a checksum of what they
// answered, a line of JSON a step, so that a run of real processes can be played
// back through the same code. Lines of one core are in the order of its steps.

// ErrDiverged is returned when a node answers a recorded event otherwise than it
// did then.
var ErrDiverged = errors.New("trace diverges")

// maxTraceLine bounds a line: a step that read a large region is the longest.
const maxTraceLine = 1 << 28

// traceLine is one step, or the configuration, which comes first.
type traceLine struct {
	Config *Config `json:"config,omitempty"`
	Core   Core    `json:"core"`
	// Events are what the step took. Rest of an abort is the end of the
	// program before, so only its length is kept.
	Events  []Event `json:"events,omitempty"`
	Rest    int     `json:"rest,omitempty"`
	Effects uint32  `json:"effects"`
}

// Recorder writes a trace. It is not safe for concurrent use.
type Recorder struct {
	enc *json.Encoder
}

// NewRecorder starts a trace of a run with this configuration.
func NewRecorder(w io.Writer, cfg Config) (*Recorder, error) {
	r := &Recorder{json.NewEncoder(w)}
	return r, r.write(traceLine{Config: &cfg})
}

// Step records a step of a core: what it took and what it returned.
func (r *Recorder) Step(core Core, evs []Event, effects []Effect) error {
	line := traceLine{Core: core, Events: evs, Effects: digest(effects)}
	if len(evs) == 1 {
		line.Rest = len(evs[0].Rest)
	}
	return r.write(line)
}

func (r *Recorder) write(line traceLine) error {
	if err := r.enc.Encode(line); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}

// digest is a checksum of effects, their records and payloads included.
func digest(effects []Effect) uint32 {
	var b []byte
	for i := range effects {
		e := &effects[i]
		b = put(b, uint64(e.Kind), uint64(e.Code), uint64(e.Log), uint64(e.Core), uint64(e.Region.Host), uint64(e.Region.Epoch),
			uint64(e.Incarnation), uint64(e.Attempt), uint64(e.More), uint64(e.Token), uint64(e.Epoch), e.Seq, e.Old, e.New, uint64(e.ID.Core), uint64(e.ID.Incarnation), e.ID.N)
		b = put(b, e.Words...)
		b = append(b, e.Data...)
		if m := e.Message; m != nil {
			b = put(b, uint64(m.Kind), uint64(m.FromLog), uint64(m.ToLog), uint64(m.From), m.Task.ID.N, uint64(m.Task.Hop))
		}
	}
	return crc32.Checksum(b, castagnoli)
}

// Replay plays a trace through fresh nodes and returns how many steps agreed. It
// returns [ErrDiverged] at the first that does not.
func Replay(r io.Reader) (steps int, err error) {
	return Play(r, func(Config, Core, []Event, []Effect) {})
}

// Play is [Replay] that shows each step: what a core took, and what it was to do.
func Play(r io.Reader, show func(cfg Config, core Core, evs []Event, effects []Effect)) (steps int, err error) {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxTraceLine)
	in.Split(wholeLines)
	p := player{nodes: map[Core]*Node{}, last: map[Core][]Effect{}}
	for in.Scan() {
		var line traceLine
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			return steps, fmt.Errorf("read trace, line %d: %w", steps+1, err)
		}
		if line.Config != nil {
			p.cfg = *line.Config
			continue
		}
		if err := p.step(&line); err != nil {
			return steps, fmt.Errorf("step %d: %w", steps+1, err)
		}
		show(p.cfg, line.Core, line.Events, p.last[line.Core])
		steps++
	}
	if err := in.Err(); err != nil {
		return steps, fmt.Errorf("read trace: %w", err)
	}
	return steps, nil
}

// wholeLines splits at line ends. A last line without one is what a worker was
// writing when it was killed.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	advance, token, err = bufio.ScanLines(data, atEOF)
	if advance > 0 && data[advance-1] != '\n' {
		return advance, nil, err
	}
	return advance, token, err
}

// player is the state of a replay.
type player struct {
	cfg   Config
	nodes map[Core]*Node
	last  map[Core][]Effect // The program of the step before.
}

func (p *player) step(line *traceLine) error {
	if len(line.Events) == 0 {
		return fmt.Errorf("a step without events: %w", ErrCorrupt)
	}
	if line.Events[0].Kind == EventStart {
		n, err := NewNode(p.cfg, line.Core)
		if err != nil {
			return err
		}
		p.nodes[line.Core] = n
	}
	n := p.nodes[line.Core]
	if n == nil {
		return fmt.Errorf("core %d acts before it starts: %w", line.Core, ErrCorrupt)
	}
	for i := range line.Events {
		if err := line.Events[i].check(p.cfg); err != nil {
			return err
		}
	}
	var effects []Effect
	if len(line.Events) == 1 {
		ev := &line.Events[0]
		last := p.last[line.Core]
		if line.Rest < 0 || line.Rest > len(last) {
			return fmt.Errorf("%d effects of %d are handed back: %w", line.Rest, len(last), ErrCorrupt)
		}
		ev.Rest = last[len(last)-line.Rest:]
		effects = n.Step(ev, nil)
	} else {
		effects = n.StepAll(line.Events, nil)
	}
	if got := digest(effects); got != line.Effects {
		return fmt.Errorf("core %d answers %v with other effects (checksum %08x, recorded %08x): %w", line.Core, line.Events[0].Kind, got, line.Effects, ErrDiverged)
	}
	p.last[line.Core] = CloneEffects(effects)
	return nil
}

// check says what of a recorded event cannot be.
func (ev *Event) check(cfg Config) error {
	if c := ev.Control; c != nil && (len(c.Arbiters) != cfg.Cores || len(c.Incarnations) != cfg.Cores || len(c.Heartbeats) != cfg.Cores) {
		return fmt.Errorf("the control page has other than %d cores: %w", cfg.Cores, ErrCorrupt)
	}
	return nil
}
