package replicated

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/coreplica/coreplica/internal/testkit"
)

// Replicas on real nodes, CPUs that go away, and cpusets are tried where nobody
// else is.
//
//coreplica:guest kernel=6.1,6.12 topology=2x2 expect=root,numa,twocpus,hotplug,cpuset run="TestOn|TestNode|TestMachine|TestWordsOutside" short=true
func TestMain(m *testing.M) {
	if group := os.Getenv(askEnv); group != "" {
		os.Exit(answer(group))
	}
	testkit.Main(m)
}

// kvOp adds to a key and returns what was there before. An addition is never
// idempotent, so an operation that runs twice, or not at all, shows.
type kvOp struct {
	key, delta uint64
	// panics says on which replicas the operation panics.
	panics func(built int) bool
}

// kv is the structure that the engine's tests replicate.
type kv struct {
	m map[uint64]uint64
	// built numbers the structures, clones too.
	built int
	// ops counts operations, so that readers can tell whether one is under way.
	ops int
}

var builtKVs atomic.Int64

func newKV() *kv { return &kv{m: map[uint64]uint64{}, built: int(builtKVs.Add(1))} }

func (s *kv) Apply(op kvOp) uint64 {
	old := s.m[op.key]
	s.ops++
	s.m[op.key] = old + op.delta/2 // Half changed, should the rest not come.
	if op.panics != nil && op.panics(s.built) {
		panic("as asked")
	}
	s.m[op.key] = old + op.delta
	return old
}

func (s *kv) Clone() *kv {
	return &kv{m: maps.Clone(s.m), built: int(builtKVs.Add(1)), ops: s.ops}
}

func (s *kv) Hash() (h uint64) {
	for k, v := range s.m {
		h += (k*0x9E3779B97F4A7C15 ^ v) * 0xBF58476D1CE4E5B9
	}
	return h
}

func (s *kv) Snapshot(w io.Writer) error { return json.NewEncoder(w).Encode(s.m) }
func (s *kv) Restore(r io.Reader) error  { return json.NewDecoder(r).Decode(&s.m) }

type kvRep = Replicated[*kv, kvOp, uint64]

// plainKV hides the ways of cloning.
type plainKV struct{ kv *kv }

func (s plainKV) Apply(op kvOp) uint64 { return s.kv.Apply(op) }

// newRep builds a structure for a test.
func newRep(t testing.TB, nodes int, opts Options) *kvRep {
	t.Helper()
	opts.Topology = Simulated(nodes, nodes)
	x, err := New(newKV, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func mustWrite(t testing.TB, h *Handle[*kv, kvOp, uint64], key, delta uint64) uint64 {
	t.Helper()
	old, err := h.Write(t.Context(), kvOp{key: key, delta: delta})
	if err != nil {
		t.Fatal(err)
	}
	return old
}

func mustRead(t testing.TB, h *Handle[*kv, kvOp, uint64], key uint64) (v uint64) {
	t.Helper()
	if err := h.Read(func(s *kv) { v = s.m[key] }); err != nil {
		t.Fatal(err)
	}
	return v
}

// kvInput is an operation as porcupine sees it: a read if delta is 0.
type kvInput struct{ key, delta uint64 }

// kvOutput is its result: the value before an addition, or the value read.
type kvOutput struct {
	value uint64
	// unknown marks an addition that may have happened, at any time, or not.
	unknown bool
}

// kvModel says which histories there are, for each key on its own. What may have
// happened returns at the end of time, so that it can be put after all others.
var kvModel = porcupine.Model{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[uint64][]porcupine.Operation{}
		for _, op := range ops {
			key := op.Input.(kvInput).key
			byKey[key] = append(byKey[key], op)
		}
		return slices.Collect(maps.Values(byKey))
	},
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		in, out, value := input.(kvInput), output.(kvOutput), state.(uint64)
		return out.unknown || out.value == value, value + in.delta
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(kvInput), output.(kvOutput)
		switch {
		case in.delta == 0:
			return fmt.Sprintf("[%d] = %d", in.key, out.value)
		case out.unknown:
			return fmt.Sprintf("[%d] += %d?", in.key, in.delta)
		}
		return fmt.Sprintf("[%d] += %d, was %d", in.key, in.delta, out.value)
	},
}

// history records operations for porcupine.
type history struct {
	mu  sync.Mutex
	ops []porcupine.Operation
	t0  time.Time
}

func newHistory() *history { return &history{t0: time.Now()} }

func (h *history) now() int64 { return int64(time.Since(h.t0)) }

func (h *history) add(client int, in kvInput, out kvOutput, call int64) {
	ret := h.now()
	h.mu.Lock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: ret})
	h.mu.Unlock()
}

// write writes through a handle and records what is known.
func (h *history) write(ctx context.Context, client int, via *Handle[*kv, kvOp, uint64], key, delta uint64) error {
	call := h.now()
	old, err := via.Write(ctx, kvOp{key: key, delta: delta})
	switch {
	case err == nil:
		h.add(client, kvInput{key, delta}, kvOutput{value: old}, call)
	case errors.Is(err, ErrUnknown):
		h.mu.Lock()
		h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: kvInput{key, delta}, Call: call,
			Output: kvOutput{unknown: true}, Return: math.MaxInt64})
		h.mu.Unlock()
	}
	return err
}

func (h *history) read(client int, via *Handle[*kv, kvOp, uint64], key uint64) error {
	call := h.now()
	var v uint64
	err := via.Read(func(s *kv) { v = s.m[key] })
	if err == nil {
		h.add(client, kvInput{key: key}, kvOutput{value: v}, call)
	}
	return err
}

// check judges the history, and draws it where it is not linearizable.
func (h *history) check(t testing.TB) {
	t.Helper()
	if h.linearizable(t) {
		return
	}
	_, info := porcupine.CheckOperationsVerbose(kvModel, h.ops, time.Minute)
	picture := filepath.Join(t.(*testing.T).ArtifactDir(), "history.html")
	f, err := os.Create(picture)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := porcupine.Visualize(kvModel, info, f); err != nil {
		t.Fatal(err)
	}
	t.Fatalf("the history is not linearizable, see %s", picture)
}

func (h *history) linearizable(t testing.TB) bool {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ops) == 0 {
		t.Fatal("nothing was recorded")
	}
	result := porcupine.CheckOperationsTimeout(kvModel, h.ops, time.Minute)
	if result == porcupine.Unknown {
		t.Fatalf("%d operations were too many to check", len(h.ops))
	}
	return result == porcupine.Ok
}
