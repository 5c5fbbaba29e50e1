package numa

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
)

// askEnv makes the test binary say what it may use instead of testing; see
// TestCpusetRun.
const askEnv = "COREPLICA_NUMA_ASK"

// Placement on nodes and CPUs that go away are tried where nobody else is.
//
//coreplica:guest kernel=6.1,6.12 topology=2x2 tools=numactl expect=root,numa,twocpus,hotplug,numactl,cpuset,hugepages run="TestP|TestW|TestBuild|TestR|TestTopology|TestVerify|TestSources|TestAffinity|TestCpuset" short=true
func TestMain(m *testing.M) {
	if cgroup := os.Getenv(askEnv); cgroup != "" {
		os.Exit(answer(cgroup))
	}
	testkit.Main(m)
}

// local reads this machine.
func local(tb testing.TB) *Topology {
	tb.Helper()
	t, err := Local()
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// twoNodes returns two nodes of this machine with CPUs and memory that may be
// used, or skips.
func twoNodes(tb testing.TB) (t *Topology, near, far int) {
	tb.Helper()
	testkit.Need(tb, testkit.NUMA)
	t = local(tb)
	both := t.ComputeNodes().And(t.MemoryNodes())
	if len(both) < 2 {
		testkit.Skip(tb, testkit.NUMA, fmt.Sprintf("only nodes %s have both CPUs and memory for this process", both))
	}
	return t, both[0], both[1]
}

// lines joins lines as files have them.
func lines(all ...string) string { return strings.Join(all, "\n") + "\n" }
