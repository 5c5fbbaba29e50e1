package report

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/google/pprof/profile"
)

const (
	kernelMapping = "[kernel.kallsyms]"
	// noStack marks a sample whose context no stack divides. Its only frame
	// stands for the context and is taken off again when it is read.
	noStack    = "stack"
	noStackSet = "none"
	// maxProfileNs keeps a float that was multiplied within an int64.
	maxProfileNs = 1 << 62
)

// Profile returns the stacks of both legs as a profile for google/pprof. The
// labels leg, context, stage and device tell them apart; the nanoseconds of a
// leg add up to what it was charged in the ledger pass.
func Profile(r *Report) (*profile.Profile, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	b := newProfileBuilder("cpu", "nanoseconds")
	b.describe(r)
	for i := range r.Samples {
		s := &r.Samples[i]
		if ns := s.Ns * r.writesOf(s.Leg); math.Abs(ns) > maxProfileNs {
			return nil, &FieldError{fmt.Sprintf("samples[%d].ns", i), "is too long for a profile"}
		}
		sample := b.add(s, []int64{s.Count, r.scaled(s)})
		setLabel(sample, "leg", s.Leg)
		setLabel(sample, "device", s.Device)
	}
	return b.done()
}

// diffWrites is how many writes the values of [DiffProfile] stand for. A
// profile holds whole nanoseconds, and a frame may cost less than one.
const diffWrites = 1000

// DiffProfile returns what the mirror costs above the baseline: nanoseconds of
// CPU time per 1000 writes, negative where the mirror costs less. Stacks are
// matched by context, stage and functions.
func DiffProfile(r *Report) (*profile.Profile, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	b := newProfileBuilder("cpu_per_1000_writes", "nanoseconds")
	b.describe(r)
	b.comment("mirror minus baseline, per 1000 writes; counts of samples are of both legs together")
	type sum struct {
		sample *Sample
		count  int64
		ns     float64
	}
	sums := map[string]*sum{}
	var order []*sum
	for i := range r.Samples {
		s := &r.Samples[i]
		key := stackKey(s)
		if sums[key] == nil {
			sums[key] = &sum{sample: s}
			order = append(order, sums[key])
		}
		sums[key].count += s.Count
		if s.Leg == MirrorLeg {
			sums[key].ns += s.Ns
		} else {
			sums[key].ns -= s.Ns
		}
	}
	for _, s := range order {
		if math.Abs(s.ns*diffWrites) > maxProfileNs {
			return nil, &FieldError{"samples", "hold a difference that is too long for a profile"}
		}
		b.add(s.sample, []int64{s.count, int64(math.Round(s.ns * diffWrites))})
	}
	return b.done()
}

// stackKey is the same for samples that differ in leg, device or addresses
// alone.
func stackKey(s *Sample) string {
	parts := []string{s.Context, s.Stage}
	for _, f := range s.Stack {
		parts = append(parts, f.Function)
	}
	return strings.Join(parts, "\x00")
}

func writePprof(w io.Writer, r *Report) error {
	p, err := Profile(r)
	if err != nil {
		return err
	}
	return p.Write(w)
}

// profileBuilder gives frames their numbers.
type profileBuilder struct {
	p         *profile.Profile
	kernel    *profile.Mapping
	locations map[Frame]*profile.Location
	functions map[string]*profile.Function
}

func newProfileBuilder(value, unit string) *profileBuilder {
	kernel := &profile.Mapping{
		ID: 1, Limit: math.MaxUint64, File: kernelMapping,
		// These keep pprof from looking for symbols: it has them.
		HasFunctions: true, HasFilenames: true, HasLineNumbers: true, HasInlineFrames: true,
	}
	return &profileBuilder{
		p: &profile.Profile{
			SampleType:        []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: value, Unit: unit}},
			DefaultSampleType: value,
			PeriodType:        &profile.ValueType{Type: "cpu", Unit: "nanoseconds"},
			Mapping:           []*profile.Mapping{kernel},
		},
		kernel:    kernel,
		locations: map[Frame]*profile.Location{},
		functions: map[string]*profile.Function{},
	}
}

func (b *profileBuilder) describe(r *Report) {
	if year := r.StartedAt.Year(); year > 1970 && year < 2262 { // int64 nanoseconds end there
		b.p.TimeNanos = r.StartedAt.UnixNano()
	}
	if ns := r.ElapsedSeconds * 1e9; ns > 0 && ns < maxProfileNs {
		b.p.DurationNanos = int64(ns)
	}
	b.comment(r.Machine.Describe())
	b.comment("baseline " + r.Baseline.Name + ", mirror " + r.Mirror.Name + ": " + r.Load.Describe())
}

func (b *profileBuilder) comment(text string) { b.p.Comments = append(b.p.Comments, text) }

func (b *profileBuilder) add(s *Sample, values []int64) *profile.Sample {
	sample := &profile.Sample{Value: values}
	for _, f := range s.Stack {
		sample.Location = append(sample.Location, b.location(f, b.kernel))
	}
	setLabel(sample, "context", s.Context)
	setLabel(sample, "stage", s.Stage)
	if len(s.Stack) == 0 {
		sample.Location = []*profile.Location{b.location(Frame{Function: "[" + s.Context + "]"}, nil)}
		setLabel(sample, noStack, noStackSet)
	}
	b.p.Sample = append(b.p.Sample, sample)
	return sample
}

func setLabel(s *profile.Sample, key, value string) {
	if value == "" {
		return
	}
	if s.Label == nil {
		s.Label = map[string][]string{}
	}
	s.Label[key] = []string{value}
}

func (b *profileBuilder) location(f Frame, m *profile.Mapping) *profile.Location {
	if l, ok := b.locations[f]; ok {
		return l
	}
	l := &profile.Location{ID: uint64(len(b.p.Location) + 1), Mapping: m, Address: f.Address}
	l.Line = []profile.Line{{Function: b.function(f.Function)}}
	b.locations[f] = l
	b.p.Location = append(b.p.Location, l)
	return l
}

func (b *profileBuilder) function(name string) *profile.Function {
	if f, ok := b.functions[name]; ok {
		return f
	}
	f := &profile.Function{ID: uint64(len(b.p.Function) + 1), Name: name, SystemName: name}
	b.functions[name] = f
	b.p.Function = append(b.p.Function, f)
	return f
}

func (b *profileBuilder) done() (*profile.Profile, error) {
	if err := b.p.CheckValid(); err != nil {
		return nil, fmt.Errorf("build profile: %w", err)
	}
	return b.p, nil
}

// samplesOf reads back what [Profile] wrote. Nanoseconds come back as they
// were to within half of one over the whole leg.
func samplesOf(p *profile.Profile, r *Report) ([]Sample, error) {
	counts, nanos := -1, -1
	for i, t := range p.SampleType {
		switch t.Type {
		case "samples":
			counts = i
		case "cpu":
			nanos = i
		}
	}
	if counts < 0 || nanos < 0 {
		return nil, fmt.Errorf("it has no values samples and cpu, so it was not saved with a report")
	}
	var samples []Sample
	for i, s := range p.Sample {
		out := Sample{
			Leg: label(s, "leg"), Context: label(s, "context"), Stage: label(s, "stage"), Device: label(s, "device"),
			Count: s.Value[counts],
		}
		if out.Leg != BaselineLeg && out.Leg != MirrorLeg {
			return nil, fmt.Errorf("sample %d has leg %q, so it was not saved with a report", i, out.Leg)
		}
		out.Ns = float64(s.Value[nanos]) / r.writesOf(out.Leg)
		if label(s, noStack) != noStackSet {
			out.Stack = frames(s)
		}
		samples = append(samples, out)
	}
	return samples, nil
}

func frames(s *profile.Sample) (stack []Frame) {
	for _, l := range s.Location {
		for _, line := range l.Line {
			f := Frame{Address: l.Address}
			if line.Function != nil {
				f.Function = line.Function.Name
			}
			stack = append(stack, f)
		}
	}
	return stack
}

func label(s *profile.Sample, key string) string {
	if values := s.Label[key]; len(values) > 0 {
		return values[0]
	}
	return ""
}
