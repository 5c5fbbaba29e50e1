package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/coreplica/coreplica/runq/protocol"
)

// Faults is a set of things that go wrong.
type Faults uint32

// The faults. Shrinking a failure leaves out those that it does not need.
const (
	Crash      Faults = 1 << iota // A core stops, and its memory is gone.
	Kill                          // A process stops, and its memory stays.
	Pause                         // A process stands still for longer than its lease, then goes on.
	ShortPause                    // It stands still for a little less.
	Wedge                         // A scheduling loop hangs for good.
	Stubborn                      // A victim does not die when it is killed.
	Suspicion                     // A live core is taken for hung.
	Loss                          // A message or an answer is lost.
	Duplicate                     // A message comes twice.
	Reorder                       // A message is overtaken.
	Partition                     // Messages from one core to another are lost for a while.
	Rot                           // A bit of a published record flips in one copy.
	Drift                         // Clocks run at different rates.
	Excess                        // More copies fail than the protocol survives.
	Leave                         // A core's CPU goes offline, and comes back.
	faultsEnd

	// AllFaults is every fault that the protocol survives without loss, and in
	// some seeds the one that it reports.
	AllFaults = faultsEnd - 1
)

var faultNames = []string{"crash", "kill", "pause", "short-pause", "wedge", "stubborn", "suspicion", "loss", "duplicate", "reorder", "partition", "rot", "drift", "excess", "leave"}

// Names returns the faults of a set by name.
func (f Faults) Names() []string {
	var names []string
	for i, name := range faultNames {
		if f>>i&1 == 1 {
			names = append(names, name)
		}
	}
	return names
}

func (f Faults) String() string { return strings.Join(f.Names(), ",") }

// ParseFaults reads names separated by commas, "all" or "none".
func ParseFaults(text string) (Faults, error) {
	switch text {
	case "all":
		return AllFaults, nil
	case "none", "":
		return 0, nil
	}
	var f Faults
	for name := range strings.SplitSeq(text, ",") {
		i := slices.Index(faultNames, name)
		if i < 0 {
			return 0, fmt.Errorf("there is no fault %q, only all, none, %s", name, strings.Join(faultNames, ", "))
		}
		f |= 1 << i
	}
	return f, nil
}

// inject makes one fault happen, if its set has it and the world can bear it.
func (s *sim) inject() {
	fault := Faults(1) << s.rng.IntN(len(faultNames))
	if s.opts.Faults&fault == 0 {
		return
	}
	p := s.w.procs[s.rng.IntN(len(s.w.procs))]
	if p == nil || p.dead {
		return
	}
	lease := int64(s.w.cfg.Lease.Length)
	switch fault {
	case Crash:
		if !s.crowded && s.survives(p.core) { // There copies are lost where it matters: see strikeCopy.
			s.describe(p, "crash")
			s.w.crash(p.core)
		}
	case Kill:
		s.describe(p, "kill")
		s.w.exit(p.core)
	case Pause:
		s.describe(p, "pause")
		p.resume = s.w.now + lease + s.rng.Int64N(3*lease)
	case ShortPause:
		s.w.check.count("fault", "short-pause")
		p.resume = s.w.now + lease*3/4
	case Wedge:
		// A process that never came up is for whoever started it to see.
		if !p.wedged && p.life > 0 && s.w.heartbeats[p.core]>>32 == uint64(p.life) {
			s.describe(p, "wedge")
			p.wedged = true
		}
	case Stubborn:
		s.w.check.count("fault", "stubborn")
		// It hangs where no signal reaches it, and comes back as a zombie.
		p.stubborn = true
		p.resume = s.w.now + lease + s.rng.Int64N(3*lease)
	case Suspicion:
		s.w.check.count("fault", "suspicion")
		victim := protocol.Core(s.rng.IntN(len(s.w.procs)))
		p.inbox = append(p.inbox, protocol.Event{Kind: protocol.EventSuspect, Core: victim})
	case Partition:
		s.w.check.count("fault", "partition")
		s.cut[p.core] = protocol.Core(s.rng.IntN(len(s.w.procs)))
		s.cutUntil[p.core] = s.w.now + lease
	case Rot:
		s.rot()
	case Leave:
		s.w.leave(protocol.Core(s.rng.IntN(len(s.w.procs))))
	}
}

// strike makes faults fall where chance alone seldom would: a taker stops just
// before it kills, and an owner freezes between a store and its publication,
// with attempts under way, until its log has been taken over.
func (s *sim) strike(p *process) {
	if p.pc >= len(p.program) {
		return
	}
	s.strikeCopy(p)
	switch e := &p.program[p.pc]; {
	case e.Kind == protocol.EffectKill && s.opts.Faults&Kill != 0 && s.rng.IntN(25) == 0:
		s.describe(p, "kill")
		s.w.exit(p.core)
	case e.Kind == protocol.EffectPublish && s.opts.Faults&Stubborn != 0 && s.rng.IntN(8) == 0 && len(p.running) > 0:
		s.w.check.count("fault", "stubborn")
		p.stubborn, p.resume = true, s.w.now+int64(s.w.cfg.Lease.Length)*5/2
	}
}

// strikeCopy crashes another core just before a batch is published to its memory
// whose rest, with payloads, comes behind a snapshot: that rest is stored nowhere.
// The record of a cancel may be among it, and then only a snapshot tells of it.
func (s *sim) strikeCopy(p *process) {
	e := &p.program[p.pc]
	if e.Kind != protocol.EffectPublish || e.Region.Host == p.core || s.opts.Faults&Crash == 0 || !s.parted(p) {
		return
	}
	if host := s.w.procs[e.Region.Host]; !host.dead && s.survives(host.core) {
		s.w.check.count("fault", "crash under a parted batch")
		s.describe(host, "crash")
		s.w.crash(host.core)
	}
}

// parted reports whether payloads are stored behind the next publication of the log
// in the same copy.
func (s *sim) parted(p *process) bool {
	e := &p.program[p.pc]
	return slices.ContainsFunc(p.program[p.pc+1:], func(later protocol.Effect) bool {
		return later.Kind == protocol.EffectStoreCells && later.Region == e.Region
	})
}

// describe counts a fault, and the step of a takeover that it falls before.
func (s *sim) describe(p *process, fault string) {
	s.w.check.count("fault", fault)
	if p.pc < len(p.program) {
		e := &p.program[p.pc]
		s.w.check.count("fault before", e.Kind.String())
		w := s.w.arbiter(e.Log)
		if w.Phase == protocol.Recovering && w.Owner == p.core && e.Kind >= protocol.EffectStoreCells {
			s.w.check.count("taker stopped before", e.Kind.String())
		}
	}
}

// survives reports whether the memory of a core may be lost: each log must be
// left with a copy that is whole.
func (s *sim) survives(core protocol.Core) bool {
	if s.w.check.excused {
		return true
	}
	for log := range s.w.arbiters {
		w := s.w.arbiter(protocol.Core(log))
		whole, touched := 0, false
		for member := range w.InSync(s.w.cfg.Cores).All() {
			r := s.w.regions[protocol.RegionID{Log: protocol.Core(log), Host: protocol.Core(member), Epoch: w.ActiveEpoch}]
			if protocol.Core(member) == core {
				touched = r != nil
			} else if r != nil && !r.rotten {
				whole++
			}
		}
		if w.ActiveEpoch > 0 && touched && whole == 0 {
			return false
		}
	}
	return true
}

// rot flips a bit of a published record or payload in one copy, where another
// copy holds the same record unharmed. Two copies may rot at different places.
func (s *sim) rot() {
	ids := s.w.sortedRegions()
	if len(ids) == 0 {
		return
	}
	id := ids[s.rng.IntN(len(ids))]
	r := s.w.regions[id]
	commit := protocol.UnpackCommit(r.commit)
	w := s.w.arbiter(id.Log)
	if commit.Tail == 0 || w.ActiveEpoch != id.Epoch {
		return
	}
	seq := commit.Tail - 1 - s.rng.Uint64N(min(commit.Tail, s.w.cfg.Slots/2))
	at := (seq & (s.w.cfg.Slots - 1)) * protocol.RecordWords
	copies := slices.DeleteFunc(ids, func(o protocol.RegionID) bool {
		return o.Log != id.Log || o.Epoch != id.Epoch || o.Host == id.Host
	})
	for _, other := range copies {
		if s.w.regions[other].commit != r.commit {
			return // What is still being copied has no other copy.
		}
	}
	for _, other := range copies {
		o := s.w.regions[other]
		if _, err := protocol.Decode(o.slots[at:at+protocol.RecordWords], s.w.cfg.Run); err != nil {
			continue
		}
		r.slots[at+uint64(s.rng.IntN(protocol.RecordWords))] ^= 1 << s.rng.IntN(64)
		if len(r.arena) > 0 && !s.rottenArena(id) {
			r.arena[s.rng.IntN(len(r.arena))] ^= 1
		}
		r.rotten = true
		s.w.check.count("fault", "rot")
		return
	}
}

// rottenArena reports whether another copy is damaged already: its payloads
// could be the same ones.
func (s *sim) rottenArena(id protocol.RegionID) bool {
	for other, o := range s.w.regions {
		if other.Log == id.Log && other.Epoch == id.Epoch && other.Host != id.Host && o.rotten {
			return true
		}
	}
	return false
}
