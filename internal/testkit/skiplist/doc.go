// Command skiplist closes a test run: it reads the events of one or several
// `go test -json` runs from standard input, prints go test's ordinary lines as
// they come, and at the end the list of skips with their reasons and a count.
//
// It exits with 1 when a test, a build or a phase failed, when a test was
// skipped without a typed reason, or when no test ran at all.
//
// It does not start tests itself and knows nothing of packages: the Makefile
// says which run, and how.
package main
