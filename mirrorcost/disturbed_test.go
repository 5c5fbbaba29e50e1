package mirrorcost

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
)

// A write to the leg that should rest voids the block. The same block without it
// is the control.
func TestRestingLegThatIsWrittenTo(t *testing.T) {
	needRun(t)
	p := quickPlan()
	p.Mirror = "ext4"
	s, err := open(t.Context(), p, Options{}, newProgress(&p, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, intrude := range []bool{false, true} {
		measured, end := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			// One write alone may be over before the block begins.
			var err error
			for intrude && err == nil && measured.Err() == nil {
				err = writeOnce(s.legs[mirrored].Targets[0][0])
			}
			done <- err
		}()
		b, err := s.measure(t.Context(), baseline, 997, 2000)
		end()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if b.voided != intrude {
			t.Errorf("the resting leg was written to: %t; the block is void: %t", intrude, b.voided)
		}
	}
}

func writeOnce(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
		return err
	}
	return f.Sync()
}

// Beside a foreign hog a run says that the machine was not quiet, and the hog's
// time stands under "other programs". What it does to the cost is real.
func TestBesideAHog(t *testing.T) {
	needRun(t)
	testkit.Need(t, testkit.TwoCPUs)
	hog := exec.Command("sh", "-c", "while :; do :; done")
	if err := hog.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = hog.Process.Kill()
		_ = hog.Wait() // It was killed, so it has an error to tell.
	}()
	p := quickPlan()
	p.Duration = 2 * time.Second
	r := mustRun(t, p)
	share := 100 / float64(r.Machine.CPUs)
	if r.Machine.Quiet || r.Machine.OtherProgramsPercent < 0.8*share {
		t.Errorf("beside a hog other programs used %.1f %% of %d CPUs, quiet: %t", r.Machine.OtherProgramsPercent, r.Machine.CPUs, r.Machine.Quiet)
	}
	if !strings.Contains(r.Verdict, "not quiet") || !strings.Contains(strings.Join(r.Warnings, "\n"), "not quiet") {
		t.Errorf("neither the verdict nor the warnings speak of it: %s", r.Verdict)
	}
}
