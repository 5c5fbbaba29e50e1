package bpf

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseCPUList(t *testing.T) {
	tests := []struct {
		list string
		want []int
	}{
		{"0", []int{0}},
		{"0-3,8\n", []int{0, 1, 2, 3, 8}},
		{"1,3-4", []int{1, 3, 4}},
		{"", nil}, {"-1", nil}, {"3-1", nil}, {"a", nil}, {"0-", nil}, {"0-99999999", nil}, {",", nil},
	}
	for _, tt := range tests {
		got, err := ParseCPUList(tt.list)
		if (err != nil) != (tt.want == nil) || err == nil && !slices.Equal(got, tt.want) {
			t.Errorf("ParseCPUList(%q) = %v, %v; want %v", tt.list, got, err, tt.want)
		}
	}
}

// However wild the list, the parser neither panics nor allocates without bound.
func FuzzParseCPUList(f *testing.F) {
	for _, seed := range []string{"0-3,8", "0-99999999999", "-", ",,", "1-1-1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		cpus, err := ParseCPUList(list)
		if err == nil && len(cpus) == 0 {
			t.Errorf("%q is no error and has no CPU", list)
		}
		if len(cpus) > 1<<20 {
			t.Errorf("%q makes %d CPUs", list, len(cpus))
		}
	})
}

func TestParseInterrupts(t *testing.T) {
	const text = `            CPU0       CPU1
   1:          9          0   IO-APIC   1-edge      i8042
  24:       1045       2000   PCI-MSI 65536-edge      virtio0-req.0
LOC:    1234567    2345678   Local timer interrupts
`
	got := parseInterrupts(strings.NewReader(text))
	if diff := cmp.Diff(map[uint64]string{1: "i8042", 24: "virtio0-req.0"}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseInterrupts(f *testing.F) {
	f.Add("1: 2 3 name\n")
	f.Fuzz(func(t *testing.T, text string) {
		for irq, name := range parseInterrupts(strings.NewReader(text)) {
			if name == "" {
				t.Errorf("line %d has no name", irq)
			}
		}
	})
}

// Differences add up: what lies between a and c is what lies between a and b and
// between b and c.
func TestDeltasAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state := func() *Snapshot { return &Snapshot{cpus: map[int]*cpuState{0: {}, 1: {}}} }
		grow := func(s *Snapshot) *Snapshot {
			next := state()
			for cpu, c := range s.cpus {
				*next.cpus[cpu] = *c
				n := next.cpus[cpu]
				for _, id := range rapid.SliceOfN(rapid.IntRange(0, ctxMax-1), 1, 8).Draw(t, "contexts") {
					d := rapid.Uint64Range(0, 1e12).Draw(t, "ns")
					n.Ns[id] += d
					n.LastNs += d
				}
				n.Events[0] += rapid.Uint64Range(0, 1000).Draw(t, "switches")
			}
			return next
		}
		a := grow(state())
		b := grow(a)
		c := grow(b)
		ab, err1 := b.Since(a)
		bc, err2 := c.Since(b)
		ac, err3 := c.Since(a)
		if err1 != nil || err2 != nil || err3 != nil {
			t.Fatal(err1, err2, err3)
		}
		if ac.SumNs() != int64(ac.WallNs) {
			t.Fatalf("the books do not close: %d of %d", ac.SumNs(), ac.WallNs)
		}
		ab.Add(bc)
		if diff := cmp.Diff(ac, ab); diff != "" {
			t.Fatal(diff)
		}
		if _, err := a.Since(c); ac.WallNs > 0 && err == nil {
			t.Fatal("a clock that went back is no error")
		}
	})
}
