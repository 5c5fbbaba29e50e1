package timeline

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strconv"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// The picture's measures, in the units of its view box.
const (
	width      = 1100
	left       = 84
	right      = 36
	top        = 24
	laneHeight = 34
)

// colours tell owners apart; they repeat after eight cores.
var colours = []string{"#3366cc", "#dc7f0e", "#2a9d5c", "#b5386b", "#6d54c9", "#0f8f9c", "#8a6d1d", "#5b6672"}

func colourOf(core int) string { return colours[core%len(colours)] }

// letters are what dots say, in the order of the legend.
var letters = []struct {
	kind         Kind
	letter, text string
}{
	{Started, "b", "begins"}, {Exited, "x", "sees an exit"}, {Suspects, "?", "is told of a hang"}, {Takes, "T", "takes a log"}, {Kills, "K", "kills the owner"},
	{Seals, "S", "seals a region"}, {Reads, "R", "reads a region"}, {Opens, "o", "opens a region"}, {Serves, "A", "serves: ACTIVE"},
	{Claims, "C", "first inherited claim"}, {Fenced, "F", "is fenced"}, {Leaves, "e", "ends itself"},
}

type tick struct {
	X    float64
	Text string
	Y    int
}

type lane struct {
	Name         string
	Y, TextY, X2 int
}

type bar struct {
	X, W    float64
	Y       int
	Fill    string
	Hatched bool
	Title   string
}

type dot struct {
	X        float64
	Y, TextY int
	Fill     string
	Letter   string
	Title    string
}

type picture struct {
	ID, Caption   string
	Width, Height int
	Ticks         []tick
	Lanes         []lane
	Bars          []bar
	Dots          []dot
}

type legend struct{ Letter, Text, Fill string }

type view struct {
	Summary         string
	Pictures        []picture
	Legend, Colours []legend
	Rows            [][]string
}

// maxPictures bounds how many takeovers are drawn: the page is for looking at, and
// the table has all of them.
const maxPictures = 12

// WriteHTML writes the page as one file that works by itself, offline: the whole
// run, each of the first takeovers from close by, and a table of all.
func WriteHTML(w io.Writer, t *Timeline) error {
	v := view{Summary: fmt.Sprintf("%d cores, %d steps, %s ms, %d takeovers.", t.Cores, t.Steps, ms(t.ToNs-t.FromNs), len(t.Takeovers))}
	v.Pictures = append(v.Pictures, t.draw("run", "The whole run", t.FromNs, t.ToNs, false))
	for i, o := range t.Takeovers {
		if i == maxPictures {
			v.Summary += fmt.Sprintf(" The first %d are drawn.", maxPictures)
			break
		}
		from, to := o.LastStepNs, max(o.TakenNs, o.ActiveNs, o.ClaimedNs, o.ExitedNs)
		margin := max((to-from)/12, 1000)
		caption := fmt.Sprintf("Log %d goes from core %d to core %d, epoch %d", o.Log, o.From, o.To, o.Epoch)
		v.Pictures = append(v.Pictures, t.draw("t"+strconv.Itoa(i), caption, max(from-margin, t.FromNs), to+margin, true))
	}
	for _, l := range letters {
		v.Legend = append(v.Legend, legend{Letter: l.letter, Text: l.text})
	}
	for core := range t.Cores {
		v.Colours = append(v.Colours, legend{Fill: colourOf(core), Text: fmt.Sprintf("core %d", core)})
	}
	v.Rows = t.Rows()
	if err := page.Execute(w, v); err != nil {
		return fmt.Errorf("write timeline: %w", err)
	}
	return nil
}

// Header names the columns of [Timeline.Rows].
var Header = []string{"log", "from", "to", "epoch", "taken_ms", "killed_ms", "exit_seen_ms", "sealed_ms", "read_ms", "serves_ms", "first_claim_ms"}

// Rows has a line for each takeover, under [Header]: times are in milliseconds
// after the last step of the earlier owner.
func (t *Timeline) Rows() (rows [][]string) {
	for _, o := range t.Takeovers {
		row := []string{strconv.Itoa(int(o.Log)), strconv.Itoa(int(o.From)), strconv.Itoa(int(o.To)), strconv.Itoa(int(o.Epoch))}
		for _, at := range []int64{o.TakenNs, o.KilledNs, o.ExitedNs, o.SealedNs, o.ReadNs, o.ActiveNs, o.ClaimedNs} {
			if at == 0 {
				row = append(row, "-")
				continue
			}
			row = append(row, ms(at-o.LastStepNs))
		}
		rows = append(rows, row)
	}
	return rows
}

func ms(ns int64) string { return fmt.Sprintf("%.3f", float64(ns)/1e6) }

// draw makes a picture of a part of the run: a lane for each log with its owners,
// and one for each core with its marks.
func (t *Timeline) draw(id, caption string, from, to int64, near bool) picture {
	lanes := 2 * t.Cores
	p := picture{ID: id, Caption: caption, Width: width, Height: top + lanes*laneHeight + 10}
	span := float64(max(to-from, 1))
	x := func(at int64) float64 {
		share := min(max(float64(at-from)/span, 0), 1)
		return left + share*(width-left-right)
	}
	for i := range 6 {
		at := from + (to-from)*int64(i)/5
		p.Ticks = append(p.Ticks, tick{X: x(at), Text: ms(at-t.FromNs) + " ms", Y: p.Height - 6})
	}
	for i := range lanes {
		name, y := fmt.Sprintf("log %d", i), top+i*laneHeight+laneHeight/2
		if i >= t.Cores {
			name = fmt.Sprintf("core %d", i-t.Cores)
		}
		p.Lanes = append(p.Lanes, lane{name, y, y + 4, width - right})
	}
	for _, s := range t.Spans {
		if s.ToNs < from || s.FromNs > to {
			continue
		}
		b := bar{X: x(s.FromNs), Y: p.Lanes[s.Log].Y - 7, Fill: colourOf(int(s.Owner)), Hatched: !s.Active}
		b.W = max(x(s.ToNs)-b.X, 1)
		b.Title = fmt.Sprintf("core %d owns log %d, epoch %d, from %s ms to %s ms", s.Owner, s.Log, s.Epoch, ms(s.FromNs-t.FromNs), ms(s.ToNs-t.FromNs))
		p.Bars = append(p.Bars, b)
	}
	for _, m := range t.Marks {
		if m.AtNs < from || m.AtNs > to || !near && !bold(m.Kind) {
			continue
		}
		y := p.Lanes[t.Cores+int(m.Core)].Y
		p.Dots = append(p.Dots, dot{x(m.AtNs), y, y - 8, colourOf(int(m.Other)), letterOf(m.Kind),
			fmt.Sprintf("%s ms: core %d %s, log %d, core %d, epoch %d", ms(m.AtNs-t.FromNs), m.Core, m.Kind, m.Log, m.Other, m.Epoch)})
	}
	return p
}

// bold reports whether a mark is shown from afar too.
func bold(k Kind) bool {
	return slices.Contains([]Kind{Exited, Takes, Kills, Claims, Fenced, Leaves}, k)
}

func letterOf(k Kind) string {
	for _, l := range letters {
		if l.kind == k {
			return l.letter
		}
	}
	return "?"
}
