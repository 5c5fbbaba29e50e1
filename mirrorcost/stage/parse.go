package stage

import (
	"bufio"
	"embed"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Rule is one pattern with what it means.
type Rule struct {
	// Kind is "stage", "whole", "interrupt", "work" or "kthread".
	Kind string
	// Pattern is a name in which a * at either end stands for anything.
	Pattern string
	// Stage of the kinds "stage" and "whole"; Charge of "work" and
	// "kthread".
	Stage  Stage
	Charge Charge
	// Line where the rule stands.
	Line int
}

// ErrRule means that a file of rules has a line that makes no sense. The error
// that wraps it names the line.
var ErrRule = errors.New("bad rule")

// Parse reads rules. A line is a kind, its argument, a colon and patterns:
//
//	stage enqueue: submit_bio blk_mq_*       stacks with it are this stage
//	whole substrate: loop_process_work       ... with all that runs below it
//	interrupt: asm_sysvec_*                  here an interrupt came in
//	work: btrfs_work_helper                  this work function is charged
//	work shared: wb_workfn                   ... and serves others too
//	kthread substrate: loop*                 this thread is the device's
//
// Text after # is a comment, and a line that starts with a blank goes on with
// the line before. An exact name beats a pattern, and a longer pattern a shorter
// one. The same pattern must not mean two things.
func Parse(r io.Reader) (*Table, error) {
	rules, err := parse(r)
	if err != nil {
		return nil, err
	}
	return newTable(rules)
}

func parse(r io.Reader) (rules []Rule, err error) {
	var head Rule
	s := bufio.NewScanner(r)
	for line := 1; s.Scan(); line++ {
		text, _, _ := strings.Cut(s.Text(), "#")
		if strings.TrimSpace(text) == "" {
			continue
		}
		names := text
		if text[0] != ' ' && text[0] != '\t' {
			before, after, ok := strings.Cut(text, ":")
			if !ok {
				return nil, fmt.Errorf("%w on line %d: %q has no colon", ErrRule, line, text)
			}
			if head, err = parseHead(before); err != nil {
				return nil, fmt.Errorf("%w on line %d: %w", ErrRule, line, err)
			}
			names = after
		} else if head.Kind == "" {
			return nil, fmt.Errorf("%w on line %d: it goes on with nothing", ErrRule, line)
		}
		for _, name := range strings.Fields(names) {
			if strings.Trim(name, "*") == "" || strings.Contains(strings.Trim(name, "*"), "*") {
				return nil, fmt.Errorf("%w on line %d: %q; a * may stand at either end of a name", ErrRule, line, name)
			}
			rule := head
			rule.Pattern, rule.Line = name, line
			rules = append(rules, rule)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	return rules, nil
}

func parseHead(text string) (Rule, error) {
	kind, argument, _ := strings.Cut(strings.TrimSpace(text), " ")
	argument = strings.TrimSpace(argument)
	rule := Rule{Kind: kind}
	switch kind {
	case "stage", "whole":
		rule.Stage = Stage(argument)
		if !slices.Contains(Stages(), rule.Stage) {
			return rule, fmt.Errorf("there is no stage %q", argument)
		}
	case "interrupt":
		if argument != "" {
			return rule, fmt.Errorf("an interrupt takes no %q", argument)
		}
	case "work", "kthread":
		rule.Charge = Charge{Charged: true, Shared: argument == "shared", Substrate: argument == "substrate"}
		if argument != "" && !rule.Charge.Shared && !rule.Charge.Substrate {
			return rule, fmt.Errorf("a %s is shared or substrate, not %q", kind, argument)
		}
	default:
		return rule, fmt.Errorf("there is no kind of rule %q", kind)
	}
	return rule, nil
}

func newTable(rules []Rule) (*Table, error) {
	seen := map[string]Rule{}
	t := &Table{rules: rules}
	stages, whole, interrupts := map[string]Stage{}, map[string]Stage{}, map[string]bool{}
	works, kthreads := map[string]Charge{}, map[string]Charge{}
	for _, rule := range rules {
		// A function may be a stage and an interrupt at once, but not
		// two stages.
		key := map[string]string{"whole": "stage"}[rule.Kind]
		if key == "" {
			key = rule.Kind
		}
		key += " " + rule.Pattern
		if old, ok := seen[key]; ok && (old.Kind != rule.Kind || old.Stage != rule.Stage || old.Charge != rule.Charge) {
			return nil, fmt.Errorf("%w on line %d: %s already means something else on line %d", ErrRule, rule.Line, rule.Pattern, old.Line)
		}
		seen[key] = rule
		switch rule.Kind {
		case "stage":
			stages[rule.Pattern] = rule.Stage
		case "whole":
			whole[rule.Pattern] = rule.Stage
		case "interrupt":
			interrupts[rule.Pattern] = true
		case "work":
			works[rule.Pattern] = rule.Charge
		case "kthread":
			kthreads[rule.Pattern] = rule.Charge
		}
	}
	t.stages, t.whole, t.interrupts = newPatterns(stages), newPatterns(whole), newPatterns(interrupts)
	t.works, t.kthreads = newPatterns(works), newPatterns(kthreads)
	return t, nil
}

//go:embed rules/*.txt
var files embed.FS

// layers of each kind of mirror, from the devices up.
var layers = map[string][]string{
	"btrfs-single":  {"kernel", "block", "btrfs"},
	"btrfs-raid1":   {"kernel", "block", "btrfs"},
	"btrfs-raid1c3": {"kernel", "block", "btrfs"},
	"ext4":          {"kernel", "block", "ext4"},
	"md-raid1":      {"kernel", "block", "ext4", "md"},
	"files":         {"kernel", "block", "ext4"},
	"uring":         {"kernel", "block", "ext4", "uring"},
}

// For returns the rules of a kind of mirror.
func For(kind string) (*Table, error) {
	names, ok := layers[kind]
	if !ok {
		return nil, fmt.Errorf("find rules: none are written for the mirror %q; add it to the layers of package stage", kind)
	}
	var rules []Rule
	for _, name := range names {
		f, err := files.Open(path.Join("rules", name+".txt"))
		if err != nil {
			return nil, fmt.Errorf("find rules: %w", err)
		}
		more, err := parse(f)
		if err != nil {
			return nil, fmt.Errorf("parse rules of %s: %w", name, err)
		}
		rules = append(rules, more...)
	}
	return newTable(rules)
}
