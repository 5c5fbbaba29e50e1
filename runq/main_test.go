package runq_test

import (
	"os"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/runq"
)

// Copies on other nodes, and CPUs that go away, are tried where nobody else is.
//
//coreplica:guest kernel=6.1 topology=2x2 expect=root,numa,twocpus,hotplug run="TestGuest"
func TestMain(m *testing.M) {
	runq.Main()
	if name := os.Getenv(openerEnv); name != "" {
		opener(name)
	}
	if name := os.Getenv(lookerEnv); name != "" {
		looker(name)
	}
	testkit.Main(m)
}
