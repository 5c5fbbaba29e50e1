package faults

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxText bounds the text of rules in bytes. [MaxRules] rules about links fit in
// it twice.
const MaxText = 64 << 10

// SyntaxError is a command that cannot be understood.
type SyntaxError struct {
	Command string // as it was given
	Reason  string // what is wrong and what would be right
}

func (e *SyntaxError) Error() string {
	command := e.Command
	if len(command) > 80 {
		command = command[:80] + "…"
	}
	return fmt.Sprintf("read fault rule %q: %s", command, e.Reason)
}

// Parse reads commands, separated by semicolons or line ends, and returns the
// rules that they make in their order. The error is a [*SyntaxError] that names
// the first bad command.
//
//	drop 20% [from A] [to B]
//	dup 1% [from A] [to B]
//	delay 10ms±3ms [from A] [to B]      10ms+-3ms and 10ms are right too
//	reorder 5% [gap 3] [from A] [to B]  the gap is 1 if not given
//	cut [from A] [to B]                 one way
//	partition a,b|c                     both ways; partition a|* cuts a off
//	heal                                ends cuts and partitions
//	clear                               ends all rules
func Parse(text string) (Rules, error) {
	var rules Rules
	if len(text) > MaxText {
		return rules, &SyntaxError{text, fmt.Sprintf("the rules have %d bytes, more than %d", len(text), MaxText)}
	}
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		c, err := ParseCommand(line)
		if err != nil {
			return Rules{}, err
		}
		if rules, err = rules.With(c); err != nil {
			return Rules{}, &SyntaxError{line, err.Error()}
		}
	}
	return rules, nil
}

// ParseCommand reads one command. The error is a [*SyntaxError].
func ParseCommand(line string) (Command, error) {
	fields := strings.Fields(line)
	fail := func(format string, args ...any) (Command, error) {
		return Command{}, &SyntaxError{line, fmt.Sprintf(format, args...)}
	}
	if len(fields) == 0 {
		return fail("it is empty: say drop, dup, delay, reorder, cut, partition, heal or clear")
	}
	c, rest := Command{Verb: Verb(fields[0])}, fields[1:]
	value := "" // the first argument of the verbs that have one
	switch c.Verb {
	case Drop, Duplicate, Delay, Reorder:
		if len(rest) == 0 {
			return fail("it says not how much, e.g. `drop 20%%`, `delay 10ms±3ms`")
		}
		value, rest = rest[0], rest[1:]
	case Partition:
		groups, err := parseGroups(strings.Join(rest, ""))
		if err != nil {
			return fail("%v", err)
		}
		c.Groups = groups
		return c, nil
	case Heal, Clear:
		if len(rest) > 0 {
			return fail("%s takes no arguments, and there is %.40q", c.Verb, rest[0])
		}
		return c, nil
	case Cut:
	default:
		return fail("there is no fault %.40q: say drop, dup, delay, reorder, cut, partition, heal or clear", fields[0])
	}
	var err error
	switch c.Verb {
	case Drop, Duplicate, Reorder:
		c.Probability, err = parseProbability(value)
	case Delay:
		c.Delay, c.Jitter, err = parseDelay(value)
	}
	if err == nil {
		err = c.parseWhere(rest)
	}
	if err != nil {
		return fail("%v", err)
	}
	return c, nil
}

// parseWhere reads the words after the value: from, to and, of a reordering,
// gap.
func (c *Command) parseWhere(words []string) error {
	for len(words) > 0 {
		if len(words) == 1 {
			return fmt.Errorf("%.40q stands alone: say `from NODE`, `to NODE` or, of reorder, `gap FRAMES`", words[0])
		}
		word, value := words[0], words[1]
		words = words[2:]
		switch {
		case word == "from" && c.From == "":
			c.From = value
		case word == "to" && c.To == "":
			c.To = value
		case word == "gap" && c.Verb == Reorder && c.Gap == 0:
			gap, err := strconv.ParseUint(value, 10, 32)
			if err != nil || gap < 1 || gap > MaxGap {
				return fmt.Errorf("the gap is %.40q: it must be a number of frames from 1 to %d", value, MaxGap)
			}
			c.Gap = int(gap)
			continue
		default:
			return fmt.Errorf("%.40q is out of place: say `from NODE` and `to NODE` once each and, of reorder, `gap FRAMES`", word)
		}
		if value != Any {
			if err := CheckName(value); err != nil {
				return err
			}
		}
	}
	if c.From == "" {
		c.From = Any
	}
	if c.To == "" {
		c.To = Any
	}
	if c.Verb == Reorder && c.Gap == 0 {
		c.Gap = 1
	}
	return nil
}

// CheckName returns an error unless a text can name a node: letters, digits,
// dots, dashes and underscores, a letter or a digit first, at most 32.
func CheckName(name string) error {
	ok := name != "" && len(name) <= maxName
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		ok = ok && (letter || i > 0 && (r == '.' || r == '-' || r == '_'))
	}
	if !ok {
		return fmt.Errorf("%.40q is no name of a node: take at most %d letters, digits, dots, dashes and underscores", name, maxName)
	}
	return nil
}

// parseProbability reads percent with at most four decimals.
func parseProbability(text string) (Probability, error) {
	bad := fmt.Errorf("%.40q is no probability: it must be from 0%% to 100%% with at most four decimals, e.g. 20%% or 0.5%%", text)
	number, ok := strings.CutSuffix(text, "%")
	if !ok {
		return 0, bad
	}
	whole, part, point := strings.Cut(number, ".")
	if point && part == "" || len(part) > 4 || len(whole) > 3 {
		return 0, bad
	}
	// The decimals are filled up to four, which makes parts per million.
	ppm, err := strconv.ParseUint(whole+(part + "0000")[:4], 10, 32)
	if err != nil || whole == "" || ppm > uint64(Always) {
		return 0, bad
	}
	return Probability(ppm), nil
}

func parseDelay(text string) (delay, jitter time.Duration, err error) {
	for _, sign := range []string{"+/-", "+-"} {
		text = strings.Replace(text, sign, "±", 1)
	}
	first, second, spread := strings.Cut(text, "±")
	if delay, err = time.ParseDuration(first); err == nil && spread {
		jitter, err = time.ParseDuration(second)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%.40q is no delay: it must be like 10ms or 10ms±3ms", text)
	}
	if jitter < 0 || jitter > delay || delay > MaxDelay-jitter {
		return 0, 0, fmt.Errorf("%.40q is no delay: the jitter must not exceed the delay, and both together not %s", text, MaxDelay)
	}
	return delay, jitter, nil
}

func parseGroups(text string) ([][]string, error) {
	parts := strings.Split(text, "|")
	if len(parts) < 2 {
		return nil, fmt.Errorf("a partition needs two groups or more, e.g. `partition a,b|c` or `partition a|*`")
	}
	var groups [][]string
	rests := 0
	for _, part := range parts {
		group := strings.Split(part, ",")
		if isRest(group) {
			rests++
			groups = append(groups, group)
			continue
		}
		for _, name := range group {
			if name == Any {
				return nil, fmt.Errorf("* means all nodes that no other group names, so it must be a group by itself: `partition a,b|*`")
			}
			if err := CheckName(name); err != nil {
				return nil, err
			}
		}
		groups = append(groups, group)
	}
	if rests > 1 {
		return nil, fmt.Errorf("only one group can be *")
	}
	return groups, nil
}
