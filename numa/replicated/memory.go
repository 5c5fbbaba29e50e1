package replicated

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"github.com/coreplica/coreplica/numa"
)

// site says where the memory of a replica that is made of words comes from: Go's
// heap, which is the zero value, or memory outside of it under a policy.
//
// The heap cannot keep a table on its node: it grows on whichever thread applies
// the log, which may be one of another node that helps, and in spans that others
// touched before. Words need no collector, so they need not be on the heap.
type site struct {
	policy numa.Policy
	off    bool
}

// siteOf returns the site of a node, which is the heap for simulated nodes, for a
// machine with one node, and for -1. Under the race detector, which does not see
// other memory, it is the heap too.
func siteOf(t Topology, node int) site {
	s, ok := t.(interface{ site(node int) site })
	if !ok || node < 0 || raceEnabled {
		return site{}
	}
	return s.site(node)
}

func (m machine) site(node int) site {
	if len(m.ids) < 2 {
		return site{}
	}
	near := m.t.NearestMemory(m.ids[node])
	if near == numa.Unknown {
		return site{}
	}
	// Not Bind: a full node must cost nearness and not the program.
	return site{numa.Prefer(near), true}
}

// hugeFrom is the size from which a table asks for huge pages: one of them.
const hugeFrom = 2 << 20

// wordsAt returns n zeroed values, and what keeps them if they are not on the heap:
// whoever uses them must keep the keeper reachable, since what is not reachable is
// given back to the kernel. A kernel that has no such memory costs nearness alone:
// the heap serves then.
func wordsAt[T, K any](s site, n int, keeper *K) []T {
	if s.off {
		o := numa.AllocOptions{Policy: s.policy}
		if uintptr(n)*unsafe.Sizeof(*new(T)) >= hugeFrom {
			o.Huge = numa.HugeTransparent
		}
		if b, err := numa.Alloc[T](n, o); err == nil {
			runtime.AddCleanup(keeper, func(b *numa.Block[T]) { _ = b.Close() }, b)
			clear(b.Slice()[:1]) // A page that was never written is nowhere.
			return b.Slice()
		}
	}
	return make([]T, n)
}

// leastCells is the smallest number of cells of a table. Outside of the heap less
// than a page cannot be had.
func (s site) leastCells() int {
	if s.off {
		return os.Getpagesize() / int(unsafe.Sizeof(wordCell{}))
	}
	return minCells
}

// placed is a structure that knows better than [numa.WhereIs] where it lies.
type placed interface {
	placement() (numa.Placement, error)
}

func (t *wordTable) placement() (numa.Placement, error) {
	c := t.cells.Load()
	p, err := numa.SlicePlacement(c.cells)
	runtime.KeepAlive(c)
	return p, err
}

func (c *countCell) placement() (numa.Placement, error) {
	p, err := numa.PlacementOf(unsafe.Pointer(c.n), unsafe.Sizeof(*c.n))
	runtime.KeepAlive(c)
	return p, err
}

// Placement asks the kernel on which nodes the pages of each replica are, by node.
// Tables of words are found as a whole. Of other structures it follows what
// [numa.WhereIs] can follow, which leaves out the inside of Go's maps. The nodes
// are the machine's own numbers, or [numa.Unknown] where the topology is not that
// of a [Machine].
//
// A replica is brought up to date first and stands still while it is looked at, so
// this is for finding out and not for routine: writers on its node wait.
func (x *Replicated[S, Op, Res]) Placement(ctx context.Context) ([]numa.Landed, error) {
	var all []numa.Landed
	for _, node := range x.Replicas() {
		landed, err := x.placementOn(ctx, node)
		if err != nil {
			return nil, fmt.Errorf("find the replica of node %d: %w", node, err)
		}
		all = append(all, landed...)
	}
	return all, nil
}

// placementOn returns where a node's replica lies, or nothing if it went.
func (x *Replicated[S, Op, Res]) placementOn(ctx context.Context, node int) ([]numa.Landed, error) {
	id := numa.Unknown
	if m, ok := x.topo.(machine); ok {
		id = m.ids[node]
	}
	for {
		attached := x.members.Load().attached
		i := slices.IndexFunc(attached, func(r *replica[S, Op, Res]) bool { return r.node == node })
		if i < 0 {
			return nil, nil
		}
		r := attached[i]
		// What it has not applied yet lies nowhere.
		var w waiter
		if need := x.log.completed.Load(); r.applied.Load() < need {
			if err := x.catchUp(x.here(), r, need, &w); err != nil {
				return nil, err
			}
			continue
		}
		held, err := x.borrow(ctx, r)
		if err != nil {
			return nil, err
		}
		if !held {
			continue
		}
		defer x.giveBack(r)
		landed := numa.Landed{Node: id}
		if p, ok := any(r.data).(placed); ok {
			landed.Objects = 1
			landed.Placement, err = p.placement()
		} else {
			landed, err = numa.WhereIs(r.data, id)
		}
		return []numa.Landed{landed}, err
	}
}

// Placement is [Replicated.Placement], of each shard after the other.
func (m *Map[K, V]) Placement(ctx context.Context) ([]numa.Landed, error) {
	var all []numa.Landed
	err := m.core.change(func(x admin) error {
		landed, err := x.Placement(ctx)
		all = append(all, landed...)
		return err
	})
	return all, err
}

// Placement is [Map.Placement].
func (s *Set[K]) Placement(ctx context.Context) ([]numa.Landed, error) { return s.m.Placement(ctx) }

// Placement is [Replicated.Placement].
func (c *Counter) Placement(ctx context.Context) ([]numa.Landed, error) { return c.x.Placement(ctx) }
