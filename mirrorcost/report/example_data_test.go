package report

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// prefixes are what the stacks of testdata/stacks.txt begin with.
var prefixes = map[string]string{
	"$S": "entry_SYSCALL_64_after_hwframe;do_syscall_64",
	"$D": "$S;vfs_write;btrfs_do_write_iter;btrfs_direct_write;btrfs_dio_write;__iomap_dio_rw",
	"$B": "$D;iomap_dio_bio_iter;btrfs_dio_submit_io;btrfs_submit_bbio;btrfs_submit_chunk",
	"$K": "ret_from_fork_asm;ret_from_fork;kthread",
	"$W": "$K",
	"$L": "$W;worker_thread;process_one_work;loop_workfn;loop_process_work",
	"$O": "$W;worker_thread;process_one_work;btrfs_work_helper;btrfs_finish_ordered_io;btrfs_finish_one_ordered",
}

const (
	exampleWrites = 60000
	exampleWallNs = 16e9
)

// exampleReport is an invented run for the tests, of the shape and size that a
// real one has. The figures are nobody's measurement. Its parts agree with each
// other: stages and charged contexts add up to the total.
func exampleReport(tb testing.TB) *Report {
	tb.Helper()
	r := &Report{
		Schema: Schema, Version: "v0.0.0-example",
		StartedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Command:   []string{"coreplica", "mirrorcost", "run", "--baseline", "btrfs-single", "--mirror", "btrfs-raid1"},
		Seed:      1, ElapsedSeconds: 71.5,
		Machine: Machine{
			Kernel: "6.18.0-example", CPUModel: "Example CPU", CPUs: 2, Virtual: true, Quiet: true,
			OtherProgramsPercent: 1.3, StolenPercent: 2.1,
			AttachTypes: map[string]string{"sched_switch": "tp_btf", "irq": "tp_btf", "softirq": "tp_btf", "workqueue": "tp_btf", "syscall": "raw_tracepoint"},
		},
		Load: Load{
			SizeBytes: 4096, Mode: "direct", Pattern: "seq", Threads: 1, Batch: 1,
			RatePerSecond: 5000, Substrate: "loop",
		},
		Quads: Quads{Used: 16, Discarded: 1, StealThresholdPercent: 20},
		Instruments: []Instrument{
			{"idle against /proc/stat", 21.31e9, 21.42e9},
			{"load against schedstat", 3.981e9, 4.002e9},
		},
		ProbeCost: &ProbeCost{
			LedgerPercent: Interval{4.8, 3.9, 5.7}, AllPercent: Interval{8.1, 7, 9.2}, NsPerWrite: 1960,
			NsPerEvent:     map[string]float64{"sched_switch": 96, "softirq": 48, "syscall": 61},
			EventsPerWrite: map[string]float64{"sched_switch": 4.1, "softirq": 2.8, "syscall": 2},
			BlocksOfEach:   16, CorrectedNotice: "a model: events per write times ns per event",
		},
		Warnings: []string{
			"invented figures for a test: this is nobody's measurement",
			"1 of 17 quads were left out because more than 20 % of the machine was stolen",
		},
		Samples: exampleSamples(tb),
	}
	exampleLeg(&r.Baseline, BaselineLeg, "btrfs-single", 1, r.Samples)
	exampleLeg(&r.Mirror, MirrorLeg, "btrfs-raid1", 2, r.Samples)
	r.Tax = exampleTax(r)
	r.Verdict = fmt.Sprintf("A 4 KiB direct write to btrfs-raid1 costs %s more CPU than to btrfs-single: %s, or %.1f %% of 2 CPUs at 5000 writes/s.",
		FormatNsInterval(r.Tax.CPUNsPerWrite), FormatRatio(r.Tax.Ratio), r.Tax.UtilisationPercent)
	return r
}

func exampleSamples(tb testing.TB) (samples []Sample) {
	tb.Helper()
	text, err := os.ReadFile("testdata/stacks.txt")
	if err != nil {
		tb.Fatal(err)
	}
	addresses := map[string]uint64{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		if strings.HasPrefix(line, "#") {
			continue
		}
		if len(fields) != 5 {
			tb.Fatalf("testdata/stacks.txt: %q has %d fields", line, len(fields))
		}
		for i, leg := range []string{BaselineLeg, MirrorLeg} {
			ns, err := strconv.ParseFloat(fields[2+i], 64)
			if err != nil {
				tb.Fatal(err)
			}
			if ns == 0 {
				continue
			}
			s := Sample{Leg: leg, Context: fields[0], Stage: fields[1], Device: []string{"loop0", "loop1+loop2"}[i], Ns: ns}
			if s.Stack = exampleStack(fields[4], addresses); s.Stack != nil {
				s.Count = int64(ns / 16.7) // 997 samples a second of 60,000 writes.
			}
			samples = append(samples, s)
		}
	}
	return samples
}

// exampleStack expands the prefixes and gives each function an address.
func exampleStack(text string, addresses map[string]uint64) (stack []Frame) {
	if text == "-" {
		return nil
	}
	for strings.HasPrefix(text, "$") {
		text = prefixes[text[:2]] + text[2:]
	}
	for name := range strings.SplitSeq(text, ";") {
		if addresses[name] == 0 {
			addresses[name] = 0xffffffff81000000 + uint64(len(addresses))*0x1a40
		}
		stack = append([]Frame{{name, addresses[name]}}, stack...)
	}
	return stack
}

func exampleLeg(l *Leg, leg, kind string, copies int, samples []Sample) {
	*l = Leg{
		Name: kind, EffectiveMode: "direct", Copies: copies,
		Writes: 20011, Acknowledged: 20011, Bytes: 20011 * 4096, LedgerWrites: exampleWrites,
		BiosDataPerDevice: map[string]uint64{}, BiosMetadataPerDevice: map[string]uint64{}, FlushesPerDevice: map[string]uint64{},
		MergesPerDevice: map[string]uint64{}, RequestsPerDevice: map[string]uint64{}, DeviceLatency: map[string]Histogram{},
		WritesPerSecond: 4998.4, ClosureError: 0.0000021, Unattributed: 0.00013, StolenPercent: 2.1,
		SmearedPercent: 11.4,
	}
	stages, contexts := map[string]*Stage{}, map[string]*Context{}
	var stageOrder, contextOrder []string
	for _, s := range samples {
		if s.Leg != leg {
			continue
		}
		if stages[s.Stage] == nil {
			stages[s.Stage], stageOrder = &Stage{Stage: s.Stage}, append(stageOrder, s.Stage)
		}
		if contexts[s.Context] == nil {
			contexts[s.Context], contextOrder = &Context{Context: s.Context, Charged: true}, append(contextOrder, s.Context)
		}
		stages[s.Stage].NsPerWrite += s.Ns
		stages[s.Stage].Samples += uint64(s.Count)
		contexts[s.Context].NsPerWrite += s.Ns
		contexts[s.Context].Substrate = s.Context == "worker/loop_workfn"
		contexts[s.Context].Shared = s.Context == "worker/loop_workfn"
		l.Samples += uint64(s.Count)
	}
	for _, name := range stageOrder {
		s := stages[name]
		half := math.Sqrt(math.Pow(0.02*s.NsPerWrite, 2) + math.Pow(2*s.NsPerWrite, 2)/float64(max(s.Samples, 1)))
		if s.Samples == 0 {
			half = 0.02 * s.NsPerWrite
		}
		s.Low, s.High = s.NsPerWrite-half, s.NsPerWrite+half
		l.Stages = append(l.Stages, *s)
		l.CPUNsPerWrite.Mean += s.NsPerWrite
	}
	mean := l.CPUNsPerWrite.Mean
	l.CPUNsPerWrite = Interval{mean, 0.972 * mean, 1.028 * mean}
	l.DeferredNsPerWrite = Interval{0.011 * mean, 0.008 * mean, 0.014 * mean}
	exampleLedger(l, contexts, contextOrder)
	exampleBlocks(l, copies)
}

// exampleLedger fills the machine's time up with what is not charged.
func exampleLedger(l *Leg, contexts map[string]*Context, order []string) {
	rest := int64(2 * exampleWallNs)
	add := func(c Context) {
		rest -= c.Ns
		l.Contexts = append(l.Contexts, c)
	}
	for _, name := range order {
		c := *contexts[name]
		c.Ns = int64(c.NsPerWrite*exampleWrites) + 2_000_000
		add(c)
	}
	for name, share := range map[string]float64{
		"other programs": 0.013, "coreplica": 0.002, "stolen": 0.021, "unattributed": 0.00013, "kthread/kcompactd0": 0.0004,
	} {
		add(Context{Context: name, Ns: int64(share * 2 * exampleWallNs)})
	}
	add(Context{Context: "idle", Ns: rest})
	l.Contexts = sortedContexts(l.Contexts)
}

func exampleBlocks(l *Leg, copies int) {
	centre := 62e3 * math.Pow(1.72, float64(copies-1))
	for i := range copies {
		device := fmt.Sprintf("loop%d", copies-1+i)
		l.BiosDataPerDevice[device] = 20011
		l.RequestsPerDevice[device] = 20024
		l.BiosMetadataPerDevice[device] = 12
		l.FlushesPerDevice[device] = 2
		l.MergesPerDevice[device] = 0
		l.DeviceLatency[device] = bell(0.55*centre, 1, 0.5, 20024)
	}
	l.SwitchesPerWrite, l.WorkExecutionPerWrite = 4.12*float64(copies), 2.41*float64(copies)
	l.LatencyNs = Latency{int64(centre), int64(2.6 * centre), int64(9.1 * centre)}
	l.LatencyHist = bell(centre, 0.25, 0.3, exampleWrites)
}

// bell is a histogram around a centre with buckets that grow by 2^step, a
// spread in octaves and a tail to the right.
func bell(centre, step, spread float64, total float64) (h Histogram) {
	for at := math.Floor(math.Log2(centre/4)/step) * step; at < math.Log2(centre*40); at += step {
		x := at + step/2 - math.Log2(centre)
		p := math.Exp(-x * x / (2 * spread * spread))
		if x > 0 {
			p += 0.04 * math.Exp(-x/0.8)
		}
		if n := uint64(total * p * step / (spread * 2.5)); n > 0 {
			h.UpperNs, h.Count = append(h.UpperNs, uint64(math.Exp2(at+step))), append(h.Count, n)
		}
	}
	return h
}

func exampleTax(r *Report) Tax {
	pair := func(b, m float64) Pair {
		diff, half := m-b, 0.03*(b+m)/2
		return Pair{Interval{diff, diff - half, diff + half}, Interval{m / b, 0.96 * m / b, 1.04 * m / b}}
	}
	without := func(l *Leg) (ns float64) {
		for _, c := range l.Contexts {
			if c.Charged && !c.Substrate {
				ns += c.NsPerWrite
			}
		}
		return ns
	}
	b, m := r.Baseline.CPUNsPerWrite.Mean, r.Mirror.CPUNsPerWrite.Mean
	all := pair(b, m)
	return Tax{
		CPUNsPerWrite: all.CPUNsPerWrite, Ratio: all.Ratio, Shown: true,
		WithoutSubstrate:   pair(without(&r.Baseline), without(&r.Mirror)),
		Lower:              pair(without(&r.Baseline), without(&r.Mirror)),
		Corrected:          pair(b-1960, m-3900),
		UtilisationPercent: 100 * 4998.4 * all.CPUNsPerWrite.Mean / 2e9,
	}
}

func sortedContexts(contexts []Context) []Context {
	slices.SortFunc(contexts, func(a, b Context) int {
		return cmp.Or(cmp.Compare(b.Ns, a.Ns), cmp.Compare(a.Context, b.Context))
	})
	return contexts
}
