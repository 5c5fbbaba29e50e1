package runq

import (
	"fmt"
	"slices"
	"testing"

	"github.com/coreplica/coreplica/numa"
)

// machine is a topology with the given shape, numbered as Linux does: first
// threads before second ones.
func machine(nodes, coresPerNode, coresPerL3, threads int) *numa.Topology {
	top := &numa.Topology{}
	cores := nodes * coresPerNode
	caches := map[int]numa.List{}
	for id := range cores * threads {
		core := id % cores
		var siblings numa.List
		for thread := range threads {
			siblings = append(siblings, thread*cores+core)
		}
		top.CPUs = append(top.CPUs, numa.CPU{ID: id, Node: core / coresPerNode, Core: core, Siblings: siblings})
		if coresPerL3 > 0 {
			caches[core/coresPerL3] = append(caches[core/coresPerL3], id)
		}
		top.Limits.CPUs = append(top.Limits.CPUs, id)
	}
	for i := range len(caches) {
		top.Caches = append(top.Caches, numa.Cache{Level: 3, Kind: "Unified", CPUs: caches[i]})
	}
	return top
}

// repeats counts neighbours around the ring that have a key in common.
func repeats(seats []seat, key func(seat) string) (n int) {
	for i, s := range seats {
		if len(seats) > 1 && key(s) == key(seats[(i+1)%len(seats)]) {
			n++
		}
	}
	return n
}

func cpusOf(seats []seat) (cpus []int) {
	for _, s := range seats {
		cpus = append(cpus, s.cpu)
	}
	return cpus
}

// Neighbours lie on other nodes where that is possible, else behind other caches,
// else on other cores. The control numbers workers as the kernel numbers CPUs.
func TestNeighboursLieFarApart(t *testing.T) {
	node, cache, core := levels[0], levels[1], levels[2]
	for _, c := range []struct {
		name             string
		top              *numa.Topology
		workers          int
		node, cache, cpu int // How many neighbours have it in common.
		order            string
	}{
		{"two nodes, as the guest", machine(2, 2, 0, 1), 4, 0, 4, 0, "[0 2 1 3]"},
		{"two sockets with SMT", machine(2, 4, 4, 2), 16, 0, 0, 0, "[0 4 1 5 2 6 3 7 8 12 9 13 10 14 11 15]"},
		{"four sockets", machine(4, 2, 2, 1), 8, 0, 0, 0, "[0 2 4 6 1 3 5 7]"},
		{"NPS4, two caches a node", machine(4, 4, 2, 1), 16, 0, 0, 0, "[0 4 8 12 2 6 10 14 1 5 9 13 3 7 11 15]"},
		{"one node, two caches", machine(1, 4, 2, 1), 4, 4, 0, 0, "[0 2 1 3]"},
		{"one node with SMT", machine(1, 4, 4, 2), 8, 8, 8, 0, "[0 1 2 3 4 5 6 7]"},
		{"no topology", &numa.Topology{Limits: numa.Limits{CPUs: numa.List{0, 1, 2}}}, 3, 3, 3, 0, "[0 1 2]"},
		{"one core, two threads", machine(1, 1, 1, 2), 2, 2, 2, 2, "[0 1]"},
		{"fewer workers than CPUs", machine(2, 4, 4, 1), 2, 0, 0, 0, "[0 4]"},
		{"more workers than CPUs", machine(2, 1, 1, 1), 4, 0, 0, 0, "[0 1 0 1]"},
		{"an odd number", machine(2, 2, 2, 1), 3, 1, 1, 0, "[0 2 1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			seats, domains := arrange(c.top, c.top.Limits.CPUs, c.workers)
			if got := fmt.Sprint(cpusOf(seats)); got != c.order {
				t.Errorf("order %s, want %s", got, c.order)
			}
			if a, b, d := repeats(seats, node), repeats(seats, cache), repeats(seats, core); a != c.node || b != c.cache || d != c.cpu {
				t.Errorf("%d, %d and %d neighbours have node, cache and core in common, want %d, %d and %d", a, b, d, c.node, c.cache, c.cpu)
			}
			for i, s := range seats {
				for k, other := range seats {
					if (domains[i] == domains[k]) != (s.core == other.core) {
						t.Errorf("workers %d and %d: domains %v", i, k, domains)
					}
				}
			}
		})
	}
	var naive []seat
	top := machine(2, 2, 2, 1)
	for _, cpu := range top.Limits.CPUs {
		naive = append(naive, sit(top, cpu))
	}
	if repeats(naive, node) == 0 {
		t.Error("control: with the kernel's numbers no neighbours share a node")
	}
}

// fewest tries all orders.
func fewest(left []int, first, last, drawn int) int {
	best, some := 1<<30, false
	for g := range left {
		if left[g] == 0 {
			continue
		}
		some = true
		left[g]--
		f, cost := first, 0
		if drawn == 0 {
			f = g
		} else if last == g {
			cost = 1
		}
		best = min(best, cost+fewest(left, f, g, drawn+1))
		left[g]++
	}
	if some {
		return best
	}
	if drawn > 1 && first == last {
		return 1
	}
	return 0
}

// Of all orders, the one that deal finds repeats least.
func TestDealRepeatsLeast(t *testing.T) {
	for a := range 6 {
		for b := range 5 {
			for c := range 4 {
				for d := range 3 {
					sizes := []int{a, b, c, d}
					turns := deal(sizes)
					count, repeated := make([]int, len(sizes)), 0
					for i, g := range turns {
						count[g]++
						if len(turns) > 1 && g == turns[(i+1)%len(turns)] {
							repeated++
						}
					}
					if want := fewest(slices.Clone(sizes), -1, -1, 0); repeated != want || !slices.Equal(count, sizes) {
						t.Fatalf("groups of %v: %v repeats %d times, want %d", sizes, turns, repeated, want)
					}
				}
			}
		}
	}
}
