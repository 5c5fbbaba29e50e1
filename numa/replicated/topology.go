package replicated

import "unsafe"

// Topology is what the package needs to know of the machine. It must not change
// while a structure uses it, and its methods are called by many goroutines at
// once.
type Topology interface {
	// Nodes returns the number of nodes, at least 1.
	Nodes() int
	// CPUs returns the CPUs of a node. Their number sizes the node's slots.
	CPUs(node int) []int
	// Current returns the node of the calling thread. It is a hint: the
	// thread may have moved when the caller looks at it, which costs time and
	// nothing else.
	Current() int
	// Run calls fn on a thread of the node and returns when fn has returned.
	// What fn allocates is meant to be local to the node.
	Run(node int, fn func())
	// Nearest returns the node among the candidates that is closest to node.
	// There is at least one candidate.
	Nearest(node int, candidates []int) int
}

// maxSimulatedNodes bounds [Simulated]: past it the work of applying each write
// on each replica says nothing about machines that exist.
const maxSimulatedNodes = 64

// Simulated returns a topology of nodes that are not there: CPUs are dealt to
// nodes in blocks, functions run on the caller's thread, and a goroutine's node
// follows from where its stack lies. It shows what replication costs in work,
// and never what it gains in locality.
func Simulated(nodes, cpus int) Topology {
	nodes = min(max(nodes, 1), maxSimulatedNodes)
	s := simulated{cpus: make([][]int, nodes)}
	for cpu := range max(cpus, 1) {
		node := cpu * nodes / max(cpus, nodes)
		s.cpus[node] = append(s.cpus[node], cpu)
	}
	return s
}

type simulated struct{ cpus [][]int }

func (s simulated) Nodes() int          { return len(s.cpus) }
func (s simulated) CPUs(node int) []int { return s.cpus[node] }
func (s simulated) Run(_ int, fn func()) {
	fn()
}

func (s simulated) Current() int {
	if len(s.cpus) == 1 {
		return 0
	}
	return int(stackHint()>>8) % len(s.cpus)
}

// Nearest takes nodes to stand in a row.
func (s simulated) Nearest(node int, candidates []int) int {
	best := candidates[0]
	for _, c := range candidates {
		if abs(c-node) < abs(best-node) {
			best = c
		}
	}
	return best
}

func abs(n int) int { return max(n, -n) }

// stackHint returns a number that differs between most goroutines and stays the
// same for one until its stack grows: a hash of where the stack lies. It spreads
// goroutines over slots without asking the runtime or the kernel who they are.
func stackHint() uint32 {
	var here byte
	// Stacks are at least 2 KiB and aligned to their size.
	page := uint64(uintptr(unsafe.Pointer(&here))) >> 11
	return uint32(page * 0x9E3779B97F4A7C15 >> 40)
}
