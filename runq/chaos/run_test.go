package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/runq"
	"github.com/coreplica/coreplica/runq/protocol"
	"github.com/coreplica/coreplica/runq/timeline"
)

// Workers on two nodes, whose CPUs one thread of the host translates.
//
//coreplica:guest kernel=6.12 topology=2x2 expect=root,numa,twocpus run="TestShortTrial"
func TestMain(m *testing.M) {
	runq.Main()
	testkit.Main(m)
}

// trialLease is long enough for a machine on which other tests run.
const trialLease = 250 * time.Millisecond

// try runs a trial and logs its verdict.
func try(t *testing.T, c Config) Verdict {
	t.Helper()
	return tryFor(t, c, 3*time.Minute)
}

func tryFor(t *testing.T, c Config, limit time.Duration) Verdict {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	begin := time.Now()
	v, err := Run(ctx, c)
	if err != nil {
		t.Fatalf("seed %d: %v", c.Seed, err)
	}
	t.Logf("seed %d, %v: %+v", c.Seed, time.Since(begin).Round(time.Millisecond), v)
	return v
}

// Nothing acknowledged is lost, nothing that ended comes back, and no result is
// accepted twice, whatever dies.
func TestNothingIsLost(t *testing.T) {
	v := try(t, Config{Tasks: 4000, Kills: 6, Stops: 6, Seed: 7, Lease: trialLease})
	if good, why := v.Good(); !good {
		t.Errorf("%s\n%v", why, v.Examples)
	}
	if v.Takeovers == 0 || v.Kills == 0 || v.Stops == 0 || v.Cancelled == 0 || v.Acknowledged < 4000 {
		t.Errorf("the trial was too tame: %+v", v)
	}
}

func TestControlWithoutReplicas(t *testing.T) {
	if v := try(t, Config{Tasks: 2000, Kills: 4, NoReplicas: true, Lease: trialLease}); v.Lost == 0 {
		t.Error("without replicas, nothing was lost")
	}
}

// Whether a zombie has a result in the very batch that it stops before is chance, so
// the control may need more than one seed.
func TestControlWithoutFence(t *testing.T) {
	for seed := range uint64(4) {
		if v := try(t, Config{Tasks: 2000, Stops: 8, NoFence: true, Lease: trialLease, Seed: seed}); v.AcceptedTwice > 0 {
			return
		}
	}
	t.Error("without a fence, nothing was accepted twice")
}

func TestControlWithTombstonesByTime(t *testing.T) {
	if v := try(t, Config{Tasks: 2000, TimeTombstones: true, Lease: trialLease}); v.Resurrected == 0 {
		t.Error("with tombstones that only time keeps, nothing came back")
	}
}

func TestConfigRefusesNonsense(t *testing.T) {
	for _, c := range []Config{{Tasks: -1}, {K: 3, Workers: 2}, {Failpoints: true}} {
		if _, err := Run(t.Context(), c); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// A queue with many tasks is taken over soon. How soon depends on the machine, so
// the bound is loose: the trial has the tight one.
func TestTakeoverTimesAreShort(t *testing.T) {
	const queued = 2000
	for _, silent := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		times, err := TimeTakeovers(ctx, TakeoverConfig{Samples: 5, Queued: queued, Lease: trialLease, Silent: silent})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d tasks, silent %v: %+v", queued, silent, times)
		least, most := int64(0), int64(5*time.Second)
		if silent {
			least = int64(trialLease / 2)
		}
		if times.N != 5 || times.P50 < least || times.Max > most {
			t.Errorf("silent %v: %+v", silent, times)
		}
	}
}

// A taker that dies between two steps of a takeover is a second failure, which
// three copies survive. Each step comes once.
func TestTakersDieBetweenSteps(t *testing.T) {
	v := try(t, Config{Tasks: 1000, Kills: len(Steps), Workers: 4, K: 3, Failpoints: true, Seed: 11, Lease: trialLease})
	if good, why := v.Good(); !good {
		t.Errorf("%s\n%v", why, v.Examples)
	}
	if v.FailedTakers < len(Steps) || v.Kills != len(Steps) {
		t.Errorf("the trial was too tame: %+v", v)
	}
}

// A hog under a real-time policy keeps a worker from its CPU for a third of the
// time.
func TestHogLosesNothing(t *testing.T) {
	testkit.Need(t, testkit.SchedFIFO)
	v := try(t, Config{Tasks: 1000, Kills: 3, Stops: 3, Hog: true, Seed: 13, Lease: trialLease})
	if good, why := v.Good(); !good {
		t.Errorf("%s\n%v", why, v.Examples)
	}
	if v.Kills == 0 || v.Stops == 0 {
		t.Errorf("the trial was too tame: %+v", v)
	}
}

// shortLease is for guests, which stand still when their host does other things.
const shortLease = 3 * time.Second

// Short trials that a translated guest can bear. On the host there are longer ones.
func TestShortTrial(t *testing.T) {
	testkit.Need(t, testkit.Guest)
	for _, c := range []Config{
		{Tasks: 300, Kills: 2, Stops: 1, Workers: 4, Seed: 17, Lease: shortLease},
		{Tasks: 300, Kills: 1, Workers: 4, K: 3, Failpoints: true, Seed: 19, Lease: shortLease},
	} {
		v := try(t, c)
		if good, why := v.Good(); !good {
			t.Errorf("%s\n%v", why, v.Examples)
		}
		if v.Kills != c.Kills || v.Takeovers < c.Kills || v.Stops != c.Stops || c.Failpoints && v.FailedTakers == 0 {
			t.Errorf("the trial was too tame: %+v", v)
		}
	}
}

// The long form, and enough takeovers for a p99.
func TestTrialNothingIsLost(t *testing.T) {
	testkit.Need(t, testkit.Trial, testkit.SchedFIFO)
	for _, c := range []Config{
		{Tasks: 200_000, Kills: 50, Stops: 20, Hog: true, Seed: 23, Lease: trialLease},
		{Tasks: 20_000, Kills: 70, Workers: 4, K: 3, Failpoints: true, Seed: 29, Lease: trialLease},
		{Tasks: 20_000, Kills: 360, Seed: 31, Lease: trialLease}, // Many find the queue empty: it is fast.
	} {
		t.Run(fmt.Sprintf("%d kills", c.Kills), func(t *testing.T) {
			v := tryFor(t, c, 30*time.Minute)
			if good, why := v.Good(); !good {
				t.Errorf("%s\n%v", why, v.Examples)
			}
			if v.Kills != c.Kills || c.Kills > 200 && v.TakeoverNs.N < 200 {
				t.Errorf("the trial was too tame: %+v", v)
			}
		})
	}
}

// What real workers were told and answered plays back through the protocol, and
// makes a picture.
func TestTracesOfRealWorkersReplay(t *testing.T) {
	dir := t.TempDir()
	v := try(t, Config{Tasks: 300, Kills: 2, Stops: 1, Seed: 23, Lease: trialLease, Trace: true, Dir: dir})
	files, err := filepath.Glob(filepath.Join(dir, "trace-*"))
	if err != nil || len(files) < 4 {
		t.Fatalf("%d traces of 2 workers of which 3 failed: %v", len(files), err)
	}
	var traces []io.Reader
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		steps, err := protocol.Replay(bytes.NewReader(data))
		if err != nil || steps == 0 {
			t.Errorf("%s: %d steps agree: %v", filepath.Base(name), steps, err)
		}
		traces = append(traces, bytes.NewReader(data))
	}
	line, err := timeline.Read(traces...)
	if err != nil || len(line.Takeovers) < v.Kills {
		t.Errorf("the picture shows %d takeovers of %d kills: %v", len(line.Takeovers), v.Kills, err)
	}
}
