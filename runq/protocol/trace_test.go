package protocol_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/coreplica/coreplica/runq/protocol"
	"github.com/coreplica/coreplica/runq/protocol/sim"
)

// record runs a seed and returns its trace.
func record(t testing.TB, seed uint64) []byte {
	var out bytes.Buffer
	var rec *protocol.Recorder
	opts := sim.Options{Seed: seed, Faults: sim.AllFaults, Steps: 1500}
	opts.Begin = func(cfg protocol.Config) {
		var err error
		if rec, err = protocol.NewRecorder(&out, cfg); err != nil {
			t.Fatal(err)
		}
	}
	opts.Record = func(core protocol.Core, evs []protocol.Event, effects []protocol.Effect) {
		if err := rec.Step(core, evs, effects); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := sim.Run(opts); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// What was recorded plays back through Step, answer for answer.
func TestTraceReplays(t *testing.T) {
	for seed := range uint64(5) {
		trace := record(t, seed)
		steps, err := protocol.Replay(bytes.NewReader(trace))
		if err != nil || steps != bytes.Count(trace, []byte("\n"))-1 {
			t.Fatalf("seed %d: %d steps agree: %v", seed, steps, err)
		}
	}
}

// A trace that was tampered with does not play back.
func TestTraceNoticesChanges(t *testing.T) {
	lines := strings.SplitAfter(string(record(t, 3)), "\n")
	for i, line := range lines {
		if strings.Contains(line, `"Kind":5`) { // A submit that never came.
			_, err := protocol.Replay(strings.NewReader(strings.Join(append(lines[:i:i], lines[i+1:]...), "")))
			if !errors.Is(err, protocol.ErrDiverged) {
				t.Errorf("without line %d: %v, want ErrDiverged", i+1, err)
			}
			return
		}
	}
	t.Error("the trace has no submit")
}

// A worker that is killed may leave half a line.
func TestTraceMayEndInHalfALine(t *testing.T) {
	trace := record(t, 2)
	want, err := protocol.Replay(bytes.NewReader(trace))
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndexByte(trace[:len(trace)-1], '\n') + 1
	for _, cut := range []int{last + 1, (last + len(trace)) / 2, len(trace) - 1} {
		if steps, err := protocol.Replay(bytes.NewReader(trace[:cut])); err != nil || steps != want-1 {
			t.Errorf("cut at %d of %d: %d of %d steps, %v", cut, len(trace), steps, want, err)
		}
	}
	if _, err := protocol.Replay(bytes.NewReader(append(trace[:last+1:last+1], '\n'))); err == nil {
		t.Error("half a line in the middle is no error")
	}
}

// No trace makes a node panic.
func FuzzReplay(f *testing.F) {
	trace := record(f, 1)
	f.Add(trace[:min(len(trace), 20_000)])
	f.Add([]byte(`{"config":{"Cores":2,"Slots":32,"Cells":1,"K":1,"Lease":{"Length":1}},"core":0,"effects":0}` + "\n" + `{"core":1,"events":[{"Kind":1}],"effects":0}`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = protocol.Replay(bytes.NewReader(data)) // Errors are fine.
	})
}
