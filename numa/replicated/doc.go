// Package replicated makes any deterministic sequential structure local to
// every node of a machine: one replica per node, kept equal by a shared log of
// operations.
//
// It is node replication, after Calciu, Sen, Balakrishnan and Aguilera,
// Black-box Concurrent Data Structures for NUMA Architectures, ASPLOS 2017, and
// its implementations in NrOS (Bhardwaj et al., OSDI 2021) and
// vmware/node-replication. A write becomes an entry of the log and is applied
// by every replica in the log's order. A read runs on the replica of its own
// node, under an indicator of its own 128-byte slot, and moves no cache line
// between nodes while nobody writes.
//
// Where this package departs from those implementations:
//
//   - No stalled thread blocks another for longer than [Options.DetachAfter].
//     The compare-and-swap that reserves the place in the log publishes the
//     whole batch, so anybody can fill the entry, apply it and answer for it.
//     A replica that nobody works on is helped by the writers that wait for
//     it. One that is held by a stopped thread is detached, its node is served
//     by another replica, and a new one is cloned from a peer.
//   - Each operation is tried on one replica first. If it panics, that replica
//     alone is lost, and a second replica tries on a clone; only if that panics
//     too is the panic the operation's own error.
//   - Replicas come and go while the structure is in use.
//   - With one replica the log is bypassed: what remains is a reader-writer lock
//     with padded reader slots.
//
// [New] replicates a structure that you bring: a type with a method Apply that
// changes it, and any methods that read it. [Map], [Set], [Counter], [Slice] and
// [OrderedMap] are ready made.
//
// # What the structure must keep to
//
// Apply must be deterministic: the same operations in the same order give the
// same state and results on each replica. No clock, no random numbers, no order
// of map iteration, no identity of pointers. An operation is shared by all
// replicas, so nothing may change what it points to. A function that reads must
// not write to the structure, keep it after it returned, or call back into the
// same [Replicated]. [Replicated.Verify] finds replicas that differ, where the
// structure implements [Hasher].
//
// # When not to use it
//
// It costs as many copies as there are nodes, in memory and in the work of each
// write. It does not pay
//
//   - on one socket, or where the structure fits in the cache that all threads
//     share: there, a [sync.RWMutex] around the structure does as well;
//   - above about one write in ten operations: each write runs on every
//     replica, one after the other on each, so writes do not scale at all;
//   - for a plain key-value map: github.com/puzpuzpuz/xsync is faster until
//     several sockets share it. This package is for structures that have no
//     good concurrent form: trees, caches, queues, several maps changed as one.
//
// Go's heap does not know nodes. A replica is built by a thread on its node, so
// that first touch places it there, but later allocations are placed by
// whichever thread makes them, and spans are reused. Placement is an effort, not
// a promise, and [Replicated.Placement] tells what came of it. Maps, sets and
// counters of words lie outside of the heap, wholly on their nodes. Entries of the log stay reachable for up to one lap of the ring
// after all replicas applied them, with what their operations point to.
package replicated
