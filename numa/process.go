package numa

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// SchemaProcess names the version of a process's JSON form.
const SchemaProcess = "coreplica.numa.place/1"

// Process says on which nodes a process's memory and threads are.
type Process struct {
	Schema  string `json:"schema"`
	PID     int    `json:"pid"`
	Command string `json:"command"`
	// Nodes has every node of the machine, by ascending ID.
	Nodes []ProcessNode `json:"nodes"`
	// Kinds has the memory by what it is, the largest first.
	Kinds []MemoryKind `json:"kinds"`
	// Policies counts areas by the policy that numa_maps shows.
	Policies map[string]int `json:"policies"`
}

// ProcessNode is a node's part of a process.
type ProcessNode struct {
	Node    int     `json:"node"`
	Bytes   uint64  `json:"bytes"`
	Percent float64 `json:"percent"`
	// Threads ran last on a CPU of the node; Bound of them may run there only.
	Threads int `json:"threads"`
	Bound   int `json:"bound"`
}

// MemoryKind is the memory of one kind by node.
type MemoryKind struct {
	// Kind is "heap", "stack", "file", "huge", "anonymous", or the name that
	// the program gave, such as "Go: heap".
	Kind  string         `json:"kind"`
	Bytes uint64         `json:"bytes"`
	Nodes map[int]uint64 `json:"nodes_bytes"`
}

// ReadProcess reads where a process's pages and threads are, from /proc/PID in
// the file system's root that is given. Reading another user's process needs
// CAP_SYS_PTRACE. Its errors are of type [*FileError].
func ReadProcess(root fs.FS, t *Topology, pid int) (*Process, error) {
	r := &processReader{files: files{root: root}, t: t, dir: path.Join("proc", strconv.Itoa(pid))}
	r.p = &Process{Schema: SchemaProcess, PID: pid, Policies: map[string]int{}}
	r.p.Command = r.need(path.Join(r.dir, "comm"))
	for _, n := range t.Nodes {
		r.p.Nodes = append(r.p.Nodes, ProcessNode{Node: n.ID})
	}
	r.memory()
	r.threads()
	if r.err != nil {
		return nil, fmt.Errorf("place process %d: %w", pid, r.err)
	}
	return r.p, nil
}

type processReader struct {
	files
	t   *Topology
	p   *Process
	dir string
}

func (r *processReader) node(id int) *ProcessNode {
	i, found := slices.BinarySearchFunc(r.p.Nodes, id, func(n ProcessNode, id int) int { return cmp.Compare(n.Node, id) })
	if !found {
		return nil
	}
	return &r.p.Nodes[i]
}

// memory adds up numa_maps: a line an area, with words such as N0=12.
func (r *processReader) memory() {
	name := path.Join(r.dir, "numa_maps")
	text, found := r.limited(name, maxMapsBytes)
	if !found && r.err == nil {
		r.failf(name, "%w: the process is gone, or the kernel has no NUMA", fs.ErrNotExist)
	}
	names := r.areaNames()
	kinds := map[string]*MemoryKind{}
	for line := range strings.Lines(text) {
		a, err := parseArea(line)
		if err != nil {
			r.fail(name, err)
			return
		}
		r.p.Policies[a.policy]++
		kind := a.kind
		if given, named := names[a.start]; named && kind == "anonymous" {
			kind = given
		}
		k := kinds[kind]
		if k == nil {
			k = &MemoryKind{Kind: kind, Nodes: map[int]uint64{}}
			kinds[kind] = k
		}
		for id, pages := range a.pages {
			n := r.node(id)
			if n == nil {
				r.failf(name, "it knows a node %d, which is not online", id)
				return
			}
			bytes := pages * a.pageBytes
			n.Bytes += bytes
			k.Bytes += bytes
			k.Nodes[id] += bytes
		}
	}
	r.p.Kinds = []MemoryKind{}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		if kinds[kind].Bytes > 0 {
			r.p.Kinds = append(r.p.Kinds, *kinds[kind])
		}
	}
	slices.SortStableFunc(r.p.Kinds, func(a, b MemoryKind) int { return cmp.Compare(b.Bytes, a.Bytes) })
	var sum uint64
	for _, n := range r.p.Nodes {
		sum += n.Bytes
	}
	for i := range r.p.Nodes {
		if sum > 0 {
			r.p.Nodes[i].Percent = 100 * float64(r.p.Nodes[i].Bytes) / float64(sum)
		}
	}
}

// areaNames reads the names that programs give to anonymous areas, such as
// "Go: heap", by the area's start.
func (r *processReader) areaNames() map[string]string {
	names := map[string]string{}
	text, _ := r.limited(path.Join(r.dir, "maps"), maxMapsBytes)
	for line := range strings.Lines(text) {
		start, _, _ := strings.Cut(line, "-")
		if _, given, named := strings.Cut(line, "[anon:"); named {
			if end := strings.LastIndexByte(given, ']'); end > 0 {
				names[strings.TrimLeft(start, "0")] = strings.TrimSpace(given[:end])
			}
		}
	}
	return names
}

// area is a line of numa_maps.
type area struct {
	start, policy, kind string
	pageBytes           uint64
	pages               map[int]uint64
}

// parseArea reads a line (Documentation/filesystems/proc.rst, numa_maps).
func parseArea(line string) (area, error) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return area{}, fmt.Errorf("%q is no area", shorten(line))
	}
	a := area{start: strings.TrimLeft(fields[0], "0"), policy: fields[1], kind: "anonymous", pageBytes: 4096, pages: map[int]uint64{}}
	for _, field := range fields[2:] {
		key, value, valued := strings.Cut(field, "=")
		switch {
		case !valued && (key == "heap" || key == "stack" || key == "huge"):
			a.kind = key
		case key == "file" && a.kind == "anonymous":
			a.kind = "file"
		case key == "kernelpagesize_kB":
			kb, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return area{}, fmt.Errorf("%q is no page size", shorten(field))
			}
			a.pageBytes = kb << 10
		case valued && len(key) > 1 && key[0] == 'N' && key[1] >= '0' && key[1] <= '9':
			node, err := strconv.ParseUint(key[1:], 10, 16)
			pages, err2 := strconv.ParseUint(value, 10, 40)
			if err != nil || err2 != nil || node >= maxNodes {
				return area{}, fmt.Errorf("%q is no count of pages on a node", shorten(field))
			}
			a.pages[int(node)] = pages
		}
	}
	return a, nil
}

// threads reads where each thread ran last and where it may run.
func (r *processReader) threads() {
	tasks := path.Join(r.dir, "task")
	for _, task := range r.names(tasks) {
		name := path.Join(tasks, task, "stat")
		text, found := r.text(name)
		if !found {
			continue // It ended while we looked.
		}
		cpu, err := lastCPU(text)
		if err != nil {
			r.fail(name, err)
			return
		}
		n := r.node(r.t.NodeOf(cpu))
		if n == nil {
			continue // Its CPU went offline since.
		}
		n.Threads++
		status, _ := r.text(path.Join(tasks, task, "status"))
		for line := range strings.Lines(status) {
			value, ours := strings.CutPrefix(line, "Cpus_allowed_list:")
			if !ours {
				continue
			}
			allowed, err := ParseList(value)
			if err != nil {
				r.fail(path.Join(tasks, task, "status"), err)
				return
			}
			node, _ := r.t.Node(n.Node)
			if may := allowed.And(r.t.Online); len(may) > 0 && len(may.Minus(node.CPUs)) == 0 && len(r.t.Nodes) > 1 {
				n.Bound++
			}
		}
	}
}

// lastCPU takes field 39 of a stat file. The command stands in parentheses and
// may hold any character, so the last one closes it.
func lastCPU(stat string) (int, error) {
	const afterCommand = 39 - 3
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) <= afterCommand {
		return 0, fmt.Errorf("%q has no processor field", shorten(stat))
	}
	cpu, err := strconv.ParseUint(fields[afterCommand], 10, 31)
	if err != nil {
		return 0, fmt.Errorf("processor field: %q is no CPU", shorten(fields[afterCommand]))
	}
	return int(cpu), nil
}
