package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/numa"
	"github.com/coreplica/coreplica/numa/replicated"
)

func TestModel(t *testing.T) {
	rw, _ := MovesOf("rwmutex")
	two, _ := MovesOf("replicated2")
	for _, tt := range []struct {
		name    string
		moves   Moves
		percent int
		lLocal  float64
		want    Bracket
	}{
		{"a reader of a lock fetches it twice", rw, 0, 0, Bracket{10, 10 + 2*100, 2 * 100}},
		{"what was measured on one socket holds its latency", rw, 0, 40, Bracket{10, 10 + 2*60, 2 * 100}},
		{"a remote line is never nearer", rw, 0, 150, Bracket{10, 10, 2 * 100}},
		{"a writer waits for the other", rw, 100, 0, Bracket{10, 2 * (10 + 5*100), 2 * 100}},
		{"half and half", rw, 50, 0, Bracket{10, 2 * (10 + 3.5*100), 2 * 100}},
		{"a reader of replicas fetches nothing", two, 0, 0, Bracket{10, 10, 0}},
	} {
		if got := Model(10, tt.moves, tt.percent, tt.lLocal, 100); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	if _, ok := MovesOf("syncmap"); ok {
		t.Error("the model covers what nobody counted")
	}
	for _, m := range Machines() {
		if m.LocalNs <= 0 || m.RemoteNs <= m.LocalNs || m.Source == "" {
			t.Errorf("%+v", m)
		}
	}
}

// What the model takes for a write to two replicas is no less than what the directory
// counts when the nodes take turns, each reading after the other's write, and no more
// than twice that.
func TestTheModelsWritesAreCounted(t *testing.T) {
	s := Structures()[0]
	x, err := replicated.New(func() sequential { return sequential{s.New(1000)} },
		replicated.Options{Topology: replicated.Simulated(2, 2), CountTransfers: true})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	handles := []*replicated.Handle[sequential, put, uint64]{x.HandleOn(0), x.HandleOn(1)}
	const writes = 1000
	for i := range uint64(writes) {
		h := handles[i%2]
		if _, err := h.Write(t.Context(), put{i % 100, i}); err != nil {
			t.Fatal(err)
		}
		for _, h := range handles {
			if err := h.Read(func(s sequential) { s.store.Get(1) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	stats := x.Stats()
	got := float64(stats.Transfers+stats.Upgrades) / writes
	t.Logf("%.2f lines a write, %d transfers and %d upgrades in %d writes", got, stats.Transfers, stats.Upgrades, writes)
	if got > replicatedWriteMoves || got < replicatedWriteMoves/2 {
		t.Errorf("%.2f lines a write, the model takes %d", got, replicatedWriteMoves)
	}
}

// twoCPUs returns two CPUs that this process may use.
func twoCPUs(t *testing.T) (a, b int) {
	t.Helper()
	testkit.Need(t, testkit.TwoCPUs)
	local, err := numa.Local()
	if err != nil {
		t.Fatal(err)
	}
	return local.Limits.CPUs[0], local.Limits.CPUs[1]
}

func TestLineLatency(t *testing.T) {
	a, b := twoCPUs(t)
	if _, err := LineLatency(t.Context(), a, a); !errors.Is(err, ErrOneCPU) {
		t.Errorf("between a CPU and itself: %v", err)
	}
	if runtime.GOMAXPROCS(0) < 2 {
		return
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := LineLatency(ended, a, b); !errors.Is(err, context.Canceled) {
		t.Errorf("of a context that has ended: %v", err)
	}
	// No line travels in less than a nanosecond. Where the race detector watches
	// each access, a trip takes a microsecond; a millisecond is a thread's sleep.
	testkit.Quiet(t, 5, func() string {
		ns, err := LineLatency(t.Context(), a, b)
		if err != nil {
			return err.Error()
		}
		t.Logf("%.1f ns", ns)
		if ns < 1 || ns > 100_000 {
			return fmt.Sprintf("a line takes %.1f ns", ns)
		}
		return ""
	})
}

// With this machine's own latency, the model must contain what two threads really
// took for reads under an RWMutex. With a latency near nothing it must not, or the
// bracket would hold anything. A latency that is too large only widens it: the model
// is a bound, and no prediction.
func TestTheModelHoldsThisMachine(t *testing.T) {
	a, b := twoCPUs(t)
	testkit.Need(t, testkit.Timing)
	if runtime.GOMAXPROCS(0) < 2 {
		return
	}
	contenders := slices.DeleteFunc(Implementations(), func(im Implementation) bool { return im.Name != "rwmutex" })
	measure := func(workers int) float64 {
		results, err := Compare(Structures()[0], contenders, Case{Keys: 1000, Workers: workers},
			Plan{Base: "rwmutex", Blocks: 40, Length: 3 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		return results[0].BestNs * float64(workers) // of one thread
	}
	moves, _ := MovesOf("rwmutex")
	testkit.Quiet(t, 10, func() string {
		line, err := LineLatency(t.Context(), a, b)
		if err != nil {
			return err.Error()
		}
		one, two := measure(1), measure(2)
		right, wrong := Model(one, moves, 0, 0, line), Model(one, moves, 0, 0, line/100)
		t.Logf("a line takes %.1f ns, a read %.1f ns alone and %.1f beside another; modelled [%.1f, %.1f]", line, one, two, right.LowNs, right.HighNs)
		switch {
		case !right.Contains(two):
			return fmt.Sprintf("%.1f ns are outside of [%.1f, %.1f]", two, right.LowNs, right.HighNs)
		case wrong.Contains(two):
			return fmt.Sprintf("%.1f ns are in [%.1f, %.1f] too, with a hundredth of the latency: the test is blind", two, wrong.LowNs, wrong.HighNs)
		}
		return ""
	})
}

// Modelled rows say that they are.
func TestModelRun(t *testing.T) {
	c := Choice{Structures: []string{"hashmap"}, Keys: []int{1000}, WritePercents: []int{0, 10}, Dists: []string{"uniform"}}
	rows, err := ModelRun(c, Structures(), Plan{Blocks: 2, Length: time.Millisecond}, Machines())
	if err != nil {
		t.Fatal(err)
	}
	if want := len(Machines()) * 2 * 4; len(rows) != want {
		t.Fatalf("%d rows, want %d", len(rows), want)
	}
	for _, r := range rows {
		if r.Tag != "modelled" || r.Schema != ModelSchema || r.Source == "" || r.LowNs <= 0 || r.HighNs < r.LowNs {
			t.Errorf("%+v", r)
		}
		if r.Impl == "replicated2" && r.WritePercent == 0 && r.HighNs != r.LowNs {
			t.Errorf("reads of replicas move lines: %+v", r)
		}
	}
	var table, text bytes.Buffer
	if err := errors.Join(WriteModel(&table, rows, "table"), WriteModel(&text, rows, "json")); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(table.String()) {
		if !strings.HasPrefix(line, "modelled") && !strings.HasPrefix(line, "by one thread") {
			t.Errorf("a line that does not say what it is: %s", line)
		}
	}
	var first Modelled
	if err := json.NewDecoder(&text).Decode(&first); err != nil || first != rows[0] {
		t.Errorf("read back %+v, %v", first, err)
	}
	if _, err := ModelRun(Choice{Structures: []string{"rope"}}, Structures(), Plan{}, Machines()); !errors.Is(err, ErrChoice) {
		t.Errorf("of no structure: %v", err)
	}
}
