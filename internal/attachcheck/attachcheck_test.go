package attachcheck_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/coreplica/coreplica/internal/attachcheck"
	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// The ledger stands on one of the first three kinds, the stacks on the fourth.
func TestLedgerKindsAttach(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.BPF)
	for _, name := range []string{"raw_tracepoint", "tp_btf", "perf_event", "ringbuf", "iterator"} {
		kind, err := attachcheck.ByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := kind.Try(); err != nil {
			t.Errorf("%v (errno %d)", err, attachcheck.Errno(err))
		}
	}
}

// Whatever the kernel says, trying must say it too, and leave nothing: TestMain
// counts the file descriptors.
func TestEveryKindAnswers(t *testing.T) {
	testkit.Need(t, testkit.Root)
	for _, kind := range attachcheck.Kinds() {
		if err := kind.Try(); err != nil {
			t.Logf("%s is refused: %v", kind.Name, err)
			if strings.Contains(err.Error(), "MEMLOCK") {
				t.Errorf("%s: the text blames a limit that was lifted", kind.Name)
			}
			continue
		}
		t.Logf("%s attaches", kind.Name)
	}
	if err := attachcheck.HardwareCycles(); err != nil {
		t.Logf("no hardware counter: %v", err)
	}
}

func TestByNameKnowsItsNames(t *testing.T) {
	for _, kind := range attachcheck.Kinds() {
		if got, err := attachcheck.ByName(kind.Name); err != nil || got.Name != kind.Name {
			t.Errorf("ByName(%q) = %q, %v", kind.Name, got.Name, err)
		}
	}
	if _, err := attachcheck.ByName("telepathy"); err == nil {
		t.Error("ByName knows a kind that does not exist")
	}
}

func TestErrno(t *testing.T) {
	if got := attachcheck.Errno(errors.New("no number")); got != 0 {
		t.Errorf("Errno of an error without one = %d", got)
	}
}
