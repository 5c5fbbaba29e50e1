// Package draw makes the random decisions of the lab: pure functions of a seed
// and of what the decision is about.
//
// A generator with a state gives its n-th number to whoever asks n-th, so two
// goroutines that swap places change every decision after them. Here a decision
// is named by keys, e.g. a link, the number of a frame and a kind of fault, and
// [Bits] hashes seed and keys. Who asks, when and how often changes nothing.
//
// The mixing function is the finalizer of SplitMix64 (Steele, Lea and Flood,
// Fast Splittable Pseudorandom Number Generators, OOPSLA 2014); text becomes a
// key by FNV-1a.
//
// It does not help where somebody may want to guess the decisions: the hash is
// fast and well spread, and no cipher.
package draw
