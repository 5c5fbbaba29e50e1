package mirrorcost

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/mirrorcost/mirror"
	"github.com/coreplica/coreplica/mirrorcost/report"
)

// Every write that was asked for is acknowledged, and every copy of it is one
// bio on a device, exactly. A baseline that writes once stands beside each mirror
// as the control: a counter that multiplied by itself would be seen there.
func TestExactBios(t *testing.T) {
	needRun(t)
	writes, quads, bytes := uint64(20011), 16, DefaultPlan().DeviceBytes
	if testkit.Missing(testkit.Timing) != "" {
		// A translated guest counts as well, but slowly, and has little memory.
		writes, quads, bytes = 1009, 4, 320<<20
	}
	for _, tt := range []struct {
		substrate, mirror string
		copies            int
	}{{"loop", "btrfs-raid1", 2}, {"loop", "btrfs-raid1c3", 3}, {"zram", "btrfs-raid1", 2}} {
		t.Run(tt.substrate+"/"+tt.mirror, func(t *testing.T) {
			if tt.substrate == "zram" {
				testkit.Need(t, testkit.Zram)
			}
			p := quickPlan()
			p.Mirror, p.Substrate = tt.mirror, tt.substrate
			p.Count, p.Csum, p.Saturate = writes, "off", true
			// Copy-on-write needs room for a block between two syncs.
			p.Quads, p.DeviceBytes = quads, bytes
			r := mustRun(t, p)
			exact(t, r, r.Baseline, 1, writes)
			exact(t, r, r.Mirror, tt.copies, writes)
		})
	}
}

func exact(t *testing.T, r *Report, leg report.Leg, copies int, writes uint64) {
	t.Helper()
	if leg.Acknowledged != writes || leg.Writes != writes || leg.Bytes != writes*4096 {
		t.Errorf("%s: %d of %d writes acknowledged, %d bytes", leg.Name, leg.Acknowledged, leg.Writes, leg.Bytes)
	}
	// A quad that the hypervisor disturbed counts for neither leg.
	if r.Quads.Discarded == 0 && leg.LedgerWrites != writes {
		t.Errorf("%s: %d writes in the ledger pass, want %d", leg.Name, leg.LedgerWrites, writes)
	}
	if leg.Copies != copies || len(leg.BiosDataPerDevice) != copies {
		t.Errorf("%s: %d copies on %d devices, want %d", leg.Name, leg.Copies, len(leg.BiosDataPerDevice), copies)
	}
	for device, bios := range leg.BiosDataPerDevice {
		if bios != writes {
			t.Errorf("%s: %d data bios on %s, want exactly %d", leg.Name, bios, device, writes)
		}
		var timed uint64
		for _, n := range leg.DeviceLatency[device].Count {
			timed += n
		}
		if timed < writes {
			t.Errorf("%s: %d latencies on %s for %d bios", leg.Name, timed, device, bios)
		}
	}
}

// The ledger closes, attributes nearly everything, and agrees with instruments
// that know nothing of it.
func TestInstruments(t *testing.T) {
	needRun(t)
	p := quickPlan()
	p.Duration, p.Quads = 10*time.Second, 8
	testkit.Quiet(t, 3, func() (complaint string) {
		r := mustRun(t, p)
		for _, leg := range []report.Leg{r.Baseline, r.Mirror} {
			t.Logf("%s: closure %.5f %%, unattributed %.3f %%, stolen %.2f %%", leg.Name, 100*leg.ClosureError, 100*leg.Unattributed, leg.StolenPercent)
			if leg.ClosureError > closureLimit {
				t.Errorf("%s: closure error %f", leg.Name, leg.ClosureError)
			}
			if leg.Unattributed > unattributedLimit {
				complaint = fmt.Sprintf("%s: unattributed %f", leg.Name, leg.Unattributed)
			}
		}
		if len(r.Instruments) != 2 {
			t.Errorf("%d instruments", len(r.Instruments))
		}
		for _, i := range r.Instruments {
			t.Logf("%s: ledger %.4g s, kernel %.4g s", i.Name, i.LedgerNs/1e9, i.OtherNs/1e9)
			if i.OtherNs < 1e8 || math.Abs(i.LedgerNs-i.OtherNs) > instrumentLimit*i.OtherNs {
				complaint = fmt.Sprintf("%s: the ledger says %.0f ns and the kernel %.0f", i.Name, i.LedgerNs, i.OtherNs)
			}
		}
		return complaint
	})
}

// A known cost is found at its size, in the context where it belongs. The legs
// are of one kind, so nothing else differs. How much of an interrupt lands in the
// context that it hit depends on the machine, so the load's clock gives two
// figures: without any, and with all of it.
func TestSpin(t *testing.T) {
	needRun(t)
	p := quickPlan()
	p.Mirror = p.Baseline
	p.Duration, p.Quads = 8*time.Second, 8
	p.Spin = 50 * time.Microsecond
	testkit.Quiet(t, 4, func() string {
		r := mustRun(t, p)
		got := contextNs(r.Mirror, "load/user").NsPerWrite - contextNs(r.Baseline, "load/user").NsPerWrite
		quiet, hit := r.Load.SpinMeasuredNs, r.Load.SpinMeanNs
		t.Logf("a spin of 50 µs costs %.0f ns by the load's clock, %.0f with interrupts, and raised the user context by %.0f ns", quiet, hit, got)
		if !r.Tax.Shown || r.Tax.CPUNsPerWrite.Mean < 30_000 {
			t.Errorf("the tax is %+v", r.Tax.CPUNsPerWrite)
		}
		if quiet < 45_000 || quiet > 70_000 || hit > 1.12*quiet {
			return fmt.Sprintf("a spin cost %.0f ns, and %.0f with interrupts: the machine is not quiet", quiet, hit)
		}
		if got < 0.97*quiet || got > 1.03*hit {
			return fmt.Sprintf("a spin that costs %.0f to %.0f ns raised the user context by %.0f ns", quiet, hit, got)
		}
		return ""
	})
}

// Every kind of mirror that this machine can make runs, in each mode that
// matters to it.
func TestKinds(t *testing.T) {
	needRun(t)
	for i, tt := range []struct {
		baseline, mirror, mode string
		change                 func(*Plan)
	}{
		{"ext4", "files", "direct", func(p *Plan) { p.Legs = 3 }},
		{"files", "uring", "direct", func(p *Plan) { p.Batch = 8 }},
		{"btrfs-single", "btrfs-raid1", "buffered", func(p *Plan) { p.FsyncEvery = 8 }},
		{"ext4", "btrfs-raid1", "dsync", func(p *Plan) { p.Threads, p.Pattern = 2, "seq" }},
	} {
		t.Run(fmt.Sprintf("%s-%s-%s", tt.baseline, tt.mirror, tt.mode), func(t *testing.T) {
			if tt.mirror == "uring" {
				testkit.Need(t, testkit.IOUring)
			}
			p := quickPlan()
			p.Baseline, p.Mirror, p.Mode, p.Seed = tt.baseline, tt.mirror, tt.mode, uint64(i)
			p.Duration = 2 * time.Second
			tt.change(&p)
			r := mustRun(t, p)
			for _, leg := range []report.Leg{r.Baseline, r.Mirror} {
				if leg.CPUNsPerWrite.Mean < 500 || leg.LedgerWrites == 0 || leg.Acknowledged != leg.Writes {
					t.Errorf("%s: %+v", leg.Name, leg.CPUNsPerWrite)
				}
				if other := stageOf(leg, "other").NsPerWrite; other > 0.1*leg.CPUNsPerWrite.Mean {
					t.Errorf("%s: %.0f %% of the cost is in no stage", leg.Name, 100*other/leg.CPUNsPerWrite.Mean)
				}
			}
		})
	}
}

// A cancelled run returns soon and leaves nothing: TestMain looks for devices,
// mounts and files. It is cancelled in every phase.
func TestCancel(t *testing.T) {
	needRun(t)
	p := quickPlan()
	p.ProbeCost = true
	for _, phase := range timeline(&p) {
		t.Run(phase.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := Run(ctx, p, Options{Progress: func(now Progress) {
				if now.Phase == phase.name {
					time.AfterFunc(50*time.Millisecond, cancel)
				}
			}})
			// Taking the legs down cannot be cancelled.
			if phase.name != phaseDown && !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want that it was cancelled", err)
			}
			left, _ := filepath.Glob("/run/coreplica/coreplica-*")
			if len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// Two runs at once would measure each other.
func TestSecondRunIsRefused(t *testing.T) {
	needRun(t)
	first, err := cleanup.Open(t.Context(), cleanup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if err := first.AcquireExclusive(); err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), quickPlan(), Options{})
	if !errors.Is(err, cleanup.ErrBusy) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("error %v, want that a run is under way and whose", err)
	}
}

// What cannot be is refused before anything is made, with the fix.
func TestRefusals(t *testing.T) {
	needRun(t)
	tests := []struct {
		name   string
		change func(*Plan)
		want   error
		text   string
	}{
		{"small device", func(p *Plan) { p.DeviceBytes = 64 << 20 }, mirror.ErrUsage, "--device-size"},
		{"too many writes between syncs", func(p *Plan) { p.Count = 1e9 }, ErrUsage, "--quads"},
		{"absent device", func(p *Plan) {
			p.Substrate, p.Devices = "devices", []string{"/dev/no-such", "/dev/no-such2", "/dev/no-such3"}
		}, nil, "/dev/no-such"},
		{"not a device", func(p *Plan) { p.Substrate, p.Devices = "devices", []string{"/dev/null", "/dev/zero", "/dev/full"} }, nil, "/dev/null"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := quickPlan()
			tt.change(&p)
			_, err := Run(t.Context(), p, Options{})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v, want one with %q", err, tt.text)
			}
		})
	}
}
