package doctor

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/coreplica/coreplica/numa"
	"github.com/coreplica/coreplica/numa/identity"
)

// healthyNUMA is a machine with two nodes of which nothing bad can be said.
func healthyNUMA() NUMAMachine {
	t := &numa.Topology{
		Online: numa.List{0, 1, 2, 3},
		Limits: numa.Limits{CPUs: numa.List{0, 1, 2, 3}, Nodes: numa.List{0, 1}},
	}
	t.Settings = numa.Settings{NUMA: true, THP: "madvise"}
	for id := range 2 {
		t.Nodes = append(t.Nodes, numa.Node{
			ID: id, CPUs: numa.List{2 * id, 2*id + 1}, Distances: []int{10 + 11*id, 21 - 11*id},
			Memory:      numa.Memory{TotalBytes: 100 << 20, FreeBytes: 50 << 20, FileBytes: 20 << 20},
			Allocations: &numa.Allocations{Hit: 1000, Foreign: 1},
		})
		for cpu := 2 * id; cpu < 2*id+2; cpu++ {
			t.CPUs = append(t.CPUs, numa.CPU{ID: cpu, Node: id, Siblings: numa.List{cpu}})
		}
	}
	return NUMAMachine{Topology: t, GOMAXPROCS: 4, Source: numa.SourceRDPID}
}

func TestAHealthyNUMAMachine(t *testing.T) {
	report := ExamineNUMA(healthyNUMA(), "v1")
	if report.Schema != "coreplica.numa.doctor/1" || report.Version != "v1" || len(report.Checks) < 10 || report.Disagreements == nil {
		t.Errorf("%+v", report)
	}
	for _, check := range report.Checks {
		if check.Status == Warn || check.Status == Miss || check.Detail == "" || check.Name == "" || check.Section == "" {
			t.Errorf("a healthy machine has %+v", check)
		}
	}
}

// Each defect changes its check and no other.
func TestNUMADefects(t *testing.T) {
	for _, tt := range []struct {
		check, detail, fix string
		inflict            func(*NUMAMachine)
	}{
		{"complete nodes", "node 1 has no memory", "memory modules", func(m *NUMAMachine) { m.Topology.Nodes[1].Memory = numa.Memory{} }},
		{"complete nodes", "node 1 has no CPUs", "CXL", func(m *NUMAMachine) { m.Topology.Nodes[1].CPUs = nil }},
		{"distances", "equally far", "firmware", func(m *NUMAMachine) {
			m.Topology.Nodes[0].Distances, m.Topology.Nodes[1].Distances = []int{10, 10}, []int{10, 10}
		}},
		{"offline CPUs", "CPUs 4-5", "echo 1", func(m *NUMAMachine) { m.Topology.Offline = numa.List{4, 5} }},
		{"cross-check with CPUID", "cores: a: 2, b: not found", "", func(m *NUMAMachine) {
			m.Disagreements = []identity.Disagreement{{Fact: "cores", Said: []identity.Said{{Source: "a", Value: 2}, {Source: "b"}}}}
		}},
		{"cross-check with CPUID", "no scan", "", func(m *NUMAMachine) { m.CrossCheck = errors.New("no scan") }},
		{"current CPU", "it lies", "report", func(m *NUMAMachine) { m.Verified = errors.New("it lies") }},
		{"CPUs", "CPUs 0-1 of 0-3", "cpuset.cpus", func(m *NUMAMachine) { m.Topology.Limits.CPUs, m.GOMAXPROCS = numa.List{0, 1}, 2 }},
		{"memory nodes", "nodes 1", "cpuset.mems", func(m *NUMAMachine) { m.Topology.Limits.Nodes = numa.List{0} }},
		{"GOMAXPROCS", "8, for 4 usable", "unset", func(m *NUMAMachine) { m.GOMAXPROCS = 8 }},
		{"GOMAXPROCS", "2, though 4", "unset", func(m *NUMAMachine) { m.GOMAXPROCS = 2 }},
		{"GOMAXPROCS", "4, for a quota of 1.5", "unset", func(m *NUMAMachine) { m.Topology.Limits.QuotaCPUs = 1.5 }},
		{"AutoNUMA", "kernel.numa_balancing is 1", "numa_balancing=0", func(m *NUMAMachine) { m.Topology.Settings.AutoNUMA = 1 }},
		{"zone reclaim", "is 1", "zone_reclaim_mode=0", func(m *NUMAMachine) { m.Topology.Settings.ZoneReclaim = 1 }},
		{"memory balance", "node 1 has 5 % left, another 70 %", "place PID", func(m *NUMAMachine) {
			m.Topology.Nodes[1].Memory.FreeBytes, m.Topology.Nodes[1].Memory.FileBytes = 4<<20, 1<<20
		}},
		{"allocations", "50 % of what node 0", "numa.Bind", func(m *NUMAMachine) { m.Topology.Nodes[0].Allocations.Foreign = 1000 }},
		{"transparent huge pages", "always", "echo madvise", func(m *NUMAMachine) { m.Topology.Settings.THP = "always" }},
		{"transparent huge pages", "never", "echo madvise", func(m *NUMAMachine) { m.Topology.Settings.THP = "never" }},
	} {
		m := healthyNUMA()
		tt.inflict(&m)
		report := ExamineNUMA(m, "")
		found := false
		for _, check := range report.Checks {
			if check.Name != tt.check {
				if check.Status == Warn {
					t.Errorf("%s (%s): also %+v", tt.check, tt.detail, check)
				}
				continue
			}
			found = true
			if check.Status != Warn || !strings.Contains(check.Detail, tt.detail) || !strings.Contains(check.Fix, tt.fix) || check.Consequence == "" {
				t.Errorf("%s: %+v, want %q and the fix %q", tt.check, check, tt.detail, tt.fix)
			}
		}
		if !found {
			t.Errorf("there is no check %q", tt.check)
		}
	}
}

// On one node nothing is remote, so nothing about distance is worth a warning.
func TestOneNode(t *testing.T) {
	m := healthyNUMA()
	m.Topology.Nodes = m.Topology.Nodes[:1]
	m.Topology.Nodes[0].Distances = []int{10}
	m.Topology.Settings.AutoNUMA, m.Topology.Settings.ZoneReclaim = 1, 1
	m.Topology.Limits.CPUs, m.Topology.Online, m.Topology.Limits.Nodes, m.GOMAXPROCS = numa.List{0, 1}, numa.List{0, 1}, numa.List{0}, 2
	report := ExamineNUMA(m, "")
	var table bytes.Buffer
	if err := report.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(table.String(), "warn") || !strings.Contains(table.String(), "nothing here is remote") {
		t.Errorf("one node:\n%s", table.String())
	}
}

func TestLocalNUMA(t *testing.T) {
	m, err := LocalNUMA(2)
	if err != nil {
		t.Fatal(err)
	}
	if m.Verified != nil || m.Topology == nil || m.Source == "" {
		t.Errorf("%+v", m)
	}
}
