package numa

import (
	"fmt"
	"slices"

	"github.com/coreplica/coreplica/internal/cpulist"
)

// List is a set of CPUs or of nodes by their kernel numbers, ascending and
// without repetition. Nil is the empty set. Its text form is the kernel's, such
// as "0-3,8".
type List []int

// ParseList reads the kernel's list format. The order of the text is not kept.
func ParseList(text string) (List, error) {
	numbers, err := cpulist.Parse(text)
	if err != nil {
		return nil, err
	}
	return ListOf(numbers...), nil
}

// ListOf returns the set of the given numbers. It keeps no reference to them.
func ListOf(numbers ...int) List {
	sorted := slices.Clone(numbers)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

func (l List) String() string { return cpulist.Format(l) }

// MarshalText gives the kernel's form.
func (l List) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the kernel's form.
func (l *List) UnmarshalText(text []byte) error {
	parsed, err := ParseList(string(text))
	if err != nil {
		return fmt.Errorf("unmarshal list: %w", err)
	}
	*l = parsed
	return nil
}

// Has reports whether n is in the set.
func (l List) Has(n int) bool {
	_, found := slices.BinarySearch(l, n)
	return found
}

// And returns what is in both sets.
func (l List) And(other List) List {
	var both List
	for _, n := range l {
		if other.Has(n) {
			both = append(both, n)
		}
	}
	return both
}

// Minus returns what is in l and not in other.
func (l List) Minus(other List) List {
	var rest List
	for _, n := range l {
		if !other.Has(n) {
			rest = append(rest, n)
		}
	}
	return rest
}

// Or returns what is in either set.
func (l List) Or(other List) List { return ListOf(slices.Concat(l, other)...) }

// Equal reports whether both sets have the same members.
func (l List) Equal(other List) bool { return slices.Equal(l, other) }
