package main

import (
	"bytes"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coreplica/coreplica/runq/bench"
)

// Each contender must take tasks through, or its speed says nothing.
func TestContendersRun(t *testing.T) {
	for _, c := range contenders() {
		inst, err := c.New()
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		if err := inst.Run(4 * bench.Batch); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if inst.Close != nil {
			if err := inst.Close(); err != nil {
				t.Errorf("%s: %v", c.Name, err)
			}
		}
	}
}

// The ring must hand out each task once, to its owner or to a thief.
func TestChaseLevUnderThieves(t *testing.T) {
	const tasks, thieves = 20_011, 3
	q := &chaseLev{}
	all := make([]task, tasks)
	taken := make([]atomic.Int32, tasks)
	var left atomic.Int64
	left.Store(tasks)
	take := func(got *task) {
		if got != nil {
			taken[got.id].Add(1)
			left.Add(-1)
		}
	}
	var wg sync.WaitGroup
	for range thieves {
		wg.Go(func() {
			for left.Load() > 0 {
				take(q.steal())
			}
		})
	}
	for i := range all {
		all[i].id = uint64(i)
		for !q.push(&all[i]) {
			take(q.pop())
		}
		if i%3 == 0 {
			take(q.pop())
		}
	}
	for left.Load() > 0 {
		take(q.pop())
	}
	wg.Wait()
	for i := range taken {
		if n := taken[i].Load(); n != 1 {
			t.Fatalf("task %d was taken %d times", i, n)
		}
	}
}

func TestDequeKeepsOrder(t *testing.T) {
	q := &deque{}
	for i := range uint64(ringSize) {
		if !q.push(task{id: i}) {
			t.Fatalf("full after %d", i)
		}
	}
	if q.push(task{}) {
		t.Error("took more than it holds")
	}
	for i := range uint64(ringSize) {
		if got, ok := q.pop(); !ok || got.id != i {
			t.Fatalf("took %d, %v instead of %d", got.id, ok, i)
		}
	}
	if _, ok := q.pop(); ok {
		t.Error("took from nothing")
	}
}

func TestOutputs(t *testing.T) {
	args := []string{"-impl", "chase-lev,mutex-deque", "-rounds", "2", "-length", "1ms", "-o", "json"}
	var out, log bytes.Buffer
	if err := run(args, &out, &log); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 3 {
		t.Errorf("%d lines:\n%s", lines, out.String())
	}
	for _, bad := range [][]string{{"-o", "xml"}, {"-impl", "rope"}, {"-x"}} {
		if err := run(bad, &bytes.Buffer{}, &bytes.Buffer{}); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}
