package repo

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// floors are the storeys of the house, from the top. A package may import from
// the floors below its own and from its own part, never upwards and never from
// a neighbour.
var floors = [][]string{
	{"cmd"},
	{"mirrorcost", "runq", "migrate"},
	{"bpf", "numa", "migrate/swap"},
	{"replica"},
	{"internal"},
}

// confined says where an import may stand. A path is matched with everything
// below it.
var confined = []struct {
	imported string
	// within lists folders; testOnly allows it in _test.go files only.
	within   []string
	testOnly bool
	why      string
}{
	{"github.com/spf13/cobra", []string{"cmd"}, false, "the parts are libraries, and a library has no command line"},
	{"github.com/prometheus/client_golang", []string{"cmd"}, false, "the parts are libraries, and a library has no metrics endpoint"},
	{"github.com/google/pprof", []string{"mirrorcost/report", "mirrorcost/serve"}, false, "it has no stable version, so one place adapts to it"},
	{"github.com/intel-go/cpuid", []string{"numa/identity"}, false, "it does not compile on every architecture"},
	{"github.com/chromedp/chromedp", nil, true, "users of the module should not build a browser's client"},
	{"github.com/chromedp/cdproto", nil, true, "users of the module should not build a browser's client"},
	{"github.com/google/go-cmp", nil, true, "it panics on what it does not know, which only a test may"},
	{"pgregory.net/rapid", nil, true, "it is for tests"},
	{"github.com/anishathalye/porcupine", []string{"runq/chaos"}, true, "it is for tests, and for trials that are judged where they run"},
	{"github.com/rogpeppe/go-internal", nil, true, "it is for tests"},
	{"testing", []string{"internal/testkit"}, true, "it adds flags to programs that import it"},
	{"MODULE/internal/testkit", []string{"internal/testkit"}, true, "it is for tests"},
}

// floorOf returns the storey and the part of a folder, or -1 for a folder
// outside the house. The longest name wins: migrate/swap is not migrate.
func floorOf(dir string) (floor int, part string) {
	floor = -1
	for i, parts := range floors {
		for _, p := range parts {
			if within(dir, p) && len(p) > len(part) {
				floor, part = i, p
			}
		}
	}
	return floor, part
}

func within(dir, parent string) bool {
	return dir == parent || strings.HasPrefix(dir, parent+"/")
}

// Imports checks that arrows between packages go down, and that confined
// packages stay where they belong. Tests obey too, but for what is said to be
// for them.
func Imports(t *Tree) []Problem {
	var problems []Problem
	for _, name := range t.sortedNames(hasExt(".go")) {
		dir := path.Dir(name)
		for _, spec := range t.Go[name].Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue // It was parsed, so this cannot be.
			}
			line := t.line(spec.Pos())
			for _, text := range append(arrow(t.Module, dir, imported), confinement(t.Module, name, imported)...) {
				problems = append(problems, Problem{name, line, text})
			}
		}
	}
	return problems
}

// arrow judges an import within the module.
func arrow(module, dir, imported string) []string {
	to, ours := strings.CutPrefix(imported, module+"/")
	if !ours {
		return nil
	}
	fromFloor, fromPart := floorOf(dir)
	toFloor, toPart := floorOf(to)
	switch {
	case fromFloor < 0 || toFloor < 0:
		if fromPart == "cmd" && to == "vagrant" {
			return nil // It hands the lab's provisioning to the nodes that it boots.
		}
		if dir == "." || strings.HasPrefix(dir, "benchmarks") || strings.HasPrefix(dir, "vagrant") {
			return nil // Outside the house, looking in.
		}
		return []string{fmt.Sprintf("imports %s: one of the two is on no floor of the house", to)}
	case dir == to:
		return nil // A test from outside the package.
	case fromPart == "mirrorcost" && toPart == "mirrorcost":
		return sibling(dir, to)
	case fromPart == toPart || fromFloor < toFloor:
		return nil
	case fromFloor == toFloor:
		return []string{fmt.Sprintf("imports %s: %s and %s are neighbours; what both need goes down a floor", to, fromPart, toPart)}
	default:
		return []string{fmt.Sprintf("imports %s: the arrow goes up, from %s to %s", to, fromPart, toPart)}
	}
}

// sibling judges an import inside mirrorcost: the root package imports its
// parts, which do not know it; report, mirror and load do not know each other.
func sibling(dir, to string) []string {
	leaves := []string{"mirrorcost/report", "mirrorcost/mirror", "mirrorcost/load"}
	if to == "mirrorcost" {
		return []string{"imports mirrorcost: the parts do not know the whole"}
	}
	for _, leaf := range leaves {
		if within(dir, leaf) && !within(to, leaf) && !strings.HasPrefix(to, "mirrorcost/internal/") {
			return []string{fmt.Sprintf("imports %s: %s imports no sibling", to, leaf)}
		}
	}
	return nil
}

// confinement judges an import by the table above.
func confinement(module, name, imported string) []string {
	dir := path.Dir(name)
	for _, rule := range confined {
		restricted := strings.Replace(rule.imported, "MODULE", module, 1)
		if !within(imported, restricted) || rule.testOnly && isTest(name) {
			continue
		}
		if slices.ContainsFunc(rule.within, func(folder string) bool { return within(dir, folder) }) {
			continue
		}
		where := rule.within
		if rule.testOnly {
			where = append(slices.Clone(where), "_test.go files")
		}
		return []string{fmt.Sprintf("imports %s, which belongs in %s only: %s", imported, strings.Join(where, ", "), rule.why)}
	}
	return nil
}
