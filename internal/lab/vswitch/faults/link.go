package faults

import (
	"fmt"
	"strings"
	"time"

	"github.com/coreplica/coreplica/internal/lab/draw"
)

// The kinds of random decision. They are keys of the draw, so that a link that
// also duplicates drops the same frames as one that does not.
const (
	kindDrop uint64 = iota + 1
	kindDuplicate
	kindReorder
	kindJitter
)

// Link decides about the frames from one node to another. It is not safe for
// concurrent use.
type Link struct {
	seed, from, to uint64
	next           uint64 // number of the next frame
	free           uint64 // number of the first frame that may be held
}

// NewLink returns the link between two nodes whose first frame is number 0.
func NewLink(seed uint64, from, to string) *Link {
	return &Link{seed: seed, from: draw.Text(from), to: draw.Text(to)}
}

// Decision is what happens to one frame.
type Decision struct {
	Number uint64 // of the frame on its link
	Cut    bool   // a cut or a partition lies between
	Drop   bool
	Copies int           // 0 if cut or dropped, 2 if duplicated, 1 otherwise
	Delay  time.Duration // of all copies
	Gap    int           // how many frames that pass the link overtake this one
}

// String returns one line, such as "17 delay 9.2ms gap 1".
func (d Decision) String() string {
	words := []string{fmt.Sprint(d.Number)}
	switch {
	case d.Cut:
		words = append(words, "cut")
	case d.Drop:
		words = append(words, "drop")
	default:
		if d.Copies == 1 && d.Delay == 0 && d.Gap == 0 {
			words = append(words, "pass")
		}
		if d.Copies > 1 {
			words = append(words, "dup")
		}
		if d.Delay != 0 {
			words = append(words, "delay "+d.Delay.String())
		}
		if d.Gap != 0 {
			words = append(words, fmt.Sprintf("gap %d", d.Gap))
		}
	}
	return strings.Join(words, " ")
}

// Decide decides about the next frame of the link. A frame is numbered whatever
// becomes of it, so a partition that comes and goes changes nothing for the
// frames after it.
func (l *Link) Decide(f Faults) Decision {
	d := Decision{Number: l.next}
	l.next++
	switch {
	case f.Cut:
		d.Cut = true
		return d
	case l.happens(f.Drop, kindDrop, d.Number):
		d.Drop = true
		return d
	}
	d.Copies = 1
	if l.happens(f.Duplicate, kindDuplicate, d.Number) {
		d.Copies = 2
	}
	d.Delay = f.Delay
	if f.Jitter > 0 {
		d.Delay += time.Duration(draw.Below(l.bits(kindJitter, d.Number), 2*uint64(f.Jitter)+1)) - f.Jitter
	}
	// The frames that overtake one are not held themselves: at `reorder 100%`
	// every frame would wait for the next, and all would arrive in order.
	if d.Number >= l.free && l.happens(f.Reorder, kindReorder, d.Number) {
		d.Gap = f.Gap
		l.free = d.Number + uint64(f.Gap) + 1
	}
	return d
}

func (l *Link) bits(kind, number uint64) uint64 {
	return draw.Bits(l.seed, l.from, l.to, number, kind)
}

func (l *Link) happens(p Probability, kind, number uint64) bool {
	return Probability(draw.Below(l.bits(kind, number), uint64(Always))) < p
}
