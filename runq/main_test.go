package runq_test

import (
	"os"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/runq"
)

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
