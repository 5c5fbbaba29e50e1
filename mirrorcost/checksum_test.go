package mirrorcost

import (
	"math"
	"testing"
	"time"

	"github.com/coreplica/coreplica/mirrorcost/report"
)

// Large buffered writes with fsync: the data checksum is a stage of its own, not
// there without checksums, and btrfs computes it once however many copies it
// writes. The run without checksums is the control.
func TestChecksumStage(t *testing.T) {
	needRun(t)
	for _, csum := range []string{"off", "crc32c", "sha256"} {
		t.Run(csum, func(t *testing.T) {
			p := quickPlan()
			p.SizeBytes, p.Mode, p.FsyncEvery, p.Csum = 1<<20, "buffered", 1, csum
			p.Duration, p.Quads, p.FileBytes = 15*time.Second, 8, 64<<20
			if csum == "off" {
				p.Duration = 5 * time.Second // What is absent needs no interval.
			}
			// The stage is a hundredth of the CPU: its error is mostly that
			// of few samples.
			p.SampleHz = 9973
			r := mustRun(t, p)
			single, raid1 := stageOf(r.Baseline, "data checksum"), stageOf(r.Mirror, "data checksum")
			t.Logf("single %.0f ns [%.0f, %.0f] of %d samples, raid1 %.0f ns [%.0f, %.0f] of %d",
				single.NsPerWrite, single.Low, single.High, single.Samples, raid1.NsPerWrite, raid1.Low, raid1.High, raid1.Samples)
			if csum == "off" {
				for _, s := range []report.Stage{single, raid1} {
					if s.NsPerWrite > 0.002*r.Baseline.CPUNsPerWrite.Mean {
						t.Errorf("without checksums %d samples or %.0f ns a write are in the stage", s.Samples, s.NsPerWrite)
					}
				}
				return
			}
			if single.Low <= 0 || raid1.Low <= 0 {
				t.Error("with checksums the stage is not there")
			}
			// By the errors of both stages, in quadrature, on the log scale.
			relative := math.Hypot(half(single)/single.NsPerWrite, half(raid1)/raid1.NsPerWrite)
			upper := raid1.NsPerWrite / single.NsPerWrite * math.Exp(relative)
			t.Logf("raid1/single %.3f, upper bound %.3f", raid1.NsPerWrite/single.NsPerWrite, upper)
			if upper > 1.3 {
				t.Errorf("the upper bound of raid1/single is %.2f", upper)
			}
		})
	}
}

// half is half of the width of a stage's interval.
func half(s report.Stage) float64 { return (s.High - s.Low) / 2 }
