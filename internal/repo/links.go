package repo

import (
	"fmt"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }

var (
	inlineLink    = regexp.MustCompile(`\]\(<?([^()<>\s]+)>?(?:\s+"[^"]*")?\)`)
	referenceLink = regexp.MustCompile(`(?m)^\[[^\]]+\]:\s+<?(\S+?)>?\s*$`)
	htmlLink      = regexp.MustCompile(`(?:src|href)="([^"]+)"`)
	heading       = regexp.MustCompile(`(?m)^#{1,6}\s+(.+?)\s*#*$`)
	htmlAnchor    = regexp.MustCompile(`(?:id|name)="([^"]+)"`)
	fence         = regexp.MustCompile("(?ms)^[ \t]*(```|~~~).*?^[ \t]*(```|~~~)[ \t]*$")
	codeSpan      = regexp.MustCompile("`[^`\n]*`")
)

// Exister tells whether a path of the repository is there: links go to images
// and folders too, which a [Tree] does not hold.
type Exister func(name string) bool

// Links checks that relative links in Markdown files lead somewhere, anchors
// included. Links to other sites are not followed: a test must not depend on
// the network.
func Links(exists Exister) func(*Tree) []Problem {
	return func(t *Tree) []Problem {
		var problems []Problem
		for _, name := range t.sortedNames(hasExt(".md")) {
			text := string(t.Files[name])
			for _, link := range links(blank(text, fence, codeSpan)) {
				if why := t.dead(name, link.target, exists); why != "" {
					problems = append(problems, Problem{name, link.line, fmt.Sprintf("link to %s: %s", link.target, why)})
				}
			}
		}
		return problems
	}
}

type markdownLink struct {
	target string
	line   int
}

// links finds the links of a Markdown text in order.
func links(text string) []markdownLink {
	var all []markdownLink
	for _, pattern := range []*regexp.Regexp{inlineLink, referenceLink, htmlLink} {
		for _, at := range pattern.FindAllStringSubmatchIndex(text, -1) {
			all = append(all, markdownLink{text[at[2]:at[3]], 1 + strings.Count(text[:at[2]], "\n")})
		}
	}
	slices.SortStableFunc(all, func(a, b markdownLink) int { return a.line - b.line })
	return all
}

// dead says why a link leads nowhere, or returns "".
func (t *Tree) dead(from, target string, exists Exister) string {
	u, err := url.Parse(target)
	if err != nil {
		return err.Error()
	}
	if u.Scheme != "" || u.Host != "" {
		return ""
	}
	to := from
	if u.Path != "" {
		to = path.Join(path.Dir(from), u.Path)
		if strings.HasPrefix(u.Path, "/") || to == ".." || strings.HasPrefix(to, "../") {
			return "it leaves the repository"
		}
		if !exists(to) {
			return "there is no such file"
		}
	}
	if u.Fragment == "" || path.Ext(to) != ".md" {
		return ""
	}
	if !anchors(string(t.Files[to]))[u.Fragment] {
		return "there is no such heading"
	}
	return ""
}

// anchors returns the anchors that GitHub gives to a Markdown text.
func anchors(text string) map[string]bool {
	text = blank(text, fence)
	all := map[string]bool{}
	for _, match := range heading.FindAllStringSubmatch(text, -1) {
		anchor := anchorOf(match[1])
		for i := 1; all[anchor]; i++ {
			anchor = fmt.Sprintf("%s-%d", anchorOf(match[1]), i)
		}
		all[anchor] = true
	}
	for _, match := range htmlAnchor.FindAllStringSubmatch(text, -1) {
		all[match[1]] = true
	}
	return all
}

// anchorOf lowers a heading, drops punctuation and joins words by hyphens.
func anchorOf(title string) string {
	title = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(title, "$1")
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
			return unicode.ToLower(r)
		default:
			return -1
		}
	}, title)
}

// blank replaces what the patterns match by spaces, so that lines keep their
// numbers.
func blank(text string, patterns ...*regexp.Regexp) string {
	for _, pattern := range patterns {
		text = pattern.ReplaceAllStringFunc(text, func(s string) string {
			return strings.Map(func(r rune) rune {
				if r == '\n' {
					return r
				}
				return ' '
			}, s)
		})
	}
	return text
}
