package repo

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"path"
	"strings"
)

// The limits. A file past the first holds two ideas, a function past the second
// does not fit on a screen.
const (
	maxFileLines     = 600
	maxFunctionLines = 80
)

// FileLength checks that no file that people read is too long.
func FileLength(t *Tree) []Problem {
	var problems []Problem
	for _, name := range t.sortedNames(hasExt(".go", ".c", ".h", ".sh")) {
		text := t.Files[name]
		if n := bytes.Count(text, []byte("\n")); n > maxFileLines && !generated(text) {
			problems = append(problems, Problem{name, 0, fmt.Sprintf("has %d lines, more than %d", n, maxFileLines)})
		}
	}
	return problems
}

// FunctionLength checks that no function is too long. Tables of test cases
// count too: a long table wants a variable of its own.
func FunctionLength(t *Tree) []Problem {
	var problems []Problem
	for _, name := range t.sortedNames(hasExt(".go")) {
		if generated(t.Files[name]) {
			continue
		}
		for _, decl := range t.Go[name].Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := t.line(f.End()) - t.line(f.Pos()) + 1; n > maxFunctionLines {
				problems = append(problems, Problem{name, t.line(f.Pos()),
					fmt.Sprintf("function %s has %d lines, more than %d", f.Name.Name, n, maxFunctionLines)})
			}
		}
	}
	return problems
}

// PackageDocs checks that every package has a doc.go whose package comment says
// something: three lines are the least that can hold what it is, where it comes
// from and when it does not help. Folders with tests alone need none.
func PackageDocs(t *Tree) []Problem {
	packages := map[string]bool{}
	for _, name := range t.sortedNames(hasExt(".go")) {
		if !isTest(name) {
			packages[path.Dir(name)] = true
		}
	}
	var problems []Problem
	for _, doc := range t.sortedNames(hasExt(".go")) {
		dir := path.Dir(doc)
		if path.Base(doc) != "doc.go" {
			continue
		}
		delete(packages, dir)
		comment := t.Go[doc].Doc.Text()
		if start := "Package " + t.Go[doc].Name.Name + " "; !strings.HasPrefix(comment, start) && !strings.HasPrefix(comment, "Command ") {
			problems = append(problems, Problem{doc, 0, fmt.Sprintf("the package comment should begin with %q", start)})
		} else if strings.Count(comment, "\n") < 3 {
			problems = append(problems, Problem{doc, 0, "the package comment is too short to say what it is and when it does not help"})
		}
	}
	for _, dir := range sorted(packages) {
		problems = append(problems, Problem{dir, 0, "the package has no doc.go"})
	}
	return problems
}

// Formatted checks that gofmt would change nothing.
func Formatted(t *Tree) []Problem {
	var problems []Problem
	for _, name := range t.sortedNames(hasExt(".go")) {
		want, err := format.Source(t.Files[name])
		if err != nil {
			problems = append(problems, Problem{name, 0, err.Error()})
		} else if !bytes.Equal(want, t.Files[name]) {
			problems = append(problems, Problem{name, 0, "is not formatted: run gofmt -w"})
		}
	}
	return problems
}

// Comments checks that every exported name has a comment. In a group of
// constants or variables, the group's comment or the line's serves.
func Comments(t *Tree) []Problem {
	var problems []Problem
	for _, name := range t.sortedNames(hasExt(".go")) {
		if isTest(name) || generated(t.Files[name]) {
			continue
		}
		for _, decl := range t.Go[name].Decls {
			for _, bare := range uncommented(decl) {
				problems = append(problems, Problem{name, t.line(bare.Pos()), "exported " + bare.Name + " has no comment"})
			}
		}
	}
	return problems
}

// uncommented returns the exported names of a declaration that no comment
// explains.
func uncommented(decl ast.Decl) []*ast.Ident {
	var bare []*ast.Ident
	add := func(names ...*ast.Ident) {
		for _, name := range names {
			if name.IsExported() {
				bare = append(bare, name)
			}
		}
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && exportedReceiver(d) && !obvious(d) {
			add(d.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Doc == nil && s.Comment == nil && (d.Doc == nil || d.Lparen.IsValid()) {
					add(s.Name)
				}
			case *ast.ValueSpec:
				if s.Doc == nil && s.Comment == nil && d.Doc == nil {
					add(s.Names...)
				}
			}
		}
	}
	return bare
}

// exportedReceiver reports whether a function can be called from outside: a
// method of an unexported type has its interface's comment.
func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return true
	}
	receiver := f.Recv.List[0].Type
	for {
		switch r := receiver.(type) {
		case *ast.StarExpr:
			receiver = r.X
		case *ast.IndexExpr:
			receiver = r.X
		case *ast.IndexListExpr:
			receiver = r.X
		case *ast.Ident:
			return r.IsExported()
		default:
			return true
		}
	}
}

// obvious methods are explained by the interface that everybody knows.
func obvious(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return false
	}
	switch f.Name.Name {
	case "Error", "Unwrap", "String", "Is", "As", "MarshalJSON", "UnmarshalJSON", "Len", "Less", "Swap":
		return true
	}
	return false
}

// Unfinished checks that no comment promises what is not there.
func Unfinished(t *Tree) []Problem {
	var problems []Problem
	for _, name := range t.sortedNames(hasExt(".go")) {
		for _, group := range t.Go[name].Comments {
			for _, comment := range group.List {
				for _, word := range []string{"TO" + "DO", "FIX" + "ME", "XX" + "X"} {
					if strings.Contains(comment.Text, word) {
						problems = append(problems, Problem{name, t.line(comment.Pos()), "the comment says " + word})
					}
				}
			}
		}
	}
	return problems
}

// swapsAllowed is where the queue's words in shared memory are swapped: one
// executor performs the protocol's effects, so that what was simulated and
// explored is all that happens to them.
const swapsAllowed = "runq/internal/shm"

// Swaps checks that nothing else in runq compares and swaps, but for tests, whose
// memory is their own.
func Swaps(t *Tree) []Problem {
	var problems []Problem
	for _, name := range t.sortedNames(hasExt(".go")) {
		dir := path.Dir(name)
		if !within(dir, "runq") || within(dir, swapsAllowed) || isTest(name) {
			continue
		}
		ast.Inspect(t.Go[name], func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); ok && strings.HasPrefix(f.Sel.Name, "CompareAndSwap") {
				problems = append(problems, Problem{name, t.line(call.Pos()), "swaps a word: only " + swapsAllowed + " may, on behalf of the protocol"})
			}
			return true
		})
	}
	return problems
}
