package numa

import (
	"cmp"
	"os"
	"slices"
)

// SchemaTopology names the version of a topology's JSON form.
const SchemaTopology = "coreplica.numa.topo/1"

// Unknown stands for a number that the kernel does not tell.
const Unknown = -1

// Topology is the shape of a machine, and what this process may use of it. It is
// a value of plain data: whoever reads it may share it between goroutines, and
// it does not change when the machine does.
type Topology struct {
	Schema string `json:"schema"`
	// Nodes are the memory nodes that are online, by ascending ID. A kernel
	// without NUMA has one, with ID 0.
	Nodes []Node `json:"nodes"`
	// CPUs are the online CPUs, by ascending ID.
	CPUs []CPU `json:"cpus"`
	// Caches are all instances, by level, kind and CPUs. The list is empty
	// where the kernel shows none, as in many virtual machines.
	Caches []Cache `json:"caches"`
	// Possible, Present and Online are the kernel's sets of CPUs. Offline are
	// those that are present and switched off; where they belong is not known
	// until they are back.
	Possible List `json:"cpus_possible"`
	Present  List `json:"cpus_present"`
	Online   List `json:"cpus_online"`
	Offline  List `json:"cpus_offline"`
	// Isolated CPUs are left alone by the scheduler (isolcpus=).
	Isolated List     `json:"cpus_isolated"`
	Limits   Limits   `json:"limits"`
	Settings Settings `json:"settings"`
}

// Node is a memory node: memory, CPUs that are near to it, or both.
type Node struct {
	ID int `json:"id"`
	// CPUs are the online CPUs of the node; none in a node of memory alone.
	CPUs   List   `json:"cpus"`
	Memory Memory `json:"memory"`
	// Distances has the relative cost of reaching the memory of each node of
	// the topology, in its order, by the firmware's SLIT table: 10 is local.
	// Firmware often invents them.
	Distances []int       `json:"distances"`
	HugePages []HugePages `json:"huge_pages"`
	// Allocations counts where the kernel placed pages since boot; nil where
	// it does not count.
	Allocations *Allocations `json:"allocations,omitempty"`
}

// Memory is a node's memory in bytes.
type Memory struct {
	TotalBytes uint64 `json:"total_bytes"`
	FreeBytes  uint64 `json:"free_bytes"`
	// FileBytes is the page cache, which makes room when it must.
	FileBytes uint64 `json:"file_bytes"`
	AnonBytes uint64 `json:"anon_bytes"`
}

// HugePages is a node's pool of pages of one size.
type HugePages struct {
	PageBytes uint64 `json:"page_bytes"`
	Total     uint64 `json:"total"`
	Free      uint64 `json:"free"`
	Surplus   uint64 `json:"surplus"`
}

// Allocations are a node's counters in pages (Documentation/admin-guide/
// numastat.rst).
type Allocations struct {
	// Hit pages were wanted here and came here; Miss pages were wanted
	// elsewhere and came here; Foreign pages were wanted here and went
	// elsewhere.
	Hit           uint64 `json:"hit"`
	Miss          uint64 `json:"miss"`
	Foreign       uint64 `json:"foreign"`
	InterleaveHit uint64 `json:"interleave_hit"`
	// Local pages were taken by a CPU of the node, Other pages by another's.
	Local uint64 `json:"local"`
	Other uint64 `json:"other"`
}

// CPU is a logical CPU, that is a hardware thread, that is online.
type CPU struct {
	ID int `json:"id"`
	// Node is the CPU's memory node.
	Node int `json:"node"`
	// Package is the socket, Die a chip in it, Core the core's number in it:
	// numbers of the firmware that may have holes and repeat between
	// packages. Unknown where the kernel does not tell.
	Package int `json:"package"`
	Die     int `json:"die"`
	Core    int `json:"core"`
	// Siblings are the CPUs that share the core, this one included.
	Siblings List `json:"siblings"`
}

// Cache is one instance of a cache.
type Cache struct {
	Level int `json:"level"`
	// Kind is "Data", "Instruction" or "Unified".
	Kind      string `json:"kind"`
	SizeBytes uint64 `json:"size_bytes"`
	// LineBytes and Ways are 0 where the kernel does not tell.
	LineBytes int `json:"line_bytes"`
	Ways      int `json:"ways"`
	// CPUs share the instance.
	CPUs List `json:"cpus"`
}

// Limits is what this process may use, apart from what exists.
type Limits struct {
	// CPUs and Nodes are what affinity and cpuset leave of what is online.
	// Nodes are those whose memory may be used, whether they have any or not.
	CPUs  List `json:"cpus"`
	Nodes List `json:"nodes"`
	// Cgroup is the path of the process's group within its hierarchy, and
	// CgroupVersion 1, 2, or 0 where no hierarchy limits CPUs.
	Cgroup        string `json:"cgroup"`
	CgroupVersion int    `json:"cgroup_version"`
	// CpusetCPUs and CpusetNodes are the group's effective cpuset, nil where
	// there is none.
	CpusetCPUs  List `json:"cpuset_cpus"`
	CpusetNodes List `json:"cpuset_nodes"`
	// QuotaCPUs is the CPU time a second that the group may use, in CPUs, and
	// MemoryMaxBytes its memory; 0 is no limit. Both are the least of the
	// group's and its ancestors'.
	QuotaCPUs      float64 `json:"quota_cpus"`
	MemoryMaxBytes uint64  `json:"memory_max_bytes"`
}

// Settings are the kernel's switches that decide where memory goes.
type Settings struct {
	// NUMA is false where the kernel was built without it.
	NUMA bool `json:"numa"`
	// AutoNUMA is kernel.numa_balancing: 0 is off, bit 0 migrates pages to
	// who uses them, bit 1 tiers memory. Unknown where the kernel cannot.
	AutoNUMA int `json:"auto_numa"`
	// ZoneReclaim is vm.zone_reclaim_mode: not 0 reclaims local pages before
	// it takes remote ones.
	ZoneReclaim int `json:"zone_reclaim"`
	// THP and THPDefrag are the chosen words of transparent_hugepage/enabled
	// and defrag; empty where the kernel has no huge pages.
	THP       string `json:"thp"`
	THPDefrag string `json:"thp_defrag"`
}

// Local reads this machine. Limits are the process's, also while this package has
// threads of it bound.
func Local() (*Topology, error) {
	if before := boundMain.Load(); before != nil {
		return read(os.DirFS("/"), *before)
	}
	return read(os.DirFS("/"), nil)
}

// Node returns the node with an ID.
func (t *Topology) Node(id int) (*Node, bool) {
	i, found := slices.BinarySearchFunc(t.Nodes, id, func(n Node, id int) int { return cmp.Compare(n.ID, id) })
	if !found {
		return nil, false
	}
	return &t.Nodes[i], true
}

// CPU returns the online CPU with an ID.
func (t *Topology) CPU(id int) (*CPU, bool) {
	i, found := slices.BinarySearchFunc(t.CPUs, id, func(c CPU, id int) int { return cmp.Compare(c.ID, id) })
	if !found {
		return nil, false
	}
	return &t.CPUs[i], true
}

// NodeOf returns the node of an online CPU, or [Unknown].
func (t *Topology) NodeOf(cpu int) int {
	if c, found := t.CPU(cpu); found {
		return c.Node
	}
	return Unknown
}

// NodeIDs returns the nodes that are online.
func (t *Topology) NodeIDs() List {
	ids := make(List, 0, len(t.Nodes))
	for _, n := range t.Nodes {
		ids = append(ids, n.ID)
	}
	return ids
}

// Distance returns the relative cost for CPUs of one node to reach the memory of
// another, or [Unknown].
func (t *Topology) Distance(from, to int) int {
	a, found := t.Node(from)
	if !found {
		return Unknown
	}
	for i := range t.Nodes {
		if t.Nodes[i].ID == to {
			return a.Distances[i]
		}
	}
	return Unknown
}

// Nearest returns all nodes by their distance from a node, ties by ascending ID.
func (t *Topology) Nearest(from int) []int {
	ids := t.NodeIDs()
	slices.SortStableFunc(ids, func(a, b int) int { return cmp.Compare(t.Distance(from, a), t.Distance(from, b)) })
	return ids
}

// Packages returns the numbers of the sockets.
func (t *Topology) Packages() List {
	var all []int
	for _, c := range t.CPUs {
		all = append(all, c.Package)
	}
	return ListOf(all...)
}

// Cores returns the cores, each as the online CPUs that share it, by their first
// CPU.
func (t *Topology) Cores() []List {
	var cores []List
	for _, c := range t.CPUs {
		if c.Siblings[0] == c.ID {
			cores = append(cores, c.Siblings)
		}
	}
	return cores
}

// CachesAt returns the caches of a level.
func (t *Topology) CachesAt(level int) []Cache {
	var caches []Cache
	for _, c := range t.Caches {
		if c.Level == level {
			caches = append(caches, c)
		}
	}
	return caches
}

// UsableCPUs returns the CPUs of a node that this process may use.
func (t *Topology) UsableCPUs(node int) List {
	n, found := t.Node(node)
	if !found {
		return nil
	}
	return n.CPUs.And(t.Limits.CPUs)
}

// ComputeNodes returns the nodes with a CPU that this process may use.
func (t *Topology) ComputeNodes() List {
	var ids List
	for _, n := range t.Nodes {
		if len(t.UsableCPUs(n.ID)) > 0 {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// MemoryNodes returns the nodes with memory that this process may use.
func (t *Topology) MemoryNodes() List {
	var ids List
	for _, n := range t.Nodes {
		if n.Memory.TotalBytes > 0 && t.Limits.Nodes.Has(n.ID) {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// NearestMemory returns the node with usable memory that is nearest to a node,
// the node itself where it has some, or [Unknown] where there is none. It is
// where the replica of a node without memory belongs.
func (t *Topology) NearestMemory(from int) int {
	usable := t.MemoryNodes()
	for _, id := range t.Nearest(from) {
		if usable.Has(id) {
			return id
		}
	}
	return Unknown
}
