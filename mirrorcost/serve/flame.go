package serve

import (
	"cmp"
	"slices"

	"github.com/coreplica/coreplica/mirrorcost/report"
)

// frame is a node of the flame graph: a context on the first floor, functions
// above it. Both legs share one tree, so that their difference is one walk.
type frame struct {
	Name string `json:"n"`
	// Self is what ends in this frame, one entry a stage.
	Self     []self   `json:"s,omitempty"`
	Children []*frame `json:"c,omitempty"`

	byName map[string]*frame
	total  float64
}

// self is {stage, ns of the baseline, ns of the mirror, samples of the
// baseline, samples of the mirror}. Nanoseconds are per write. Zero samples
// mean that the ledger alone set the figure, so that it has no sampling error.
type self [5]float64

// buildFlame merges the stacks of both legs. What costs nothing or less is left
// out, since nothing can be drawn for it.
func buildFlame(r *report.Report, stages []string) *frame {
	root := newFrame("a write")
	for _, s := range r.Samples {
		if !(s.Ns > 0) {
			continue
		}
		at := root.child(s.Context)
		for _, f := range slices.Backward(s.Stack) {
			name := f.Function
			if name == "" {
				name = "[unknown]"
			}
			at = at.child(name)
		}
		leg := 0
		if s.Leg == report.MirrorLeg {
			leg = 1
		}
		at.add(slices.Index(stages, s.Stage), leg, s.Ns, float64(s.Count))
	}
	root.finish()
	return root
}

func newFrame(name string) *frame { return &frame{Name: name, byName: map[string]*frame{}} }

func (f *frame) child(name string) *frame {
	c := f.byName[name]
	if c == nil {
		c = newFrame(name)
		f.byName[name] = c
		f.Children = append(f.Children, c)
	}
	return c
}

func (f *frame) add(stage, leg int, ns, count float64) {
	i := slices.IndexFunc(f.Self, func(s self) bool { return s[0] == float64(stage) })
	if i < 0 {
		i = len(f.Self)
		f.Self = append(f.Self, self{float64(stage)})
	}
	f.Self[i][1+leg] += ns
	f.Self[i][3+leg] += count
}

// finish sorts the children, the largest first by both legs together: so a
// frame stays in its place when the view changes.
func (f *frame) finish() {
	f.byName = nil
	for _, s := range f.Self {
		f.total += s[1] + s[2]
	}
	for _, c := range f.Children {
		c.finish()
		f.total += c.total
	}
	slices.SortStableFunc(f.Children, func(a, b *frame) int {
		return cmp.Or(cmp.Compare(b.total, a.total), cmp.Compare(a.Name, b.Name))
	})
}
