package bench

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/coreplica/coreplica/internal/paired"
)

// Batch is how many tasks contenders take at a time, where they can.
const Batch = 256

// PayloadBytes is the size of a task's payload.
const PayloadBytes = 64

// Contender is a queue.
type Contender struct {
	// Name is as it stands in reports.
	Name string
	// Mode says who works: "cycle" is one goroutine that submits, claims and
	// ends, "threads" are goroutines, and "processes" processes.
	Mode string
	// K is how many copies there are of what is queued.
	K int
	// Workers is how many work.
	Workers int
	// New makes one.
	New func() (Instance, error)
}

// Instance is a queue that is ready.
type Instance struct {
	// Run takes n tasks through the queue and returns when all have ended. n
	// is a multiple of Batch.
	Run func(n int) error
	// Close releases the queue. It may be nil.
	Close func() error
}

// Plan says how a comparison is run.
type Plan struct {
	// Rounds is how often each contender runs. 0 means 10.
	Rounds int
	// Length is how long a block takes, about. 0 means [ShortBlock] for contenders in
	// the mode cycle and [LongBlock] for others.
	Length time.Duration
	// Seed draws the order.
	Seed uint64
	// Progress is called before each round, the first of which, 0, warms up. It may
	// be nil.
	Progress func(round int)
}

// A block of workers beside the submitter ends with a wait for the last task, which
// must be nothing beside the rest.
const (
	ShortBlock = 30 * time.Millisecond
	LongBlock  = 300 * time.Millisecond
)

// length returns how long a contender's blocks take.
func (p *Plan) length(c *Contender) time.Duration {
	if c.Mode == "cycle" {
		return cmp.Or(p.Length, ShortBlock)
	}
	return cmp.Or(p.Length, LongBlock)
}

// Row is what was found about a contender.
type Row struct {
	Impl    string
	Mode    string
	K       int
	Workers int
	// NsPerTask is the median over rounds of wall time by tasks; BestNs is that
	// of the fastest round.
	NsPerTask float64
	BestNs    float64
	// ToChannel relates it to the contender called [Channel], and ToK1 to the
	// one of the same name, mode and workers with one copy; they are zero if
	// that did not run.
	ToChannel, ToK1 paired.Ratio
	Rounds          int
}

// Channel is the name of the contender that all are related to: a buffered
// channel with one goroutine, for which nobody contends.
const Channel = "channel"

// maxChunk bounds how many tasks run between two looks at the clock.
const maxChunk = 1 << 20

// Compare runs the contenders against each other.
func Compare(all []Contender, p Plan) (rows []Row, err error) {
	p.Rounds = cmp.Or(p.Rounds, 10)
	instances := make([]Instance, 0, len(all))
	defer func() {
		for i, inst := range instances {
			if inst.Close == nil {
				continue
			}
			if cerr := inst.Close(); cerr != nil && err == nil {
				err = fmt.Errorf("close %s: %w", all[i].Name, cerr)
			}
		}
	}()
	chunks := make([]int, len(all))
	for i, c := range all {
		inst, err := c.New()
		if err != nil {
			return nil, fmt.Errorf("make %s with %d copies: %w", c.Name, c.K, err)
		}
		instances = append(instances, inst)
		chunks[i] = Batch
	}
	var failed error
	blocks := 0
	times := paired.Run(len(all), p.Rounds, p.Seed, func(i int) float64 {
		if p.Progress != nil && blocks%len(all) == 0 {
			p.Progress(blocks / len(all))
		}
		blocks++
		ns, chunk, err := block(instances[i], chunks[i], p.length(&all[i]))
		if err != nil && failed == nil {
			failed = fmt.Errorf("run %s with %d copies: %w", all[i].Name, all[i].K, err)
		}
		chunks[i] = chunk
		return ns
	})
	if failed != nil {
		return nil, failed
	}
	for i, c := range all {
		r := Row{Impl: c.Name, Mode: c.Mode, K: c.K, Workers: c.Workers, NsPerTask: paired.Median(times[i]), BestNs: slices.Min(times[i]), Rounds: p.Rounds}
		if j := slices.IndexFunc(all, func(o Contender) bool { return o.Name == Channel }); j >= 0 {
			r.ToChannel = paired.RatioOf(times[i], times[j])
		}
		single := func(o Contender) bool {
			return o.Name == c.Name && o.Mode == c.Mode && o.Workers == c.Workers && o.K == 1
		}
		if j := slices.IndexFunc(all, single); j >= 0 {
			r.ToK1 = paired.RatioOf(times[i], times[j])
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// block runs tasks for about so long. It returns the time for one, and how many
// to run at a time from now on, so that the clock is not looked at too often.
func block(inst Instance, chunk int, length time.Duration) (nsPerTask float64, next int, err error) {
	begin := time.Now()
	n := 0
	for time.Since(begin) < length {
		if err := inst.Run(chunk); err != nil {
			return 0, chunk, err
		}
		if n += chunk; n >= 8*chunk && time.Since(begin) < length/4 {
			chunk = min(2*chunk, maxChunk)
		}
	}
	return float64(time.Since(begin)) / float64(n), chunk, nil
}

// Schema is the version of the rows in JSON.
const Schema = "coreplica.runq.bench/1"

type jsonRow struct {
	Schema         string  `json:"schema"`
	Impl           string  `json:"impl"`
	Mode           string  `json:"mode"`
	K              int     `json:"k"`
	Workers        int     `json:"workers"`
	NsPerTask      float64 `json:"ns_per_task"`
	BestNsPerTask  float64 `json:"best_ns_per_task"`
	RatioToChannel float64 `json:"ratio_to_channel,omitempty"`
	Low            float64 `json:"ci95_low,omitempty"`
	High           float64 `json:"ci95_high,omitempty"`
	RatioToK1      float64 `json:"ratio_to_k1,omitempty"`
	K1Low          float64 `json:"k1_ci95_low,omitempty"`
	K1High         float64 `json:"k1_ci95_high,omitempty"`
	Rounds         int     `json:"rounds"`
}

// ErrFormat is wrapped by the error for a format that does not exist.
var ErrFormat = errors.New("unknown output")

// Formats are the forms that [Write] knows: a table, JSON with one object a line,
// and the text that benchstat reads.
func Formats() []string { return []string{"table", "json", "bench"} }

// Write writes rows in one of [Formats].
func Write(w io.Writer, rows []Row, format string) error {
	if format == "table" {
		if _, err := fmt.Fprintf(w, "%-12s %-10s %2s %7s %12s %10s  %-22s %s\n", "impl", "mode", "k", "workers", "ns/task", "best", "to channel", "to k=1"); err != nil {
			return err
		}
	}
	for _, r := range rows {
		var err error
		switch format {
		case "table":
			_, err = fmt.Fprintf(w, "%-12s %-10s %2d %7d %12.1f %10.1f  %-22s %s\n", r.Impl, r.Mode, r.K, r.Workers, r.NsPerTask, r.BestNs, ratio(r.ToChannel), ratio(r.ToK1))
		case "json":
			err = json.NewEncoder(w).Encode(jsonRow{
				Schema: Schema, Impl: r.Impl, Mode: r.Mode, K: r.K, Workers: r.Workers, NsPerTask: r.NsPerTask, BestNsPerTask: r.BestNs,
				RatioToChannel: r.ToChannel.Median, Low: r.ToChannel.Low, High: r.ToChannel.High,
				RatioToK1: r.ToK1.Median, K1Low: r.ToK1.Low, K1High: r.ToK1.High, Rounds: r.Rounds,
			})
		case "bench":
			_, err = fmt.Fprintf(w, "BenchmarkTask/impl=%s/mode=%s/k=%d/workers=%d 1 %.2f ns/op\n", r.Impl, r.Mode, r.K, r.Workers, r.NsPerTask)
		default:
			return fmt.Errorf("%w %q: want one of %v", ErrFormat, format, Formats())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func ratio(r paired.Ratio) string {
	if r.Median == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f [%.2f, %.2f]", r.Median, r.Low, r.High)
}
