// Command numa runs replicated structures against their peers, side by side and
// in turn: xsync's map and its reader-biased mutex, tidwall's B-tree, the standard
// library's maps and locks, and the bare structures.
//
//	go run ./numa -blocks 10 -length 30ms
//	go run ./numa -structure hashmap -keys 1000 -write 0,10 -threads 2 -o json
//
// Rows are structure, load and implementation; each gives wall nanoseconds per
// operation of all threads together, the ratio to an RWMutex around the same
// structure with its interval, and the cost over the bare structure.
//
// The figures hold for the machine that made them. On one socket they say what
// replication costs, and nothing about what it gains on two.
package main
