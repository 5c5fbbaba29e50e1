package replicated

import (
	"context"
	"slices"

	"github.com/coreplica/coreplica/numa"
)

// Machine returns the topology of a real machine: a node for each memory node with
// CPUs that this process may use. A replica is built by a thread that is bound to
// its node; where the kernel refuses that, by the caller's.
func Machine(t *numa.Topology) Topology {
	m := machine{t: t, ids: t.ComputeNodes(), place: map[int]int{}}
	if len(m.ids) == 0 {
		return Simulated(1, 1) // A machine that tells nothing of itself.
	}
	for i, id := range m.ids {
		m.place[id] = i
	}
	return m
}

// machine numbers the compute nodes from 0; the machine's own numbers may have
// holes.
type machine struct {
	t     *numa.Topology
	ids   numa.List
	place map[int]int
}

func (m machine) Nodes() int          { return len(m.ids) }
func (m machine) CPUs(node int) []int { return m.t.UsableCPUs(m.ids[node]) }

// Current is 0 on a node that joined after the topology was read.
func (m machine) Current() int { return m.place[numa.CurrentNode()] }

func (m machine) Run(node int, fn func()) {
	// Profiles tell what builds and clones replicas from what uses them.
	options := numa.WorkerOptions{Labels: []string{"role", "replica"}}
	var ignore numa.Handler[struct{}] = func(numa.Binding, []struct{}) {}
	cpus := m.t.UsableCPUs(m.ids[node])
	w, err := numa.StartWorker(numa.Binding{Node: m.ids[node], CPUs: cpus}, ignore, options)
	for i := 0; err != nil && i < len(cpus); i++ {
		// Some went offline since the topology was read; one is enough.
		w, err = numa.StartWorker(numa.Binding{Node: m.ids[node], CPUs: cpus[i : i+1]}, ignore, options)
	}
	if err != nil {
		fn() // Its memory is wherever this thread is; all else is as good.
		return
	}
	err = w.Run(context.Background(), fn)
	_ = w.Close() // The thread ends if it cannot be unbound.
	if err != nil {
		fn() // It was not run: nothing else closes this worker.
	}
}

func (m machine) Nearest(node int, candidates []int) int {
	for _, id := range m.t.Nearest(m.ids[node]) {
		if i, ok := m.place[id]; ok && slices.Contains(candidates, i) {
			return i
		}
	}
	return candidates[0]
}
