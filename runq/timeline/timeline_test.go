package timeline

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/runq/protocol"
	"github.com/coreplica/coreplica/runq/protocol/sim"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// trace simulates a seed and returns its trace, and how often an arbiter word went
// from one active owner to another's RECOVERING.
func trace(t testing.TB, seed uint64, faults sim.Faults) (data []byte, changes int) {
	t.Helper()
	var out bytes.Buffer
	var rec *protocol.Recorder
	opts := sim.Options{Seed: seed, Faults: faults, Steps: 2500}
	opts.Begin = func(cfg protocol.Config) {
		var err error
		if rec, err = protocol.NewRecorder(&out, cfg); err != nil {
			t.Fatal(err)
		}
	}
	asked := map[protocol.Core]protocol.Effect{}
	opts.Record = func(core protocol.Core, evs []protocol.Event, effects []protocol.Effect) {
		if err := rec.Step(core, evs, effects); err != nil {
			t.Fatal(err)
		}
		for i := range evs {
			e, swap := asked[core]
			if evs[i].Kind != protocol.EventResult || !swap || e.Kind != protocol.EffectArbiter {
				continue
			}
			old, word := protocol.UnpackArbiter(e.Old), protocol.UnpackArbiter(e.New)
			if evs[i].OK && word.Phase != protocol.Active && old.Phase != protocol.Vacant && old.ActiveOwner != core {
				changes++
			}
		}
		if n := len(effects); n > 0 && effects[n-1].Kind.Asks() {
			asked[core] = effects[n-1]
		}
	}
	if _, err := sim.Run(opts); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), changes
}

func TestReadFindsEveryTakeover(t *testing.T) {
	total, complete, fenced := 0, 0, 0
	for seed := range uint64(12) {
		data, changes := trace(t, seed, sim.AllFaults)
		line, err := Read(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if len(line.Takeovers) != changes {
			t.Errorf("seed %d: %d takeovers, and %d swaps by another core", seed, len(line.Takeovers), changes)
		}
		total += len(line.Takeovers)
		for _, o := range line.Takeovers {
			if o.ActiveNs == 0 {
				continue // The taker failed too.
			}
			complete++
			if o.From == o.To || o.TakenNs < o.LastStepNs || o.ActiveNs < o.TakenNs || o.ClaimedNs != 0 && o.ClaimedNs < o.ActiveNs ||
				o.SealedNs > o.ActiveNs || o.ReadNs != 0 && o.ReadNs < o.SealedNs {
				t.Errorf("seed %d: the steps of a takeover are out of order: %+v", seed, o)
			}
		}
		checkSpans(t, seed, line)
		for _, m := range line.Marks {
			if m.Kind == Fenced {
				fenced++
			}
		}
	}
	if total == 0 || complete == 0 || fenced == 0 {
		t.Errorf("%d takeovers, %d of them complete, %d fenced publishes: the seeds show too little", total, complete, fenced)
	}
}

// checkSpans wants one owner at a time for each log, with rising epochs. Clocks of
// the simulator's cores differ by 200 ppm, so that later owners may seem to come
// earlier by that.
func checkSpans(t *testing.T, seed uint64, line *Timeline) {
	t.Helper()
	last := map[protocol.Core]Span{}
	for _, s := range line.Spans {
		before, ok := last[s.Log]
		switch {
		case s.ToNs < s.FromNs:
			t.Errorf("seed %d: %+v ends before it begins", seed, s)
		case ok && s.Active && before.Active && s.Epoch <= before.Epoch, ok && s.Epoch < before.Epoch:
			t.Errorf("seed %d: log %d has %+v after %+v", seed, s.Log, s, before)
		}
		last[s.Log] = s
	}
}

// Without faults nothing changes hands, and the page says so.
func TestNothingHappens(t *testing.T) {
	data, _ := trace(t, 1, 0)
	line, err := Read(bytes.NewReader(data))
	if err != nil || len(line.Takeovers) != 0 {
		t.Fatalf("%d takeovers, %v", len(line.Takeovers), err)
	}
	var out bytes.Buffer
	if err := WriteHTML(&out, line); err != nil || !strings.Contains(out.String(), "No log changed hands") {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestPageStandsAlone(t *testing.T) {
	data, changes := trace(t, 3, sim.AllFaults)
	line, err := Read(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := WriteHTML(&out, line); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, bad := range []string{"http:", "https:", "src=", "<script", "NaN"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if n := strings.Count(text, "<figure>"); n != 1+min(changes, maxPictures) {
		t.Errorf("%d pictures for %d takeovers", n, changes)
	}
	if n := strings.Count(text, "<tr>"); n != 1+changes {
		t.Errorf("%d rows for %d takeovers", n-1, changes)
	}
}

func TestReadRefusesWhatTheProtocolWouldNotDo(t *testing.T) {
	data, _ := trace(t, 3, sim.AllFaults)
	lines := bytes.SplitAfter(data, []byte("\n"))
	for i, line := range lines {
		if bytes.Contains(line, []byte(`"Kind":5`)) {
			_, err := Read(bytes.NewReader(bytes.Join(append(lines[:i:i], lines[i+1:]...), nil)))
			if !errors.Is(err, protocol.ErrDiverged) {
				t.Errorf("without a submission: %v", err)
			}
			break
		}
	}
	for name, trace := range map[string]io.Reader{"nothing": strings.NewReader(""), "no JSON": strings.NewReader("x\n")} {
		if _, err := Read(trace); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
