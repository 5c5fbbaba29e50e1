package epoch

import (
	"cmp"
	"errors"
	"fmt"
)

// ErrExhausted is returned when there is no next epoch: going on would reuse
// one, and a reused epoch fences nobody.
var ErrExhausted = errors.New("epochs are exhausted")

// Stamp is the place of an operation in the order of all operations. The zero
// Stamp is before every operation: epochs start at 1.
type Stamp struct {
	Epoch uint32
	Seq   uint64
	Node  uint16
}

// Compare returns -1, 0 or +1 as s is before, the same as, or after o.
func (s Stamp) Compare(o Stamp) int {
	return cmp.Or(cmp.Compare(s.Epoch, o.Epoch), cmp.Compare(s.Seq, o.Seq), cmp.Compare(s.Node, o.Node))
}

// Before reports whether s is before o.
func (s Stamp) Before(o Stamp) bool { return s.Compare(o) < 0 }

func (s Stamp) String() string { return fmt.Sprintf("%d.%d@%d", s.Epoch, s.Seq, s.Node) }

// Next returns the epoch after e, or [ErrExhausted] past limit.
func Next(e, limit uint32) (uint32, error) {
	if e >= limit {
		return 0, fmt.Errorf("epoch %d of %d: %w", e, limit, ErrExhausted)
	}
	return e + 1, nil
}
