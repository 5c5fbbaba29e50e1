package replicated_test

import (
	"context"
	"fmt"
	"maps"

	"github.com/coreplica/coreplica/numa/replicated"
)

// ledger is two balances' worth of structure: a transfer changes both as one
// operation, which a map of its own cannot do.
type ledger struct{ balance map[string]int }

type transfer struct {
	from, to string
	amount   int
}

// Apply implements replicated.Sequential.
func (l *ledger) Apply(t transfer) bool {
	if l.balance[t.from] < t.amount {
		return false
	}
	l.balance[t.from] -= t.amount
	l.balance[t.to] += t.amount
	return true
}

// Clone lets replicas be rebuilt.
func (l *ledger) Clone() *ledger { return &ledger{maps.Clone(l.balance)} }

// Any sequential structure becomes local to each node.
func ExampleNew() {
	accounts, err := replicated.New(func() *ledger {
		return &ledger{map[string]int{"ann": 10}}
	}, replicated.Options{Topology: replicated.Simulated(2, 2)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer accounts.Close()

	for _, amount := range []int{7, 7} {
		done, err := accounts.Write(context.Background(), transfer{"ann", "bob", amount})
		fmt.Println(done, err)
	}
	err = accounts.View(func(l *ledger) {
		fmt.Println(l.balance["ann"], l.balance["bob"])
	})
	fmt.Println(err)
	// Output:
	// true <nil>
	// false <nil>
	// 3 7
	// <nil>
}

// A goroutine that reads often takes a handle: it need not find out each time
// where it runs, and its stale reads never go back in time.
func ExampleHandle() {
	x, err := replicated.New(func() *ledger { return &ledger{map[string]int{"ann": 10}} }, replicated.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer x.Close()
	h := x.Handle()
	var balance int
	if err := h.ReadStale(100, func(l *ledger) { balance = l.balance["ann"] }); err != nil {
		fmt.Println(err)
	}
	fmt.Println(balance)
	// Output: 10
}

// The ready-made map has the methods of sync.Map.
func ExampleMap() {
	limits, err := replicated.NewMap[uint32, uint64](replicated.Options{Topology: replicated.Simulated(2, 2)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()
	limits.Store(7, 100)
	limits.CompareAndSwap(7, 100, 200)
	fmt.Println(limits.Load(7))
	for key, value := range limits.All() {
		fmt.Println(key, value)
	}
	// Output:
	// 200 true
	// 7 200
}
