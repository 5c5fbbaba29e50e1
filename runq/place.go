package runq

import (
	"fmt"

	"github.com/coreplica/coreplica/numa"
)

// seat is where a worker belongs. Cache and core tell those of a node apart; the
// core is the failure domain.
type seat struct {
	cpu, node   int
	cache, core string
}

// place deals workers out to CPUs in turn, and finds each one's node and failure
// domain: workers of one core share it, and so do those of one CPU.
func (o *Options) place() (seats []seat, domains []int) {
	top, err := numa.Local()
	if err != nil {
		top = &numa.Topology{} // Nothing is known, and the CPUs stand as they are.
	}
	return arrange(top, o.CPUs, o.Workers)
}

// arrange numbers workers so that neighbours in the ring lie far apart, since a
// log's copies lie with its neighbours: on different nodes where there are as
// many on others as on any one, else behind different caches, else on different
// cores. With fewer workers than CPUs, those are taken that are farthest apart.
func arrange(top *numa.Topology, cpus numa.List, workers int) (seats []seat, domains []int) {
	var all []seat
	for _, cpu := range cpus {
		all = append(all, sit(top, cpu))
	}
	all = spread(all, 0)
	for i := range workers {
		seats = append(seats, all[i%len(all)])
	}
	seats = spread(seats, 0)
	cores := map[string]int{}
	for _, s := range seats {
		if _, ok := cores[s.core]; !ok {
			cores[s.core] = len(cores)
		}
		domains = append(domains, cores[s.core])
	}
	return seats, domains
}

// sit describes a CPU. One that the topology does not have is a core by itself.
func sit(top *numa.Topology, cpu int) seat {
	s := seat{cpu: cpu, node: numa.Unknown, core: fmt.Sprint("cpu ", cpu)}
	c, ok := top.CPU(cpu)
	if !ok {
		return s
	}
	s.node, s.core = c.Node, c.Siblings.String()
	for _, cache := range top.CachesAt(3) {
		if cache.CPUs.Has(cpu) {
			s.cache = cache.CPUs.String()
		}
	}
	return s
}

// levels are what seats have in common, from what is farthest apart.
var levels = []func(seat) string{
	func(s seat) string { return fmt.Sprint(s.node) },
	func(s seat) string { return s.cache },
	func(s seat) string { return s.core },
	func(s seat) string { return fmt.Sprint(s.cpu) },
}

// spread orders seats around a ring so that as few neighbours as possible have a
// level in common, and of those that must as few as possible have the next.
func spread(seats []seat, level int) []seat {
	if level == len(levels) || len(seats) < 2 {
		return seats
	}
	var groups [][]seat
	number := map[string]int{}
	for _, s := range seats {
		key := levels[level](s)
		i, ok := number[key]
		if !ok {
			i = len(groups)
			number[key], groups = i, append(groups, nil)
		}
		groups[i] = append(groups[i], s)
	}
	sizes := make([]int, len(groups))
	for i := range groups {
		groups[i] = spread(groups[i], level+1)
		sizes[i] = len(groups[i])
	}
	ordered := make([]seat, 0, len(seats))
	for _, g := range deal(sizes) {
		ordered = append(ordered, groups[g][0])
		groups[g] = groups[g][1:]
	}
	return ordered
}

// deal draws from groups of given sizes until all are empty. The same group comes
// twice in a row, around the ring, as rarely as can be, and groups of one size
// take turns, so that copies beyond the second lie apart too.
func deal(sizes []int) (turns []int) {
	left := append([]int(nil), sizes...)
	last := make([]int, len(sizes)) // When a group's turn was last.
	total := 0
	for i, n := range sizes {
		last[i] = i - len(sizes)
		total += n
	}
	for range total {
		best := -1
		for g, n := range left {
			if n == 0 {
				continue
			}
			if best < 0 || better(turns, left, last, g, best) {
				best = g
			}
		}
		left[best]--
		last[best] = len(turns)
		turns = append(turns, best)
	}
	return turns
}

// better reports whether it is better to draw from group g than from h: who was
// not drawn last, who does not force a repetition later, who has most left, who
// has waited longest.
func better(turns, left, last []int, g, h int) bool {
	cost := func(group int) int {
		n := forced(turns, left, group)
		if len(turns) > 0 && turns[len(turns)-1] == group {
			n++
		}
		return n
	}
	switch a, b := cost(g), cost(h); {
	case a != b:
		return a < b
	case left[g] != left[h]:
		return left[g] > left[h]
	}
	return last[g] < last[h]
}

// forced returns how many repetitions at least follow if a group is drawn next.
func forced(turns, left []int, next int) (most int) {
	first, rest := next, -1
	if len(turns) > 0 {
		first = turns[0]
	}
	for _, n := range left {
		rest += n
	}
	if rest == 0 {
		if first == next && len(turns) > 0 {
			return 1
		}
		return 0
	}
	for g, n := range left {
		others := rest - n
		if g == next {
			n--
			others = rest - n
		}
		// Others part those of g, and those at the ends from what stands there.
		gaps := n - 1
		if g == next {
			gaps++
		}
		if g == first {
			gaps++
		}
		most = max(most, gaps-others)
	}
	return most
}
