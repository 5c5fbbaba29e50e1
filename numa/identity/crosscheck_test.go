package identity

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/cpuid/v2/topology"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/numa"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// On this machine every source was asked about the same CPUs, so the number of
// threads is the same. Other differences are facts about the machine: guests show
// no caches or other cores than their kernel makes of them, and intel-go/cpuid
// knows no AMD caches. They are logged, as the doctor shows them.
func TestCrossCheckHere(t *testing.T) {
	topo, err := numa.Local()
	if err != nil {
		t.Fatal(err)
	}
	differ, err := CrossCheck(topo)
	if err != nil {
		t.Logf("one source less: %v", err)
	}
	for _, d := range differ {
		t.Log(d)
		if d.Fact == factThreads {
			t.Errorf("the sources saw other CPUs: %s", d)
		}
	}
}

func TestCompare(t *testing.T) {
	got := Compare(
		Opinion{"a", map[string]int{"cores": 2, "L3 bytes": 1, "line": 64}},
		Opinion{"b", map[string]int{"cores": 2, "L3 bytes": 0}},
		Opinion{"c", map[string]int{"cores": 4}},
	)
	want := []Disagreement{
		{"L3 bytes", []Said{{"a", 1}, {"b", 0}}},
		{"cores", []Said{{"a", 2}, {"b", 2}, {"c", 4}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if text := got[0].String(); text != "L3 bytes: a: 1, b: not found" {
		t.Error(text)
	}
}

// The kernel's and the library's description of one machine give the same facts,
// and a core less on either side shows.
func TestOpinionsOfOneMachine(t *testing.T) {
	cache := func(level int, kind topology.CacheType, size int) topology.Cache {
		return topology.Cache{Level: level, Type: kind, Size: size, LineSize: 64}
	}
	core := topology.Core{
		Threads: []topology.Thread{{}, {}},
		Caches:  []topology.Cache{cache(1, topology.Data, 32<<10), cache(1, topology.Instruction, 64<<10), cache(2, topology.Unified, 1<<20)},
	}
	group := topology.Group{Cores: []topology.Core{core, core}, Caches: []topology.Cache{cache(3, topology.Unified, 32<<20)}}
	system := &topology.System{Packages: []topology.Package{{Groups: []topology.Group{group}}, {Groups: []topology.Group{group}}}}

	topo := &numa.Topology{}
	for cpu := range 8 {
		first := cpu &^ 1
		topo.CPUs = append(topo.CPUs, numa.CPU{ID: cpu, Package: cpu / 4, Siblings: numa.List{first, first + 1}})
		topo.Limits.CPUs = append(topo.Limits.CPUs, cpu)
	}
	for first := 0; first < 8; first += 2 {
		for _, c := range []numa.Cache{{Level: 1, Kind: "Data", SizeBytes: 32 << 10}, {Level: 1, Kind: "Instruction", SizeBytes: 64 << 10}, {Level: 2, Kind: "Unified", SizeBytes: 1 << 20}} {
			c.LineBytes, c.CPUs = 64, numa.List{first, first + 1}
			topo.Caches = append(topo.Caches, c)
		}
	}
	for first := 0; first < 8; first += 4 {
		topo.Caches = append(topo.Caches, numa.Cache{Level: 3, Kind: "Unified", SizeBytes: 32 << 20, LineBytes: 64, CPUs: numa.List{first, first + 1, first + 2, first + 3}})
	}
	if differ := Compare(kernelOpinion(topo), klauspostOpinion(system)); differ != nil {
		t.Errorf("they differ: %v", differ)
	}
	topo.Limits.CPUs = topo.Limits.CPUs[:6]
	differ := Compare(kernelOpinion(topo), klauspostOpinion(system))
	if len(differ) != 2 || differ[0].Fact != factCores || differ[1].Fact != factThreads {
		t.Errorf("with a core less: %v", differ)
	}
}
