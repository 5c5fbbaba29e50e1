package identity

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/klauspost/cpuid/v2"
	"github.com/klauspost/cpuid/v2/topology"

	"github.com/coreplica/coreplica/numa"
)

// The facts that are no cache sizes.
const (
	factPackages = "packages"
	factCores    = "cores"
	factThreads  = "threads"
	factL3       = "L3 instances"
	factLine     = "cache line bytes"
)

// Opinion is what one source says, by fact. A fact that is 0 was looked for and
// not found; one that is absent is beyond the source.
type Opinion struct {
	Source string
	Facts  map[string]int
}

// Said is a source's answer; 0 is "not found".
type Said struct {
	Source string `json:"source"`
	Value  int    `json:"value"`
}

// Disagreement is a fact about which sources differ.
type Disagreement struct {
	Fact string `json:"fact"`
	Said []Said `json:"said"`
}

func (d Disagreement) String() string {
	var parts []string
	for _, s := range d.Said {
		value := fmt.Sprint(s.Value)
		if s.Value == 0 {
			value = "not found"
		}
		parts = append(parts, s.Source+": "+value)
	}
	return d.Fact + ": " + strings.Join(parts, ", ")
}

// CrossCheck compares a topology of this machine with what the libraries read on
// the CPUs that this process may use. For that it binds a thread to each of them
// for a moment. The error says which source could not be asked.
func CrossCheck(t *numa.Topology) ([]Disagreement, error) {
	opinions := []Opinion{kernelOpinion(t)}
	system, err := cpuid.ScanTopology()
	if err == nil {
		opinions = append(opinions, klauspostOpinion(system))
	} else {
		err = fmt.Errorf("ask klauspost/cpuid: %w", err)
	}
	if o, there := intelOpinion(); there {
		opinions = append(opinions, o)
	}
	return Compare(opinions...), err
}

// Compare returns the facts about which opinions differ, by name.
func Compare(opinions ...Opinion) []Disagreement {
	all := map[string][]Said{}
	for _, o := range opinions {
		for fact, value := range o.Facts {
			all[fact] = append(all[fact], Said{o.Source, value})
		}
	}
	var differ []Disagreement
	for _, fact := range slices.Sorted(maps.Keys(all)) {
		said := all[fact]
		if slices.ContainsFunc(said, func(s Said) bool { return s.Value != said[0].Value }) {
			differ = append(differ, Disagreement{fact, said})
		}
	}
	return differ
}

// kernelOpinion takes the facts from a topology, for the usable CPUs.
func kernelOpinion(t *numa.Topology) Opinion {
	usable := t.Limits.CPUs
	packages := map[int]bool{}
	facts := map[string]int{factThreads: len(usable), factL3: 0, factLine: 0, "L1d bytes": 0, "L1i bytes": 0, "L2 bytes": 0, "L3 bytes": 0}
	for _, cpu := range usable {
		c, _ := t.CPU(cpu)
		packages[c.Package] = true
	}
	for _, core := range t.Cores() {
		if len(core.And(usable)) > 0 {
			facts[factCores]++
		}
	}
	facts[factPackages] = len(packages)
	for _, c := range t.Caches {
		if len(c.CPUs.And(usable)) == 0 {
			continue
		}
		facts[factLine] = c.LineBytes
		if name := c.Name() + " bytes"; facts[name] == 0 {
			facts[name] = int(c.SizeBytes)
		}
		if c.Level == 3 {
			facts[factL3]++
		}
	}
	return Opinion{"the kernel", facts}
}

// klauspostOpinion takes the facts from a scan.
func klauspostOpinion(s *topology.System) Opinion {
	facts := map[string]int{
		factPackages: s.NumPackages(), factCores: s.NumCores(), factThreads: s.NumThreads(),
		factL3: 0, factLine: 0, "L1d bytes": 0, "L1i bytes": 0, "L2 bytes": 0, "L3 bytes": 0,
	}
	suffix := map[topology.CacheType]string{topology.Data: "d", topology.Instruction: "i"}
	take := func(caches []topology.Cache) {
		for _, c := range caches {
			if name := fmt.Sprintf("L%d%s bytes", c.Level, suffix[c.Type]); facts[name] == 0 {
				facts[name] = c.Size
			}
			if c.LineSize > 0 {
				facts[factLine] = c.LineSize
			}
			if c.Level == 3 {
				facts[factL3]++
			}
		}
	}
	for _, p := range s.Packages {
		take(p.Caches)
		for _, g := range p.Groups {
			take(g.Caches)
			for _, c := range g.Cores {
				take(c.Caches)
			}
		}
	}
	return Opinion{"klauspost/cpuid", facts}
}
