package replicated

import "unsafe"

// step names a place in the protocol at which a thread may be stopped, by a
// test or by the machine.
type step int

const (
	stepPublished step = iota // the request is in a write slot
	stepLocked                // the replica's lock is taken
	stepCollected             // the batch is linked, and in no log
	stepReserved              // the tail names the batch
	stepFilled                // the ring holds it
	stepShut                  // readers are kept out
	stepDrained               // no reader is left inside
	stepClaimed               // this replica is the canary
	stepTried                 // the operation was applied, without a verdict
	stepDecided               // the verdict is out
	stepCaughtUp              // the replica has applied everything, and says so
	stepCompleted             // the completed tail has advanced
	stepOpened                // readers may come in
	stepUnlocked              // the lock is free
	stepSawTail               // a reader has loaded the completed tail
	stepEntered               // a reader has taken its slot
	stepInside                // a reader found the gate open
	stepPeeked                // a reader without a slot found the gate open, and has read nothing
	stepCloned                // a replica is cloned for this node, and not attached
	steps
)

var stepNames = [steps]string{"published", "locked", "collected", "reserved", "filled", "shut", "drained", "claimed",
	"tried", "decided", "caught up", "completed", "opened", "unlocked", "saw tail", "entered", "inside", "peeked", "cloned"}

func (s step) String() string { return stepNames[s] }

// guard names a safety measure that a test switches off, to show that its
// checks would notice.
type guard int

const (
	guardCompletedTail guard = 1 << iota // readers enter after the completed tail has advanced
	guardReaderSlot                      // a combiner waits for readers
	guardRoom                            // an entry is reused after all replicas applied it
	guardTailCheck                       // a read catches up with the completed tail
	guardStands                          // a read without a slot counts if the replica was not changed meanwhile
	guardDuplicates                      // a request that is in the log twice runs once
)

// probe is what a test puts into a structure. Without one, a step costs a
// comparison with nil.
type probe struct {
	// at is called by the thread that reaches a step, with the replica's node.
	at func(s step, node int)
	// off are the guards that are switched off.
	off guard
	// touch is told of each access to a line that nodes share, with the node
	// of the thread.
	touch func(node int, at unsafe.Pointer, write bool)
}

func (x *Replicated[S, Op, Res]) at(s step, node int) {
	if x.probe != nil && x.probe.at != nil {
		x.probe.at(s, node)
	}
}

func (x *Replicated[S, Op, Res]) guarded(g guard) bool {
	return x.probe == nil || x.probe.off&g == 0
}

func (x *Replicated[S, Op, Res]) touch(node int, at unsafe.Pointer, write bool) {
	if x.probe != nil && x.probe.touch != nil {
		x.probe.touch(node, at, write)
	}
}
