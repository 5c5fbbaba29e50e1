package serve

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/coreplica/coreplica/mirrorcost/report"
)

var (
	//go:embed assets/page.html
	pageText string
	//go:embed assets/style.css
	styleText string
	//go:embed assets/flame.js
	scriptText string

	pageTemplate = template.Must(template.New("page").Parse(pageText))

	// policy lets the page run the one script and use the one style that it
	// carries, and load nothing.
	policy = "default-src 'none'; script-src " + hash(scriptText) + "; style-src " + hash(styleText) +
		"; img-src data:; base-uri 'none'; form-action 'none'"
)

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// download is another form of the report that the server offers.
type download struct {
	Name  string
	About string
	kind  string
	write func(io.Writer, *report.Report) error
}

var downloads = []download{
	{"report.json", "everything, for programs", "application/json", as(report.JSON)},
	{"profile.pb.gz", "for go tool pprof", "application/octet-stream", as(report.Pprof)},
	{"difference.pb.gz", "mirror minus baseline, for go tool pprof", "application/octet-stream", func(w io.Writer, r *report.Report) error {
		p, err := report.DiffProfile(r)
		if err != nil {
			return err
		}
		return p.Write(w)
	}},
	{"stacks.folded", "for flamegraph.pl", "text/plain; charset=utf-8", as(report.Folded)},
	{"report.csv", "one value a row", "text/csv; charset=utf-8", as(report.CSV)},
	{"table.txt", "as in the terminal", "text/plain; charset=utf-8", as(report.Table)},
}

func as(f report.Format) func(io.Writer, *report.Report) error {
	return func(w io.Writer, r *report.Report) error { return report.Write(w, r, f) }
}

// place is where the page will be: a file has nothing beside it that could be
// downloaded.
type place int

const (
	inFile place = iota
	served
)

// WriteHTML writes the page as one file that works by itself, offline.
func WriteHTML(w io.Writer, r *report.Report) error {
	if err := writePage(w, r, inFile); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

// page is what the template shows.
type page struct {
	Policy    string
	Style     template.CSS
	Script    template.JS
	Title     string
	Headline  string
	Load      string
	Machine   string
	Baseline  string
	Mirror    string
	Shown     bool
	Downloads []download
	Tax       []taxRow
	TaxAxis   []tick
	Zero      string
	Facts     []report.Fact
	Legs      []report.LegRow
	Stages    []stageRow
	StageAxis []tick
	Total     stageRow
	Overlap   bool
	Flame     template.JS
	HasFlame  bool
	Keys      []key
	Latency   latencyChart
	Ledger    ledger
	Method    []report.Fact
	Warnings  []string
}

func writePage(w io.Writer, r *report.Report, where place) error {
	if err := r.Check(); err != nil {
		return err
	}
	stages := stageNames(r)
	root := buildFlame(r, stages)
	flame, err := json.Marshal(struct {
		Stages   []string `json:"stages"`
		Baseline string   `json:"baseline"`
		Mirror   string   `json:"mirror"`
		Root     *frame   `json:"root"`
	}{stages, r.Baseline.Name, r.Mirror.Name, root})
	if err != nil {
		return err
	}
	p := page{
		Policy: policy, Style: template.CSS(styleText), Script: template.JS(scriptText),
		Title:    r.Mirror.Name + " against " + r.Baseline.Name,
		Headline: r.Headline(), Load: r.Load.Describe(), Machine: r.Machine.Describe(),
		Baseline: r.Baseline.Name, Mirror: r.Mirror.Name,
		Facts: report.TaxFacts(r), Legs: report.LegRows(r)[1:],
		Flame: template.JS(flame), HasFlame: len(root.Children) > 0, Keys: keysOf(stages),
		Latency: newLatencyChart(r), Ledger: newLedger(r),
		Method: report.MethodFacts(r), Warnings: r.Warnings,
	}
	if where == served {
		p.Downloads = downloads
	}
	p.Stages, p.Total, p.StageAxis, p.Overlap = stageRows(r, stages)
	p.Tax, p.TaxAxis, p.Zero = taxRows(r)
	// A template that fails half-way must not leave half a page behind.
	var buf bytes.Buffer
	if err := pageTemplate.Execute(&buf, p); err != nil {
		return err
	}
	_, err = w.Write(buf.Bytes())
	return err
}

// knownStages have a colour of their own, whichever of them a report has.
var knownStages = []string{
	"user", "syscall entry", "copy", "bookkeeping", "data checksum", "metadata checksum",
	"enqueue", "completion", "locking", "scheduling", "substrate", "other",
}

// stageNames lists the stages that a report has after those that are known, so
// that a stage has the same colour in every report.
func stageNames(r *report.Report) []string {
	names := append([]string(nil), knownStages...)
	seen := map[string]bool{}
	for _, name := range names {
		seen[name] = true
	}
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	for _, row := range r.StageRows() {
		add(row.Name)
	}
	for _, s := range r.Samples {
		add(s.Stage)
	}
	return names
}

// key is an entry of the colours' legend.
type key struct{ Class, Name string }

func keysOf(stages []string) (keys []key) {
	for i, name := range stages {
		keys = append(keys, key{stageClass(i), name})
	}
	return keys
}

// stageClass names a stage's colour in the style sheet. Stages that nobody
// thought of share the colour of "other".
func stageClass(i int) string { return fmt.Sprintf("s%d", min(i, len(knownStages)-1)) }

// split parts an interval's text into the mean and the bounds.
func split(text string) (mean, bounds string) {
	mean, bounds, _ = strings.Cut(text, " [")
	if bounds != "" {
		bounds = "[" + bounds
	}
	return mean, bounds
}
