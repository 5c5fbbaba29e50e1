package main

import (
	"errors"
	"sync"

	"github.com/alitto/pond/v2"
	"github.com/panjf2000/ants/v2"

	"github.com/coreplica/coreplica/runq/bench"
)

// contenders returns coreplica's and the peers'.
func contenders() []bench.Contender {
	return append(bench.Contenders(),
		bench.Contender{Name: "mutex-deque", Mode: "cycle", K: 1, Workers: 1, New: newDeque},
		bench.Contender{Name: "chase-lev", Mode: "cycle", K: 1, Workers: 1, New: newChaseLev},
		bench.Contender{Name: "ants", Mode: "threads", K: 1, Workers: 2, New: newAnts},
		bench.Contender{Name: "pond", Mode: "threads", K: 1, Workers: 2, New: newPond},
	)
}

// sink keeps the compiler from leaving out that a payload is read.
var sink byte

var errFull = errors.New("the queue is full although a batch fits")

func newDeque() (bench.Instance, error) {
	q := &deque{}
	var next uint64
	return bench.Instance{Run: func(n int) error {
		for ; n > 0; n -= bench.Batch {
			for range bench.Batch {
				next++
				if !q.push(task{id: next}) {
					return errFull
				}
			}
			for range bench.Batch {
				t, _ := q.pop()
				sink ^= t.payload[0]
			}
		}
		return nil
	}}, nil
}

func newChaseLev() (bench.Instance, error) {
	q := &chaseLev{}
	var next uint64
	// The tasks live in an array of their own, as in a program that pools them.
	tasks := make([]task, bench.Batch)
	return bench.Instance{Run: func(n int) error {
		for ; n > 0; n -= bench.Batch {
			for i := range tasks {
				next++
				tasks[i] = task{id: next}
				if !q.push(&tasks[i]) {
					return errFull
				}
			}
			for range bench.Batch {
				sink ^= q.pop().payload[0]
			}
		}
		return nil
	}}, nil
}

// The pools take closures: a task carries its payload in one.
func closure(wg *sync.WaitGroup, id uint64) func() {
	t := task{id: id}
	return func() {
		if t.payload[0] != 0 {
			panic("the payload changed")
		}
		wg.Done()
	}
}

// pooled takes batches of closures through a pool's own way of submitting.
func pooled(submit func(func()) error) func(int) error {
	var next uint64
	return func(n int) error {
		for ; n > 0; n -= bench.Batch {
			var wg sync.WaitGroup
			wg.Add(bench.Batch)
			for range bench.Batch {
				next++
				if err := submit(closure(&wg, next)); err != nil {
					return err
				}
			}
			wg.Wait()
		}
		return nil
	}
}

func newAnts() (bench.Instance, error) {
	pool, err := ants.NewPool(2)
	if err != nil {
		return bench.Instance{}, err
	}
	return bench.Instance{Run: pooled(pool.Submit), Close: func() error { pool.Release(); return nil }}, nil
}

func newPond() (bench.Instance, error) {
	pool := pond.NewPool(2)
	return bench.Instance{Run: pooled(pool.Go), Close: func() error { pool.StopAndWait(); return nil }}, nil
}
