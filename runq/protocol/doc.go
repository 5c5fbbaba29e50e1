// Package protocol is the replicated run queue as a pure state machine: events
// in, effects out, no clock, no goroutine, no randomness, no I/O.
//
// Each core has a queue, and each queue a log. One core at a time owns a log and
// alone appends to it, under an epoch; it copies every record and payload into
// the regions of k failure domains by plain stores and then publishes it with a
// compare-and-swap on each region's commit word {epoch, sealed, tail}. Nothing
// is acknowledged before the last of the in-sync regions has it. Whoever takes a
// log over raises the epoch in the arbiter word, seals the regions, and finds in
// any one of them all that was ever acknowledged; the earlier owner's next
// publish fails. Leases say when a neighbour acts, never whether it is safe.
//
// A [Node] is one worker process. An executor feeds it [Event] values with
// [Node.Step] and performs the [Effect] values that come back, in order, one
// store or one compare-and-swap at a time. The simulator and the explorer in
// sim execute the same code between faults.
//
// The shape is primary-backup with a configuration register (Lamport, Malkhi and
// Zhou, Vertical Paxos and Primary-Backup Replication, PODC 2009); one-sided
// writes to passive replicas are Mu's (Aguilera et al., OSDI 2020); identities
// that are dropped only when every replica has seen them are the dots and causal
// stability of observed-remove sets; asking for the outcome of an operation that
// was cut off is detectability (Friedman et al., 2018).
//
// It does not help against a core that computes wrongly: a record that was wrong
// before its checksum was taken is replicated faithfully. It does not make the
// effects of a task's body happen once: a core that stops between the body and
// the record of it leaves one fact that nobody can know. And it does not outlive
// the machine.
package protocol
