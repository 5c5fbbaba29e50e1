package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Topology is a guest's shape. The zero value is one node with two CPUs.
type Topology struct {
	Nodes []Node `json:"nodes"`
	// Distances[i][j] is how far node j is from node i, as ACPI's SLIT has
	// it: 10 is local. Nil means 10 and [RemoteDistance].
	Distances [][]int `json:"distances,omitempty"`
}

// Node is one NUMA node.
type Node struct {
	CPUs      int `json:"cpus"`
	MemoryMiB int `json:"memory_mib"`
}

// RemoteDistance is the distance between nodes where none is given: what common
// two-socket machines report.
const RemoteDistance = 31

const (
	maxNodes    = 16
	maxCPUs     = 64 // TCG gets slow long before.
	minMemory   = 256
	nodeMemory  = 512
	soleMemory  = 3072
	maxMemory   = 64 << 10
	maxTopology = 1 << 20
)

// ErrTopology is wrapped by the errors about topologies.
var ErrTopology = errors.New("want NODESxCPUS as in 2x2, or a JSON file with nodes and distances")

// ParseTopology reads "2x4", two nodes with four CPUs each, or the JSON form of a
// [Topology] from a file. The empty text is the zero value's shape.
func ParseTopology(text string) (Topology, error) {
	if text == "" {
		return Topology{}.complete()
	}
	if n, c, ok := strings.Cut(text, "x"); ok && !strings.ContainsAny(text, "/.") {
		nodes, errN := strconv.Atoi(n)
		cpus, errC := strconv.Atoi(c)
		if errN != nil || errC != nil || nodes < 1 || nodes > maxNodes || cpus < 1 {
			return Topology{}, fmt.Errorf("topology %q: %w, with 1 to %d nodes", text, ErrTopology, maxNodes)
		}
		var t Topology
		for range nodes {
			t.Nodes = append(t.Nodes, Node{CPUs: cpus})
		}
		return t.complete()
	}
	info, err := os.Stat(text)
	if err != nil {
		return Topology{}, fmt.Errorf("topology: %w: %w", err, ErrTopology)
	}
	if info.Size() > maxTopology {
		return Topology{}, fmt.Errorf("topology %s: more than %d bytes", text, maxTopology)
	}
	file, err := os.ReadFile(text)
	if err != nil {
		return Topology{}, fmt.Errorf("topology: %w", err)
	}
	return parseTopologyJSON(file)
}

func parseTopologyJSON(text []byte) (Topology, error) {
	var t Topology
	if err := json.Unmarshal(text, &t); err != nil {
		return Topology{}, fmt.Errorf("topology: %w: %w", err, ErrTopology)
	}
	return t.complete()
}

// complete fills in what is not given, and checks the rest.
func (t Topology) complete() (Topology, error) {
	if len(t.Nodes) == 0 {
		t.Nodes = []Node{{CPUs: 2, MemoryMiB: soleMemory}}
	}
	if len(t.Nodes) > maxNodes {
		return t, fmt.Errorf("topology: %d nodes, at most %d: %w", len(t.Nodes), maxNodes, ErrTopology)
	}
	cpus, memory := 0, 0
	nodes := make([]Node, len(t.Nodes))
	for i, n := range t.Nodes {
		if n.MemoryMiB == 0 {
			n.MemoryMiB = nodeMemory
			if len(nodes) == 1 {
				n.MemoryMiB = soleMemory
			}
		}
		if n.CPUs < 0 || n.CPUs > maxCPUs || n.MemoryMiB < minMemory || n.MemoryMiB > maxMemory {
			return t, fmt.Errorf("topology: node %d has %d CPUs and %d MiB, want up to %d and %d to %d: %w", i, n.CPUs, n.MemoryMiB, maxCPUs, minMemory, maxMemory, ErrTopology)
		}
		nodes[i] = n
		cpus, memory = cpus+n.CPUs, memory+n.MemoryMiB
	}
	if cpus < 1 || cpus > maxCPUs || memory > maxMemory {
		return t, fmt.Errorf("topology: %d CPUs and %d MiB in all, want 1 to %d and at most %d: %w", cpus, memory, maxCPUs, maxMemory, ErrTopology)
	}
	t.Nodes = nodes
	if t.Distances == nil {
		for i := range nodes {
			row := make([]int, len(nodes))
			for j := range row {
				row[j] = RemoteDistance
			}
			row[i] = 10
			t.Distances = append(t.Distances, row)
		}
	}
	return t, t.checkDistances()
}

func (t Topology) checkDistances() error {
	if len(t.Distances) != len(t.Nodes) {
		return fmt.Errorf("topology: %d rows of distances for %d nodes: %w", len(t.Distances), len(t.Nodes), ErrTopology)
	}
	for i, row := range t.Distances {
		if len(row) != len(t.Nodes) {
			return fmt.Errorf("topology: %d distances of node %d for %d nodes: %w", len(row), i, len(t.Nodes), ErrTopology)
		}
		for j, d := range row {
			if (i == j) != (d == 10) || d < 10 || d > 254 {
				return fmt.Errorf("topology: distance %d from node %d to %d, want 10 to itself and 11 to 254 to others: %w", d, i, j, ErrTopology)
			}
		}
	}
	return nil
}

// CPUs is how many there are.
func (t Topology) CPUs() int {
	n := 0
	for _, node := range t.Nodes {
		n += node.CPUs
	}
	return n
}

// MemoryMiB is how much there is.
func (t Topology) MemoryMiB() int {
	n := 0
	for _, node := range t.Nodes {
		n += node.MemoryMiB
	}
	return n
}

// args are QEMU's options for the shape. CPUs are numbered node by node, and a
// node is a socket.
func (t Topology) args() []string {
	args := []string{"-m", strconv.Itoa(t.MemoryMiB())}
	equal := true
	for _, n := range t.Nodes {
		equal = equal && n.CPUs == t.Nodes[0].CPUs
	}
	smp := strconv.Itoa(t.CPUs())
	if equal && len(t.Nodes) > 1 {
		smp += fmt.Sprintf(",sockets=%d,cores=%d,threads=1", len(t.Nodes), t.Nodes[0].CPUs)
	}
	args = append(args, "-smp", smp)
	if len(t.Nodes) == 1 {
		return args
	}
	first := 0
	for i, n := range t.Nodes {
		args = append(args, "-object", fmt.Sprintf("memory-backend-ram,id=m%d,size=%dM", i, n.MemoryMiB))
		node := fmt.Sprintf("node,nodeid=%d,memdev=m%d", i, i)
		if n.CPUs > 0 {
			node += fmt.Sprintf(",cpus=%d-%d", first, first+n.CPUs-1)
		}
		args = append(args, "-numa", node)
		first += n.CPUs
	}
	for i, row := range t.Distances {
		for j, d := range row {
			if i != j {
				args = append(args, "-numa", fmt.Sprintf("dist,src=%d,dst=%d,val=%d", i, j, d))
			}
		}
	}
	return args
}

func (t Topology) String() string {
	if len(t.Nodes) == 0 {
		return "1x2"
	}
	for _, n := range t.Nodes {
		if n.CPUs != t.Nodes[0].CPUs {
			return fmt.Sprintf("%d nodes, %d CPUs", len(t.Nodes), t.CPUs())
		}
	}
	return fmt.Sprintf("%dx%d", len(t.Nodes), t.Nodes[0].CPUs)
}
