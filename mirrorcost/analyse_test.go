package mirrorcost

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/coreplica/coreplica/bpf"
	"github.com/coreplica/coreplica/mirrorcost/report"
	"github.com/coreplica/coreplica/mirrorcost/stage"
)

// known is what a made-up machine does: ns per write by context and leg, and ns
// per second of background.
type known struct {
	perWrite   [2]map[string]float64
	background map[string]float64
	noise      float64
	rng        *rand.Rand
}

const (
	knownCPUs   = 2
	knownWrites = 1009
	knownWall   = 500e6 // of a block, one CPU
)

func (k known) window(leg int, writes uint64, wall float64, deferred float64) *window {
	w := &window{wall: uint64(knownCPUs * wall), ns: map[string]int64{}, events: map[string]uint64{"sched_switch": 3 * writes}}
	left := int64(w.wall)
	put := func(context string, ns float64) {
		w.ns[context] += int64(math.Round(ns))
		left -= int64(math.Round(ns))
	}
	factor := 1.0
	if k.noise > 0 {
		factor += k.noise * k.rng.NormFloat64()
	}
	// In order, so that a seed gives the same noise each time.
	for _, context := range slices.Sorted(maps.Keys(k.perWrite[leg])) {
		put(context, k.perWrite[leg][context]*float64(writes)*deferred*factor)
	}
	for _, context := range slices.Sorted(maps.Keys(k.background)) {
		put(context, k.background[context]*wall*knownCPUs/1e9)
	}
	w.ns[bpf.Idle] = left
	return w
}

func (k known) block(leg int) *block {
	h := hdrhistogram.New(1, 60e9, 3)
	_ = h.RecordValues(int64(20_000*(leg+1)), knownWrites)
	return &block{
		leg: leg, writes: knownWrites, bytes: knownWrites * 4096, elapsed: time.Duration(knownWall),
		during: k.window(leg, knownWrites, knownWall, 0.9), after: k.window(leg, knownWrites, knownWall/10, 0.1),
		latencies: h,
	}
}

// observe makes up what the passes would have seen.
func (k known) observe(t testing.TB, quads int) *observations {
	t.Helper()
	o := &observations{plan: DefaultPlan(), knowsStolen: true, attached: map[string]string{"ledger": "tp_btf", "vectors": "tp_btf"}}
	o.machine = report.Machine{Kernel: "made up", CPUs: knownCPUs}
	o.pace = pace{rate: knownWrites / (knownWall / 1e9), saturated: [2]float64{8000, 4000}}
	for leg, kind := range []string{"btrfs-single", "btrfs-raid1"} {
		table, err := stage.For(kind)
		if err != nil {
			t.Fatal(err)
		}
		o.legs[leg] = legFacts{kind: kind, mode: "direct", copies: leg + 1, table: table}
		for i := range leg + 1 {
			o.legs[leg].devices = append(o.legs[leg].devices, fmt.Sprintf("loop%d", 2*leg+i))
		}
		o.counted.acknowledged[leg], o.counted.bytes[leg] = 20011, 20011*4096
	}
	o.counted.asked = 20011
	o.counted.devices = map[string]bpf.DeviceCounts{"loop0": {BiosData: 20011}, "loop2": {BiosData: 20011}, "loop3": {BiosData: 20011}}
	for i := range quads {
		legs := []int{0, 1, 1, 0}
		if i%2 == 1 {
			legs = []int{1, 0, 0, 1}
		}
		var q quad
		for j, leg := range legs {
			q[j] = k.block(leg)
		}
		o.ledger.quads = append(o.ledger.quads, q)
	}
	for range 5 {
		o.ledger.idle = append(o.ledger.idle, k.window(0, 0, knownWall, 0))
	}
	for leg := range 2 {
		for context := range k.perWrite[leg] {
			for i, f := range []string{"btrfs_csum_one_bio", "submit_bio", "bio_endio", "_raw_spin_lock"} {
				o.sampled.samples = append(o.sampled.samples, sample{leg: leg, context: context, count: uint64(100 * (i + 1)),
					stack: []report.Frame{{Function: f, Address: uint64(i)}, {Function: "entry_SYSCALL_64_after_hwframe", Address: 99}}})
			}
		}
	}
	return o
}

func someKnown() known {
	return known{
		perWrite: [2]map[string]float64{
			{"load/user": 1000, "load/kernel": 18_000, "worker/loop_workfn": 9_000, "softirq/BLOCK": 2_000},
			{"load/user": 1000, "load/kernel": 40_000, "worker/loop_workfn": 17_000, "softirq/BLOCK": 4_000, "worker/wb_workfn": 500},
		},
		background: map[string]float64{"softirq/BLOCK": 3_000_000, "hardirq/local_timer": 5_000_000, "kthread/rcu_preempt": 1_000_000, "other programs": 10_000_000},
		rng:        rand.New(rand.NewPCG(1, 2)),
	}
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 2+1e-4*math.Abs(want) {
		t.Errorf("%s is %.2f, want %.2f", what, got, want)
	}
}

// Without noise the answer is known to the nanosecond: the background drops out,
// what is not charged is not charged, and the bounds are where they belong.
func TestKnownAnswer(t *testing.T) {
	r := someKnown().observe(t, 16).analyse()
	near(t, "baseline", r.Baseline.CPUNsPerWrite.Mean, 30_000)
	near(t, "mirror", r.Mirror.CPUNsPerWrite.Mean, 62_500)
	near(t, "tax", r.Tax.CPUNsPerWrite.Mean, 32_500)
	near(t, "1000 * ratio", 1000*r.Tax.Ratio.Mean, 1000*62.5/30)
	near(t, "without substrate", r.Tax.WithoutSubstrate.CPUNsPerWrite.Mean, 32_500-8_000)
	near(t, "lower bound", r.Tax.Lower.CPUNsPerWrite.Mean, 32_000)
	near(t, "deferred", r.Mirror.DeferredNsPerWrite.Mean, 6_250)
	near(t, "1000 * utilisation", 1000*r.Tax.UtilisationPercent, 1000*100*2018*32_500/2e9)
	if !r.Tax.Shown || r.Quads.Used != 16 || r.Quads.Discarded != 0 {
		t.Errorf("shown %v, quads %+v", r.Tax.Shown, r.Quads)
	}
	for _, leg := range []report.Leg{r.Baseline, r.Mirror} {
		if leg.ClosureError > 1e-9 {
			t.Errorf("closure error %g", leg.ClosureError)
		}
		for _, c := range leg.Contexts {
			if c.Charged == (c.Context == "kthread/rcu_preempt" || c.Context == "other programs" || c.Context == "idle") {
				t.Errorf("%s is charged: %v", c.Context, c.Charged)
			}
		}
	}
	if r.Baseline.LatencyNs.P50 > r.Mirror.LatencyNs.P50 || r.Baseline.LatencyNs.P50 == 0 {
		t.Errorf("latencies %+v and %+v", r.Baseline.LatencyNs, r.Mirror.LatencyNs)
	}
	if err := r.Check(); err != nil {
		t.Error(err)
	}
}

// The parts add up to the whole, whatever the machine does.
func TestPartsAddUp(t *testing.T) {
	contexts := []string{"load/user", "load/kernel", "worker/loop_workfn", "worker/wb_workfn", "softirq/BLOCK", "softirq/SCHED", "hardirq/virtio0-req.0", "kthread/ksoftirqd", "kthread/foreign"}
	rapid.Check(t, func(rt *rapid.T) {
		k := known{background: map[string]float64{}, noise: 0.1, rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))}
		for leg := range 2 {
			k.perWrite[leg] = map[string]float64{}
			for _, c := range rapid.SliceOfDistinct(rapid.SampledFrom(contexts), rapid.ID).Draw(rt, "contexts") {
				k.perWrite[leg][c] = rapid.Float64Range(0, 20_000).Draw(rt, c)
			}
		}
		r := k.observe(t, rapid.IntRange(1, 20).Draw(rt, "quads")).analyse()
		for i, leg := range []report.Leg{r.Baseline, r.Mirror} {
			var stages, charged, samples float64
			for _, s := range leg.Stages {
				stages += s.NsPerWrite
			}
			for _, c := range leg.Contexts {
				if c.Charged {
					charged += c.NsPerWrite
				}
			}
			for _, s := range r.Samples {
				if s.Leg == legNames[i] {
					samples += s.Ns
				}
			}
			total := leg.CPUNsPerWrite.Mean
			if math.Abs(stages-total) > 1e-6*total+1 || math.Abs(charged-total) > 1e-6*total+1 {
				rt.Errorf("%s costs %f; its stages %f, its contexts %f", leg.Name, total, stages, charged)
			}
			if math.Abs(samples-total) > 0.01*total+1 {
				rt.Errorf("%s costs %f; its stacks %f", leg.Name, total, samples)
			}
		}
		if err := r.Check(); err != nil {
			rt.Error(err)
		}
	})
}

// The same observations give the same report, to the byte.
func TestDeterministic(t *testing.T) {
	var forms [2]bytes.Buffer
	for i := range forms {
		k := someKnown()
		k.noise = 0.1
		if err := report.Write(&forms[i], k.observe(t, 16).analyse(), report.JSON); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(forms[0].String(), forms[1].String()); diff != "" {
		t.Error(diff)
	}
}

// Equal legs: in most of many made-up runs no difference is shown, and in as many
// a known one is. A control with the noise gone shows that the verdict can turn.
func TestEqualLegs(t *testing.T) {
	spans, detected := 0, 0
	const runs = 60
	for seed := range runs {
		k := someKnown()
		k.perWrite[1] = k.perWrite[0]
		k.noise, k.rng = 0.1, rand.New(rand.NewPCG(uint64(seed), 7))
		if r := k.observe(t, 16).analyse(); !r.Tax.Shown {
			spans++
			if !strings.Contains(r.Verdict, "No difference shown") {
				t.Errorf("verdict %q", r.Verdict)
			}
		}
		k.perWrite[1] = maps.Clone(k.perWrite[0])
		k.perWrite[1]["load/user"] += 5000
		if r := k.observe(t, 16).analyse(); r.Tax.Shown && r.Tax.CPUNsPerWrite.Mean > 0 {
			detected++
		}
	}
	// Of 60 intervals at 95 %, 57 are expected to span zero; fewer than 51
	// has a probability below 1 in 1,000.
	if spans < 51 || detected < 51 {
		t.Errorf("of %d runs %d spanned zero and %d found 5 µs", runs, spans, detected)
	}
}

func TestDiscard(t *testing.T) {
	k := someKnown()
	o := k.observe(t, 16)
	for i := range 6 {
		o.ledger.quads[i][2].stolen = 4 * (stealThreshold + 0.01*float64(i+1))
	}
	r := o.analyse()
	if r.Quads.Discarded != 4 || r.Quads.Used != 12 {
		t.Errorf("quads %+v, want a quarter discarded and no more", r.Quads)
	}
	if !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "4 of 16 quads") }) {
		t.Errorf("no warning in %q", r.Warnings)
	}
}

// What makes a comparison misleading stands in the verdict itself.
func TestVerdict(t *testing.T) {
	tests := []struct {
		name   string
		change func(*observations)
		want   string
	}{
		{"plain", func(*observations) {}, "A 4 KiB direct write to btrfs-raid1 costs 32.5 µs [32.5, 32.5] more CPU than to btrfs-single: 2.08 times"},
		{"paths", func(o *observations) { o.legs[1].mode = "buffered" }, "the kernel wrote direct to btrfs-single and buffered to btrfs-raid1"},
		{"metadata", func(o *observations) {
			o.counted.devices["loop0"] = bpf.DeviceCounts{BiosData: 20011, BiosMetadata: 1000}
			o.counted.devices["loop2"] = bpf.DeviceCounts{BiosData: 20011, BiosMetadata: 500}
			o.counted.devices["loop3"] = bpf.DeviceCounts{BiosData: 20011, BiosMetadata: 500}
		}, "the metadata bios per device differ"},
		{"flushes", func(o *observations) { o.counted.devices["loop0"] = bpf.DeviceCounts{Flushes: 1000} }, "the flushes per device differ"},
		{"noise", func(o *observations) {
			for _, q := range o.ledger.quads {
				for _, b := range q {
					b.during.ns["other programs"] += 200e6
					b.during.ns["idle"] -= 200e6
				}
			}
		}, "the machine was not quiet"},
		{"less", func(o *observations) { o.legs[0], o.legs[1] = o.legs[1], o.legs[0]; swapLegs(o) }, "less CPU than to btrfs-raid1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := someKnown().observe(t, 16)
			tt.change(o)
			if got := o.analyse().Verdict; !strings.Contains(got, tt.want) {
				t.Errorf("verdict %q, want %q in it", got, tt.want)
			}
		})
	}
	plain := someKnown().observe(t, 16).analyse().Verdict
	for _, tt := range tests[1:5] {
		if strings.Contains(plain, tt.want) {
			t.Errorf("the plain verdict says %q", tt.want)
		}
	}
}

func swapLegs(o *observations) {
	for _, q := range o.ledger.quads {
		for _, b := range q {
			b.leg = 1 - b.leg
		}
	}
	for i := range o.sampled.samples {
		o.sampled.samples[i].leg = 1 - o.sampled.samples[i].leg
	}
}
