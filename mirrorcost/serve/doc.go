// Package serve shows a report of mirrorcost in a browser: the verdict, the
// stages of both legs with their intervals, flame graphs of the legs and of
// their difference, latencies, and the ledger that the figures come from.
//
// [WriteHTML] writes it as one file that needs nothing else and opens without a
// server; [ListenAndServe] serves the same page with the report's other forms
// beside it. The page loads nothing from anywhere and says so to the browser in
// a content security policy. The server listens on loopback unless told
// otherwise, and answers only to names that are its own, so that a foreign page
// cannot read a report by rebinding a name of its own to this address.
//
// The flame graph is an icicle after Brendan Gregg's (The Flame Graph, CACM 59,
// 2016) and its difference view after his red/blue differential flame graphs,
// with one change: a frame whose difference is within the error of sampling is
// grey.
//
// It does not help where many people should look at many runs: there is no
// log-in, no encryption and no list of runs. Put the file on a web server
// instead.
package serve
