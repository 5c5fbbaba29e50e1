package quorum

import (
	"iter"
	"math/bits"
)

// MaxNodes bounds a [Set]: one machine word, so that a set of votes is a value
// that can be copied, compared and sent.
const MaxNodes = 64

// Set is a set of nodes, numbered from 0 to MaxNodes-1. Its zero value is the
// empty set.
type Set uint64

// SetOf returns the set of the given nodes. It panics on a number outside
// [0, MaxNodes): that is a mistake of the program, not of its input.
func SetOf(nodes ...int) Set {
	var s Set
	for _, node := range nodes {
		s = s.With(node)
	}
	return s
}

// First returns the set {0, …, n-1}.
func First(n int) Set {
	if n < 0 || n > MaxNodes {
		panic("quorum: set size out of range")
	}
	return Set(1)<<n - 1 // For n = 64 the shift gives 0 and the word wraps to all ones.
}

// With returns s and node.
func (s Set) With(node int) Set {
	if node < 0 || node >= MaxNodes {
		panic("quorum: node number out of range")
	}
	return s | 1<<node
}

// Without returns s without node.
func (s Set) Without(node int) Set {
	if node < 0 || node >= MaxNodes {
		panic("quorum: node number out of range")
	}
	return s &^ (1 << node)
}

// Has reports whether node is in s.
func (s Set) Has(node int) bool { return node >= 0 && node < MaxNodes && s>>node&1 == 1 }

// Len returns the number of nodes in s.
func (s Set) Len() int { return bits.OnesCount64(uint64(s)) }

// All yields the nodes of s in ascending order.
func (s Set) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for rest := uint64(s); rest != 0; rest &= rest - 1 {
			if !yield(bits.TrailingZeros64(rest)) {
				return
			}
		}
	}
}
