package faults

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// decide returns the decisions about n frames on one link.
func decide(seed uint64, from, to string, f Faults, n int) []Decision {
	l := NewLink(seed, from, to)
	decisions := make([]Decision, n)
	for i := range decisions {
		decisions[i] = l.Decide(f)
	}
	return decisions
}

var everything = Faults{Drop: Always / 5, Duplicate: Always / 10, Reorder: Always / 10, Gap: 2, Delay: 10 * time.Millisecond, Jitter: 3 * time.Millisecond}

// The claim on which replays rest: links may interleave as they like.
func TestDecisionsDoNotDependOnOtherLinks(t *testing.T) {
	names := [][2]string{{"a", "b"}, {"b", "a"}, {"a", "c"}}
	interleaved := make([][]Decision, len(names))
	links := make([]*Link, len(names))
	for i, name := range names {
		links[i] = NewLink(3, name[0], name[1])
	}
	for step := 0; len(interleaved[0]) < 500 || len(interleaved[1]) < 500 || len(interleaved[2]) < 500; step++ {
		i := (step*step + step/7) % 3
		if len(interleaved[i]) == 500 {
			i = slices.IndexFunc(interleaved, func(d []Decision) bool { return len(d) < 500 })
		}
		interleaved[i] = append(interleaved[i], links[i].Decide(everything))
	}
	for i, name := range names {
		alone := decide(3, name[0], name[1], everything, 500)
		if diff := cmp.Diff(alone, interleaved[i]); diff != "" {
			t.Errorf("link %v decides otherwise beside others:\n%s", name, diff)
		}
		for j := range i {
			if cmp.Equal(interleaved[i], interleaved[j]) {
				t.Errorf("links %v and %v decide alike", name, names[j])
			}
		}
		if cmp.Equal(alone, decide(4, name[0], name[1], everything, 500)) {
			t.Errorf("link %v: another seed decides alike", name)
		}
	}
}

// A fault that is switched on does not move another: the lost frames stay the
// lost frames.
func TestKindsAreIndependent(t *testing.T) {
	const n = 20000
	dropOnly := decide(9, "a", "b", Faults{Drop: Always / 4}, n)
	all := decide(9, "a", "b", Faults{Drop: Always / 4, Duplicate: Always / 4, Reorder: Always / 4, Gap: 1, Delay: 1000, Jitter: 1000}, n)
	duplicated, kept := 0, 0
	for i := range n {
		if dropOnly[i].Drop != all[i].Drop {
			t.Fatalf("frame %d is dropped with one set of faults only", i)
		}
		if !all[i].Drop {
			kept++
			duplicated += all[i].Copies - 1
		}
	}
	// If one draw served both kinds, no kept frame would be duplicated.
	within(t, "duplicates among the kept", duplicated, kept, 0.25)
}

// within fails unless k of n is what a coin of chance p gives, within five
// standard deviations: a fair coin fails once in two million runs, and the seed
// is fixed.
func within(t *testing.T, what string, k, n int, p float64) {
	t.Helper()
	mean, sigma := float64(n)*p, math.Sqrt(float64(n)*p*(1-p))
	if math.Abs(float64(k)-mean) > 5*sigma {
		t.Errorf("%s: %d of %d, want %.0f within %.0f", what, k, n, mean, 5*sigma)
	}
}

func TestRatesAreWhatTheySay(t *testing.T) {
	const n = 20000
	for seed := range uint64(10) {
		for _, p := range []Probability{0, 100, 10_000, 200_000, 500_000, 999_000, Always} {
			chance := float64(p) / float64(Always)
			dropped, duplicated := 0, 0
			for _, d := range decide(seed, "a", "b", Faults{Drop: p}, n) {
				if d.Drop {
					dropped++
				}
			}
			for _, d := range decide(seed, "a", "b", Faults{Duplicate: p}, n) {
				duplicated += d.Copies - 1
			}
			within(t, fmt.Sprintf("seed %d drop %s", seed, p), dropped, n, chance)
			within(t, fmt.Sprintf("seed %d dup %s", seed, p), duplicated, n, chance)
		}
	}
}

func TestJitterIsUniformAndBounded(t *testing.T) {
	const n = 20000
	f := Faults{Delay: 10 * time.Millisecond, Jitter: 3 * time.Millisecond}
	var sum time.Duration
	low := 0
	for _, d := range decide(1, "a", "b", f, n) {
		if d.Delay < f.Delay-f.Jitter || d.Delay > f.Delay+f.Jitter {
			t.Fatalf("frame %d waits %s, outside 10ms±3ms", d.Number, d.Delay)
		}
		sum += d.Delay
		if d.Delay < 8*time.Millisecond {
			low++
		}
	}
	// A uniform draw from a width of 6 ms has a deviation of 6/√12 ms.
	if mean := sum / n; mean < 9950*time.Microsecond || mean > 10050*time.Microsecond {
		t.Errorf("the mean is %s, want 10ms within 50µs", mean)
	}
	within(t, "below a sixth", low, n, 1.0/6)
}

func TestACutNumbersItsFrames(t *testing.T) {
	f := Faults{Drop: Always / 2}
	want := decide(5, "a", "b", f, 300)
	l := NewLink(5, "a", "b")
	for i := range 300 {
		rules := f
		rules.Cut = i >= 100 && i < 200
		got := l.Decide(rules)
		if rules.Cut {
			if !got.Cut || got.Copies != 0 {
				t.Fatalf("frame %d passes the cut: %v", i, got)
			}
		} else if got != want[i] {
			t.Fatalf("frame %d: %v after the cut, want %v", i, got, want[i])
		}
	}
}

func TestLaterRulesCount(t *testing.T) {
	tests := []struct {
		rules, from, to string
		want            Faults
	}{
		{"", "a", "b", Faults{}},
		{"drop 20%", "a", "b", Faults{Drop: 200_000}},
		{"drop 20%; drop 0% from a", "a", "b", Faults{}},
		{"drop 20%; drop 0% from a", "b", "a", Faults{Drop: 200_000}},
		{"drop 0% from a; drop 20%", "a", "b", Faults{Drop: 200_000}},
		{"dup 1% to b\ndelay 2s±1s from a to b\nreorder 5% gap 3", "a", "b",
			Faults{Duplicate: 10_000, Delay: 2 * time.Second, Jitter: time.Second, Reorder: 50_000, Gap: 3}},
		{"cut from a to b", "a", "b", Faults{Cut: true}},
		{"cut from a to b", "b", "a", Faults{}},
		{"cut from a; cut from c", "a", "b", Faults{Cut: true}},
		{"cut from a; drop 1%; heal", "a", "b", Faults{Drop: 10_000}},
		{"cut from a; drop 1%; clear", "a", "b", Faults{}},
	}
	for _, tt := range tests {
		r, err := Parse(tt.rules)
		if err != nil {
			t.Error(err)
		} else if got := r.For(tt.from, tt.to); got != tt.want {
			t.Errorf("%q from %s to %s: %+v, want %+v", tt.rules, tt.from, tt.to, got, tt.want)
		}
	}
}

// Who reaches whom in a partition, as a table of rows (from) and columns (to).
func TestPartitions(t *testing.T) {
	tests := []struct{ rules, reach string }{
		{"", "1111 1111 1111 1111"},
		{"partition a,b|c,d", "1100 1100 0011 0011"},
		{"partition a,b|c", "1101 1101 0011 1111"}, // d is in no group
		{"partition a|*", "1000 0111 0111 0111"},
		{"partition a,b|b,c|d", "1100 1110 0110 0001"}, // b is a bridge
		{"partition a,b|*; partition a,c|*", "1000 0100 0010 0001"},
		{"partition a|b|c|d", "1000 0100 0010 0001"},
		{"partition a|*; heal", "1111 1111 1111 1111"},
		{"cut from a; cut to d", "0000 1110 1110 1110"},
	}
	nodes := []string{"a", "b", "c", "d"}
	for _, tt := range tests {
		rules, err := Parse(tt.rules)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for i, from := range nodes {
			if i > 0 {
				got += " "
			}
			for _, to := range nodes {
				if rules.For(from, to).Cut {
					got += "0"
				} else {
					got += "1"
				}
			}
		}
		if got != tt.reach {
			t.Errorf("%q lets pass %s, want %s", tt.rules, got, tt.reach)
		}
	}
}

func TestRulesAreValues(t *testing.T) {
	base, err := Parse("drop 1% from a; drop 2% from b; drop 3% from c")
	if err != nil {
		t.Fatal(err)
	}
	before := base.String()
	for _, command := range []string{"drop 9%", "drop 9% from b", "clear", "cut"} {
		c, err := ParseCommand(command)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := base.With(c); err != nil {
			t.Fatal(err)
		}
		if base.String() != before {
			t.Fatalf("%q changed the rules it was added to: %s", command, base)
		}
	}
	if _, err := base.With(Command{Verb: Partition, Groups: [][]string{{"a|b"}, {"c"}}}); err == nil {
		t.Error("a group with a name that is none was accepted")
	}
	if _, err := base.With(Command{Verb: "burn"}); err == nil {
		t.Error("an unknown verb was accepted")
	}
}

func TestRulesAreBounded(t *testing.T) {
	var r Rules
	var err error
	added := 0
	for ; err == nil; added++ {
		r, err = r.With(Command{Verb: Drop, From: fmt.Sprintf("n%d", added)})
		if added > MaxRules {
			t.Fatal("there is no bound")
		}
	}
	if added-1 != MaxRules {
		t.Errorf("%d rules were accepted, want %d", added-1, MaxRules)
	}
	// A chaos run that says the same again and again stays small.
	for range 10 * MaxRules {
		if r, err = r.With(Command{Verb: Drop, From: "n7", Probability: 5}); err != nil {
			t.Fatal(err)
		}
	}
}
