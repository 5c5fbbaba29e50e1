package numa

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"
)

// line is a cache line that leads to another one.
type line struct {
	next uint32
	_    [60]byte
}

// chainBytes is larger than the caches of a node, so that steps reach memory.
const chainBytes = 256 << 20

// chain makes memory on a node into one random cycle, so that no prefetcher
// knows the next step and each waits for the one before.
func chain(b *testing.B, node int) []line {
	block := alloc[line](b, chainBytes/int(unsafe.Sizeof(line{})), AllocOptions{Policy: Bind(node), Huge: HugeTransparent, Populate: true})
	lines := block.Slice()
	if p := placement(b, block); p.Percent(node) != 100 {
		b.Fatalf("memory for node %d: %s", node, p)
	}
	order := rand.New(rand.NewPCG(1, 2)).Perm(len(lines))
	for i, at := range order {
		lines[at].next = uint32(order[(i+1)%len(order)])
	}
	return lines
}

var sinkLine [maxNodes]uint32

// BenchmarkMemoryRead reads memory in steps that wait for each other, with a
// reader on each of so many nodes at once: each from its own node's memory, or
// each from the next node's. One step is one operation. It needs 256 MiB on each
// node, and more than one node for the remote rows:
//
//	go test -run '^$' -bench MemoryRead -count 10 ./numa | tee new.txt && benchstat -row /nodes -col /memory new.txt
func BenchmarkMemoryRead(b *testing.B) {
	topo := local(b)
	nodes := topo.ComputeNodes().And(topo.MemoryNodes())
	if len(nodes) == 0 {
		b.Fatal("no node has both CPUs and memory for this process")
	}
	chains := map[int][]line{}
	for _, node := range nodes {
		chains[node] = chain(b, node)
	}
	for count := 1; count <= len(nodes); count++ {
		for shift, memory := range []string{"local", "remote"} {
			if shift > 0 && len(nodes) < 2 {
				continue
			}
			b.Run(fmt.Sprintf("nodes=%d/memory=%s", count, memory), func(b *testing.B) {
				var wait sync.WaitGroup
				for i, node := range nodes[:count] {
					lines := chains[nodes[(i+shift)%len(nodes)]]
					wait.Go(func() {
						err := bound(topo.UsableCPUs(node)[:1], func(int) error {
							at := uint32(i)
							for range b.N {
								at = lines[at].next
							}
							sinkLine[node] = at
							return nil
						})
						if err != nil {
							b.Error(err)
						}
					})
				}
				wait.Wait()
			})
		}
	}
}

// BenchmarkWorker hands requests of one word to a bound worker, in batches, and
// waits for the last: a ring against a channel to a locked thread.
func BenchmarkWorker(b *testing.B) {
	for _, batch := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("feed=ring/batch=%d", batch), func(b *testing.B) {
			w := start(b, func(Binding, []uint64) {}, WorkerOptions{})
			requests := make([]uint64, batch)
			b.ReportAllocs()
			for left := b.N; left > 0; left -= min(left, batch) {
				if _, err := w.Submit(b.Context(), requests[:min(left, batch)]...); err != nil {
					b.Fatal(err)
				}
			}
			if err := w.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
	b.Run("feed=channel/batch=1", func(b *testing.B) {
		topo := local(b)
		requests, done := make(chan uint64, DefaultRing), make(chan error)
		last := len(topo.Limits.CPUs) - 1
		go func() {
			done <- bound(topo.Limits.CPUs[last:], func(int) error {
				for range requests {
				}
				return nil
			})
		}()
		b.ReportAllocs()
		for range b.N {
			requests <- 0
		}
		close(requests)
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	})
	b.Run("feed=run/batch=1", func(b *testing.B) {
		w := start(b, func(Binding, []uint64) {}, WorkerOptions{})
		for b.Loop() {
			if err := w.Run(b.Context(), func() {}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
