package stage

import (
	"cmp"
	"slices"
	"strings"
)

// patterns finds the value of a name: of an exact one by a map, else of the
// longest pattern that fits.
type patterns[T any] struct {
	exact map[string]T
	globs []glob[T]
}

type glob[T any] struct {
	text          string
	anyHead, tail bool
	value         T
}

func newPatterns[T any](values map[string]T) patterns[T] {
	p := patterns[T]{exact: map[string]T{}}
	for pattern, value := range values {
		text := strings.Trim(pattern, "*")
		if text == pattern {
			p.exact[pattern] = value
			continue
		}
		p.globs = append(p.globs, glob[T]{text, strings.HasPrefix(pattern, "*"), strings.HasSuffix(pattern, "*"), value})
	}
	slices.SortFunc(p.globs, func(a, b glob[T]) int {
		return cmp.Or(cmp.Compare(len(b.text), len(a.text)), cmp.Compare(a.text, b.text), cmp.Compare(a.ends(), b.ends()))
	})
	return p
}

func (p patterns[T]) find(name string) (value T, ok bool) {
	if value, ok = p.exact[name]; ok {
		return value, true
	}
	for _, g := range p.globs {
		if g.fits(name) {
			return g.value, true
		}
	}
	return value, false
}

// ends orders patterns of the same text, the stricter first.
func (g glob[T]) ends() int {
	if g.anyHead && g.tail {
		return 2
	}
	if g.tail {
		return 1
	}
	return 0
}

func (g glob[T]) fits(name string) bool {
	switch {
	case g.anyHead && g.tail:
		return strings.Contains(name, g.text)
	case g.anyHead:
		return strings.HasSuffix(name, g.text)
	default:
		return strings.HasPrefix(name, g.text)
	}
}
