package mirrorcost

import "time"

// Progress says how far a run is.
type Progress struct {
	// Phase is what is being done, e.g. "measure quads".
	Phase string
	// Done is the share of the whole run, from 0 to 1.
	Done float64
	// Left is the time that the rest should take.
	Left time.Duration
}

// phase is a part of a run, with the time that it usually takes.
type phase struct {
	name   string
	expect time.Duration
}

// The phases in their order.
const (
	phaseBaseline = "bring up the baseline"
	phaseMirror   = "bring up the mirror"
	phaseSaturate = "find how fast the legs go"
	phaseLedger   = "measure quads"
	phaseCounted  = "count bios"
	phaseSampled  = "sample stacks"
	phaseProbes   = "measure what measuring costs"
	phaseDown     = "take the legs down"
)

// timeline estimates what the phases of a plan take.
func timeline(plan *Plan) []phase {
	blocks := plan.Duration
	if plan.Count > 0 {
		// How fast the writes will go is not known yet.
		blocks = DefaultPlan().Duration
	}
	phases := []phase{
		{phaseBaseline, bringUpTime},
		{phaseMirror, 7 * bringUpTime},
		{phaseSaturate, 2 * saturationRounds * saturationTime},
		{phaseLedger, blocks + 5*idleTime + time.Duration(4*plan.Quads)*settleTime},
		{phaseCounted, 2 * countedTime},
		{phaseSampled, 2 * sampledTime(plan)},
	}
	if plan.ProbeCost {
		phases = append(phases, phase{phaseProbes, 2 * probeStates * probeRounds * (probeTime + settleTime)})
	}
	return append(phases, phase{phaseDown, bringUpTime})
}

// settleTime is what it usually takes until a leg is synced and at rest.
const settleTime = 20 * time.Millisecond

// progress turns steps of phases into shares of the whole.
type progress struct {
	tell    func(Progress)
	phases  []phase
	current int
}

func newProgress(plan *Plan, tell func(Progress)) *progress {
	if tell == nil {
		tell = func(Progress) {}
	}
	return &progress{tell: tell, phases: timeline(plan)}
}

// begin starts the phase of that name.
func (p *progress) begin(name string) {
	for i, phase := range p.phases {
		if phase.name == name {
			p.current = i
		}
	}
	p.step(0)
}

// step says which share of the current phase is done.
func (p *progress) step(share float64) {
	var past, left, all time.Duration
	for i, phase := range p.phases {
		all += phase.expect
		switch {
		case i < p.current:
			past += phase.expect
		case i == p.current:
			done := time.Duration(share * float64(phase.expect))
			past += done
			left += phase.expect - done
		default:
			left += phase.expect
		}
	}
	p.tell(Progress{Phase: p.phases[p.current].name, Done: float64(past) / float64(all), Left: left})
}
