package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Choice says which cases of the matrix to run. An empty list is no restriction.
type Choice struct {
	Structures, Implementations  []string
	Keys, WritePercents, Workers []int
	// Dists are "uniform" and "zipf".
	Dists []string
}

// ErrChoice is wrapped by the error for a choice that nothing fits.
var ErrChoice = errors.New("no case fits the choice")

func wants[T comparable](list []T, v T) bool { return len(list) == 0 || slices.Contains(list, v) }

func (c Choice) takes(k Case) bool {
	return wants(c.Keys, k.Keys) && wants(c.WritePercents, k.WritePercent) && wants(c.Workers, k.Workers) && wants(c.Dists, k.dist())
}

// Run compares the chosen implementations on each chosen structure and case, and
// writes what it found about a case when that is done, in one of [Formats].
func Run(c Choice, structures []Structure, implementations []Implementation, p Plan, w io.Writer, format string) error {
	show, ok := formats[format]
	if !ok {
		return fmt.Errorf("output %q: want one of %v", format, Formats())
	}
	if p.Base == "" {
		p.Base = DefaultBase
	}
	chosen := slices.DeleteFunc(slices.Clone(implementations), func(im Implementation) bool {
		return im.Name != p.Base && !wants(c.Implementations, im.Name)
	})
	shown := 0
	for _, s := range structures {
		if !wants(c.Structures, s.Name) {
			continue
		}
		for _, k := range Cases() {
			if !c.takes(k) {
				continue
			}
			results, err := Compare(s, chosen, k, p)
			if err != nil {
				return err
			}
			for _, r := range results {
				if err := show(w, r); err != nil {
					return err
				}
				shown++
			}
		}
	}
	if shown == 0 {
		return fmt.Errorf("%w: structures are %v, implementations %v", ErrChoice, names(structures, func(s Structure) string { return s.Name }), names(implementations, func(i Implementation) string { return i.Name }))
	}
	return nil
}

func names[T any](list []T, name func(T) string) []string {
	var all []string
	for _, v := range list {
		all = append(all, name(v))
	}
	return all
}

// DefaultBase is the implementation that others are compared with.
const DefaultBase = "rwmutex"

// Schema is the version of the rows in JSON.
const Schema = "coreplica.numa.bench/1"

// row is a [Result] in JSON.
type row struct {
	Schema       string  `json:"schema"`
	Structure    string  `json:"structure"`
	Impl         string  `json:"impl"`
	Keys         int     `json:"keys"`
	WritePercent int     `json:"write_percent"`
	Threads      int     `json:"threads"`
	Dist         string  `json:"dist"`
	NsPerOp      float64 `json:"ns_per_op"`
	BestNsPerOp  float64 `json:"best_ns_per_op"`
	Ratio        float64 `json:"ratio_to_rwmutex"`
	Low          float64 `json:"ci95_low"`
	High         float64 `json:"ci95_high"`
	OverBare     float64 `json:"ratio_to_bare,omitempty"`
	Blocks       int     `json:"blocks"`
}

// Formats are the forms that [Run] writes: a table, JSON with one object a line,
// and the text that benchstat reads.
func Formats() []string { return []string{"table", "json", "bench"} }

var formats = map[string]func(io.Writer, Result) error{
	"table": func(w io.Writer, r Result) error {
		_, err := fmt.Fprintf(w, "%-9s %-45s %-12s %9.1f ns/op (best %.1f)  %6.2f [%.2f, %.2f]  %6.2f over bare\n",
			r.Structure, r.Case, r.Implementation, r.NsPerOp, r.BestNs, r.Ratio, r.Low, r.High, r.OverBare)
		return err
	},
	"json": func(w io.Writer, r Result) error {
		return json.NewEncoder(w).Encode(row{
			Schema: Schema, Structure: r.Structure, Impl: r.Implementation, Keys: r.Case.Keys, WritePercent: r.Case.WritePercent,
			Threads: r.Case.Workers, Dist: r.Case.dist(), NsPerOp: r.NsPerOp, BestNsPerOp: r.BestNs,
			Ratio: r.Ratio, Low: r.Low, High: r.High, OverBare: r.OverBare, Blocks: r.Blocks,
		})
	},
	"bench": func(w io.Writer, r Result) error {
		_, err := fmt.Fprintf(w, "BenchmarkReplicated/%s/%s/impl=%s 1 %.2f ns/op %.3f ratio\n",
			r.Structure, r.Case, r.Implementation, r.NsPerOp, r.Ratio)
		return err
	},
}
