// Package repo holds the rules of this repository, and a test that the
// repository keeps them.
//
// A rule is a function from a tree of files to the places that break it. Given
// a small tree that breaks it, each rule must find just that: a rule that
// cannot fail guards nothing. The idea of rules as an ordinary test comes from
// cockroachdb/pebble's internal/lint and tigerbeetle's src/tidy.zig.
//
// The rules read text and syntax, not types. They do not help against a method
// that is exported through an unexported type's alias, or an import that a
// build tag of another system hides from the go command but not from them.
package repo
