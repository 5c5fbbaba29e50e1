// Package sim runs the protocol of the run queue where everything that can go
// wrong does, and checks after every single effect that nothing was broken.
//
// A world holds the shared memory, the control page and one process a core. The
// simulator chooses from a seed what happens next: an effect, an event, a
// message that is lost, repeated or overtaken, a crash that takes a failure
// domain's regions along, a pause longer than a lease, a store that lands late.
// The explorer chooses everything, and remembers the states that it has been in.
// Both execute [protocol.Node.Step] and nothing like it.
//
// What is checked comes from journals of submitters and handlers and from the
// shared memory, not from what a node thinks. The invariants are numbered I1 to
// I9 as in docs/runq.md; see the checker's methods.
//
// The ideas come from FoundationDB's and TigerBeetle's simulators (seeds that
// replay, faults between steps, coverage that is counted) and from Spin
// (Holzmann, The Model Checker SPIN, 1997: hashed states, fused local steps).
// What the explorer leaves out, and why its reductions may, is said at
// [ExploreOptions] and at its unexported settle and local.
//
// A simulation shows the presence of mistakes, not their absence, and its world
// is sequentially consistent: what a weakly ordered machine adds is for the
// executor's own tests.
package sim
