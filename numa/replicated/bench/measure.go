package bench

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreplica/coreplica/internal/paired"
)

// Case is a load.
type Case struct {
	// Keys is how many there are.
	Keys int
	// WritePercent of the operations are writes.
	WritePercent int
	// Workers is the number of goroutines.
	Workers int
	// Zipf draws keys by Zipf's law with exponent 1.01, instead of evenly.
	Zipf bool
}

// String names the case the way benchstat likes it.
func (c Case) String() string {
	return fmt.Sprintf("keys=%d/write=%d/threads=%d/dist=%s", c.Keys, c.WritePercent, c.Workers, c.dist())
}

func (c Case) dist() string {
	if c.Zipf {
		return "zipf"
	}
	return "uniform"
}

// Cases returns the load matrix: 1,000 and 1,000,000 keys, 0, 1, 10, 50 and 100
// percent of writes, 1 and 2 threads, even and Zipf.
func Cases() []Case {
	var all []Case
	for _, keys := range []int{1_000, 1_000_000} {
		for _, percent := range []int{0, 1, 10, 50, 100} {
			for _, workers := range []int{1, 2} {
				for _, zipf := range []bool{false, true} {
					all = append(all, Case{keys, percent, workers, zipf})
				}
			}
		}
	}
	return all
}

// scriptOps is how many operations a worker has prepared. It repeats them.
const scriptOps = 1 << 16

// script is a worker's operations: the key, and in the lowest bit whether to
// write. Drawing them during the run would cost more than some operations do.
type script []uint64

// scripts prepares the operations of all workers of a case.
func (c Case) scripts(seed uint64) []script {
	all := make([]script, c.Workers)
	for w := range all {
		rng := rand.New(rand.NewPCG(seed, uint64(w)))
		zipf := rand.NewZipf(rng, 1.01, 1, uint64(c.Keys-1))
		all[w] = make(script, scriptOps)
		for i := range all[w] {
			key := rng.Uint64N(uint64(c.Keys))
			if c.Zipf {
				key = zipf.Uint64()
			}
			all[w][i] = key << 1
			if rng.IntN(100) < c.WritePercent {
				all[w][i] |= 1
			}
		}
	}
	return all
}

// loaded is an instance and what its workers do.
type loaded struct {
	inst    Instance
	scripts []script
}

var sink atomic.Uint64

// block runs each worker's operations for about so long, and returns wall
// nanoseconds by total operations.
func block(load loaded, length time.Duration) (nsPerOp float64) {
	var wg sync.WaitGroup
	var total atomic.Uint64
	start := make(chan struct{})
	var stop atomic.Bool
	inst := load.inst
	for w, s := range load.scripts {
		wg.Go(func() {
			<-start
			var n, sum uint64
			for !stop.Load() {
				for range 256 {
					op := s[n%scriptOps]
					if op&1 != 0 {
						inst.Put(w, op>>1, n)
					} else {
						sum += inst.Get(w, op>>1)
					}
					n++
				}
			}
			total.Add(n)
			sink.Add(sum)
		})
	}
	begin := time.Now()
	close(start)
	time.Sleep(length)
	stop.Store(true)
	wg.Wait()
	return float64(time.Since(begin)) / float64(total.Load())
}

// Result is what a comparison found about one implementation.
type Result struct {
	Structure      string
	Implementation string
	Case           Case
	// NsPerOp is the median over blocks of wall nanoseconds by the operations
	// of all workers together.
	NsPerOp float64
	// BestNs is NsPerOp of the fastest block, which other programs disturbed
	// least.
	BestNs float64
	// Ratio is the median of this implementation's time by that of the base, in
	// blocks next to each other; Low and High are the interval that holds the
	// true median with 95 percent.
	Ratio float64
	Low   float64
	High  float64
	// OverBare is NsPerOp by that of the bare structure with one worker and
	// without any lock, or 0 if that was not among the contenders.
	OverBare float64
	// Blocks is how many ratios the interval rests on.
	Blocks int
}

// Plan says how a comparison is run.
type Plan struct {
	// Base is the implementation that others are compared with.
	Base string
	// Blocks is how often each implementation runs. 0 means 10.
	Blocks int
	// Length is how long one block takes. 0 means 30 ms.
	Length time.Duration
	// Seed draws keys and order.
	Seed uint64
}

// Compare runs implementations of a structure against each other.
func Compare(s Structure, all []Implementation, c Case, p Plan) ([]Result, error) {
	if p.Blocks == 0 {
		p.Blocks = 10
	}
	if p.Length == 0 {
		p.Length = 30 * time.Millisecond
	}
	var serving []Implementation
	var instances []loaded
	scripts := c.scripts(p.Seed)
	base := -1
	for _, im := range all {
		if !im.Serves(s, c.Keys) {
			continue
		}
		inst, err := im.New(s, c.Keys, c.Workers)
		if err != nil {
			return nil, fmt.Errorf("make %s of %s: %w", im.Name, s.Name, err)
		}
		if inst.Close != nil {
			defer inst.Close()
		}
		if im.Name == p.Base {
			base = len(serving)
		}
		load := loaded{inst, scripts}
		if im.Sequential {
			load.scripts = scripts[:1]
		}
		serving, instances = append(serving, im), append(instances, load)
	}
	if base < 0 {
		return nil, fmt.Errorf("compare %s: there is no implementation %q to compare with", s.Name, p.Base)
	}
	times := paired.Run(len(instances), p.Blocks, p.Seed, func(i int) float64 { return block(instances[i], p.Length) })
	var results []Result
	for i, im := range serving {
		ratio := paired.RatioOf(times[i], times[base])
		r := Result{Structure: s.Name, Implementation: im.Name, Case: c, NsPerOp: paired.Median(times[i]), BestNs: slices.Min(times[i]),
			Ratio: ratio.Median, Low: ratio.Low, High: ratio.High, Blocks: p.Blocks}
		r.Case.Workers = len(instances[i].scripts)
		results = append(results, r)
	}
	overBare(results)
	return results, nil
}

// overBare relates all results to the bare structure's, where it ran.
func overBare(results []Result) {
	i := slices.IndexFunc(results, func(r Result) bool { return r.Implementation == "bare" })
	if i < 0 {
		return
	}
	bare := results[i].NsPerOp
	for j := range results {
		results[j].OverBare = results[j].NsPerOp / bare
	}
}
