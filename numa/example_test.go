package numa_test

import (
	"context"
	"fmt"
	"log"
	"sync/atomic"

	"github.com/coreplica/coreplica/numa"
)

// One worker for each node counts requests where they are handed over.
func ExampleStartPool() {
	machine, err := numa.Local()
	if err != nil {
		log.Fatal(err)
	}
	var sum atomic.Int64
	pool, err := numa.StartPool(machine, func(at numa.Binding, batch []int) {
		for _, n := range batch {
			sum.Add(int64(n))
		}
	}, numa.PoolOptions{Per: numa.PerNode})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	ctx := context.Background()
	if _, err := pool.Near().Submit(ctx, 1, 2, 3); err != nil {
		log.Fatal(err)
	}
	if err := pool.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(sum.Load())
	// Output: 6
}

// A table on a node, and the kernel's word that it is there.
func ExampleAlloc() {
	machine, err := numa.Local()
	if err != nil {
		log.Fatal(err)
	}
	node := machine.MemoryNodes()[0]
	table, err := numa.Alloc[uint64](1<<16, numa.AllocOptions{Policy: numa.Bind(node), Populate: true})
	if err != nil {
		log.Fatal(err)
	}
	defer table.Close()
	table.Slice()[42] = 1
	placement, err := table.Placement()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.0f %%\n", placement.Percent(node))
	// Output: 100 %
}

// A type with pointers has to stay on Go's heap.
func ExampleAlloc_pointers() {
	type user struct {
		ID   uint64
		Name string
	}
	_, err := numa.Alloc[user](1, numa.AllocOptions{})
	fmt.Println(err)
	// Output: allocate: type numa_test.user has a pointer in Name (string): memory outside of Go's heap holds types without pointers only
}
