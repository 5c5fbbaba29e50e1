package bpf

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
)

//coreplica:guest kernel=6.1,6.12 modules="loop;btrfs" tools=losetup,bpftool expect=root,btf,bpf,bpffs,tracefs,kprobes,fentry,loop,bpftool

const hogEnv = "COREPLICA_TEST_HOG"

// The test program runs itself again as a hog, which burns CPU until it is
// killed.
func TestMain(m *testing.M) {
	if os.Getenv(hogEnv) != "" {
		var n uint64
		for {
			n = n*6364136223846793005 + 1
			if n == 0 {
				os.Exit(1) // Never: the sequence has full period, and zero comes last.
			}
		}
	}
	testkit.Main(m, testkit.Pins("coreplica-test"), testkit.Loops("coreplica-test"))
}

// startHog burns one CPU in another process until the test ends.
func startHog(t testing.TB) (pid int) {
	t.Helper()
	hog := exec.Command("/proc/self/exe")
	hog.Env = append(os.Environ(), hogEnv+"=1", "GOMAXPROCS=1")
	if err := hog.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = hog.Process.Kill()
		_ = hog.Wait()
	})
	time.Sleep(100 * time.Millisecond)
	return hog.Process.Pid
}

func openLedger(t testing.TB, o LedgerOptions) *Ledger {
	t.Helper()
	l, err := OpenLedger(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// observe returns what the ledger saw while work ran, by the contexts' names.
func observe(t testing.TB, l *Ledger, work func()) (map[string]int64, *Delta) {
	t.Helper()
	before, err := l.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	work()
	after, err := l.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	d, err := after.Since(before)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]int64{}
	for id, ns := range d.Ns {
		named[l.ContextName(id)] += ns
	}
	return named, d
}
