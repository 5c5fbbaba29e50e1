package faults_test

import (
	"fmt"

	"github.com/coreplica/coreplica/internal/lab/vswitch/faults"
)

// A seed and the number of a frame settle what becomes of it.
func ExampleLink_Decide() {
	rules, err := faults.Parse("drop 20%; delay 10ms±3ms; partition a,b|c")
	if err != nil {
		fmt.Println(err)
		return
	}
	link := faults.NewLink(1, "a", "b")
	for range 4 {
		fmt.Println("a to b:", link.Decide(rules.For("a", "b")))
	}
	fmt.Println("a to c:", faults.NewLink(1, "a", "c").Decide(rules.For("a", "c")))
	// Output:
	// a to b: 0 delay 7.38488ms
	// a to b: 1 delay 10.570221ms
	// a to b: 2 delay 11.042472ms
	// a to b: 3 delay 10.139423ms
	// a to c: 0 cut
}
