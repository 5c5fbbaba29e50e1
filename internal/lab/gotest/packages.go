package gotest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Package is one with tests.
type Package struct {
	ImportPath string
	Dir        string
	// Directives of its test files, in their order.
	Directives []Directive
}

// ErrNoTests is wrapped by the error for patterns that name no test.
var ErrNoTests = errors.New("no package with tests for guests")

// Find returns the packages that the go command's patterns name. Those without a
// directive are left out if a pattern has dots in it, and kept if they are named.
func Find(ctx context.Context, patterns []string) ([]Package, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, patterns...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64", "GOOS=linux")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	whole := slices.ContainsFunc(patterns, func(p string) bool { return strings.Contains(p, "...") })
	var found []Package
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		pkg := Package{ImportPath: p.ImportPath, Dir: p.Dir}
		for _, file := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			d, err := directives(filepath.Join(p.Dir, file))
			if err != nil {
				return nil, err
			}
			pkg.Directives = append(pkg.Directives, d...)
		}
		if len(pkg.Directives) > 0 || !whole && len(p.TestGoFiles)+len(p.XTestGoFiles) > 0 {
			found = append(found, pkg)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: %w", strings.Join(patterns, " "), ErrNoTests)
	}
	return found, nil
}

// directives reads those of one file.
func directives(file string) ([]Directive, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var found []Directive
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if !strings.HasPrefix(line, Marker) {
			continue
		}
		d, err := Parse(strings.TrimSpace(line))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		}
		found = append(found, d)
	}
	return found, nil
}

// build compiles a package's tests into a static program.
func (p *Package) build(ctx context.Context, into string) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", into, p.ImportPath)
	cmd.Dir = p.Dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the tests of %s: %w\n%s", p.ImportPath, err, out)
	}
	return nil
}
