package shm

import (
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }
