package faults

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Any stands for every node.
const Any = "*"

const (
	// MaxRules bounds [Rules]: every pair of 16 nodes can have one of its own.
	MaxRules = 256
	// MaxDelay bounds a delay, jitter included. Past a minute a connection is
	// dead to any guest, and a partition says that better.
	MaxDelay = time.Minute
	// MaxGap bounds how many frames may overtake one.
	MaxGap = 1000
	// maxName bounds a node's name, which becomes the name of a socket.
	maxName = 32
)

// Probability is in parts per million, so that what was read from a text is
// written back exactly.
type Probability uint32

// Always is the probability of one.
const Always Probability = 1_000_000

// String returns percent, such as "0.25%".
func (p Probability) String() string {
	whole, part := p/10_000, p%10_000
	if part == 0 {
		return fmt.Sprintf("%d%%", whole)
	}
	return fmt.Sprintf("%d.%s%%", whole, strings.TrimRight(fmt.Sprintf("%04d", part), "0"))
}

// Verb is what a [Command] does.
type Verb string

// The verbs, as the text has them.
const (
	Drop      Verb = "drop"      // lose a frame
	Duplicate Verb = "dup"       // send a frame twice
	Delay     Verb = "delay"     // send a frame later; the order stays
	Reorder   Verb = "reorder"   // let later frames overtake a frame
	Cut       Verb = "cut"       // let nothing pass, in one direction
	Partition Verb = "partition" // let nothing pass between groups
	Heal      Verb = "heal"      // end all cuts and partitions
	Clear     Verb = "clear"     // end all rules
)

// Command is one line of the rules' language. [ParseCommand] makes valid ones.
type Command struct {
	Verb Verb
	// From and To are the names of nodes, or [Any]. Partition, Heal and Clear
	// have none.
	From, To string
	// Probability is that of Drop, Duplicate and Reorder.
	Probability Probability
	// Delay and Jitter: a frame waits for Delay plus a uniform draw from
	// [-Jitter, Jitter].
	Delay, Jitter time.Duration
	// Gap is how many later frames of the link overtake a reordered one.
	Gap int
	// Groups of a partition. A frame passes if some group has both ends, or if
	// an end is in no group. A group that is [Any] alone has all nodes that no
	// other group names.
	Groups [][]string
}

// String returns the command as [ParseCommand] reads it.
func (c Command) String() string {
	var b strings.Builder
	b.WriteString(string(c.Verb))
	switch c.Verb {
	case Drop, Duplicate:
		fmt.Fprintf(&b, " %s", c.Probability)
	case Reorder:
		fmt.Fprintf(&b, " %s gap %d", c.Probability, c.Gap)
	case Delay:
		fmt.Fprintf(&b, " %s", c.Delay)
		if c.Jitter != 0 {
			fmt.Fprintf(&b, "±%s", c.Jitter)
		}
	case Partition:
		groups := make([]string, len(c.Groups))
		for i, group := range c.Groups {
			groups[i] = strings.Join(group, ",")
		}
		fmt.Fprintf(&b, " %s", strings.Join(groups, "|"))
	}
	if c.From != "" && c.From != Any {
		fmt.Fprintf(&b, " from %s", c.From)
	}
	if c.To != "" && c.To != Any {
		fmt.Fprintf(&b, " to %s", c.To)
	}
	return b.String()
}

// Rules are what is wrong with a network. The zero value is a network without
// faults. Rules are values: With returns new ones.
type Rules struct{ commands []Command }

// With returns the rules after one more command. Of two commands of one verb
// that match a link the later one counts, but for cuts and partitions, which add
// up. It fails on a command that the language does not have, with a
// [*SyntaxError], and when the rules become more than [MaxRules] or longer than
// [MaxText].
func (r Rules) With(c Command) (Rules, error) {
	for _, group := range c.Groups {
		for _, name := range group {
			if name != Any && CheckName(name) != nil {
				return r, &SyntaxError{c.String(), CheckName(name).Error()}
			}
		}
	}
	c, err := ParseCommand(c.String())
	if err != nil {
		return r, err
	}
	kept := []Command{} // Never the array of r, which others may hold.
	for _, old := range r.commands {
		if !supersedes(c, old) {
			kept = append(kept, old)
		}
	}
	if c.Verb != Heal && c.Verb != Clear {
		kept = append(kept, c)
	}
	if len(kept) > MaxRules {
		return r, fmt.Errorf("add rule %q: there are %d already: say `heal` or `clear`, or write rules with *", c, MaxRules)
	}
	added := Rules{kept}
	if n := len(added.String()); n > MaxText {
		return r, fmt.Errorf("add a rule: all rules have %d bytes, more than %d: say `heal` or `clear` first", n, MaxText)
	}
	return added, nil
}

// supersedes reports whether an old command means nothing after c.
func supersedes(c, old Command) bool {
	switch c.Verb {
	case Clear:
		return true
	case Heal:
		return old.Verb == Cut || old.Verb == Partition
	case Partition:
		return old.Verb == Partition && old.String() == c.String()
	default:
		return old.Verb == c.Verb && covers(c.From, old.From) && covers(c.To, old.To)
	}
}

func covers(pattern, name string) bool { return pattern == Any || pattern == name }

// Commands returns the commands that make the rules, in order.
func (r Rules) Commands() []Command { return slices.Clone(r.commands) }

// String returns the rules as [Parse] reads them.
func (r Rules) String() string {
	texts := make([]string, len(r.commands))
	for i, c := range r.commands {
		texts[i] = c.String()
	}
	return strings.Join(texts, "; ")
}

// Faults are the rules as they hold for one link.
type Faults struct {
	Drop, Duplicate, Reorder Probability
	Gap                      int
	Delay, Jitter            time.Duration
	Cut                      bool
}

// For returns the faults of the link between two nodes.
func (r Rules) For(from, to string) Faults {
	var f Faults
	for _, c := range r.commands {
		if c.Verb == Partition {
			f.Cut = f.Cut || apart(c.Groups, from, to)
			continue
		}
		if !covers(c.From, from) || !covers(c.To, to) {
			continue
		}
		switch c.Verb {
		case Drop:
			f.Drop = c.Probability
		case Duplicate:
			f.Duplicate = c.Probability
		case Reorder:
			f.Reorder, f.Gap = c.Probability, c.Gap
		case Delay:
			f.Delay, f.Jitter = c.Delay, c.Jitter
		case Cut:
			f.Cut = true
		}
	}
	return f
}

// apart reports whether a partition keeps two nodes apart.
func apart(groups [][]string, a, b string) bool {
	rest := slices.ContainsFunc(groups, isRest)
	namesA, namesB := named(groups, a), named(groups, b)
	if !namesA && !namesB || !rest && (!namesA || !namesB) {
		return false
	}
	return !slices.ContainsFunc(groups, func(group []string) bool {
		return slices.Contains(group, a) && slices.Contains(group, b)
	})
}

func isRest(group []string) bool { return len(group) == 1 && group[0] == Any }

func named(groups [][]string, node string) bool {
	return slices.ContainsFunc(groups, func(group []string) bool { return slices.Contains(group, node) })
}
