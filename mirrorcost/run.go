package mirrorcost

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/coreplica/coreplica/mirrorcost/report"
	"github.com/coreplica/coreplica/mirrorcost/stage"
)

// Report is what a run found; see package report for its forms.
type Report = report.Report

// Leg is one side of a report.
type Leg = report.Leg

// Options say how to run a plan, not what to measure. The zero value is silent.
type Options struct {
	// Logger gets what is done to the machine; nil is silent.
	Logger *slog.Logger
	// Progress is called from the run's own goroutine; nil is silent.
	Progress func(Progress)
	// Pinned is a folder on bpffs where bpftool pinned the probes; empty
	// loads the embedded ones. See docs/mirrorcost.md.
	Pinned string
	// Version of the program, for the report.
	Version string
	// Command is the command line that repeats the run, for the report.
	Command []string
}

// Run carries out a plan and returns what it found. It needs the privilege to
// make block devices, mount and load BPF programs, and a program whose main
// calls [load.Hook] first, since the load is the same program as a process of
// its own.
//
// One run at a time may use a machine: a second one gets an error that wraps
// [cleanup.ErrBusy]. Whatever Run made is gone when it returns, also when ctx is
// cancelled. An error that wraps [ErrUsage] means that nothing was touched.
func Run(ctx context.Context, plan Plan, o Options) (r *Report, err error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	p := newProgress(&plan, o.Progress)
	started := time.Now()
	s, err := open(ctx, plan, o, p)
	if err != nil {
		return nil, err
	}
	defer func() {
		p.begin(phaseDown)
		if down := s.close(); down != nil {
			r, err = nil, errors.Join(err, down)
		}
		p.step(1)
	}()
	found, err := s.observe(ctx, p)
	if err != nil {
		return nil, err
	}
	r = found.analyse()
	r.Version, r.Command = o.Version, o.Command
	r.StartedAt, r.ElapsedSeconds = started.UTC(), time.Since(started).Seconds()
	return r, nil
}

// observe goes through the passes.
func (s *session) observe(ctx context.Context, p *progress) (o *observations, err error) {
	if o, err = s.describe(); err != nil {
		return nil, err
	}
	p.begin(phaseSaturate)
	saturated, err := s.saturate(ctx)
	if err != nil {
		return nil, err
	}
	if o.pace, err = s.choosePace(saturated); err != nil {
		return nil, err
	}
	p.begin(phaseLedger)
	if o.ledger, err = s.ledgerPass(ctx, o.pace, p); err != nil {
		return nil, err
	}
	p.begin(phaseCounted)
	if o.counted, err = s.countedPass(ctx, o.pace); err != nil {
		return nil, err
	}
	p.begin(phaseSampled)
	if o.sampled, err = s.sampledPass(ctx, o.pace, p); err != nil {
		return nil, err
	}
	if s.plan.ProbeCost {
		p.begin(phaseProbes)
		probe, err := s.probePass(ctx, probeRounds, p)
		if err != nil {
			return nil, err
		}
		o.probe = &probe
	}
	o.attached, o.knowsStolen = s.attachedProbes(), s.ledger.KnowsStolen()
	return o, nil
}

// describe fills in what is known before anything is measured.
func (s *session) describe() (o *observations, err error) {
	o = &observations{plan: s.plan}
	if o.machine, err = describeMachine(); err != nil {
		return nil, err
	}
	for i, leg := range s.legs {
		table, err := stage.For(leg.Kind)
		if err != nil {
			return nil, err
		}
		o.legs[i] = legFacts{kind: leg.Kind, mode: leg.EffectiveMode, copies: leg.Copies, warnings: leg.Warnings, table: table}
		for _, d := range leg.Devices {
			o.legs[i].devices = append(o.legs[i].devices, d.Name)
		}
	}
	return o, nil
}

func (s *session) attachedProbes() map[string]string {
	attached := map[string]string{"stacks": "perf_event", "block": s.blockio.Attached()}
	for probe, form := range s.ledger.Attached() {
		attached[probe] = form
	}
	return attached
}
