package mirrorcost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreplica/coreplica/bpf"
	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/mirrorcost/load"
	"github.com/coreplica/coreplica/mirrorcost/mirror"
)

// The two legs of a comparison, as indices.
const (
	baseline = 0
	mirrored = 1
)

var legNames = [2]string{"baseline", "mirror"}

// session holds what a run has brought up. Everything in it goes away in close.
type session struct {
	plan    Plan
	options Options
	logger  *slog.Logger
	run     *cleanup.Run
	legs    [2]*mirror.Up
	process *load.Process
	ledger  *bpf.Ledger
	blockio *bpf.BlockIO
	stacks  *bpf.Stacks
	spin    uint64
}

// open brings up the legs, the load and the probes.
func open(ctx context.Context, plan Plan, o Options, p *progress) (_ *session, err error) {
	s := &session{plan: plan, options: o, logger: o.Logger}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.run, err = cleanup.Open(ctx, cleanup.Options{Logger: s.logger}); err != nil {
		return nil, err
	}
	if err = s.run.AcquireExclusive(); err != nil {
		return nil, err
	}
	// Whoever lacks the privilege for the probes should learn it before a
	// device is made.
	if s.ledger, err = bpf.OpenLedger(bpf.LedgerOptions{Pinned: o.Pinned}); err != nil {
		return nil, err
	}
	for i, kind := range [2]string{plan.Baseline, plan.Mirror} {
		p.begin([2]string{phaseBaseline, phaseMirror}[i])
		if s.legs[i], err = mirror.Bring(ctx, s.run, s.mirrorOptions(i, kind)); err != nil {
			return nil, fmt.Errorf("bring up %s: %w", kind, err)
		}
	}
	if plan.Spin > 0 {
		if s.spin, err = load.CalibrateSpin(plan.Spin); err != nil {
			return nil, err
		}
	}
	if err = s.startLoad(ctx); err != nil {
		return nil, err
	}
	return s, s.openProbes()
}

func (s *session) mirrorOptions(leg int, kind string) mirror.Options {
	o := mirror.Options{
		Kind:        kind,
		Legs:        s.plan.Legs,
		Substrate:   s.plan.Substrate,
		Dir:         s.plan.Dir,
		Force:       s.plan.Force,
		DeviceBytes: s.plan.DeviceBytes,
		FileBytes:   s.plan.FileBytes,
		Files:       s.plan.Threads,
		Mode:        s.plan.Mode,
		Csum:        s.plan.csum(),
		Name:        legNames[leg],
		Logger:      s.logger,
	}
	if len(s.plan.Devices) > 0 {
		o.Devices = s.plan.Devices
		if leg == mirrored {
			o.Devices = s.plan.Devices[min(len(s.legs[baseline].Devices), len(s.plan.Devices)):]
		}
	}
	return o
}

func (s *session) startLoad(ctx context.Context) (err error) {
	specs := map[string]load.Spec{}
	for i, name := range legNames {
		spec := load.Spec{
			Targets:    s.legs[i].Targets,
			FileBytes:  s.plan.FileBytes,
			SizeBytes:  s.plan.SizeBytes,
			Mode:       s.plan.Mode,
			FsyncEvery: s.plan.FsyncEvery,
			Pattern:    s.plan.Pattern,
			Seed:       s.plan.Seed,
			CPUs:       s.plan.CPUs,
			Uring:      s.legs[i].Kind == "uring",
			Batch:      1,
		}
		if spec.Uring {
			spec.Batch = s.plan.Batch
		}
		if i == mirrored {
			spec.SpinIterations = s.spin
		}
		specs[name] = spec
	}
	s.process, err = load.Start(ctx, specs, load.StartOptions{Run: s.run})
	return err
}

func (s *session) openProbes() (err error) {
	var devices []bpf.BlockDevice
	for _, leg := range s.legs {
		var array *bpf.BlockDevice
		if a := leg.Array; a.Name != "" {
			array = &bpf.BlockDevice{Name: a.Name, Major: a.Major, Minor: a.Minor}
		}
		for _, d := range leg.Devices {
			devices = append(devices, bpf.BlockDevice{Name: d.Name, Major: d.Major, Minor: d.Minor, Array: array, DataStart: d.DataStart})
		}
	}
	o := bpf.LedgerOptions{Pinned: s.options.Pinned}
	if s.blockio, err = bpf.OpenBlockIO(devices, o); err != nil {
		return err
	}
	if err = s.blockio.Detach(); err != nil {
		return err
	}
	if s.stacks, err = bpf.OpenStacks(s.ledger, s.plan.SampleHz, o); err != nil {
		return err
	}
	return s.startLedger()
}

func (s *session) startLedger() error {
	return s.ledger.Start(s.process.Pid(), os.Getpid())
}

// close takes everything down, in the reverse order, and does so whether or not
// the run's context still lives.
func (s *session) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), takeDownTime)
	defer cancel()
	var errs []error
	if s.stacks != nil {
		errs = append(errs, s.stacks.Close())
	}
	if s.blockio != nil {
		errs = append(errs, s.blockio.Close())
	}
	if s.process != nil {
		errs = append(errs, s.process.Close())
	}
	if s.ledger != nil {
		errs = append(errs, s.ledger.Close())
	}
	for _, leg := range s.legs {
		errs = append(errs, leg.Down(ctx))
	}
	if s.run != nil {
		errs = append(errs, s.run.Close())
	}
	*s = session{}
	return errors.Join(errs...)
}

const (
	// bringUpTime is what a leg usually takes, for the progress alone.
	bringUpTime = time.Second
	// takeDownTime bounds what may wait for a device that does not answer.
	takeDownTime = 30 * time.Second
)
