package protocol

// Rule is a rule of the protocol that a trial can switch off, to show that it is
// needed: a trial that cannot fail proves nothing.
type Rule uint8

const (
	// RuleFence is that a publish that fails ends the owner. Without it a node
	// goes on as if every copy had its records.
	RuleFence Rule = iota + 1
	// RuleTombstones is that an ID is remembered after its tombstone is
	// dropped. Without it a tombstone's time is all there is.
	RuleTombstones
)

// SwitchOff switches a rule off. It is for controls of trials and nothing else.
func (n *Node) SwitchOff(r Rule) {
	switch r {
	case RuleFence:
		n.mut |= mutIgnoreFence
	case RuleTombstones:
		n.mut |= mutTimeTombstones
	}
}
