package mirrorcost

import (
	"os/exec"
	"testing"

	"github.com/coreplica/coreplica/bpf"
	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/mirrorcost/load"
)

// mdPlan compares md's RAID1 with one device, without a measurement of time.
func mdPlan(t *testing.T, substrate string) Plan {
	t.Helper()
	needRun(t)
	testkit.Need(t, testkit.MD)
	p := quickPlan()
	p.Baseline, p.Mirror, p.Substrate = "ext4", "md-raid1", substrate
	p.Count, p.Saturate, p.DeviceBytes = 1009, true, 192<<20
	if substrate == "devices" {
		testkit.Need(t, testkit.BRD)
		p.Devices = []string{"/dev/ram0", "/dev/ram1", "/dev/ram2"}
	}
	return p
}

// Each write to an md array of two is two writes to its members, exactly.
func TestMDWritesTwice(t *testing.T) {
	for _, substrate := range []string{"loop", "devices"} {
		t.Run(substrate, func(t *testing.T) {
			r := mustRun(t, mdPlan(t, substrate))
			exact(t, r, r.Baseline, 1, 1009)
			exact(t, r, r.Mirror, 2, 1009)
		})
	}
}

// A member that failed is written to no more: from there on a write is one bio.
func TestMDFailedMember(t *testing.T) {
	p := mdPlan(t, "loop")
	s, err := open(t.Context(), p, Options{}, newProgress(&p, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	leg := s.legs[mirrored]
	write := func() map[string]uint64 {
		if err := s.blockio.Attach(); err != nil {
			t.Fatal(err)
		}
		before, err := s.blockio.Read()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.plain(t.Context(), mirrored, load.Block{Writes: 1009}); err != nil {
			t.Fatal(err)
		}
		after, err := s.blockio.Read()
		if err != nil {
			t.Fatal(err)
		}
		bios := map[string]uint64{}
		for name, counts := range after {
			bios[name] = dataSince(counts, before[name])
		}
		return bios
	}
	good, bad := leg.Devices[0], leg.Devices[1]
	if bios := write(); bios[good.Name] != 1009 || bios[bad.Name] != 1009 {
		t.Errorf("with both members: %v", bios)
	}
	if out, err := exec.Command("mdadm", "--fail", leg.Array.Path, bad.Path).CombinedOutput(); err != nil {
		t.Fatalf("mdadm --fail: %v\n%s", err, out)
	}
	if bios := write(); bios[good.Name] != 1009 || bios[bad.Name] != 0 {
		t.Errorf("after %s failed: %v", bad.Name, bios)
	}
}

func dataSince(now, before bpf.DeviceCounts) uint64 { return now.Since(before).BiosData }
