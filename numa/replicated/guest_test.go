package replicated

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/numa"
)

// homed is a structure that knows on which node and CPU it was made.
type homed struct{ node, cpu, sum int }

func newHomed() *homed { return &homed{node: numa.CurrentNode(), cpu: numa.CurrentCPU()} }

func (h *homed) Apply(n int) int { h.sum += n; return h.sum }
func (h *homed) Clone() *homed   { c := newHomed(); c.sum = h.sum; return c }

// thisMachine returns the machine, or skips if it has one node.
func thisMachine(t testing.TB) (*numa.Topology, machine) {
	t.Helper()
	testkit.Need(t, testkit.NUMA)
	local, err := numa.Local()
	if err != nil {
		t.Fatal(err)
	}
	m, ok := Machine(local).(machine)
	if !ok || m.Nodes() < 2 {
		testkit.Skip(t, testkit.NUMA, "this process may use the CPUs of one node only")
	}
	return local, m
}

// perNode starts a pinned worker for each node.
func perNode(t testing.TB, local *numa.Topology, per numa.Per) *numa.Pool[struct{}] {
	t.Helper()
	p, err := numa.StartPool(local, func(numa.Binding, []struct{}) {}, numa.PoolOptions{Per: per})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Each replica is built on its node, so is one that is cloned later, and pinned
// workers read that of their own.
func TestNodesBuildAndReadTheirOwn(t *testing.T) {
	local, m := thisMachine(t)
	x, err := New(newHomed, Options{Topology: m})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	pool := perNode(t, local, numa.PerNode)
	check := func(what string) {
		t.Helper()
		for _, w := range pool.Workers() {
			node := w.Binding().Node
			err := w.Run(t.Context(), func() {
				h := x.Handle()
				if _, err := h.Write(context.Background(), 1); err != nil {
					t.Error(err)
				}
				for _, read := range []func(func(*homed)) error{h.Read, x.Read, x.View} {
					if err := read(func(s *homed) {
						if s.node != node {
							t.Errorf("%s: a worker on node %d reads the replica of node %d", what, node, s.node)
						}
					}); err != nil {
						t.Error(err)
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := len(x.Replicas()); got != m.Nodes() {
		t.Fatalf("%d replicas on %d nodes", got, m.Nodes())
	}
	check("at first")
	last := m.Nodes() - 1
	if err := x.RemoveReplica(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	// The control: without its own replica, the node is served by another.
	if err := x.HandleOn(last).Read(func(s *homed) {
		if s.node == m.ids[last] {
			t.Error("a node without a replica reads its own")
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := x.AddReplica(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	check("after a rebuild")
}

// onHeap hides that a machine's nodes have memory of their own.
type onHeap struct{ Topology }

// Replicas of words are on their nodes, wholly, whoever made them grow: here the
// threads of one node do it for all. The heap fails the same test, and reports it.
func TestNodesHoldTheirWords(t *testing.T) {
	local, m := thisMachine(t)
	const keys = 60_000
	first := perNode(t, local, numa.PerNode).OnNode(m.ids[0])[0]
	fill := func(topology Topology) *Map[uint64, uint64] {
		x, err := NewMap[uint64, uint64](Options{Topology: topology, LogSize: 64})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = x.Close() })
		if err := first.Run(t.Context(), func() {
			for k := range uint64(keys) {
				x.Store(k, k)
			}
		}); err != nil {
			t.Fatal(err)
		}
		return x
	}
	everywhere := func(what string, landed []numa.Landed, err error, pages int) {
		t.Helper()
		if err != nil || len(landed) != m.Nodes() {
			t.Fatalf("%s: %v, %v", what, landed, err)
		}
		for i, l := range landed {
			t.Logf("%s: %s", what, l)
			if l.Node != m.ids[i] || l.Percent() != 100 || l.Placement.Present() < pages {
				t.Errorf("%s, node %d: %s", what, m.ids[i], l)
			}
		}
	}
	words := fill(m)
	landed, err := words.Placement(t.Context())
	everywhere("words", landed, err, keys*16/os.Getpagesize())
	last := m.Nodes() - 1
	if err := words.RemoveReplica(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if err := words.AddReplica(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	landed, err = words.Placement(t.Context())
	everywhere("a cloned table", landed, err, keys*16/os.Getpagesize())

	set, err := NewSet[int32](Options{Topology: m})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	set.Add(1)
	landed, err = set.Placement(t.Context())
	everywhere("a set of one", landed, err, 1)
	count, err := NewCounter(Options{Topology: m})
	if err != nil {
		t.Fatal(err)
	}
	defer count.Close()
	count.Add(1)
	landed, err = count.Placement(t.Context())
	everywhere("a counter", landed, err, 1)

	landed, err = fill(onHeap{m}).Placement(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	share := landed[last].Placement.Percent(m.ids[last])
	t.Logf("on the heap, %.1f %% of the table of node %d are there", share, m.ids[last])
	if share == 100 {
		t.Error("on the heap all is well too: the test is blind")
	}
}

// What is on the heap reports its share.
func TestNodesReportTheHeapsShare(t *testing.T) {
	_, m := thisMachine(t)
	x, err := NewMap[int, *[4096]byte](Options{Topology: m})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	for k := range 50 {
		x.Store(k, new([4096]byte))
	}
	landed, err := x.Placement(t.Context())
	if err != nil || len(landed) != m.Nodes() {
		t.Fatalf("%v, %v", landed, err)
	}
	for i, l := range landed {
		t.Log(l)
		if l.Node != m.ids[i] || l.Objects < 50 || l.Placement.Pages < 50 || l.Percent() < 0 || l.Percent() > 100 {
			t.Errorf("node %d: %s", m.ids[i], l)
		}
	}
}

func setOnline(t testing.TB, cpu int, online string) {
	t.Helper()
	name := fmt.Sprintf("/sys/devices/system/cpu/cpu%d/online", cpu)
	if err := os.WriteFile(name, []byte(online), 0); err != nil {
		t.Errorf("set CPU %d online to %s: %v", cpu, online, err)
	}
}

// busy is a map in use by pinned workers and by goroutines that are not.
type busy struct {
	m       *Map[int, int]
	workers []*numa.Worker[struct{}]
	counts  []atomic.Int64 // of steps, pinned workers first
	stop    func()
}

// keepBusy starts a user for each worker of the pool, and two that are free. Each
// writes its own key and must read it back.
func keepBusy(t testing.TB, m *Map[int, int], pool *numa.Pool[struct{}]) *busy {
	const free = 2
	b := &busy{m: m, workers: pool.Workers()}
	b.counts = make([]atomic.Int64, len(b.workers)+free)
	var wg sync.WaitGroup
	var stopped atomic.Bool
	b.stop = func() { stopped.Store(true); wg.Wait() }
	t.Cleanup(b.stop)
	for i := range b.counts {
		step := func() {
			n := int(b.counts[i].Load())
			m.Store(i, n)
			if v, ok := m.Load(i); !ok || v != n {
				t.Errorf("user %d reads %d, %v and wrote %d", i, v, ok, n)
			}
			b.counts[i].Add(1)
		}
		wg.Go(func() {
			for !stopped.Load() {
				if i >= len(b.workers) {
					step()
				} else if err := b.workers[i].Run(context.Background(), step); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	return b
}

// getOn waits until each user has done some steps more, and looks at the replicas.
func (b *busy) getOn(t testing.TB, when string) {
	t.Helper()
	for i := range b.counts {
		before := b.counts[i].Load()
		eventually(t, fmt.Sprintf("%s: user %d gets on", when, i), func() bool { return b.counts[i].Load() > before+3 })
	}
	landed, err := b.m.Placement(t.Context())
	if err != nil {
		t.Errorf("%s: %v", when, err)
	}
	for _, l := range landed {
		if l.Percent() != 100 {
			t.Errorf("%s: %s", when, l)
		}
	}
}

// CPUs of a node go offline one after the other, until the node has none, and come
// back. Readers and writers that are pinned there, and such that are not, get on at
// each moment, a replica can be rebuilt meanwhile, and nothing is lost.
func TestNodesLoseTheirCPUs(t *testing.T) {
	local, m := thisMachine(t)
	testkit.Need(t, testkit.Hotplug)
	x, err := NewMap[int, int](Options{Topology: m, LogSize: 64})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	b := keepBusy(t, x, perNode(t, local, numa.PerCPU))
	b.getOn(t, "at first")
	last := m.Nodes() - 1
	cpus := m.CPUs(last)
	for _, cpu := range cpus {
		setOnline(t, cpu, "0")
		defer setOnline(t, cpu, "1") // Should the test end early.
		b.getOn(t, fmt.Sprintf("CPU %d is off", cpu))
		if err := x.RemoveReplica(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		if err := x.AddReplica(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		b.getOn(t, fmt.Sprintf("CPU %d is off and the replica rebuilt", cpu))
	}
	for _, cpu := range cpus {
		setOnline(t, cpu, "1")
	}
	b.getOn(t, "all are back")
	eventually(t, "lost replicas are rebuilt", func() bool { return len(x.core.words[0].Replicas()) == m.Nodes() })
	b.stop()
	if err := x.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	for i, w := range b.workers {
		if s, err := w.Status(); err != nil || s.Displaced() {
			t.Errorf("worker %d at the end: %+v, %v", i, s, err)
		}
		if v, _ := x.Load(i); int64(v) != b.counts[i].Load()-1 {
			t.Errorf("worker %d wrote %d, and the map has %d", i, b.counts[i].Load()-1, v)
		}
	}
}

// askEnv makes the test binary use a structure in a control group and tell where
// that ran, instead of testing.
const askEnv = "COREPLICA_REPLICATED_ASK"

type answered struct {
	// Replicas is their number, Used the CPUs on which they were built, written
	// and read, and Away how many of them have a table that is not on its node.
	Replicas, Away int
	Used           numa.List
}

// answer is another life of the test binary: it joins a control group and starts
// again, so that nothing is left of before.
func answer(group string) int {
	err := func() error {
		if group != "here" {
			if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
				return err
			}
			if err := os.Setenv(askEnv, "here"); err != nil {
				return err
			}
			return unix.Exec("/proc/self/exe", os.Args, os.Environ())
		}
		a, err := useAll()
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(a)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// useAll builds, writes and reads structures on all that the process may use.
func useAll() (a answered, err error) {
	local, err := numa.Local()
	if err != nil {
		return a, err
	}
	var mu sync.Mutex
	use := func(cpu int) {
		mu.Lock()
		a.Used = a.Used.Or(numa.List{cpu})
		mu.Unlock()
	}
	build := func() *homed { h := newHomed(); use(h.cpu); return h }
	x, err := New(build, Options{Topology: Machine(local)})
	if err != nil {
		return a, err
	}
	defer x.Close()
	words, err := NewMap[int, int](Options{Topology: Machine(local)})
	if err != nil {
		return a, err
	}
	defer words.Close()
	pool, err := numa.StartPool(local, func(numa.Binding, []struct{}) {}, numa.PoolOptions{Per: numa.PerCPU})
	if err != nil {
		return a, err
	}
	defer pool.Close()
	for i, w := range pool.Workers() {
		for range 20 {
			if err := w.Run(context.Background(), func() {
				use(numa.CurrentCPU())
				words.Store(i, i)
				_, err = x.Write(context.Background(), 1)
			}); err != nil {
				return a, err
			}
		}
	}
	if err != nil {
		return a, err
	}
	landed, err := words.Placement(context.Background())
	for _, l := range landed {
		if l.Node != numa.Unknown && l.Percent() != 100 {
			a.Away++
		}
	}
	a.Replicas = len(landed)
	return a, err
}

func ask(t *testing.T, how string) (a answered) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe") // It dies with the test.
	cmd.Env = append(os.Environ(), askEnv+"="+how)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return a
}

// In a cpuset, replicas are built and used on its CPUs alone, and there are as many
// as nodes with some of them. Without one, more CPUs are used, or this would prove
// nothing.
func TestOnlyTheCpusetIsUsed(t *testing.T) {
	testkit.Need(t, testkit.TwoCPUs, testkit.Cpuset)
	local, err := numa.Local()
	if err != nil {
		t.Fatal(err)
	}
	nodes := local.ComputeNodes()
	var one numa.List // a CPU of each node
	for _, node := range nodes {
		one = one.Or(local.UsableCPUs(node)[:1])
	}
	last := local.Limits.CPUs[len(local.Limits.CPUs)-1:]
	for _, tt := range []struct {
		cpus     numa.List
		replicas int
	}{{last, 1}, {one, len(nodes)}} {
		t.Run("CPUs "+tt.cpus.String(), func(t *testing.T) {
			a := ask(t, testkit.NewCpuset(t, tt.cpus.String(), local.MemoryNodes().String()))
			if !a.Used.Equal(tt.cpus) || a.Replicas != tt.replicas || a.Away != 0 {
				t.Errorf("in a cpuset of CPUs %s: %+v, want %d replicas", tt.cpus, a, tt.replicas)
			}
		})
	}
	if a := ask(t, "here"); len(a.Used) <= len(one) && len(local.Limits.CPUs) > len(one) {
		t.Errorf("without a cpuset: %+v of CPUs %s", a, local.Limits.CPUs)
	}
}
