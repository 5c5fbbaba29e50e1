package quorum

import (
	"slices"
	"testing"
	"testing/quick"
)

// The fast predicates against one anybody can check: try all pairs of sets.
func TestQuorumsIntersect(t *testing.T) {
	byzantine, err := Byzantine(First(7))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		a, b   System
		shared int
	}{
		{"all of 3", All(First(3)), All(First(3)), 3},
		{"majority of 5", Majority(First(5)), Majority(First(5)), 1},
		{"majority of 6", Majority(First(6)), Majority(First(6)), 2},
		{"5 of 7 share f+1", byzantine, byzantine, 3},
		{"joint with its old half", Joint(Majority(SetOf(0, 1, 2)), Majority(SetOf(3, 4, 5))), Majority(SetOf(0, 1, 2)), 1},
		{"joint with its new half", Joint(Majority(SetOf(0, 1, 2)), Majority(SetOf(3, 4, 5))), Majority(SetOf(3, 4, 5)), 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := smallestIntersection(tt.a, tt.b); got != tt.shared {
				t.Errorf("two quorums share at least %d nodes, want %d", got, tt.shared)
			}
		})
	}
}

// A control: half is not a majority, and the check above must notice.
func TestIntersectionCheckCanFail(t *testing.T) {
	half := threshold{First(4), 2}
	if got := smallestIntersection(half, half); got != 0 {
		t.Fatalf("halves share %d nodes; the check is blind", got)
	}
}

func smallestIntersection(a, b System) int {
	smallest := MaxNodes
	all := uint64(a.Nodes() | b.Nodes())
	for x := uint64(0); x <= all; x++ {
		if !a.Reached(Set(x)) {
			continue
		}
		for y := uint64(0); y <= all; y++ {
			if b.Reached(Set(y)) {
				smallest = min(smallest, Set(x&y).Len())
			}
		}
	}
	return smallest
}

// Votes of strangers do not count, and one more vote never undoes a quorum.
func TestReachedIsMonotonic(t *testing.T) {
	systems := []System{All(First(5)), Majority(SetOf(1, 4, 9)), Joint(Majority(First(3)), All(SetOf(7, 8)))}
	for _, system := range systems {
		monotonic := func(votes Set, stranger uint8) bool {
			node := int(stranger) % MaxNodes
			if !system.Nodes().Has(node) && system.Reached(votes.With(node)) != system.Reached(votes.Without(node)) {
				return false
			}
			return !system.Reached(votes) || system.Reached(votes.With(node))
		}
		if err := quick.Check(monotonic, nil); err != nil {
			t.Errorf("%v: %v", system, err)
		}
	}
}

func TestByzantineRefusesOtherSizes(t *testing.T) {
	for n := range 12 {
		_, err := Byzantine(First(n))
		if legal := n == 4 || n == 7 || n == 10; (err == nil) != legal {
			t.Errorf("Byzantine of %d nodes: %v", n, err)
		}
	}
}

// The word against a map.
func TestSetMatchesMap(t *testing.T) {
	matches := func(nodes []uint8) bool {
		var s Set
		naive := map[int]bool{}
		for i, node := range nodes {
			n := int(node) % MaxNodes
			if i%3 == 2 {
				s = s.Without(n)
				delete(naive, n)
			} else {
				s = s.With(n)
				naive[n] = true
			}
		}
		members := slices.Collect(s.All())
		if !slices.IsSorted(members) || len(members) != len(naive) || s.Len() != len(naive) || SetOf(members...) != s {
			return false
		}
		for n := -1; n <= MaxNodes; n++ {
			if s.Has(n) != naive[n] {
				return false
			}
		}
		return true
	}
	if err := quick.Check(matches, nil); err != nil {
		t.Error(err)
	}
	if First(64).Len() != 64 || First(0) != 0 {
		t.Error("First is wrong at its ends")
	}
}

func TestSetPanicsOnNoNode(t *testing.T) {
	for name, f := range map[string]func(){
		"With(-1)":    func() { SetOf(-1) },
		"With(64)":    func() { SetOf(64) },
		"Without(64)": func() { Set(0).Without(64) },
		"First(65)":   func() { First(65) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s does not panic", name)
				}
			}()
			f()
		}()
	}
}
