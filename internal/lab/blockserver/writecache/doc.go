// Package writecache is a model of a disk's volatile write cache: what is
// durable, what is volatile, and what a loss of power leaves.
//
// A disk acknowledges a write when it is in the cache. It owes durability only
// after a flush, or for a write with forced unit access. Until then each sector
// is written to the medium at any time, or never. So when the power fails, a
// sector that was written k times since it was last durable holds what it held
// then or what any one of the k writes left, and each sector decides for itself:
// a write of many sectors can be torn. That is the contract that file systems
// and databases are written against (the cache of SCSI Block
// Commands, SBC-3; Zheng and others, Understanding the Robustness of SSDs under
// Power Fault, FAST 2013). Within a
// sector a write is whole.
//
// The [Cache] is pure: no clock, no goroutine, no I/O. It returns the sectors that
// its caller must store, and takes it as done when the caller says
// [Cache.Stored]. What a power cut leaves is a pure function of the seed, the
// number of the cut, the sector and how often it was written.
//
// It does not model disks that break the contract: no bit rot, no sector that
// reads as an error, no flush that lies.
package writecache
