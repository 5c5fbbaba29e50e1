package numa

import (
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
)

// On every CPU, what we use says the same as the kernel, and that the kernel put
// us there.
func TestVerifyCurrent(t *testing.T) {
	topo := local(t)
	if err := VerifyCurrent(topo.Limits.CPUs); err != nil {
		t.Fatal(err)
	}
	t.Logf("by %s, of %v", CurrentFrom(), currentSources())
}

// All ways that this CPU has agree, not only the chosen one.
func TestSourcesAgree(t *testing.T) {
	topo := local(t)
	err := bound(topo.Limits.CPUs, func(cpu int) error {
		for _, source := range currentSources() {
			if gotCPU, gotNode := readCurrent(source); gotCPU != cpu || gotNode != topo.NodeOf(cpu) {
				t.Errorf("%s on CPU %d, node %d: says %d, %d", source, cpu, topo.NodeOf(cpu), gotCPU, gotNode)
			}
		}
		if CurrentCPU() != cpu || CurrentNode() != topo.NodeOf(cpu) {
			t.Errorf("on CPU %d: CurrentCPU %d, CurrentNode %d", cpu, CurrentCPU(), CurrentNode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A control: a source that is wrong is noticed, and not chosen.
func TestCheckSourceCanFail(t *testing.T) {
	testkit.Need(t, testkit.TwoCPUs)
	topo := local(t)
	last := topo.Limits.CPUs[len(topo.Limits.CPUs)-1]
	err := bound(List{last}, func(int) error {
		return VerifyCurrent(List{maxCPUs - 1})
	})
	if err == nil {
		t.Error("a CPU that does not exist is verified")
	}
	if got, err := Affinity(0); err == nil && got.Equal(List{last}) && len(topo.Limits.CPUs) > 1 {
		t.Error("the affinity was not restored")
	}
}

func TestCurrentDoesNotAllocate(t *testing.T) {
	for _, source := range currentSources() {
		if n := testing.AllocsPerRun(100, func() { _, _ = readCurrent(source) }); n != 0 {
			t.Errorf("%s: %v allocations", source, n)
		}
	}
}

var sinkCPU int

// What a look at the current CPU costs, by each way that this CPU has.
func BenchmarkCurrent(b *testing.B) {
	for _, source := range currentSources() {
		b.Run("source="+string(source), func(b *testing.B) {
			for b.Loop() {
				sinkCPU, _ = readCurrent(source)
			}
		})
	}
	b.Run("source=chosen", func(b *testing.B) {
		for b.Loop() {
			sinkCPU = CurrentCPU()
		}
	})
}
