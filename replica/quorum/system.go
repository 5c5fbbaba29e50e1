package quorum

import "fmt"

// System says which sets of votes suffice.
type System interface {
	// Nodes returns the nodes whose votes count.
	Nodes() Set
	// Reached reports whether votes suffice. Votes of other nodes are
	// ignored, and adding a vote never turns true into false.
	Reached(votes Set) bool
}

// threshold is reached by any need of the nodes.
type threshold struct {
	nodes Set
	need  int
}

func (t threshold) Nodes() Set             { return t.nodes }
func (t threshold) Reached(votes Set) bool { return (votes & t.nodes).Len() >= t.need }

// All returns the system that needs every node: what was written to all of them
// can be read from any one that is left, which is how a primary with k backups
// survives k failures (Lamport, Malkhi and Zhou, Vertical Paxos and
// Primary-Backup Replication, PODC 2009).
func All(nodes Set) System { return threshold{nodes, nodes.Len()} }

// Majority returns the system of all majorities of nodes. Two of them share a
// node, which is what keeps a crashed minority from hiding a committed write.
func Majority(nodes Set) System { return threshold{nodes, nodes.Len()/2 + 1} }

// Byzantine returns the system of 2f+1 out of 3f+1 nodes. Two of its quorums
// share f+1 nodes, so at least one that does not lie (Castro and Liskov,
// Practical Byzantine Fault Tolerance, OSDI 1999).
func Byzantine(nodes Set) (System, error) {
	f, rest := (nodes.Len()-1)/3, (nodes.Len()-1)%3
	if nodes.Len() < 4 || rest != 0 {
		return nil, fmt.Errorf("quorum: a Byzantine system needs 3f+1 nodes with f at least 1, got %d", nodes.Len())
	}
	return threshold{nodes, 2*f + 1}, nil
}

// joint is reached when both of its systems are.
type joint struct{ old, new System }

func (j joint) Nodes() Set             { return j.old.Nodes() | j.new.Nodes() }
func (j joint) Reached(votes Set) bool { return j.old.Reached(votes) && j.new.Reached(votes) }

// Joint returns the system that a change of members passes through: a decision
// needs the old system and the new one (Ongaro and Ousterhout, In Search of an
// Understandable Consensus Algorithm, section 6).
func Joint(old, new System) System { return joint{old, new} }
