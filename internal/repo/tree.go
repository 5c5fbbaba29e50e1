package repo

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Problem is a place that breaks a rule.
type Problem struct {
	Path string
	Line int // 0 where the whole file or folder is meant.
	Text string
}

func (p Problem) String() string {
	if p.Line == 0 {
		return p.Path + ": " + p.Text
	}
	return fmt.Sprintf("%s:%d: %s", p.Path, p.Line, p.Text)
}

// Tree is a repository's files, read once for all rules.
type Tree struct {
	// Module is the module's path.
	Module string
	// Files holds the text of each file by its path from the root.
	Files map[string][]byte
	// Go holds the syntax of each Go file.
	Go map[string]*ast.File
	// Set translates positions.
	Set *token.FileSet
}

// skipped folders hold nothing that is ours to keep in order: build products
// and inputs of tests, which may be wrong on purpose.
var skipped = []string{".git", "bin", "man", "testdata", "vendor", "node_modules"}

// kept are the files that a rule reads.
var kept = regexp.MustCompile(`\.(go|c|h|md|sh|mod)$|(^|/)Makefile$`)

// Read reads a tree.
func Read(root fs.FS) (*Tree, error) {
	t := &Tree{Files: map[string][]byte{}, Go: map[string]*ast.File{}, Set: token.NewFileSet()}
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains(skipped, entry.Name()) {
			return fs.SkipDir
		}
		if !entry.Type().IsRegular() || !kept.MatchString(name) {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		t.Files[name] = text
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read repository: %w", err)
	}
	module := regexp.MustCompile(`(?m)^module (\S+)$`).FindSubmatch(t.Files["go.mod"])
	if module == nil {
		return nil, fmt.Errorf("read repository: its go.mod names no module")
	}
	t.Module = string(module[1])
	for name, text := range t.Files {
		if path.Ext(name) != ".go" {
			continue
		}
		file, err := parser.ParseFile(t.Set, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("read repository: %w", err)
		}
		t.Go[name] = file
	}
	return t, nil
}

// line is where a node of the syntax stands.
func (t *Tree) line(pos token.Pos) int { return t.Set.Position(pos).Line }

// generated reports whether a file says that a program wrote it.
func generated(text []byte) bool {
	head, _, _ := strings.Cut(string(text), "\npackage ")
	return strings.Contains(head, "DO NOT EDIT")
}

func isTest(name string) bool { return strings.HasSuffix(name, "_test.go") }

// sortedNames returns the names of files that a rule wants, in order, so that
// problems come in order too.
func (t *Tree) sortedNames(want func(string) bool) []string {
	var names []string
	for name := range t.Files {
		if want(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func hasExt(exts ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(exts, path.Ext(name)) }
}
