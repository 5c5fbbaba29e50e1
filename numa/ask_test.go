package numa

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/testkit"
)

// answered is what a process says of itself.
type answered struct {
	Limits Limits
	// Used are the CPUs on which its pool really ran.
	Used List
}

// answer is another life of the test binary: it joins a control group, starts
// again so that nothing is left of before, and then tells what its pool did.
func answer(cgroup string) int {
	err := func() error {
		if cgroup == "main" {
			return askMain()
		}
		if cgroup != "here" {
			if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
				return err
			}
			if err := os.Setenv(askEnv, "here"); err != nil {
				return err
			}
			return unix.Exec("/proc/self/exe", os.Args, os.Environ())
		}
		topo, err := Local()
		if err != nil {
			return err
		}
		used, err := usedByPool(topo)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(answered{topo.Limits, used})
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A goroutine that is locked in init is the first thread's for good.
func init() {
	if os.Getenv(askEnv) == "main" {
		runtime.LockOSThread()
	}
}

// askMain binds the process's first thread and reads the limits.
func askMain() error {
	if unix.Gettid() != os.Getpid() {
		return errors.New("TestMain does not run on the first thread")
	}
	topo, err := Local()
	if err != nil {
		return err
	}
	return bound(topo.Limits.CPUs[:1], func(cpu int) error {
		during, err := Local()
		if err != nil {
			return err
		}
		raw, err := Read(os.DirFS("/"))
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(answered{during.Limits, raw.Limits.CPUs})
	})
}

// usedByPool gives a pool work and returns where it ran.
func usedByPool(topo *Topology) (List, error) {
	var mu sync.Mutex
	var used List
	p, err := StartPool(topo, func(_ Binding, batch []int) {
		for range batch {
			cpu, _ := getcpu()
			mu.Lock()
			used = used.Or(List{cpu})
			mu.Unlock()
		}
	}, PoolOptions{})
	if err != nil {
		return nil, err
	}
	for range 200 {
		for _, w := range p.Workers() {
			if _, err := w.TrySubmit(make([]int, 10)); err != nil {
				return nil, errors.Join(err, p.Close())
			}
		}
		time.Sleep(time.Millisecond / 10)
	}
	return used, p.Close()
}

// ask runs the test binary as another process.
func ask(t *testing.T, how string) answered {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe") // It dies with the test.
	cmd.Env = append(os.Environ(), askEnv+"="+how)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var a answered
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return a
}

// A process in a cpuset sees that it may use one CPU, and its pool uses that and
// no other. Without the cpuset it uses more, or this would prove nothing.
func TestCpusetRun(t *testing.T) {
	testkit.Need(t, testkit.TwoCPUs, testkit.Cpuset)
	topo := local(t)
	last := topo.Limits.CPUs[len(topo.Limits.CPUs)-1]
	group := testkit.NewCpuset(t, List{last}.String(), topo.MemoryNodes().String())
	inside := ask(t, group)
	if one := (List{last}); !inside.Limits.CPUs.Equal(one) || !inside.Used.Equal(one) || !inside.Limits.CpusetCPUs.Equal(one) {
		t.Errorf("in a cpuset of CPU %d: limits %+v, used %s", last, inside.Limits, inside.Used)
	}
	if outside := ask(t, "here"); !outside.Used.Equal(topo.Limits.CPUs) {
		t.Errorf("without a cpuset: used %s of %s", outside.Used, topo.Limits.CPUs)
	}
}

// The same by affinity, as taskset sets it; no privilege is needed.
func TestAffinityRun(t *testing.T) {
	testkit.Need(t, testkit.TwoCPUs)
	topo := local(t)
	err := bound(topo.Limits.CPUs[:1], func(cpu int) error {
		a := ask(t, "here") // A child inherits the thread's affinity.
		if one := (List{cpu}); !a.Limits.CPUs.Equal(one) || !a.Used.Equal(one) {
			t.Errorf("bound to CPU %d: limits %+v, used %s", cpu, a.Limits, a.Used)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The process's limits stay what they are while one of its threads is bound,
// though /proc/self shows that thread where it is the process's first.
func TestLimitsWhileBound(t *testing.T) {
	testkit.Need(t, testkit.TwoCPUs)
	out := ask(t, "main")
	if !out.Limits.CPUs.Equal(local(t).Limits.CPUs) || len(out.Used) != 1 {
		t.Errorf("with the first thread bound to %s: limits %s", out.Used, out.Limits.CPUs)
	}
}

// What numactl reads, we read too.
func TestTopologyEqualsNumactl(t *testing.T) {
	testkit.Need(t, testkit.Numactl)
	out, err := exec.Command("numactl", "-H").CombinedOutput()
	if err != nil {
		t.Skip(testkit.SkipLine(testkit.Numactl, fmt.Sprintf("numactl -H: %v: %s", err, out)))
	}
	topo := local(t)
	seen := 0
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		var id int
		if n, _ := fmt.Sscanf(key, "node %d cpus", &id); n == 1 && strings.HasSuffix(key, "cpus") {
			seen++
			if n, found := topo.Node(id); !found || strings.Join(strings.Fields(value), " ") != strings.Trim(fmt.Sprint([]int(n.CPUs)), "[]") {
				t.Errorf("numactl says %s: %s", key, value)
			}
		} else if n, _ := fmt.Sscanf(key, "node %d size", &id); n == 1 && strings.HasSuffix(key, "size") {
			node, _ := topo.Node(id)
			if want := fmt.Sprintf("%d MB", node.Memory.TotalBytes>>20); strings.TrimSpace(value) != want {
				t.Errorf("numactl says %s: %s, want %s", key, value, want)
			}
		} else if n, _ := fmt.Sscanf(strings.TrimSpace(key), "%d", &id); n == 1 && value != "" {
			node, _ := topo.Node(id)
			if strings.Join(strings.Fields(value), " ") != strings.Trim(fmt.Sprint(node.Distances), "[]") {
				t.Errorf("numactl says distances of node %d: %s, want %v", id, value, node.Distances)
			}
		}
	}
	if seen != len(topo.Nodes) {
		t.Errorf("numactl knows %d nodes, want %d:\n%s", seen, len(topo.Nodes), out)
	}
}
