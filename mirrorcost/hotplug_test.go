package mirrorcost

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/coreplica/coreplica/bpf"
	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/mirrorcost/load"
)

const lastCPU = "/sys/devices/system/cpu/cpu1/online"

// online switches CPU 1 of a guest. The build machine's own stay as they are.
func online(t *testing.T, on string) {
	t.Helper()
	if err := os.WriteFile(lastCPU, []byte(on), 0); err != nil {
		t.Fatal(err)
	}
}

func hotplugPlan(t *testing.T) Plan {
	t.Helper()
	needRun(t)
	testkit.Need(t, testkit.Guest)
	p := quickPlan()
	p.Baseline, p.Mirror, p.DeviceBytes = "ext4", "files", 192<<20
	p.RatePerSecond, p.Duration = 50, 4*time.Second
	t.Cleanup(func() { online(t, "1") })
	return p
}

// runWith runs a plan and switches CPU 1 off, and after a while on again, when the
// quads have begun.
func runWith(t *testing.T, p Plan, off time.Duration) error {
	t.Helper()
	begun := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-begun
		time.Sleep(500 * time.Millisecond)
		online(t, "0")
		if off > 0 {
			time.Sleep(off)
			online(t, "1")
		}
	}()
	_, err := Run(t.Context(), p, Options{Progress: func(now Progress) {
		if now.Phase == phaseLedger {
			select {
			case begun <- struct{}{}:
			default:
			}
		}
	}})
	select {
	case begun <- struct{}{}: // If the run ended before its quads.
	default:
	}
	<-done
	return err
}

// A run ends when a CPU goes offline, and says that this is why, also when the CPU
// is back before anybody looks.
func TestCPUGoesOffline(t *testing.T) {
	p := hotplugPlan(t)
	p.CPUs = []int{0}
	for name, off := range map[string]time.Duration{"for good": 0, "and back": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			if err := runWith(t, p, off); !errors.Is(err, bpf.ErrCPUsChanged) {
				t.Errorf("got %v", err)
			}
			online(t, "1")
		})
	}
}

// A load's thread that is pinned to a CPU notices that it is no longer.
func TestPinnedLoadIsMoved(t *testing.T) {
	p := hotplugPlan(t)
	p.CPUs = []int{1}
	s, err := open(t.Context(), p, Options{}, newProgress(&p, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	block := load.Block{Leg: legNames[baseline], Writes: 211, RatePerSecond: 100}
	if _, err := s.process.Run(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(500*time.Millisecond, func() { online(t, "0") })
	if _, err := s.process.Run(t.Context(), block); !errors.Is(err, load.ErrMoved) {
		t.Errorf("got %v", err)
	}
	online(t, "1")
	if _, err := s.process.Run(t.Context(), block); !errors.Is(err, load.ErrMoved) {
		t.Errorf("after the CPU is back: %v", err)
	}
}
