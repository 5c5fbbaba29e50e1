package numa

import (
	"errors"
	"runtime"
	"testing"
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

// A control: a source that is wrong about the CPU or the node is noticed, and a
// thread that is moved each time is told from one that is wrong.
func TestCheckSourceCanFail(t *testing.T) {
	for name, lie := range map[string]func(cpu, node int) (int, int){
		"CPU":  func(cpu, node int) (int, int) { return cpu + 316, node },
		"node": func(cpu, node int) (int, int) { return cpu, node + 1 },
	} {
		err := checkSource(SourceSyscall, func(CurrentSource) (int, int) { return lie(getcpu()) })
		if err == nil || errors.Is(err, errMoved) {
			t.Errorf("a wrong %s: %v", name, err)
		}
	}
	if err := checkSource(SourceSyscall, readCurrent); err != nil {
		t.Error(err)
	}
}

// A CPU that does not exist cannot be verified, and the thread is as before.
func TestVerifyCurrentRestores(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := Affinity(0)
	if err != nil {
		t.Fatal(err)
	}
	var refused *CPUError
	if err := VerifyCurrent(List{before[0], maxCPUs - 1}); !errors.As(err, &refused) {
		t.Errorf("a CPU that does not exist: %v", err)
	}
	if after, err := Affinity(0); err != nil || !after.Equal(before) {
		t.Errorf("the affinity is %s, %v; before %s", after, err, before)
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
