package replicated

import (
	"bytes"
	"errors"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/numa"
)

// A replica for each node that has CPUs, counted from 0 whatever the machine calls
// its nodes, and none for a node of memory alone.
func TestMachine(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	fs := fstest.MapFS{
		"sys/devices/system/cpu/online":   file("0-3\n"),
		"sys/devices/system/cpu/possible": file("0-3\n"),
		"sys/devices/system/cpu/present":  file("0-3\n"),
		"sys/devices/system/node/online":  file("0,2-3\n"),
	}
	for node, lines := range map[string][2]string{"0": {"0-1\n", "10 21 17\n"}, "2": {"2-3\n", "21 10 24\n"}, "3": {"\n", "17 24 10\n"}} {
		dir := "sys/devices/system/node/node" + node + "/"
		fs[dir+"cpulist"], fs[dir+"distance"] = file(lines[0]), file(lines[1])
		fs[dir+"meminfo"] = file("Node " + node + " MemTotal: 1024 kB\nNode " + node + " MemFree: 512 kB\n")
	}
	read, err := numa.Read(fs)
	if err != nil {
		t.Fatal(err)
	}
	m := Machine(read)
	if m.Nodes() != 2 || !slices.Equal(m.CPUs(0), []int{0, 1}) || !slices.Equal(m.CPUs(1), []int{2, 3}) {
		t.Errorf("%d nodes with CPUs %v and %v", m.Nodes(), m.CPUs(0), m.CPUs(m.Nodes()-1))
	}
	if got := m.Nearest(0, []int{1}); got != 1 {
		t.Errorf("nearest to 0 of {1}: %d", got)
	}
	if got := m.Nearest(1, []int{0, 1}); got != 1 {
		t.Errorf("nearest to 1 of {0, 1}: %d", got)
	}
}

// A profile tells what builds and clones replicas from what uses them.
func TestMachineLabelsItsThreads(t *testing.T) {
	local, err := numa.Local()
	if err != nil {
		t.Fatal(err)
	}
	var inside, outside bytes.Buffer
	Machine(local).Run(0, func() { err = pprof.Lookup("goroutine").WriteTo(&inside, 1) })
	if err := errors.Join(err, pprof.Lookup("goroutine").WriteTo(&outside, 1)); err != nil {
		t.Fatal(err)
	}
	const label = `"role":"replica"`
	if !strings.Contains(inside.String(), label) || !strings.Contains(inside.String(), `"numa_node":`) {
		t.Errorf("the profile has no label %s:\n%s", label, inside.String())
	}
	if strings.Contains(outside.String(), label) {
		t.Error("the label stays when the function has returned")
	}
}

// On this machine, however many nodes it has, each replica is built on its node,
// reads run on theirs, and all replicas agree at the end.
func TestOnThisMachine(t *testing.T) {
	local, err := numa.Local()
	if err != nil {
		t.Fatal(err)
	}
	topology := Machine(local)
	for node := range topology.Nodes() {
		topology.Run(node, func() {
			if got := topology.Current(); got != node {
				t.Errorf("a function for node %d runs on %d", node, got)
			}
		})
	}
	m, err := NewMap[int, int](Options{Topology: topology})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	const workers, each = 4, 1009
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				m.Store(w*each+i, i)
			}
		})
	}
	wg.Wait()
	for node := range topology.Nodes() {
		topology.Run(node, func() {
			for k := range workers * each {
				if v, ok := m.Load(k); !ok || v != k%each {
					t.Errorf("key %d on node %d: %d, %t", k, node, v, ok)
					return
				}
			}
		})
	}
	if got := m.Len(); got != workers*each {
		t.Errorf("%d keys", got)
	}
}

// With two nodes or more, replication is real: the replicas are as many as nodes.
func TestOneReplicaPerNode(t *testing.T) {
	testkit.Need(t, testkit.NUMA)
	local, err := numa.Local()
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewMap[int, int](Options{Topology: Machine(local)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if got := len(m.Stats()[0].Replicas); got != len(local.ComputeNodes()) || got < 2 {
		t.Errorf("%d replicas on %d nodes", got, len(local.ComputeNodes()))
	}
}
