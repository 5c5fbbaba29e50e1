// Package report holds what a mirrorcost run found and says it in every form
// that somebody may want to read: a table, JSON, CSV, folded stacks, a pprof
// profile, benchmark lines for benchstat, and one HTML page that works offline.
//
// A [Report] is plain data: it is written by package mirrorcost, and everything
// in here is a pure function of it. The JSON form is versioned by [Schema];
// fields are added, never renamed, within one version.
//
// Measured, counted and modelled figures stay apart. Nanoseconds come from the
// ledger, which sets every total; bios, flushes and writes are counted; samples
// only split a ledger context into stages.
package report
