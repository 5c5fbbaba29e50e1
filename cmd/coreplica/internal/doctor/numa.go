package doctor

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/coreplica/coreplica/numa"
	"github.com/coreplica/coreplica/numa/identity"
)

// SchemaNUMA names the version of the JSON form of [NUMAReport].
const SchemaNUMA = "coreplica.numa.doctor/1"

// NUMAReport is what an examination of memory and CPUs found.
type NUMAReport struct {
	Schema  string  `json:"schema"`
	Version string  `json:"version"`
	Checks  []Check `json:"checks"`
	// Disagreements are facts that the kernel and the CPUID libraries tell
	// differently.
	Disagreements []identity.Disagreement `json:"disagreements"`
}

// NUMAMachine is what an examination looks at: a topology, and what only this
// process can find out.
type NUMAMachine struct {
	Topology *numa.Topology
	// GOMAXPROCS is what the Go runtime chose or was told.
	GOMAXPROCS int
	// Source is how this process learns its CPU, Verified the error of
	// comparing that with the system call on every CPU.
	Source   numa.CurrentSource
	Verified error
	// Disagreements and CrossCheck are the results of a cross-check.
	Disagreements []identity.Disagreement
	CrossCheck    error
}

// ExamineNUMA judges a machine. Nothing is changed.
func ExamineNUMA(m NUMAMachine, version string) NUMAReport {
	e := &numaExamination{NUMAMachine: m, t: m.Topology}
	e.section = "topology"
	e.shape()
	e.crossCheck()
	e.section = "limits"
	e.limits()
	e.section = "memory"
	e.balancing()
	e.memory()
	e.hugePages()
	return NUMAReport{Schema: SchemaNUMA, Version: version, Checks: e.checks, Disagreements: append([]identity.Disagreement{}, m.Disagreements...)}
}

// WriteTable writes the report for people.
func (r NUMAReport) WriteTable(w io.Writer) error {
	out := bufio.NewWriter(w)
	writeChecks(out, r.Checks)
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

type numaExamination struct {
	examination
	NUMAMachine
	t *numa.Topology
}

// many reports whether there is anything remote.
func (e *numaExamination) many() bool { return len(e.t.Nodes) > 1 }

func (e *numaExamination) shape() {
	switch {
	case !e.t.Settings.NUMA:
		e.info("nodes", "the kernel was built without NUMA: all memory counts as near")
	case !e.many():
		e.info("nodes", "1: nothing here is remote, and replicas cost memory without a gain")
	default:
		e.info("nodes", fmt.Sprintf("%d, with CPUs: %s, with memory for this process: %s", len(e.t.Nodes), e.t.ComputeNodes(), e.t.MemoryNodes()))
	}
	var odd []string
	for _, n := range e.t.Nodes {
		if n.Memory.TotalBytes == 0 {
			odd = append(odd, fmt.Sprintf("node %d has no memory", n.ID))
		}
		if len(n.CPUs) == 0 {
			odd = append(odd, fmt.Sprintf("node %d has no CPUs", n.ID))
		}
	}
	e.lack(Check{
		Name: "complete nodes", Status: Warn,
		Consequence: "a replica cannot live on such a node; workers of a node without memory use the nearest one that has some",
		Fix:         "put memory modules into every socket; memory-only nodes (CXL, HBM) are as they should be",
	}, strings.Join(odd, ", "), "every node has CPUs and memory")
	flat := ""
	if e.many() && !slices.ContainsFunc(e.t.Nodes, func(n numa.Node) bool {
		return slices.ContainsFunc(n.Distances, func(d int) bool { return d != n.Distances[0] })
	}) {
		flat = "the firmware says that all memory is equally far, the local one too"
	}
	e.lack(Check{
		Name: "distances", Status: Warn,
		Consequence: "the kernel cannot choose the nearest node, and neither can coreplica",
		Fix:         "look for a firmware update, or measure with `go test -bench MemoryRead` in numa",
	}, flat, "local memory is nearest")
	offline := ""
	if len(e.t.Offline) > 0 {
		offline = "CPUs " + e.t.Offline.String()
	}
	e.lack(Check{
		Name: "offline CPUs", Status: Warn,
		Consequence: "they are not used; a thread that was bound to one of them lost its binding without a word",
		Fix:         "echo 1 > /sys/devices/system/cpu/cpuN/online",
	}, offline, "none")
}

func (e *numaExamination) crossCheck() {
	var complaints []string
	if e.CrossCheck != nil {
		complaints = append(complaints, e.CrossCheck.Error())
	}
	for _, d := range e.Disagreements {
		complaints = append(complaints, d.String())
	}
	e.lack(Check{
		Name: "cross-check with CPUID", Status: Warn,
		Consequence: "coreplica goes by the kernel's files; a hypervisor or a library tells another story",
		Fix:         "none is needed where the kernel is right; in a guest, the hypervisor's CPU model is what to look at",
	}, strings.Join(complaints, "; "), "the kernel and the libraries agree")
	complaint := ""
	if e.Verified != nil {
		complaint = e.Verified.Error()
	}
	e.lack(Check{
		Name: "current CPU", Status: Warn,
		Consequence: "choosing a near shard goes wrong",
		Fix:         "report this with /proc/cpuinfo",
	}, complaint, fmt.Sprintf("by %s, which agrees with the kernel on every CPU", e.Source))
}

func (e *numaExamination) limits() {
	l := e.t.Limits
	complaint := ""
	if unused := e.t.Online.Minus(l.CPUs); len(unused) > 0 {
		complaint = fmt.Sprintf("this process may use CPUs %s of %s", l.CPUs, e.t.Online)
	}
	e.lack(Check{
		Name: "CPUs", Status: Warn,
		Consequence: "pools have workers on those alone",
		Fix:         "widen the cpuset (cpuset.cpus) or start without taskset, if that was not meant",
	}, complaint, fmt.Sprintf("all %d", len(l.CPUs)))
	complaint = ""
	if unused := e.t.NodeIDs().Minus(l.Nodes); len(unused) > 0 {
		complaint = fmt.Sprintf("the memory of nodes %s is not for this process", unused)
	}
	e.lack(Check{
		Name: "memory nodes", Status: Warn,
		Consequence: "a policy that names them is refused, and their CPUs work on remote memory",
		Fix:         "widen the cpuset (cpuset.mems), or keep the process off those nodes' CPUs",
	}, complaint, "all")
	e.gomaxprocs()
	if l.MemoryMaxBytes > 0 {
		e.info("memory limit", fmt.Sprintf("%d MiB for the control group: replicas multiply what they hold by the number of nodes", l.MemoryMaxBytes>>20))
	}
}

// gomaxprocs compares with what may run at once: usable CPUs, and the quota,
// which Go rounds up and takes for two at least.
func (e *numaExamination) gomaxprocs() {
	l := e.t.Limits
	complaint := ""
	switch {
	case e.GOMAXPROCS > len(l.CPUs):
		complaint = fmt.Sprintf("%d, for %d usable CPUs", e.GOMAXPROCS, len(l.CPUs))
	case l.QuotaCPUs > 0 && float64(e.GOMAXPROCS) > max(l.QuotaCPUs+1, 2):
		complaint = fmt.Sprintf("%d, for a quota of %g CPUs", e.GOMAXPROCS, l.QuotaCPUs)
	case e.GOMAXPROCS < len(l.CPUs) && l.QuotaCPUs == 0:
		complaint = fmt.Sprintf("%d, though %d CPUs are usable", e.GOMAXPROCS, len(l.CPUs))
	}
	e.lack(Check{
		Name: "GOMAXPROCS", Status: Warn,
		Consequence: "too many spinning threads wait for the CPU of the one that they wait for; too few leave CPUs idle",
		Fix:         "unset GOMAXPROCS: Go 1.25 and newer follow cpuset and quota by themselves",
	}, complaint, fmt.Sprintf("%d, for %d usable CPUs", e.GOMAXPROCS, len(l.CPUs)))
}

func (e *numaExamination) balancing() {
	complaint := ""
	if s := e.t.Settings; s.AutoNUMA > 0 && e.many() {
		complaint = fmt.Sprintf("kernel.numa_balancing is %d", s.AutoNUMA)
	}
	e.lack(Check{
		Name: "AutoNUMA", Status: Warn,
		Consequence: "the kernel unmaps pages to see who uses them and moves them: Go's garbage collector, which touches all of the heap from anywhere, misleads it",
		Fix:         "sysctl kernel.numa_balancing=0 where programs place their memory themselves",
	}, complaint, "off, or without effect on one node")
	complaint = ""
	if e.t.Settings.ZoneReclaim > 0 && e.many() {
		complaint = fmt.Sprintf("vm.zone_reclaim_mode is %d", e.t.Settings.ZoneReclaim)
	}
	e.lack(Check{
		Name: "zone reclaim", Status: Warn,
		Consequence: "a full node throws out its page cache, and stalls, before it takes memory elsewhere",
		Fix:         "sysctl vm.zone_reclaim_mode=0",
	}, complaint, "off, or without effect on one node")
}

// The thresholds of the memory checks.
const (
	// imbalanceRatio between the fullest and the emptiest node, in available
	// share of memory, is where the fullest begins to spill.
	imbalanceRatio = 4
	lowFreePercent = 10
	// missPercent of a node's pages that were wanted elsewhere.
	missPercent = 5
)

func (e *numaExamination) memory() {
	lowest, highest := 101.0, -1.0
	var fullest int
	var missed []string
	for _, n := range e.t.Nodes {
		if n.Memory.TotalBytes == 0 {
			continue
		}
		// The page cache makes room when it must.
		free := 100 * float64(n.Memory.FreeBytes+n.Memory.FileBytes) / float64(n.Memory.TotalBytes)
		if free < lowest {
			lowest, fullest = free, n.ID
		}
		highest = max(highest, free)
		if a := n.Allocations; a != nil && a.Foreign > 0 && 100*float64(a.Foreign) > missPercent*float64(a.Hit+a.Foreign) {
			missed = append(missed, fmt.Sprintf("%.0f %% of what node %d was asked for went elsewhere", 100*float64(a.Foreign)/float64(a.Hit+a.Foreign), n.ID))
		}
	}
	complaint := ""
	if e.many() && lowest < lowFreePercent && highest > imbalanceRatio*lowest {
		complaint = fmt.Sprintf("node %d has %.0f %% left, another %.0f %%", fullest, lowest, highest)
	}
	e.lack(Check{
		Name: "memory balance", Status: Warn,
		Consequence: "pages for the full node go elsewhere, or the kernel swaps although there is memory",
		Fix:         "see who fills it with `coreplica numa place PID`; interleave what all nodes use (numa.Interleave, numactl --interleave=all)",
	}, complaint, fmt.Sprintf("%.0f %% is available on the fullest node", lowest))
	e.lack(Check{
		Name: "allocations", Status: Warn,
		Consequence: "pages were not where they were wanted since boot: a node was full",
		Fix:         "bind what must be local (numa.Bind), and look whether the counters in numastat still grow",
	}, strings.Join(missed, ", "), "pages came where they were wanted")
}

func (e *numaExamination) hugePages() {
	s := e.t.Settings
	complaint := ""
	switch s.THP {
	case "always":
		complaint = "transparent_hugepage/enabled is always"
	case "never":
		complaint = "transparent_hugepage/enabled is never"
	}
	e.lack(Check{
		Name: "transparent huge pages", Status: Warn,
		Consequence: map[string]string{
			"always": "a sparse heap takes 2 MiB where it touched 4 KiB, on one node each, and the kernel's compaction moves it",
			"never":  "memory that asks for huge pages (numa.HugeTransparent) gets small ones, and large tables miss the TLB more",
		}[s.THP],
		Fix: "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
	}, complaint, "who asks for them gets them ("+orUnknown(s.THP)+")")
	var pools []string
	for _, n := range e.t.Nodes {
		for _, p := range n.HugePages {
			if p.Total > 0 {
				pools = append(pools, fmt.Sprintf("node %d: %d of %d KiB, %d free", n.ID, p.Total, p.PageBytes>>10, p.Free))
			}
		}
	}
	if len(pools) == 0 {
		pools = []string{"none"}
	}
	e.info("reserved huge pages", strings.Join(pools, "; "))
}

// LocalNUMA reads this machine and asks the libraries.
func LocalNUMA(gomaxprocs int) (NUMAMachine, error) {
	t, err := numa.Local()
	if err != nil {
		return NUMAMachine{}, err
	}
	m := NUMAMachine{Topology: t, GOMAXPROCS: gomaxprocs, Source: numa.CurrentFrom()}
	m.Verified = numa.VerifyCurrent(t.Limits.CPUs)
	m.Disagreements, m.CrossCheck = identity.CrossCheck(t)
	return m, nil
}
