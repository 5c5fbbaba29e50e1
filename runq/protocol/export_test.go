package protocol

// Mutate returns a hook that switches a rule off, by the name of the mutant.
func Mutate(name string) func(*Node) {
	mut, ok := mutants[name]
	if !ok {
		panic("no mutant " + name)
	}
	return func(n *Node) { n.mut |= mut }
}

// Mutants are the rules that can be switched off.
func Mutants() []string {
	var names []string
	for name := range mutants {
		names = append(names, name)
	}
	return names
}

var mutants = map[string]mutations{
	"ack before last replica": mutAckEarly,
	"no seal":                 mutNoSeal,
	"reuse incarnation":       mutReuseStream,
	"time-based tombstones":   mutTimeTombstones,
	"shortest log":            mutShortestLog,
	"claim not replicated":    mutClaimAsync,
	"steal without dedupe":    mutNoDedupe,
	"longest valid prefix":    mutTruncate,
	"read a recovering epoch": mutReadRecovering,
	"token not replicated":    mutTokenAsync,
	"no vector in snapshots":  mutNoVector,
	"old regions freed early": mutFreeEarly,
	"payload in one copy":     mutPayloadOnce,
	"takeover kills counted":  mutCountKills,
	"claimed tasks move":      mutMoveClaimed,
	"fence ignored":           mutIgnoreFence,
	"absent not logged":       mutAbsentUnlogged,
	"offers told by ID alone": mutHopless,
	"open attempts handed":    mutHandClaimed,
	"kept without a CPU":      mutKeepLeft,
	"unstored forgotten":      mutForgetStored,
}
