// Package report holds what a mirrorcost run found and says it in every form
// that somebody may want to read: a table, JSON, CSV, folded stacks, a pprof
// profile and benchmark lines for benchstat. Package serve adds a page.
//
// A [Report] is plain data: it is written by package mirrorcost, and everything
// in here is a pure function of it, but for [Save] and [Open], which keep a run
// in a folder and read it back. The JSON form is versioned by [Schema]; fields
// are added, never renamed, within one version.
//
// Measured, counted and modelled figures stay apart. Nanoseconds come from the
// ledger, which sets every total; bios, flushes and writes are counted; samples
// only split a ledger context into stages.
//
// The folded form is Brendan Gregg's (FlameGraph, stackcollapse.pl), the profile
// is google/pprof's profile.proto, and the benchmark lines follow the Go project's
// benchmark data format (golang.org/x/perf/benchfmt).
//
// It does not help to compare two runs: intervals of different runs were not
// interleaved, so only benchstat over several of them may say that they differ.
// And the differences between stages carry no interval of their own, since a
// report keeps the legs' intervals but not the quads that they stand on.
package report
