package chaos

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/coreplica/coreplica/runq"
	"github.com/coreplica/coreplica/runq/internal/trial"
	"github.com/coreplica/coreplica/runq/protocol"
)

// Worker processes learn by these what trial they are in.
const (
	envDir   = "COREPLICA_CHAOS_DIR"  // Where the journals are.
	envRule  = "COREPLICA_CHAOS_RULE" // The rule that is switched off, if any.
	envTrace = "COREPLICA_CHAOS_TRACE"
)

// handlerName is what trials submit.
const handlerName = "coreplica.chaos.task"

// journal is the process's own, if it is in a trial.
var journal *Writer

func init() {
	runq.Register(handlerName, handle)
	dir := os.Getenv(envDir)
	if dir == "" {
		return
	}
	w, err := Create(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
	journal = w
	hook(dir, os.Getenv(envRule))
	if os.Getenv(envTrace) != "" {
		trial.Hooks.Step = tracer(dir)
	}
}

// tracer returns a hook that writes a trace of this process.
func tracer(dir string) func(protocol.Config, protocol.Core, []protocol.Event, []protocol.Effect) {
	var rec *protocol.Recorder
	return func(cfg protocol.Config, core protocol.Core, evs []protocol.Event, effects []protocol.Effect) {
		if rec == nil {
			f, err := os.Create(filepath.Join(dir, fmt.Sprintf("trace-%d-%d", core, os.Getpid())))
			if err == nil {
				rec, err = protocol.NewRecorder(f, cfg)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "chaos:", err)
				os.Exit(1)
			}
		}
		if err := rec.Step(core, evs, effects); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			os.Exit(1)
		}
	}
}

// payload is what a trial's task carries: its number, its mode, and how long its
// handler takes.
type payload struct {
	task uint64
	mode Mode
	busy time.Duration
}

const payloadBytes = 17

func (p payload) bytes() []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, payloadBytes), p.task)
	b = append(b, byte(p.mode))
	return binary.LittleEndian.AppendUint64(b, uint64(p.busy))
}

var errPayload = errors.New("the payload is not one that the trial made")

func readPayload(b []byte) (p payload, err error) {
	if len(b) != payloadBytes {
		return p, fmt.Errorf("%d bytes: %w", len(b), errPayload)
	}
	return payload{binary.LittleEndian.Uint64(b), Mode(b[8]), time.Duration(binary.LittleEndian.Uint64(b[9:]))}, nil
}

// handle is the task: it says that it began, takes its time, says that it ended,
// and returns who it was.
func handle(_ context.Context, t *runq.Task) ([]byte, error) {
	p, err := readPayload(t.Payload)
	if err != nil {
		return nil, err
	}
	r := Record{Kind: Began, Mode: p.mode, Worker: uint16(t.Worker), Task: p.task, Attempt: uint32(t.Attempt), Token: t.Token, Doer: uint32(os.Getpid())}
	if err := journal.Append(r); err != nil {
		return nil, err
	}
	if p.busy > 0 {
		time.Sleep(p.busy)
	}
	r.Kind, r.TimeNs = Ended, 0
	if err := journal.Append(r); err != nil {
		return nil, err
	}
	return resultOf(r), nil
}

// resultOf is what a handler returns, and readResult what a submitter makes of it.
func resultOf(r Record) []byte { return r.AppendTo(nil) }

func readResult(b []byte) (Record, error) {
	records, torn, err := Parse(b)
	if err == nil && (torn || len(records) != 1) {
		err = fmt.Errorf("%d records: %w", len(records), errPayload)
	}
	if err != nil {
		return Record{}, fmt.Errorf("read result: %w", err)
	}
	return records[0], nil
}

// hook has a worker write down what it hands to the protocol and what it is told,
// and puts faults into takeovers.
func hook(dir, rule string) {
	h := &trial.Hooks
	note := func(kind Kind, in []byte, attempt uint16, token uint32) {
		if p, err := readPayload(in); err == nil {
			mustAppend(Record{Kind: kind, Mode: p.mode, Task: p.task, Attempt: uint32(attempt), Token: token, Doer: uint32(os.Getpid())})
		}
	}
	h.Accepting = func(in []byte, attempt uint16, token uint32) { note(Accepting, in, attempt, token) }
	h.Accepted = func(in []byte, attempt uint16, token uint32) { note(Accepted, in, attempt, token) }
	h.Fenced = func(log protocol.Core) { mustAppend(Record{Kind: Fenced, Worker: uint16(log)}) }
	h.Prepare = func(n *protocol.Node) {
		switch rule {
		case "fence":
			n.SwitchOff(protocol.RuleFence)
		case "tombstones":
			n.SwitchOff(protocol.RuleTombstones)
		}
	}
	heedStops()
	h.Before = func(n *protocol.Node, e *protocol.Effect, punch func() error) {
		if e.Kind == protocol.EffectPublish {
			stopHere()
		}
		step, log, ok := stepOf(n, e)
		if !ok || os.Rename(failpoint(dir, step), failpoint(dir, step)+".hit") != nil {
			return
		}
		mustAppend(Record{Kind: Failed, Worker: uint16(log), Attempt: uint32(e.Kind)})
		// A core that fails takes its memory along.
		if err := punch(); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // It takes a moment.
	}
}

// mustAppend ends the process where its journal cannot be written: the verdict
// would be wrong.
func mustAppend(r Record) {
	if err := journal.Append(r); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// Steps are the steps of a takeover between which a taker can be killed.
var Steps = []string{"arbiter", "kill", "seal", "read", "open", "store-slots", "publish"}

// stepOf returns the step of a takeover that an effect is, of a log that is not
// the node's own.
func stepOf(n *protocol.Node, e *protocol.Effect) (step string, log protocol.Core, ok bool) {
	log = e.Log
	switch e.Kind {
	case protocol.EffectArbiter, protocol.EffectSeal, protocol.EffectRead, protocol.EffectKill:
	case protocol.EffectOpen, protocol.EffectStoreSlots, protocol.EffectPublish:
		log = e.Region.Log
	default:
		return "", 0, false
	}
	if log == n.Core() || n.Serves(log) {
		return "", 0, false
	}
	return e.Kind.String(), log, true
}

// failpoint is the file that arms a step: the first taker that comes there takes
// the file away and dies.
func failpoint(dir, step string) string { return filepath.Join(dir, "failpoint-"+step) }

// arm arms a step.
func arm(dir, step string) error {
	if err := os.WriteFile(failpoint(dir, step), nil, 0o600); err != nil {
		return fmt.Errorf("arm failpoint: %w", err)
	}
	return nil
}

// disarm removes what was armed, and reports whether somebody had come there.
func disarm(dir, step string) (hit bool) {
	_ = os.Remove(failpoint(dir, step)) // If nobody took it.
	return os.Remove(failpoint(dir, step)+".hit") == nil
}
