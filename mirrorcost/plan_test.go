package mirrorcost

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDefaultPlanIsValid(t *testing.T) {
	p := DefaultPlan()
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	var all time.Duration
	for _, phase := range timeline(&p) {
		all += phase.expect
	}
	if all > 90*time.Second {
		t.Errorf("the default plan should take %s, more than the promised 90 s", all)
	}
}

func TestWrongPlans(t *testing.T) {
	tests := []struct {
		wrong  func(*Plan)
		inText string
	}{
		{func(p *Plan) { p.Mirror = "raid7" }, "unknown mirror"},
		{func(p *Plan) { p.Baseline = "" }, "unknown mirror"},
		{func(p *Plan) { p.Legs = 0 }, "--legs"},
		{func(p *Plan) { p.SizeBytes = 0 }, "--size"},
		{func(p *Plan) { p.SizeBytes = 1000 }, "--size"},
		{func(p *Plan) { p.Count, p.Duration = 0, 0 }, "zero writes"},
		{func(p *Plan) { p.Count = 3 }, "--count 3"},
		{func(p *Plan) { p.Duration = time.Millisecond }, "--duration"},
		{func(p *Plan) { p.Mode = "odirect" }, "--mode"},
		{func(p *Plan) { p.Pattern = "zipf" }, "--pattern"},
		{func(p *Plan) { p.Csum = "md5" }, "--csum"},
		{func(p *Plan) { p.FsyncEvery = -1 }, "--fsync-every"},
		{func(p *Plan) { p.Threads = 0 }, "--threads"},
		{func(p *Plan) { p.Batch = 4 }, "--batch"},
		{func(p *Plan) { p.Spin = -1 }, "--spin"},
		{func(p *Plan) { p.RatePerSecond = -1 }, "--rate"},
		{func(p *Plan) { p.Quads = 0 }, "--quads"},
		{func(p *Plan) { p.FileBytes = 100 }, "--file-size"},
		{func(p *Plan) { p.Substrate = "floppy" }, "--substrate"},
		{func(p *Plan) { p.Substrate = "loop-dio" }, "--dir"},
		{func(p *Plan) { p.Substrate = "devices" }, "--devices"},
	}
	for _, tt := range tests {
		p := DefaultPlan()
		tt.wrong(&p)
		err := p.Validate()
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), tt.inText) {
			t.Errorf("error %v, want a usage error with %q", err, tt.inText)
		}
		if _, err := Run(t.Context(), p, Options{}); !errors.Is(err, ErrUsage) {
			t.Errorf("Run returned %v before it looked at the plan", err)
		}
	}
}

// The blocks of a leg add up to what was asked for and differ by one at most.
func TestQuota(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total, n := rapid.Uint64Range(0, 1e12).Draw(t, "total"), rapid.IntRange(1, 1000).Draw(t, "blocks")
		var sum uint64
		for i := range n {
			q := quota(total, i, n)
			if q < total/uint64(n) || q > total/uint64(n)+1 {
				t.Fatalf("block %d of %d gets %d of %d", i, n, q, total)
			}
			sum += q
		}
		if sum != total {
			t.Fatalf("the blocks add up to %d, want %d", sum, total)
		}
	})
}

// No plan, however wild, makes Validate panic.
func FuzzValidate(f *testing.F) {
	f.Add("btrfs-single", 4096, uint64(0), int64(time.Second), "direct", "rand", 1, "off", 16, "loop")
	f.Fuzz(func(t *testing.T, kind string, size int, count uint64, duration int64, mode, pattern string, threads int, csum string, quads int, substrate string) {
		p := DefaultPlan()
		p.Mirror, p.SizeBytes, p.Count, p.Duration = kind, size, count, time.Duration(duration)
		p.Mode, p.Pattern, p.Threads, p.Csum, p.Quads, p.Substrate = mode, pattern, threads, csum, quads, substrate
		if err := p.Validate(); err != nil && !errors.Is(err, ErrUsage) {
			t.Errorf("error %v is no usage error", err)
		}
	})
}

// Progress only ever goes on, and ends at the end.
func TestProgress(t *testing.T) {
	plan := DefaultPlan()
	var seen []Progress
	p := newProgress(&plan, func(n Progress) { seen = append(seen, n) })
	for _, phase := range timeline(&plan) {
		p.begin(phase.name)
		p.step(0.5)
		p.step(1)
	}
	for i := 1; i < len(seen); i++ {
		if seen[i].Done < seen[i-1].Done || seen[i].Left > seen[i-1].Left {
			t.Errorf("%+v comes after %+v", seen[i], seen[i-1])
		}
	}
	if last := seen[len(seen)-1]; last.Done != 1 || last.Left != 0 {
		t.Errorf("the end is %+v", last)
	}
}
