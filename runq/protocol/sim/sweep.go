package sim

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/coreplica/coreplica/runq/protocol"
)

// Coverage counts what happened, by group and name.
type Coverage map[string]map[string]int

// Add adds the counts of a run.
func (c Coverage) Add(counts map[string]map[string]int) {
	for group, names := range counts {
		if c[group] == nil {
			c[group] = map[string]int{}
		}
		for name, n := range names {
			c[group][name] += n
		}
	}
}

// Required lists what a sweep is worth nothing without: every fault, every kind
// of record, and every step of a takeover, finished and cut off.
func Required() map[string][]string {
	need := map[string][]string{
		"fault": {
			"crash", "kill", "pause", "short-pause", "wedge", "stubborn", "suspicion", "loss", "duplicate", "reorder", "partition",
			"rot", "drift", "message cut off", "answer lost", "killed by a taker", "fenced publish", "publish to a lost copy",
			"store after losing the log", "leave", "cpu back", "crash under a parted batch",
		},
		"step": {"swap to RECOVERING", "swap to ACTIVE", "swap to HANDED", "hand to a stand-in", "copies go to better hosts", "takeover complete", "tombstone dropped"},
	}
	for _, kind := range []protocol.EventKind{protocol.EventSubmit, protocol.EventFinished, protocol.EventCollect} {
		need["run of"] = append(need["run of"], kind.String())
	}
	need["run of"] = append(need["run of"], protocol.EffectBegin.String())
	for _, kind := range protocol.Kinds() {
		need["record"] = append(need["record"], kind.String())
	}
	for _, kind := range []protocol.EffectKind{
		protocol.EffectKill, protocol.EffectUnkillable, protocol.EffectSeal, protocol.EffectRead, protocol.EffectOpen,
		protocol.EffectFreeBelow, protocol.EffectExit, protocol.EffectReject,
	} {
		need["effect"] = append(need["effect"], kind.String())
	}
	// A taker that stops between any two steps leaves the rest to the next one.
	for _, kind := range []protocol.EffectKind{
		protocol.EffectArbiter, protocol.EffectKill, protocol.EffectSeal, protocol.EffectRead, protocol.EffectOpen,
		protocol.EffectStoreSlots, protocol.EffectStoreCells, protocol.EffectPublish,
	} {
		need["taker stopped before"] = append(need["taker stopped before"], kind.String())
	}
	return need
}

// Missing lists what of [Required] happened fewer than least times.
func (c Coverage) Missing(least int) []string {
	var missing []string
	for group, names := range Required() {
		for _, name := range names {
			if n := c[group][name]; n < least {
				missing = append(missing, fmt.Sprintf("%s %s: %d", group, name, n))
			}
		}
	}
	return missing
}

// Failure is a run that broke an invariant, and the least that still breaks it.
type Failure struct {
	Seed   uint64 `json:"seed"`
	Faults string `json:"faults"` // What shrinking left of the faults.
	Steps  int    `json:"steps"`  // And of the time in which they happen.
	Text   string `json:"error"`
}

// Shrink looks for the fewest faults and the shortest time that still break an
// invariant with the same seed. It returns what it was given if nothing breaks.
func Shrink(opts Options) (Options, error) {
	_, err := Run(opts)
	if !errors.Is(err, ErrViolation) {
		return opts, nil
	}
	if opts.Steps == 0 {
		opts.Steps = DefaultSteps
	}
	smaller := func(try Options) bool {
		_, tried := Run(try)
		if errors.Is(tried, ErrViolation) {
			opts, err = try, tried
			return true
		}
		return false
	}
	for rest := opts.Faults; rest != 0; rest &= rest - 1 {
		try := opts
		try.Faults &^= 1 << bits.TrailingZeros32(uint32(rest))
		smaller(try)
	}
	for cut := opts.Steps / 2; cut > 0; {
		try := opts
		if try.Steps -= cut; try.Steps <= 0 || !smaller(try) {
			cut /= 2
		}
	}
	return opts, err
}
