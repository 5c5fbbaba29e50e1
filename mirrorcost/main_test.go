package mirrorcost

import (
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/mirrorcost/load"
	"github.com/coreplica/coreplica/mirrorcost/report"
)

//coreplica:guest kernel=6.1 modules="loop;btrfs;ext4;raid1;brd rd_nr=3 rd_size=393216" tools=losetup,mkfs.btrfs,mkfs.ext4,mdadm expect=root,btf,bpf,btrfs,ext4,loop,md,brd run="TestExactBios/loop/btrfs-raid1$|TestMD"
//coreplica:guest kernel=6.12 modules="loop;btrfs;ext4;raid1;brd rd_nr=3 rd_size=393216" tools=losetup,mkfs.btrfs,mkfs.ext4,mdadm expect=root,btf,bpf,btrfs,ext4,loop,md,brd run="TestExactBios/loop/btrfs-raid1c3|TestMDWritesTwice/devices"

func TestMain(m *testing.M) {
	load.Hook()
	// An example cannot skip itself.
	flag.Parse()
	if slices.ContainsFunc(realRun, func(f testkit.Feature) bool { return testkit.Missing(f) != "" }) {
		if err := flag.Set("test.skip", "ExampleRun"); err != nil {
			panic(err) // The flag is the testing package's.
		}
	}
	testkit.Main(m,
		testkit.Loops("coreplica-"), testkit.Mounts("coreplica-"), testkit.Zrams(),
		testkit.Files("/run/coreplica", "coreplica-"))
}

// realRun is what a real run needs.
var realRun = []testkit.Feature{testkit.Root, testkit.BTF, testkit.BPF, testkit.Btrfs, testkit.Ext4, testkit.Loop}

func needRun(tb testing.TB) {
	tb.Helper()
	testkit.Need(tb, realRun...)
}

// quickPlan is the default plan, small.
func quickPlan() Plan {
	p := DefaultPlan()
	p.Duration, p.Quads = 4*time.Second, 4
	p.FileBytes = 16 << 20
	p.ProbeCost = false
	return p
}

func mustRun(tb testing.TB, p Plan) *Report {
	tb.Helper()
	r, err := Run(tb.Context(), p, Options{Version: "test"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Logf("%s", r.Verdict)
	for _, w := range r.Warnings {
		tb.Logf("warning: %s", w)
	}
	if err := r.Check(); err != nil {
		tb.Error(err)
	}
	return r
}

func contextNs(leg report.Leg, name string) report.Context {
	for _, c := range leg.Contexts {
		if c.Context == name {
			return c
		}
	}
	return report.Context{Context: name}
}

func stageOf(leg report.Leg, name string) report.Stage {
	for _, s := range leg.Stages {
		if s.Stage == name {
			return s
		}
	}
	return report.Stage{Stage: name}
}
