// Command runq takes tasks through the replicated run queue and its peers, side by
// side and in turn: a buffered channel, a deque under a mutex, a Chase-Lev
// work-stealing ring, and the pools ants and pond.
//
//	go run ./runq
//	go run ./runq -impl chase-lev,ants -rounds 20 -o json
//
// The peers keep one copy of what is queued, in the memory of one process, and
// none of what a worker has taken: when that process dies, all of it is gone. So
// the run queue with one copy is the fair comparison, and the ratio of two copies
// to one is what survival costs.
package main
