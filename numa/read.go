package numa

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// The most that any kernel is built with (CONFIG_NODES_SHIFT at most 10,
// NR_CPUS at most 8192). They bound what a wild file may make us read.
const (
	maxNodes = 1 << 10
	maxCPUs  = 8192
	// maxCaches per CPU: level 1 has two, and no CPU has more than four levels.
	maxCaches = 16
)

// Where the kernel keeps it.
const (
	cpuDir  = "sys/devices/system/cpu"
	nodeDir = "sys/devices/system/node"
)

// Read reads the topology of a machine whose file system's root is given. Its
// errors are of type [*FileError]. The machine may change in the middle: then
// the files contradict each other, the error names the one that does, and the
// reading may be repeated.
func Read(root fs.FS) (*Topology, error) { return read(root, nil) }

// read is Read with an affinity that holds instead of the one in /proc, where it
// is not nil.
func read(root fs.FS, affinity List) (*Topology, error) {
	r := &reader{files: files{root: root}, t: &Topology{Schema: SchemaTopology}, affinity: affinity}
	r.cpuSets()
	r.nodes()
	r.cpus()
	r.siblings()
	r.caches()
	r.limits()
	r.settings()
	if r.err != nil {
		return nil, fmt.Errorf("numa topology: %w", r.err)
	}
	return r.t, nil
}

// reader builds a topology in steps that stand on each other.
type reader struct {
	files
	t        *Topology
	affinity List
	// nodeOf has the node of each online CPU.
	nodeOf map[int]int
	// cacheOf has the caches by what tells instances apart.
	cacheOf map[cacheKey]int
}

type cacheKey struct {
	level int
	kind  string
	first int
}

func (r *reader) cpuSets() {
	online := path.Join(cpuDir, "online")
	var found bool
	if r.t.Online, found = r.list(online, maxCPUs); !found && r.err == nil {
		r.fail(online, fs.ErrNotExist)
	}
	if len(r.t.Online) == 0 {
		r.failf(online, "no CPU is online")
	}
	// A container's view (lxcfs) may lack the other two.
	if r.t.Possible, found = r.list(path.Join(cpuDir, "possible"), maxCPUs); !found {
		r.t.Possible = r.t.Online
	}
	if r.t.Present, found = r.list(path.Join(cpuDir, "present"), maxCPUs); !found {
		r.t.Present = r.t.Online
	}
	r.t.Offline = r.t.Present.Minus(r.t.Online)
	r.t.Isolated, _ = r.list(path.Join(cpuDir, "isolated"), maxCPUs)
}

// nodes reads the memory nodes. A kernel without NUMA has no folder for them.
func (r *reader) nodes() {
	r.nodeOf = map[int]int{}
	online := path.Join(nodeDir, "online")
	ids, found := r.list(online, maxNodes)
	if r.err != nil {
		return
	}
	if r.t.Settings.NUMA = found; !found {
		r.onlyNode()
		return
	}
	if len(ids) == 0 {
		r.failf(online, "no node is online")
	}
	for _, id := range ids {
		if r.err != nil {
			return
		}
		r.node(id, len(ids))
	}
	for _, cpu := range r.t.Online {
		if _, placed := r.nodeOf[cpu]; !placed {
			r.failf(online, "CPU %d is in the list of no node", cpu)
			return
		}
	}
}

// onlyNode makes the one node of a kernel without NUMA.
func (r *reader) onlyNode() {
	for _, cpu := range r.t.Online {
		r.nodeOf[cpu] = 0
	}
	n := Node{CPUs: r.t.Online, Distances: []int{10}}
	n.Memory = r.memory("proc/meminfo", "")
	n.HugePages = r.hugePages("sys/kernel/mm/hugepages")
	r.t.Nodes = []Node{n}
}

// node reads one node of so many.
func (r *reader) node(id, nodes int) {
	dir := path.Join(nodeDir, "node"+strconv.Itoa(id))
	n := Node{ID: id}
	cpus := path.Join(dir, "cpulist")
	all, found := r.list(cpus, maxCPUs)
	if !found {
		r.fail(cpus, fs.ErrNotExist)
	}
	// What the container's view of online CPUs hides does not exist for us.
	n.CPUs = all.And(r.t.Online)
	for _, cpu := range n.CPUs {
		if other, placed := r.nodeOf[cpu]; placed {
			r.failf(cpus, "CPU %d is also in node %d", cpu, other)
			return
		}
		r.nodeOf[cpu] = id
	}
	n.Distances = r.distances(path.Join(dir, "distance"), nodes)
	n.Memory = r.memory(path.Join(dir, "meminfo"), fmt.Sprintf("Node %d ", id))
	n.HugePages = r.hugePages(path.Join(dir, "hugepages"))
	n.Allocations = r.allocations(path.Join(dir, "numastat"))
	r.t.Nodes = append(r.t.Nodes, n)
}

// distances reads a row of the table: a column for each node that is online.
func (r *reader) distances(name string, nodes int) []int {
	fields := strings.Fields(r.need(name))
	if len(fields) != nodes && r.err == nil {
		r.failf(name, "it has %d distances for %d nodes", len(fields), nodes)
	}
	row := make([]int, 0, len(fields))
	for _, field := range fields {
		d, err := strconv.ParseUint(field, 10, 31)
		if err != nil {
			r.failf(name, "%q is no distance", shorten(field))
			return nil
		}
		row = append(row, int(d))
	}
	return row
}

// memory reads a node's meminfo, or the machine's, whose lines lack the prefix.
func (r *reader) memory(name, prefix string) Memory {
	var m Memory
	want := map[string]*uint64{"MemTotal": &m.TotalBytes, "MemFree": &m.FreeBytes, "AnonPages": &m.AnonBytes}
	if prefix == "" {
		want["Cached"] = &m.FileBytes
	} else {
		want["FilePages"] = &m.FileBytes
	}
	total := false
	for line := range strings.Lines(r.need(name)) {
		line, ours := strings.CutPrefix(strings.TrimSpace(line), prefix)
		key, value, _ := strings.Cut(line, ":")
		target, wanted := want[key]
		if !ours || !wanted {
			continue
		}
		fields := strings.Fields(value)
		if len(fields) != 2 || fields[1] != "kB" {
			r.failf(name, "%s is %q, not so many kB", key, shorten(value))
			return m
		}
		kb, err := strconv.ParseUint(fields[0], 10, 53)
		if err != nil {
			r.failf(name, "%s is %q, not so many kB", key, shorten(value))
			return m
		}
		*target = kb << 10
		total = total || key == "MemTotal"
	}
	if !total && r.err == nil {
		r.failf(name, "it has no line %sMemTotal", prefix)
	}
	return m
}

// hugePages reads folders such as hugepages-2048kB.
func (r *reader) hugePages(dir string) []HugePages {
	var pools []HugePages
	for _, name := range r.names(dir) {
		size, ours := strings.CutPrefix(name, "hugepages-")
		if !ours {
			continue
		}
		at := path.Join(dir, name)
		kb, err := strconv.ParseUint(strings.TrimSuffix(size, "kB"), 10, 53)
		if err != nil || !strings.HasSuffix(size, "kB") {
			r.failf(at, "its name has no size")
			return nil
		}
		pools = append(pools, HugePages{
			PageBytes: kb << 10,
			Total:     r.count(path.Join(at, "nr_hugepages")),
			Free:      r.count(path.Join(at, "free_hugepages")),
			Surplus:   r.count(path.Join(at, "surplus_hugepages")),
		})
	}
	slices.SortFunc(pools, func(a, b HugePages) int { return cmp.Compare(a.PageBytes, b.PageBytes) })
	return pools
}

// allocations reads numastat, which kernels without statistics lack.
func (r *reader) allocations(name string) *Allocations {
	text, found := r.text(name)
	if !found {
		return nil
	}
	var a Allocations
	want := map[string]*uint64{
		"numa_hit": &a.Hit, "numa_miss": &a.Miss, "numa_foreign": &a.Foreign,
		"interleave_hit": &a.InterleaveHit, "local_node": &a.Local, "other_node": &a.Other,
	}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 2 || want[fields[0]] == nil {
			continue
		}
		n, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil {
			r.failf(name, "%s is %q, no count", fields[0], shorten(fields[1]))
			return nil
		}
		*want[fields[0]] = n
	}
	return &a
}

// cpus reads where each online CPU sits.
func (r *reader) cpus() {
	for _, id := range r.t.Online {
		if r.err != nil {
			return
		}
		dir := path.Join(cpuDir, "cpu"+strconv.Itoa(id), "topology")
		c := CPU{
			ID: id, Node: r.nodeOf[id],
			Package: r.number(path.Join(dir, "physical_package_id"), Unknown),
			Die:     r.number(path.Join(dir, "die_id"), Unknown),
			Core:    r.number(path.Join(dir, "core_id"), Unknown),
		}
		name := path.Join(dir, "thread_siblings_list")
		siblings, found := r.list(name, maxCPUs)
		if !found {
			siblings = List{id}
		}
		if c.Siblings = siblings.And(r.t.Online); !c.Siblings.Has(id) {
			r.failf(name, "CPU %d is not among its own siblings", id)
		}
		r.t.CPUs = append(r.t.CPUs, c)
	}
}

// siblings checks that sharing a core is mutual.
func (r *reader) siblings() {
	if r.err != nil {
		return
	}
	for _, c := range r.t.CPUs {
		for _, id := range c.Siblings {
			if other, found := r.t.CPU(id); !found || !other.Siblings.Equal(c.Siblings) {
				r.failf(path.Join(cpuDir, "cpu"+strconv.Itoa(c.ID), "topology/thread_siblings_list"),
					"CPU %d says that it shares a core with CPU %d, which knows nothing of it", c.ID, id)
				return
			}
		}
	}
}

// caches reads cpu*/cache/index*, where each CPU lists each of its caches.
func (r *reader) caches() {
	r.cacheOf = map[cacheKey]int{}
	for _, id := range r.t.Online {
		for index := range maxCaches {
			dir := path.Join(cpuDir, "cpu"+strconv.Itoa(id), "cache/index"+strconv.Itoa(index))
			if r.err != nil || !r.exists(path.Join(dir, "level")) {
				break
			}
			r.cache(dir, id)
		}
	}
	slices.SortFunc(r.t.Caches, func(a, b Cache) int {
		return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.CPUs[0], b.CPUs[0]))
	})
}

func (r *reader) cache(dir string, cpu int) {
	c := Cache{
		Level:     r.number(path.Join(dir, "level"), 0),
		Kind:      r.need(path.Join(dir, "type")),
		LineBytes: r.number(path.Join(dir, "coherency_line_size"), 0),
		Ways:      r.number(path.Join(dir, "ways_of_associativity"), 0),
	}
	if text, found := r.text(path.Join(dir, "size")); found {
		kb, err := strconv.ParseUint(strings.TrimSuffix(text, "K"), 10, 53)
		if err != nil || !strings.HasSuffix(text, "K") {
			r.failf(path.Join(dir, "size"), "%q is no size such as 32K", shorten(text))
		}
		c.SizeBytes = kb << 10
	}
	name := path.Join(dir, "shared_cpu_list")
	shared, found := r.list(name, maxCPUs)
	if !found {
		shared = List{cpu}
	}
	if c.CPUs = shared.And(r.t.Online); !c.CPUs.Has(cpu) {
		r.failf(name, "CPU %d does not share its own cache", cpu)
	}
	if r.err != nil {
		return
	}
	key := cacheKey{c.Level, c.Kind, c.CPUs[0]}
	at, known := r.cacheOf[key]
	if !known {
		r.cacheOf[key] = len(r.t.Caches)
		r.t.Caches = append(r.t.Caches, c)
	} else if !r.t.Caches[at].CPUs.Equal(c.CPUs) {
		r.failf(name, "it says that %s share the cache, CPU %d says %s", c.CPUs, c.CPUs[0], r.t.Caches[at].CPUs)
	}
}

func (r *reader) settings() {
	s := &r.t.Settings
	s.AutoNUMA = r.number("proc/sys/kernel/numa_balancing", Unknown)
	s.ZoneReclaim = r.number("proc/sys/vm/zone_reclaim_mode", Unknown)
	s.THP = r.chosen("sys/kernel/mm/transparent_hugepage/enabled")
	s.THPDefrag = r.chosen("sys/kernel/mm/transparent_hugepage/defrag")
}

// chosen reads a list of words of which one stands in brackets.
func (r *reader) chosen(name string) string {
	text, found := r.text(name)
	if !found {
		return ""
	}
	for _, word := range strings.Fields(text) {
		if strings.HasPrefix(word, "[") && strings.HasSuffix(word, "]") {
			return strings.Trim(word, "[]")
		}
	}
	r.failf(name, "%q has no word in brackets", shorten(text))
	return ""
}
