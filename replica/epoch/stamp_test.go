package epoch

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/quick"
)

// The order against the text that a person would sort: digits of fixed width.
func TestCompareMatchesText(t *testing.T) {
	text := func(s Stamp) string { return fmt.Sprintf("%010d %020d %05d", s.Epoch, s.Seq, s.Node) }
	agrees := func(a, b Stamp, sameEpoch, sameSeq bool) bool {
		if sameEpoch {
			b.Epoch = a.Epoch
		}
		if sameSeq {
			b.Seq = a.Seq
		}
		return a.Before(b) == (text(a) < text(b)) && (a.Compare(b) == 0) == (a == b) && a.Compare(b) == -b.Compare(a)
	}
	if err := quick.Check(agrees, nil); err != nil {
		t.Error(err)
	}
}

// A late write of an earlier reign sorts below the first of the next one,
// however many the earlier writer made.
func TestEpochOutweighsSeq(t *testing.T) {
	late, first := Stamp{1, math.MaxUint64, 9}, Stamp{2, 0, 0}
	if !late.Before(first) || first.Before(late) || !(Stamp{}).Before(Stamp{Epoch: 1}) {
		t.Errorf("%v is not before %v", late, first)
	}
	if got := first.String(); got != "2.0@0" {
		t.Errorf("String() = %q", got)
	}
}

func TestNextStopsAtTheLimit(t *testing.T) {
	if e, err := Next(6, 7); e != 7 || err != nil {
		t.Errorf("Next(6, 7) = %d, %v", e, err)
	}
	for _, e := range []uint32{7, 8, math.MaxUint32} {
		if _, err := Next(e, 7); !errors.Is(err, ErrExhausted) {
			t.Errorf("Next(%d, 7) = %v, want ErrExhausted", e, err)
		}
	}
}
