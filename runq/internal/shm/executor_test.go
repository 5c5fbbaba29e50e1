package shm

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/numa"
	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/protocol"
)

var geometry = protocol.Geometry{Cores: 3, Slots: 64, Cells: 32}

func config() protocol.Config {
	return protocol.Config{
		Geometry: geometry, Run: 9, K: 2,
		Lease: clock.Lease{Length: time.Second, Epsilon: time.Millisecond}, Retry: time.Millisecond, KillDeadline: time.Second,
	}
}

// heard keeps what a program wants of the world outside.
type heard struct{ effects []protocol.Effect }

func (h *heard) Do(e *protocol.Effect) {
	h.effects = append(h.effects, protocol.CloneEffects([]protocol.Effect{*e})...)
}

// newExecutor returns the executor of core 0 in its first life.
func newExecutor(t *testing.T, m *Memory) (*Executor, *heard) {
	t.Helper()
	n, err := protocol.NewNode(config(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var h heard
	x := NewExecutor(m, n, &h)
	var ev protocol.Event
	if !x.Perform(n.Step(&protocol.Event{Kind: protocol.EventStart}, nil), &ev) || ev.Word == 0 {
		t.Fatal("no incarnation is drawn")
	}
	n.Step(&ev, nil)
	return x, &h
}

func heap(t *testing.T) *Memory {
	t.Helper()
	m, err := NewHeap(geometry)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func shared(t *testing.T) *Memory {
	t.Helper()
	m, err := NewShared(geometry, "shm-test", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

var region = protocol.RegionID{Log: 1, Host: 2, Epoch: 5}

// perform performs one effect and returns what is to be fed to the node.
func perform(x *Executor, e protocol.Effect) (ev protocol.Event) {
	x.Perform([]protocol.Effect{e}, &ev)
	return ev
}

func open(x *Executor, id protocol.RegionID) bool {
	e := protocol.Effect{Kind: protocol.EffectOpen, Log: id.Log, Region: id, New: protocol.DirectoryWord{Epoch: id.Epoch, Incarnation: 1}.Pack()}
	return perform(x, e).Kind == 0
}

func publish(x *Executor, id protocol.RegionID, from, to uint64) protocol.Event {
	return perform(x, protocol.Effect{
		Kind: protocol.EffectPublish, Log: id.Log, Region: id,
		Old: protocol.CommitWord{Epoch: id.Epoch, Tail: from}.Pack(), New: protocol.CommitWord{Epoch: id.Epoch, Tail: to}.Pack(),
	})
}

func TestPublishAndSeal(t *testing.T) {
	x, _ := newExecutor(t, heap(t))
	if ev := publish(x, region, 0, 1); ev.Kind != protocol.EventAborted || ev.Word != 0 {
		t.Errorf("publish to a region that is not there: %+v", ev)
	}
	if !open(x, region) {
		t.Fatal("no area is free")
	}
	if ev := publish(x, region, 0, 3); ev.Kind != 0 {
		t.Errorf("publish: %+v", ev)
	}
	if ev := publish(x, region, 0, 4); ev.Kind != protocol.EventAborted || protocol.UnpackCommit(ev.Word).Tail != 3 {
		t.Errorf("publish from where the tail is not: %+v", ev)
	}
	for range 2 {
		ev := perform(x, protocol.Effect{Kind: protocol.EffectSeal, Log: 1, Region: region})
		if w := protocol.UnpackCommit(ev.Word); !ev.OK || !w.Sealed || w.Tail != 3 {
			t.Errorf("seal: %+v", ev)
		}
	}
	if ev := publish(x, region, 3, 4); ev.Kind != protocol.EventAborted || !protocol.UnpackCommit(ev.Word).Sealed {
		t.Errorf("publish behind a seal: %+v", ev)
	}
	other := region
	other.Epoch++
	if ev := perform(x, protocol.Effect{Kind: protocol.EffectSeal, Log: 1, Region: other}); ev.OK {
		t.Error("a region of another epoch is sealed")
	}
}

// An abort hands the program back from the effect that failed on, and what comes
// before it was performed.
func TestAbortHandsTheRestBack(t *testing.T) {
	x, h := newExecutor(t, heap(t))
	program := []protocol.Effect{
		{Kind: protocol.EffectHeartbeat, New: 77},
		{Kind: protocol.EffectPublish, Log: 1, Region: region, New: 1},
		{Kind: protocol.EffectAnswer, Log: 1},
	}
	var ev protocol.Event
	if !x.Perform(program, &ev) || ev.Kind != protocol.EventAborted || len(ev.Rest) != 2 || ev.Rest[0].Kind != protocol.EffectPublish {
		t.Errorf("%+v", ev)
	}
	if len(h.effects) != 0 || x.m.Heartbeat(0).Pack() != 77 {
		t.Error("what comes before a failure is not done, or what comes after is")
	}
}

// A trial can stop a process between any two effects.
func TestBeforeComesBeforeEachEffect(t *testing.T) {
	x, h := newExecutor(t, heap(t))
	var kinds []protocol.EffectKind
	x.Before = func(e *protocol.Effect) {
		kinds = append(kinds, e.Kind)
		if e.Kind == protocol.EffectAnswer && len(h.effects) > 0 {
			t.Error("the effect was performed before")
		}
	}
	program := []protocol.Effect{{Kind: protocol.EffectHeartbeat}, {Kind: protocol.EffectAnswer}, {Kind: protocol.EffectDraw, Log: 2}}
	var ev protocol.Event
	if !x.Perform(program, &ev) || ev.Kind != protocol.EventResult || ev.Word != 1 {
		t.Errorf("draw: %+v", ev)
	}
	if !slices.Equal(kinds, []protocol.EffectKind{protocol.EffectHeartbeat, protocol.EffectAnswer, protocol.EffectDraw}) {
		t.Errorf("seen %v", kinds)
	}
}

func TestStoresAndReads(t *testing.T) {
	x, _ := newExecutor(t, heap(t))
	open(x, region)
	words := make([]uint64, 2*protocol.RecordWords)
	for i := range words {
		words[i] = uint64(i) + 1
	}
	payload := []byte("a payload that is longer than one cell, so that it takes two of them in the arena")
	perform(x, protocol.Effect{Kind: protocol.EffectStoreSlots, Log: 1, Region: region, Seq: 64 + 62, Words: words})
	perform(x, protocol.Effect{Kind: protocol.EffectStoreCells, Log: 1, Region: region, Seq: 30, Data: payload})
	publish(x, region, 0, 128)
	ev := perform(x, protocol.Effect{Kind: protocol.EffectRead, Log: 1, Region: region})
	if !ev.OK || !slices.Equal(ev.Slots[62*protocol.RecordWords:], words) || !bytes.HasPrefix(ev.Arena[30*protocol.CellBytes:], payload) ||
		protocol.UnpackCommit(ev.Word).Tail != 128 {
		t.Error("what was stored is not what is read")
	}
	if uint64(len(ev.Slots)) != geometry.Slots*protocol.RecordWords || len(ev.Arena) != int(geometry.Cells)*protocol.CellBytes {
		t.Errorf("%d words and %d bytes are read", len(ev.Slots), len(ev.Arena))
	}
	ref := protocol.Ref{Cell: 30, Bytes: uint32(len(payload)), CRC: protocol.PayloadCRC(payload)}
	e := &protocol.Effect{Log: 1, Epoch: 5, Members: []protocol.Core{0, 2}, Ref: ref}
	got, ok := x.Payload([]byte("x"), e)
	if !ok || string(got) != "x"+string(payload) {
		t.Errorf("payload %q, %v", got, ok)
	}
	e.Ref.CRC++
	if _, ok := x.Payload(nil, e); ok {
		t.Error("a payload with another checksum is valid")
	}
	// What a damaged record may say must not lead outside.
	for _, ref := range []protocol.Ref{{Cell: 32, Bytes: 1}, {Cell: 1<<32 - 1, Bytes: 1<<32 - 1}, {Cell: 31, Bytes: 65}} {
		e.Ref = ref
		if _, ok := x.Payload(nil, e); ok {
			t.Errorf("%+v is valid", ref)
		}
	}
	perform(x, protocol.Effect{Kind: protocol.EffectStoreCells, Log: 1, Region: region, Seq: 31, Data: make([]byte, 65)})
	perform(x, protocol.Effect{Kind: protocol.EffectStoreCells, Log: 1, Region: region, Seq: 1 << 40, Data: []byte{1}})
	perform(x, protocol.Effect{Kind: protocol.EffectStoreSlots, Log: 1, Region: region, Seq: 63, Words: words})
}

func TestAreasAreTakenAndFreed(t *testing.T) {
	m := heap(t)
	x, _ := newExecutor(t, m)
	at := func(epoch uint32) protocol.RegionID { return protocol.RegionID{Log: 1, Host: 2, Epoch: epoch} }
	for epoch := range uint32(protocol.SpareAreas) {
		writer := protocol.DirectoryWord{Writer: 1, Epoch: epoch + 1, Incarnation: 3}
		if ev := perform(x, protocol.Effect{Kind: protocol.EffectOpen, Region: at(epoch + 1), New: writer.Pack()}); ev.Kind != 0 {
			t.Fatalf("area %d: %+v", epoch, ev)
		}
	}
	if open(x, at(9)) {
		t.Fatal("there are more areas than there should be")
	}
	free := protocol.Effect{Kind: protocol.EffectFreeBelow, Log: 1, Epoch: 4, Old: 2}
	count := func() int { ids, _ := m.Regions(1); return len(ids) }
	perform(x, free)
	if count() != protocol.SpareAreas {
		t.Error("regions are freed whose writer may write")
	}
	x.Exited(1, 2)
	perform(x, free)
	if count() != protocol.SpareAreas {
		t.Error("the death of an earlier life frees regions")
	}
	x.Exited(1, 3)
	perform(x, free)
	ids, _ := m.Regions(1)
	if !slices.Equal(ids, []protocol.RegionID{at(2), at(4)}) {
		t.Errorf("left %v, want the epoch to keep and the one that is not below", ids)
	}
	if !open(x, at(9)) {
		t.Error("what was freed cannot be taken")
	}
	// A birth proves the death of the life before.
	perform(x, protocol.Effect{Kind: protocol.EffectHeartbeat, Core: 1, New: protocol.HeartbeatWord{Incarnation: 4}.Pack()})
	perform(x, protocol.Effect{Kind: protocol.EffectFreeBelow, Log: 1, Epoch: 9})
	if ids, _ := m.Regions(1); len(ids) != 1 {
		t.Errorf("left %v", ids)
	}
}

func TestArbiter(t *testing.T) {
	x, _ := newExecutor(t, heap(t))
	swap := func(old, next uint64) protocol.Event {
		return perform(x, protocol.Effect{Kind: protocol.EffectArbiter, Log: 2, Old: old, New: next})
	}
	if ev := swap(0, 5); !ev.OK || ev.Word != 5 {
		t.Errorf("%+v", ev)
	}
	if ev := swap(0, 6); ev.OK || ev.Word != 5 {
		t.Errorf("%+v", ev)
	}
}

// Two mappings of the same files are one memory.
func TestAttachedMemoryIsTheSame(t *testing.T) {
	m := shared(t)
	x, _ := newExecutor(t, m)
	other, err := Attach(geometry, handed(t, m))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	open(x, region)
	payload := []byte("seen from both sides")
	perform(x, protocol.Effect{Kind: protocol.EffectStoreCells, Log: 1, Region: region, Data: payload})
	publish(x, region, 0, 1)
	y, _ := newExecutor(t, other)
	if y.node.Incarnation() != 2 {
		t.Errorf("the second life is %d", y.node.Incarnation())
	}
	if ev := perform(y, protocol.Effect{Kind: protocol.EffectSeal, Log: 1, Region: region}); !ev.OK {
		t.Error("the region is not seen there")
	}
	if ev := publish(x, region, 1, 2); ev.Kind != protocol.EventAborted {
		t.Error("the seal is not seen here")
	}
	if ev := perform(y, protocol.Effect{Kind: protocol.EffectRead, Log: 1, Region: region}); !bytes.HasPrefix(ev.Arena, payload) {
		t.Error("the payload is not seen there")
	}
	if p, err := other.Placement(0); err != nil || p.Absent > 0 {
		t.Errorf("placement %v, %v: pages that were attached are there", p, err)
	}
	if err := other.Punch(2); err != nil {
		t.Fatal(err)
	}
	if ev := perform(x, protocol.Effect{Kind: protocol.EffectRead, Log: 1, Region: region}); ev.OK {
		t.Error("a region is read whose memory was lost")
	}
	if err := m.Restore(2); err != nil {
		t.Error(err)
	}
}

func TestMemoryIsRefused(t *testing.T) {
	plain, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(geometry, []*os.File{plain}); !errors.Is(err, ErrShape) {
		t.Errorf("too few files are attached: %v", err)
	}
	m := shared(t)
	smaller := geometry
	smaller.Slots = 32
	if _, err := Attach(smaller, handed(t, m)); !errors.Is(err, ErrShape) {
		t.Errorf("memory of another shape is attached: %v", err)
	}
	if err := m.Files()[1].Truncate(4096); !errors.Is(err, unix.EPERM) {
		t.Errorf("the file can shrink: %v", err)
	}
	if _, err := NewShared(protocol.Geometry{}, "x", nil); !errors.Is(err, protocol.ErrConfig) {
		t.Errorf("memory of no shape: %v", err)
	}
	if _, err := NewShared(geometry, "x", []int{999, numa.Unknown, numa.Unknown}); err == nil {
		t.Error("memory lies on a node that is not there")
	}
	if err := m.Punch(9); err == nil {
		t.Error("a core that is not there is punched")
	}
}

// Whatever stands in memory, nobody who reads it falls over: all words are drawn,
// and then some of them are made almost right.
func TestGarbageIsSurvived(t *testing.T) {
	const seed = 41
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 200 {
		m := heap(t)
		for _, words := range append([][]uint64{m.control}, m.hosts...) {
			for i := range words {
				words[i] = rng.Uint64() >> rng.IntN(64)
			}
		}
		x, _ := newExecutor(t, m)
		x.node, _ = protocol.NewNode(config(), 0)
		for core := range protocol.Core(3) {
			m.control[geometry.IncarnationOffset(core)] = uint64(rng.IntN(5))
			m.control[geometry.HeartbeatOffset(core)] = protocol.HeartbeatWord{Incarnation: uint32(rng.IntN(5)), Counter: 1}.Pack()
			w := protocol.ArbiterWord{Phase: protocol.Phase(rng.IntN(4)), Epoch: 3, Owner: core, ActiveEpoch: uint32(rng.IntN(4)), ActiveOwner: core, Mask: uint8(rng.Uint32())}
			if round%2 == 0 {
				m.control[geometry.ArbiterOffset(core)] = w.Pack()
			}
			for area := range protocol.SpareAreas {
				words, directory := m.area(core, core, area)
				*directory = protocol.DirectoryWord{Writer: core, Epoch: uint32(area), Incarnation: 1}.Pack()
				words[0] = protocol.CommitWord{Epoch: uint32(area), Tail: rng.Uint64() >> 40}.Pack()
			}
		}
		live(t, x, seed, round)
	}
}

// live lets a node live in a memory for a while.
func live(t *testing.T, x *Executor, seed, round int) {
	defer func() {
		if p := recover(); p != nil {
			t.Fatalf("seed %d, round %d: %v", seed, round, p)
		}
	}()
	var control protocol.Control
	next := protocol.Event{Kind: protocol.EventStart}
	for step := range 60 {
		var program []protocol.Effect
		next.Now = clock.Instant(step) * clock.Instant(400*time.Millisecond)
		program = protocol.CloneEffects(x.node.Step(&next, nil))
		if !x.Perform(program, &next) || next.Kind == 0 {
			x.m.ReadControl(&control)
			next = protocol.Event{Kind: protocol.EventTick, Control: &control}
		}
	}
}

// Owners and takers meet at one word; the race detector watches in its own run.
func TestPublishersAndSealersMeet(t *testing.T) {
	m := heap(t)
	x, _ := newExecutor(t, m)
	open(x, region)
	y, _ := newExecutor(t, m)
	var wg sync.WaitGroup
	published := uint64(0)
	wg.Go(func() {
		words := make([]uint64, protocol.RecordWords)
		for n := range uint64(1_000_000) {
			words[0] = n
			perform(x, protocol.Effect{Kind: protocol.EffectStoreSlots, Log: 1, Region: region, Seq: n, Words: words})
			if publish(x, region, n, n+1).Kind != 0 {
				return
			}
			published = n + 1
		}
	})
	for m.commit(m.find(region), region.Epoch) < (protocol.CommitWord{Epoch: region.Epoch, Tail: 100}).Pack() {
		perform(y, protocol.Effect{Kind: protocol.EffectRead, Log: 1, Region: region})
	}
	ev := perform(y, protocol.Effect{Kind: protocol.EffectSeal, Log: 1, Region: region})
	wg.Wait()
	if tail := protocol.UnpackCommit(ev.Word).Tail; tail != published {
		t.Errorf("%d records were published, and the seal says %d", published, tail)
	}
}
