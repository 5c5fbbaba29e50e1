package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Fact is something that a reader wants to know, in words.
type Fact struct{ Label, Text string }

// TaxFacts returns what the mirror costs more, in each way of counting it.
func TaxFacts(r *Report) []Fact {
	t := &r.Tax
	facts := []Fact{
		{"with the substrate", describePair(Pair{t.CPUNsPerWrite, t.Ratio})},
		{"without the substrate", describePair(t.WithoutSubstrate)},
		{"lower bound", describePair(t.Lower) + ", without shared work"},
	}
	if r.ProbeCost != nil {
		facts = append(facts, Fact{"corrected for probes", describePair(t.Corrected) + ", modelled"})
	}
	utilisation := FormatPercent(t.UtilisationPercent)
	if t.CPUNsPerWrite.SpansZero() {
		utilisation = NoDifference
	}
	return append(facts, Fact{"utilisation", fmt.Sprintf("%s of %s at %s",
		utilisation, plural(r.Machine.CPUs, "CPU"), FormatRate(r.Mirror.WritesPerSecond))})
}

// describePair formats a difference and a ratio, unless the difference leaves
// the sign open.
func describePair(p Pair) string {
	if p.CPUNsPerWrite.SpansZero() {
		return NoDifference + ": " + FormatNsInterval(p.CPUNsPerWrite)
	}
	s := FormatNsInterval(p.CPUNsPerWrite)
	if p.CPUNsPerWrite.Mean > 0 {
		s = "+" + s
	}
	return s + ", " + FormatRatio(p.Ratio)
}

// MethodFacts returns how the figures came about and what they may be off by.
func MethodFacts(r *Report) []Fact {
	q := r.Quads
	facts := []Fact{
		{"quads", fmt.Sprintf("%d used, %d discarded (more than %s stolen), %d voided",
			q.Used, q.Discarded, FormatPercent(q.StealThresholdPercent), q.Voided)},
		bothLegs(r, "closure error", func(l *Leg) string { return FormatPercent(100 * l.ClosureError) }),
		bothLegs(r, "unattributed", func(l *Leg) string { return FormatPercent(100 * l.Unattributed) }),
		bothLegs(r, "stolen", func(l *Leg) string { return FormatPercent(l.StolenPercent) }),
		bothLegs(r, "samples", func(l *Leg) string {
			return fmt.Sprintf("%s (%s smeared)", FormatCount(l.Samples), FormatPercent(l.SmearedPercent))
		}),
		bothLegs(r, "drops", func(l *Leg) string { return FormatCount(l.Drops) }),
	}
	if p := r.ProbeCost; p != nil {
		facts = append(facts, Fact{"probe cost", fmt.Sprintf("ledger %s, all %s of throughput; %s a write by the model",
			FormatPercentInterval(p.LedgerPercent), FormatPercentInterval(p.AllPercent), FormatNs(p.NsPerWrite))})
	} else {
		facts = append(facts, Fact{"probe cost", "not measured in this run"})
	}
	facts = append(facts, Fact{"other programs", FormatPercent(r.Machine.OtherProgramsPercent) + " of the machine" + quiet(r)})
	for _, i := range r.Instruments {
		facts = append(facts, Fact{"other instrument", fmt.Sprintf("%s: %s, ledger %s (%s)",
			i.Name, FormatNs(i.OtherNs), FormatNs(i.LedgerNs), deviation(i))})
	}
	if len(r.Machine.AttachTypes) > 0 {
		facts = append(facts, Fact{"attached as", attachTypes(r.Machine.AttachTypes)})
	}
	facts = append(facts, Fact{"run", describeRun(r)})
	if len(r.Command) > 0 {
		facts = append(facts, Fact{"command", CommandLine(r.Command)})
	}
	return facts
}

func describeRun(r *Report) string {
	s := fmt.Sprintf("coreplica %s, seed %d, %.0f s", r.Version, r.Seed, r.ElapsedSeconds)
	if !r.StartedAt.IsZero() {
		s = r.StartedAt.UTC().Format("2006-01-02 15:04:05 UTC") + ", " + s
	}
	return s
}

func quiet(r *Report) string {
	if r.Machine.Quiet {
		return ""
	}
	return ": the machine was not quiet"
}

func bothLegs(r *Report, label string, text func(*Leg) string) Fact {
	return Fact{label, fmt.Sprintf("baseline %s, mirror %s", text(&r.Baseline), text(&r.Mirror))}
}

func deviation(i Instrument) string {
	if i.OtherNs == 0 {
		return "nothing to compare with"
	}
	return fmt.Sprintf("%+.2f %%", 100*(i.LedgerNs/i.OtherNs-1))
}

// attachTypes names the common attach type once and the exceptions each.
func attachTypes(types map[string]string) string {
	by := map[string][]string{}
	for _, probe := range slices.Sorted(maps.Keys(types)) {
		by[types[probe]] = append(by[types[probe]], probe)
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, kind+": "+strings.Join(by[kind], " "))
	}
	return strings.Join(parts, "; ")
}

// CommandLine joins words to a line that a shell takes apart in the same way.
func CommandLine(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = word
		if word == "" || strings.ContainsFunc(word, unsafeInShell) {
			quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

func unsafeInShell(r rune) bool {
	return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+,./:@%", r)
}

// factColumn holds the labels of facts.
const factColumn = 23

func (t *table) facts(facts []Fact) {
	for _, fact := range facts {
		label := clip(fact.Label, factColumn)
		for _, line := range wrap(fact.Text, tableWidth-factColumn-3) {
			t.line("  %s %s", pad(label, factColumn), line)
			label = ""
		}
	}
}

func (t *table) tax(r *Report) {
	t.section("TAX, what the mirror costs above the baseline, CPU a write")
	t.facts(TaxFacts(r))
}

func (t *table) method(r *Report) {
	t.section("METHOD")
	t.facts(MethodFacts(r))
}

func (t *table) warnings(r *Report) {
	if len(r.Warnings) == 0 {
		return
	}
	t.section("WARNINGS")
	for _, warning := range r.Warnings {
		mark := "- "
		for _, line := range wrap(warning, tableWidth-4) {
			t.line("  %s%s", mark, line)
			mark = "  "
		}
	}
}
