// Package trial is where trials of the run queue reach into it: hooks that look on
// or put a fault in, and ways to do to a queue what a failing machine does. In
// production all hooks are nil, and nothing calls the rest.
//
// Hooks are set before a queue is opened or, in worker processes, before they
// start, and not changed afterwards.
package trial
