package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// Machine is a machine with two sockets whose latencies somebody published: what it
// takes to get a cache line that another core has just written, in nanoseconds.
type Machine struct {
	Name string
	// LocalNs is from a core of the same socket, RemoteNs from one of the other.
	LocalNs, RemoteNs float64
	Source            string
}

const coreToCore = "github.com/nviennot/core-to-core-latency"

// Machines returns the machines of the model. Where the source has a table of all
// pairs, latencies are its medians.
func Machines() []Machine {
	return []Machine{
		{"2x Xeon Gold 6242 (Cascade Lake)", 48, 141, coreToCore},
		{"2x Xeon 8275CL (Cascade Lake)", 47, 134, coreToCore},
		{"2x Xeon 8375C (Ice Lake)", 51, 108, coreToCore},
		{"2x Xeon E5-2695 v4 (Broadwell)", 44, 118, coreToCore},
		{"2x EPYC 7R13 (Milan)", 107, 197, coreToCore},
		{"2x EPYC 7742 (Rome)", 141, 267, coreToCore},
		{"2x POWER7", 173, 443, coreToCore},
	}
}

// Moves says how many lines an operation fetches at the most from a thread that does
// the same on another socket.
type Moves struct {
	// Read and Write are lines by operation.
	Read, Write float64
	// Contended is how many of them are accesses to one line that everybody
	// changes, which bounds what all threads do together; 0 where there is none.
	Contended float64
	// Serial says that a thread waits while the other is inside, for reads alone
	// and where there are writes.
	SerialReads, SerialWrites bool
}

// MovesOf returns what an implementation moves, and false for those that the model
// does not cover: of them nobody counted it.
//
//   - A lock is one line, which is changed when it is taken and when it is released:
//     twice by Mutex and by a reader of RWMutex, four times by its writer, who takes
//     the inner mutex and the readers' count. A write also moves the line it wrote.
//   - Of two replicas a read moves nothing. A write moves what the directory of
//     package replicated counts, lines to be taken from their holders included.
func MovesOf(implementation string) (Moves, bool) {
	switch implementation {
	case "mutex":
		return Moves{Read: 2, Write: 3, Contended: 2, SerialReads: true, SerialWrites: true}, true
	case "rwmutex":
		return Moves{Read: 2, Write: 5, Contended: 2, SerialWrites: true}, true
	case "replicated2", "map2":
		return Moves{Read: 0, Write: replicatedWriteMoves, SerialWrites: true}, true
	}
	return Moves{}, false
}

// replicatedWriteMoves is what a write to two replicas moves at the most when the
// nodes take turns; a test counts it.
const replicatedWriteMoves = 8

// Bracket is what the model says about an operation of one thread while another does
// the same on the other socket.
type Bracket struct {
	// LowNs holds while one core keeps a line for a burst of operations, HighNs
	// if each access finds the line away.
	LowNs, HighNs float64
	// BoundNs is what an operation of all threads together cannot be faster than
	// if a contended line moves for each access; 0 where there is none.
	BoundNs float64
}

// Contains reports whether a measured time is one that the model allows.
func (b Bracket) Contains(ns float64) bool { return b.LowNs <= ns && ns <= b.HighNs }

// Model computes t = t_local + Σ transfers × (L_remote − L_local), and the bound
// k × L_remote. With t_local of one thread, no line moves and L_local is 0; with that
// of two threads on one socket it is the socket's own latency.
func Model(localNs float64, m Moves, writePercent int, lLocalNs, lRemoteNs float64) Bracket {
	f := float64(writePercent) / 100
	moves := (1-f)*m.Read + f*m.Write
	b := Bracket{LowNs: localNs, HighNs: localNs + moves*max(lRemoteNs-lLocalNs, 0)}
	if m.SerialReads || m.SerialWrites && writePercent > 0 {
		b.HighNs *= 2 // The other one is inside, and goes first.
	}
	if m.Contended > 0 {
		b.BoundNs = m.Contended * lRemoteNs
	}
	return b
}

// ModelSchema is the version of the model's rows in JSON.
const ModelSchema = "coreplica.numa.model/1"

// Modelled is a row of the model. It is no measurement, and says so.
type Modelled struct {
	Schema       string  `json:"schema"`
	Tag          string  `json:"tag"`
	Machine      string  `json:"machine"`
	Source       string  `json:"source"`
	Structure    string  `json:"structure"`
	Impl         string  `json:"impl"`
	Keys         int     `json:"keys"`
	WritePercent int     `json:"write_percent"`
	LocalNs      float64 `json:"t_local_ns"`
	RemoteNs     float64 `json:"l_remote_ns"`
	LowNs        float64 `json:"low_ns"`
	HighNs       float64 `json:"high_ns"`
	BoundNs      float64 `json:"bound_ns,omitempty"`
}

// ModelRun measures the chosen cases with one thread and computes what two threads
// on the two sockets of each machine would take.
func ModelRun(c Choice, structures []Structure, p Plan, machines []Machine) ([]Modelled, error) {
	if p.Base == "" {
		p.Base = DefaultBase
	}
	covered := slices.DeleteFunc(Implementations(), func(im Implementation) bool {
		_, ok := MovesOf(im.Name)
		return !ok || im.Name != p.Base && !wants(c.Implementations, im.Name)
	})
	var rows []Modelled
	for _, s := range structures {
		if !wants(c.Structures, s.Name) {
			continue
		}
		for _, k := range Cases() {
			if k.Workers != 1 || !c.takes(k) {
				continue
			}
			results, err := Compare(s, covered, k, p)
			if err != nil {
				return nil, err
			}
			for _, m := range machines {
				rows = append(rows, modelled(m, results)...)
			}
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%w: structures are %v, and the model covers %v", ErrChoice,
			names(structures, func(s Structure) string { return s.Name }), names(covered, func(i Implementation) string { return i.Name }))
	}
	return rows, nil
}

func modelled(m Machine, results []Result) (rows []Modelled) {
	for _, r := range results {
		moves, _ := MovesOf(r.Implementation)
		b := Model(r.BestNs, moves, r.Case.WritePercent, 0, m.RemoteNs)
		rows = append(rows, Modelled{ModelSchema, "modelled", m.Name, m.Source, r.Structure, r.Implementation, r.Case.Keys, r.Case.WritePercent,
			r.BestNs, m.RemoteNs, b.LowNs, b.HighNs, b.BoundNs})
	}
	return rows
}

// WriteModel writes rows as "table" or "json", one object a line.
func WriteModel(w io.Writer, rows []Modelled, format string) error {
	if format == "json" {
		e := json.NewEncoder(w)
		for _, r := range rows {
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	if _, err := fmt.Fprint(w, "modelled, not measured: t = t_local + transfers x L_remote, for a thread on each of two sockets; t_local is this machine's,\n"+
		"by one thread, L_remote from "+coreToCore+"; low if lines stay for bursts, high if each access fetches\n"); err != nil {
		return err
	}
	for _, r := range rows {
		bound := ""
		if r.BoundNs > 0 {
			bound = fmt.Sprintf("  all threads together at most %.1f M/s if the line moves each time", 1000/r.BoundNs)
		}
		if _, err := fmt.Fprintf(w, "modelled  %-33s %-9s %-12s write=%-3d [%.1f, %.1f] ns/op%s\n",
			r.Machine, r.Structure, r.Impl, r.WritePercent, r.LowNs, r.HighNs, bound); err != nil {
			return err
		}
	}
	return nil
}
