package replicated

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/coreplica/coreplica/numa"
)

// outside puts tables of words outside of the heap, on any machine.
type outside struct{ Topology }

func (outside) site(int) site { return site{numa.LocalPolicy(), true} }

func newOutside(t testing.TB, nodes int) *Map[uint64, uint64] {
	t.Helper()
	m, err := NewMap[uint64, uint64](Options{Topology: outside{Simulated(nodes, nodes)}, LogSize: 256})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	if got := m.core.words[0].members.Load().home[0].data.site.off; got == raceEnabled {
		t.Fatalf("the table is outside of the heap: %v", got)
	}
	return m
}

// Tables outside of the heap grow, shrink, are cloned, restored and cleared as
// others are.
func TestWordsOutsideTheHeap(t *testing.T) {
	const keys = 20_000
	m := newOutside(t, 2)
	check := func(what string, want uint64) {
		t.Helper()
		for node := range 2 {
			for k := range uint64(keys) {
				if v, ok := m.On(node).Load(k); ok != (k < want) || ok && v != k*3 {
					t.Fatalf("%s: key %d on node %d is %d, %v", what, k, node, v, ok)
				}
			}
		}
		if err := m.Verify(t.Context()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for k := range uint64(keys) {
		m.On(int(k%2)).Store(k, k*3)
	}
	check("full", keys)
	for k := uint64(100); k < keys; k++ {
		m.Delete(k)
	}
	check("all but 100 deleted", 100)
	if err := m.RemoveReplica(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := m.AddReplica(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	check("rebuilt", 100)
	if r := m.core.words[0].members.Load().home[1].data; r.site.off == raceEnabled || len(r.cells.Load().cells) < r.site.leastCells() {
		t.Errorf("the clone is outside of the heap: %v, with %d cells", r.site.off, len(r.cells.Load().cells))
	}
	m.Clear()
	check("cleared", 0)
	c, err := NewCounter(Options{Topology: outside{Simulated(2, 2)}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Add(7)
	if a, b := c.On(0).Load(), c.On(1).Load(); a != 7 || b != 7 {
		t.Errorf("the counter is %d and %d", a, b)
	}
}

// A table that nobody can reach is given back to the kernel, and one that a reader
// still reads is not: that would end the program. Tables grow and shrink beside
// readers while the collector runs as often as it can.
func TestWordsOutsideTheHeapAreGivenBack(t *testing.T) {
	if raceEnabled {
		return // There, tables are on the heap.
	}
	m := newOutside(t, 1)
	for k := range uint64(100_000) {
		m.Store(k, k)
	}
	table := m.core.words[0].members.Load().home[0].data
	cells := table.cells.Load().cells
	at, bytes := unsafe.Pointer(&cells[0]), uintptr(len(cells))*unsafe.Sizeof(cells[0])
	present := func() int {
		p, err := numa.PlacementOf(at, bytes)
		if err != nil {
			t.Fatal(err)
		}
		return p.Present()
	}
	runtime.GC()
	if present() == 0 {
		t.Fatal("a table in use is nowhere")
	}
	m.Clear()
	eventually(t, "the table is given back", func() bool { runtime.GC(); return present() == 0 })

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				for k := range uint64(512) {
					m.Load(k)
				}
				m.Range(func(uint64, uint64) bool { return true })
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			runtime.GC()
		}
	})
	for ctx.Err() == nil {
		for k := range uint64(2000) {
			m.Store(k, k)
		}
		m.Clear()
	}
	wg.Wait()
}

// The kernel is asked where replicas lie, of each kind of structure.
func TestPlacementFindsReplicas(t *testing.T) {
	words := newOutside(t, 2)
	boxes, err := NewMap[string, string](Options{Topology: Simulated(2, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer boxes.Close()
	for k := range uint64(2000) {
		words.Store(k, k)
		boxes.Store(string(rune('a'+k%26)), "value")
	}
	for name, find := range map[string]func(context.Context) ([]numa.Landed, error){"words": words.Placement, "boxes": boxes.Placement} {
		landed, err := find(t.Context())
		if err != nil || len(landed) != 2 {
			t.Fatalf("%s: %v, %v", name, landed, err)
		}
		for _, l := range landed {
			if l.Placement.Present() == 0 || l.Objects == 0 || l.Node != numa.Unknown {
				t.Errorf("%s: %s", name, l)
			}
		}
	}
	if err := words.RemoveReplica(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if landed, err := words.Placement(t.Context()); err != nil || len(landed) != 1 {
		t.Errorf("of one replica: %v, %v", landed, err)
	}
	// What was looked at is free again.
	words.Store(1, 2)
	if got := words.core.words[0].Replicas(); !slices.Equal(got, []int{1}) {
		t.Errorf("replicas on %v", got)
	}
}
