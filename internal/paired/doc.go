// Package paired compares the times of alternatives on a machine that is not
// quiet: they run in short blocks, each round all of them in a new order, so that
// whatever slows the machine down slows all of them, and what counts is the ratio
// of two blocks of one round.
//
// The interval of a ratio consists of order statistics, which hold the median with
// 95 percent whatever the distribution is (Conover, Practical Nonparametric
// Statistics, section 3.2). It says nothing about a difference between two runs of
// the program: memory may lie luckier in one of them.
package paired
