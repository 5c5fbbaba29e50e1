package runq_test

import (
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/runq"
)

func TestMain(m *testing.M) {
	runq.Main()
	testkit.Main(m)
}
