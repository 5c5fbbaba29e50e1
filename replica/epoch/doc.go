// Package epoch orders operations whose writer may change: by epoch, then by
// sequence number, then by node.
//
// An epoch is the reign of one writer. Whoever takes a log over raises the
// epoch, so what an earlier writer did late sorts below, and a sequence number
// needs to be unique within one reign only. The pair is Lamport's ballot number
// (The Part-Time Parliament, 1998) and Raft's term and index; the node breaks
// ties between writers that never agreed on an epoch, as in Lamport's clocks.
//
// A [Stamp] orders; it does not prove. That two writers never share an epoch is
// for the protocol to see to, by a compare-and-swap or a quorum.
package epoch
