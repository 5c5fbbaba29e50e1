package replicated

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/numa"
)

// benchKeys make a table of 128 MiB on each node: more than most caches that a node
// shares. Simulated nodes share one machine's memory, and there is nothing to see
// in it, so their tables are small.
const (
	benchKeys      = 5_000_000
	benchKeysSmall = 50_000
)

// ringOf returns a map whose values lead from key to key in one random cycle, so that
// each read waits for the one before.
func ringOf(b *testing.B, topology Topology, keys int) *Map[uint64, uint64] {
	m, err := NewMap[uint64, uint64](Options{Topology: topology})
	if err != nil {
		b.Fatal(err)
	}
	order := rand.New(rand.NewPCG(1, 2)).Perm(keys)
	for i, at := range order {
		m.Store(uint64(at), uint64(order[(i+1)%keys]))
	}
	for node := range topology.Nodes() {
		m.On(node).Load(0) // It applies what its replica lacks.
	}
	return m
}

var sinkRead [maxSimulatedNodes]uint64

// chase reads through one node's replica.
func chase(m *Map[uint64, uint64], reader, node, n int) {
	via := m.On(node)
	at := uint64(reader)
	for range n {
		at, _ = via.Load(at)
	}
	sinkRead[reader] = at
}

// BenchmarkReplicatedRead reads one and the same map with a reader on each of so many
// nodes of this machine: each from the replica of its own node, as a program does, or
// each from the next node's, as it would be if there were no replicas. One read is one
// operation. The rows with simulated=N are of N nodes that are not there: they say
// what reads cost beside N replicas, and nothing about nearness.
//
//	go test -run '^$' -bench ReplicatedRead -count 10 ./numa/replicated | tee reads.txt && benchstat -filter '/nodes:/./' -row /nodes -col /replica reads.txt
//
// It needs 128 MiB on each node and some seconds to fill them. With -short, and in a
// translated guest where times mean nothing anyway, tables are small.
func BenchmarkReplicatedRead(b *testing.B) {
	local, err := numa.Local()
	if err != nil {
		b.Fatal(err)
	}
	keys := benchKeys
	if testing.Short() || testkit.Missing(testkit.Timing) != "" {
		keys = benchKeysSmall
	}
	topology := Machine(local)
	m := ringOf(b, topology, keys)
	defer m.Close()
	all, err := m.Placement(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	for _, landed := range all {
		if landed.Node != numa.Unknown && topology.Nodes() > 1 && landed.Percent() != 100 {
			b.Fatalf("a replica is not on its node: %s", landed)
		}
	}
	for count := 1; count <= topology.Nodes(); count++ {
		for shift, replica := range []string{"local", "remote"} {
			if shift > 0 && topology.Nodes() < 2 {
				continue
			}
			b.Run(fmt.Sprintf("nodes=%d/replica=%s", count, replica), func(b *testing.B) {
				var wg, ready sync.WaitGroup
				start := make(chan struct{})
				ready.Add(count)
				for reader := range count {
					wg.Go(func() {
						topology.Run(reader, func() {
							ready.Done()
							<-start
							chase(m, reader, (reader+shift)%topology.Nodes(), b.N)
						})
					})
				}
				ready.Wait()
				b.ResetTimer()
				close(start)
				wg.Wait()
			})
		}
	}
	for _, nodes := range []int{2, 4, 8} {
		b.Run(fmt.Sprintf("simulated=%d/replica=local", nodes), func(b *testing.B) {
			m := ringOf(b, Simulated(nodes, nodes), benchKeysSmall)
			defer m.Close()
			b.ResetTimer()
			chase(m, nodes-1, nodes-1, b.N)
		})
	}
}

// BenchmarkWordsMemory compares a table on Go's heap with one outside of it, on the
// same node: loads in random order, of a table that fits into caches and one that
// does not.
func BenchmarkWordsMemory(b *testing.B) {
	for _, keys := range []int{1000, 1_000_000} {
		for _, memory := range []string{"heap", "node"} {
			b.Run(fmt.Sprintf("keys=%d/memory=%s", keys, memory), func(b *testing.B) {
				var topology Topology = Simulated(1, 1)
				if memory == "node" {
					topology = outside{topology}
				}
				m := ringOf(b, topology, keys)
				defer m.Close()
				b.ResetTimer()
				chase(m, 0, 0, b.N)
			})
		}
	}
}
