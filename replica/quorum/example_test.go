package quorum_test

import (
	"fmt"

	"github.com/coreplica/coreplica/replica/quorum"
)

// While members change, a decision needs the old group and the new one.
func ExampleJoint() {
	change := quorum.Joint(quorum.Majority(quorum.SetOf(0, 1, 2)), quorum.Majority(quorum.SetOf(2, 3, 4)))
	fmt.Println(change.Reached(quorum.SetOf(0, 1, 2)))
	fmt.Println(change.Reached(quorum.SetOf(1, 2, 3)))
	// Output:
	// false
	// true
}
