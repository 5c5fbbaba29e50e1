package mirrorcost

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/bpf"
	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/mirrorcost/internal/perfcheck"
)

// perfHz is a prime other than the sampler's own, so that the two do not always
// see the same instant.
const perfHz = 1009

// The stages agree with an instrument of another make: `perf record` of the same
// writes, its stacks put into stages by rules that were written apart from ours.
func TestStagesAgreeWithPerf(t *testing.T) {
	needRun(t)
	testkit.Need(t, testkit.Perf)
	p := quickPlan()
	p.Duration = 40 * time.Second // The sampled pass takes a fifth for each leg.
	s, err := open(t.Context(), p, Options{}, newProgress(&p, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	saturated, err := s.saturate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.choosePace(saturated)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.describe()
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := bpf.LoadSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for leg := range legNames {
		// The errors are those of independent samples, which these nearly
		// are: one comparison in some tens misses by chance.
		testkit.Quiet(t, 3, func() string {
			o.sampled = sampledObservation{}
			script := recordWithPerf(t, func() {
				for range sampledBlocks {
					if err := s.sampleBlock(t.Context(), leg, c, &o.sampled, symbols); err != nil {
						t.Fatal(err)
					}
				}
			})
			theirs, err := perfcheck.Parse(bytes.NewReader(script))
			if err != nil {
				t.Fatal(err)
			}
			t.Log(o.legs[leg].kind)
			return compareWithPerf(t, ourShares(o, leg), perfcheck.Shares(theirs, s.process.Pid()))
		})
	}
}

// recordWithPerf returns what perf script says of the whole machine while work
// ran.
func recordWithPerf(t *testing.T, work func()) []byte {
	t.Helper()
	data := filepath.Join(t.TempDir(), "perf.data")
	record := exec.Command("perf", "record", "-q", "-e", "cpu-clock", "-a", "-g", "-F", fmt.Sprint(perfHz), "-o", data)
	var complaints bytes.Buffer
	record.Stderr = &complaints
	if err := record.Start(); err != nil {
		t.Fatal(err)
	}
	work()
	if err := record.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = record.Wait() // It ends by the signal.
	if _, err := os.Stat(data); err != nil {
		t.Fatalf("perf record: %v\n%s", err, complaints.String())
	}
	script, err := exec.Command("perf", "script", "-i", data, "-F", "comm,pid,tid,cpu,time,ip,sym").Output()
	if err != nil {
		t.Fatalf("perf script: %v", err)
	}
	return script
}

// ourShares counts our own samples by stage, over what is charged to writes.
func ourShares(o *observations, leg int) perfcheck.Counts {
	counts := perfcheck.Counts{}
	a := &analysis{observations: o}
	for _, s := range o.sampled.samples {
		border := s.context == bpf.LoadKernel && perfcheck.Border(functions(s.stack))
		if s.leg == leg && a.usable(s) && a.charge(leg, s.context).Charged && !border {
			counts[string(a.stageOf(s))] += s.count
		}
	}
	return counts
}

// compareWithPerf complains where a stage above 5 % differs by more than three
// combined standard errors, or where either side leaves more than a tenth in no
// stage.
func compareWithPerf(t *testing.T, ours, theirs perfcheck.Counts) (complaint string) {
	t.Helper()
	for _, row := range perfcheck.Compare(ours, theirs) {
		t.Logf("%-18s ours %5.1f %%  perf %5.1f %%  %4.1f standard errors apart", row.Stage, 100*row.Ours, 100*row.Theirs, row.Errors)
		if row.Disagree() {
			complaint = fmt.Sprintf("%s: ours %.3f, perf %.3f, %.1f standard errors apart", row.Stage, row.Ours, row.Theirs, row.Errors)
		}
	}
	t.Logf("%d samples of ours, %d of perf", ours.Total(), theirs.Total())
	if ours.Total() < 2000 || theirs.Total() < 2000 {
		t.Error("too few samples to compare")
	}
	return complaint
}
