package numa

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"testing/fstest"
)

// shape describes a machine from which [shape.files] makes the files that a
// kernel would show, in exactly its formats: drivers/base/{node,cpu,cacheinfo,
// topology}.c and kernel/cgroup.
type shape struct {
	name             string
	sockets          int
	nodesPerSocket   int
	coresPerNode     int
	threadsPerCore   int
	coresPerL3       int
	memoryless       []int // nodes
	memoryOnly       int   // more nodes, after the others, without CPUs
	offline          []int // CPUs
	noNUMA, noCaches bool
	allowed          string // Cpus_allowed_list
	mems             string // Mems_allowed_list
	// groups are the files of control groups, and the process's place.
	cgroup, mountinfo string
	groups            map[string]string
	// want is what [Topology.summary] should say.
	want string
}

const nodeKB = 16 << 20

func (s shape) cpus() int { return s.sockets * s.nodesPerSocket * s.coresPerNode * s.threadsPerCore }

// Linux numbers the first threads of all cores before the second ones.
func (s shape) cpu(core, thread int) int { return thread*s.cpus()/s.threadsPerCore + core }

// machine collects files.
type machine fstest.MapFS

func (m machine) put(name, format string, args ...any) {
	m[name] = &fstest.MapFile{Data: []byte(fmt.Sprintf(format, args...) + "\n")}
}

func (s shape) files() fstest.MapFS {
	m := machine{}
	off := ListOf(s.offline...)
	var all List
	for cpu := range s.cpus() {
		all = append(all, cpu)
	}
	online := all.Minus(off)
	m.put(cpuDir+"/online", "%s", online)
	m.put(cpuDir+"/offline", "%s", off)
	m.put(cpuDir+"/possible", "%s", all)
	m.put(cpuDir+"/present", "%s", all)
	m.put(cpuDir+"/isolated", "")
	s.putCPUs(m, online)
	if s.noNUMA {
		m.put("proc/meminfo", "MemTotal:       %d kB\nMemFree:         %d kB\nCached:           1024 kB\nAnonPages:        2048 kB", nodeKB, nodeKB/2)
		m.put("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "4")
		m.put("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "3")
	} else {
		s.putNodes(m, online)
		m.put("proc/sys/kernel/numa_balancing", "1")
	}
	m.put("proc/sys/vm/zone_reclaim_mode", "0")
	m.put("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
	m.put("sys/kernel/mm/transparent_hugepage/defrag", "always defer defer+madvise [madvise] never")
	s.putProcess(m, all)
	return fstest.MapFS(m)
}

func (s shape) putCPUs(m machine, online List) {
	cores := s.cpus() / s.threadsPerCore
	for core := range cores {
		perSocket := cores / s.sockets
		var siblings, l3 List
		for thread := range s.threadsPerCore {
			siblings = append(siblings, s.cpu(core, thread))
		}
		first := core / max(s.coresPerL3, 1) * max(s.coresPerL3, 1)
		for c := first; c < first+s.coresPerL3; c++ {
			for thread := range s.threadsPerCore {
				l3 = l3.Or(List{s.cpu(c, thread)})
			}
		}
		for _, cpu := range siblings.And(online) {
			dir := path.Join(cpuDir, "cpu"+strconv.Itoa(cpu))
			m.put(dir+"/topology/core_id", "%d", core%perSocket)
			m.put(dir+"/topology/physical_package_id", "%d", core/perSocket)
			m.put(dir+"/topology/die_id", "0")
			m.put(dir+"/topology/thread_siblings_list", "%s", siblings.And(online))
			if s.noCaches {
				continue
			}
			for i, c := range []struct {
				level, kind, size string
				shared            List
			}{{"1", "Data", "32K", siblings}, {"1", "Instruction", "64K", siblings}, {"2", "Unified", "1024K", siblings}, {"3", "Unified", "32768K", l3}} {
				at := fmt.Sprintf("%s/cache/index%d", dir, i)
				m.put(at+"/level", "%s", c.level)
				m.put(at+"/type", "%s", c.kind)
				m.put(at+"/size", "%s", c.size)
				m.put(at+"/coherency_line_size", "64")
				m.put(at+"/ways_of_associativity", "8")
				m.put(at+"/shared_cpu_list", "%s", c.shared.And(online))
			}
		}
	}
}

func (s shape) putNodes(m machine, online List) {
	withCPUs := s.sockets * s.nodesPerSocket
	nodes := withCPUs + s.memoryOnly
	m.put(nodeDir+"/online", "0-%d", nodes-1)
	if nodes == 1 {
		m.put(nodeDir+"/online", "0")
	}
	for n := range nodes {
		dir := path.Join(nodeDir, "node"+strconv.Itoa(n))
		var cpus List
		if n < withCPUs {
			for core := n * s.coresPerNode; core < (n+1)*s.coresPerNode; core++ {
				for thread := range s.threadsPerCore {
					cpus = cpus.Or(List{s.cpu(core, thread)})
				}
			}
		}
		m.put(dir+"/cpulist", "%s", cpus.And(online))
		var row []string
		for to := range nodes {
			row = append(row, strconv.Itoa(s.distance(n, to)))
		}
		m.put(dir+"/distance", "%s", strings.Join(row, " "))
		total := nodeKB
		if ListOf(s.memoryless...).Has(n) {
			total = 0
		}
		m.put(dir+"/meminfo", "\nNode %d MemTotal:       %8d kB\nNode %d MemFree:        %8d kB\nNode %d MemUsed:        %8d kB\nNode %d FilePages:      %8d kB\nNode %d AnonPages:      %8d kB\nNode %d HugePages_Total:     0",
			n, total, n, total/2, n, total/2, n, total/4, n, total/8, n)
		m.put(dir+"/numastat", "numa_hit 1000\nnuma_miss 10\nnuma_foreign 20\ninterleave_hit 30\nlocal_node 990\nother_node 20")
		m.put(dir+"/hugepages/hugepages-2048kB/nr_hugepages", "8")
		m.put(dir+"/hugepages/hugepages-2048kB/free_hugepages", "6")
		m.put(dir+"/hugepages/hugepages-2048kB/surplus_hugepages", "1")
		m.put(dir+"/hugepages/hugepages-1048576kB/nr_hugepages", "0")
	}
}

// distance is a plausible SLIT: 12 within a socket, 32 between sockets, 17 to
// memory on a bus.
func (s shape) distance(from, to int) int {
	withCPUs := s.sockets * s.nodesPerSocket
	switch {
	case from == to:
		return 10
	case from >= withCPUs || to >= withCPUs:
		return 17
	case from/s.nodesPerSocket == to/s.nodesPerSocket:
		return 12
	default:
		return 32
	}
}

func (s shape) putProcess(m machine, all List) {
	allowed, mems := s.allowed, s.mems
	if allowed == "" {
		allowed = all.String()
	}
	if mems == "" {
		mems = "0-1023"
	}
	m.put("proc/self/status", "Name:\tcoreplica\nCpus_allowed:\tff\nCpus_allowed_list:\t%s\nMems_allowed:\t1\nMems_allowed_list:\t%s", allowed, mems)
	if s.cgroup != "" {
		m.put("proc/self/cgroup", "%s", strings.TrimSuffix(s.cgroup, "\n"))
		m.put("proc/self/mountinfo", "%s", strings.TrimSuffix(s.mountinfo, "\n"))
	}
	for name, text := range s.groups {
		m.put(name, "%s", text)
	}
}

// shapes are machines as they are sold, and as they are misconfigured.
var shapes = []shape{
	{name: "one node, no NUMA in the kernel", sockets: 1, nodesPerSocket: 1, coresPerNode: 2, threadsPerCore: 1, coresPerL3: 2, noNUMA: true,
		want: "1 package, 2 cores, 2 CPUs, nodes 0: 0-1 16G, L3 0-1, use 0-1 mem 0"},
	{name: "one node, SMT", sockets: 1, nodesPerSocket: 1, coresPerNode: 4, threadsPerCore: 2, coresPerL3: 4,
		want: "1 package, 4 cores, 8 CPUs, nodes 0: 0-7 16G, L3 0-7, use 0-7 mem 0"},
	{name: "a guest that shows no caches", sockets: 1, nodesPerSocket: 1, coresPerNode: 2, threadsPerCore: 1, noCaches: true,
		want: "1 package, 2 cores, 2 CPUs, nodes 0: 0-1 16G, L3 none, use 0-1 mem 0"},
	{name: "two sockets", sockets: 2, nodesPerSocket: 1, coresPerNode: 4, threadsPerCore: 2, coresPerL3: 4,
		want: "2 packages, 8 cores, 16 CPUs, nodes 0: 0-3,8-11 16G; 1: 4-7,12-15 16G, L3 0-3,8-11 4-7,12-15, use 0-15 mem 0-1"},
	{name: "four sockets", sockets: 4, nodesPerSocket: 1, coresPerNode: 2, threadsPerCore: 1, coresPerL3: 2,
		want: "4 packages, 8 cores, 8 CPUs, nodes 0: 0-1 16G; 1: 2-3 16G; 2: 4-5 16G; 3: 6-7 16G, L3 0-1 2-3 4-5 6-7, use 0-7 mem 0-3"},
	{name: "NPS4, two L3 a node", sockets: 1, nodesPerSocket: 4, coresPerNode: 4, threadsPerCore: 1, coresPerL3: 2,
		want: "1 package, 16 cores, 16 CPUs, nodes 0: 0-3 16G; 1: 4-7 16G; 2: 8-11 16G; 3: 12-15 16G, L3 0-1 2-3 4-5 6-7 8-9 10-11 12-13 14-15, use 0-15 mem 0-3"},
	{name: "memoryless node", sockets: 2, nodesPerSocket: 1, coresPerNode: 2, threadsPerCore: 1, coresPerL3: 2, memoryless: []int{1},
		want: "2 packages, 4 cores, 4 CPUs, nodes 0: 0-1 16G; 1: 2-3 0G, L3 0-1 2-3, use 0-3 mem 0"},
	{name: "memory on a bus, without CPUs", sockets: 2, nodesPerSocket: 1, coresPerNode: 2, threadsPerCore: 1, coresPerL3: 2, memoryOnly: 1,
		want: "2 packages, 4 cores, 4 CPUs, nodes 0: 0-1 16G; 1: 2-3 16G; 2:  16G, L3 0-1 2-3, use 0-3 mem 0-2"},
	{name: "offline CPUs", sockets: 2, nodesPerSocket: 1, coresPerNode: 2, threadsPerCore: 2, coresPerL3: 2, offline: []int{1, 5, 6},
		want: "2 packages, 3 cores, 5 CPUs, nodes 0: 0,4 16G; 1: 2-3,7 16G, L3 0,4 2-3,7, use 0,2-4,7 mem 0-1"},
	{name: "affinity", sockets: 2, nodesPerSocket: 1, coresPerNode: 2, threadsPerCore: 1, coresPerL3: 2, allowed: "3,100-200", mems: "1",
		want: "2 packages, 4 cores, 4 CPUs, nodes 0: 0-1 16G; 1: 2-3 16G, L3 0-1 2-3, use 3 mem 1"},
	{name: "cpuset of cgroup 2, quota on an ancestor", sockets: 2, nodesPerSocket: 1, coresPerNode: 2, threadsPerCore: 1, coresPerL3: 2, allowed: "2-3", mems: "1",
		cgroup:    "0::/system.slice/app.service\n",
		mountinfo: "25 30 0:23 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
		groups: map[string]string{
			"sys/fs/cgroup/system.slice/cpuset.cpus.effective":        "2-3",
			"sys/fs/cgroup/system.slice/cpuset.mems.effective":        "1",
			"sys/fs/cgroup/system.slice/cpu.max":                      "150000 100000",
			"sys/fs/cgroup/system.slice/memory.max":                   "max",
			"sys/fs/cgroup/system.slice/app.service/cpu.max":          "max 100000",
			"sys/fs/cgroup/system.slice/app.service/memory.max":       "1073741824",
			"sys/fs/cgroup/system.slice/other.service/memory.max":     "1",
			"sys/fs/cgroup/system.slice/app.service/cgroup.procs":     "1",
			"sys/fs/cgroup/system.slice/app.service/sub/memory.max":   "1",
			"sys/fs/cgroup/system.slice/app.service/sub/cpu.max":      "1 1000000",
			"sys/fs/cgroup/system.slice/cpuset.cpus":                  "2-3",
			"sys/fs/cgroup/system.slice/app.service/memory.high":      "max",
			"sys/fs/cgroup/system.slice/other.service/cpu.max":        "1 1000000",
			"sys/fs/cgroup/system.slice/app.service/memory.swap.max":  "0",
			"sys/fs/cgroup/system.slice/app.service/cgroup.max.depth": "max",
		},
		want: "2 packages, 4 cores, 4 CPUs, nodes 0: 0-1 16G; 1: 2-3 16G, L3 0-1 2-3, use 2-3 mem 1, cgroup2 /system.slice/app.service 2-3 1 quota 1.5 memory 1073741824"},
	{name: "cpuset of cgroup 1, in a container", sockets: 2, nodesPerSocket: 1, coresPerNode: 2, threadsPerCore: 1, coresPerL3: 2, allowed: "0-1", mems: "0-1",
		cgroup: "9:name=systemd:/docker/abc\n4:memory:/docker/abc\n3:cpuset:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
		mountinfo: "31 30 0:28 /docker/abc /sys/fs/cgroup/cpu\\040time ro,relatime master:1 - cgroup cgroup rw,cpu,cpuacct\n" +
			"33 30 0:30 /docker/abc /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n" +
			"34 30 0:31 /docker/abc /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" +
			"40 30 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
		groups: map[string]string{
			"sys/fs/cgroup/cpuset/cpuset.cpus":           "0-3",
			"sys/fs/cgroup/cpuset/cpuset.effective_cpus": "0-1",
			"sys/fs/cgroup/cpuset/cpuset.mems":           "0",
			"sys/fs/cgroup/cpu time/cpu.cfs_quota_us":    "50000",
			"sys/fs/cgroup/cpu time/cpu.cfs_period_us":   "100000",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
		},
		want: "2 packages, 4 cores, 4 CPUs, nodes 0: 0-1 16G; 1: 2-3 16G, L3 0-1 2-3, use 0-1 mem 0, cgroup1 /docker/abc 0-1 0 quota 0.5 memory 0"},
}

// summary is a topology on one line.
func (t *Topology) summary() string {
	var b strings.Builder
	plural := func(n int, what string) string {
		if n != 1 {
			what += "s"
		}
		return fmt.Sprintf("%d %s", n, what)
	}
	fmt.Fprintf(&b, "%s, %s, %s, nodes ", plural(len(t.Packages()), "package"), plural(len(t.Cores()), "core"), plural(len(t.CPUs), "CPU"))
	for i, n := range t.Nodes {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%d: %s %dG", n.ID, n.CPUs, n.Memory.TotalBytes>>30)
	}
	b.WriteString(", L3")
	for _, c := range t.CachesAt(3) {
		b.WriteString(" " + c.CPUs.String())
	}
	if len(t.CachesAt(3)) == 0 {
		b.WriteString(" none")
	}
	l := t.Limits
	fmt.Fprintf(&b, ", use %s mem %s", l.CPUs, t.MemoryNodes())
	if l.CgroupVersion > 0 {
		fmt.Fprintf(&b, ", cgroup%d %s %s %s quota %g memory %d", l.CgroupVersion, l.Cgroup, l.CpusetCPUs, l.CpusetNodes, l.QuotaCPUs, l.MemoryMaxBytes)
	}
	return b.String()
}
