package load

import (
	"fmt"
	"time"

	"github.com/coreplica/coreplica/mirrorcost/internal/uring"
)

// Spec says how to write to one leg.
type Spec struct {
	// Targets has one entry a thread, each with the files that every write
	// goes to. The files must exist.
	Targets [][]string `json:"targets"`
	// FileBytes is the size of each target; writes stay inside it.
	FileBytes int64 `json:"file_bytes"`
	SizeBytes int   `json:"size_bytes"`
	// Mode is "direct", "buffered" or "dsync". The last is buffered too, and
	// opened with O_DSYNC: each write is durable when it is acknowledged.
	Mode string `json:"mode"`
	// FsyncEvery calls fdatasync after so many writes of a thread; 0 never.
	// The write that it follows is acknowledged after it.
	FsyncEvery int `json:"fsync_every"`
	// Pattern is "seq" or "rand"; Seed makes "rand" repeatable. Both go on
	// where the leg's last block ended.
	Pattern string `json:"pattern"`
	Seed    uint64 `json:"seed"`
	// CPUs that the threads may use, thread i on CPUs[i % len]; empty leaves
	// the placement to the kernel.
	CPUs []int `json:"cpus"`
	// Uring writes through io_uring, Batch writes a system call.
	Uring bool `json:"uring"`
	Batch int  `json:"batch"`
	// SpinIterations of a fixed loop follow each write: a known cost. See
	// [CalibrateSpin].
	SpinIterations uint64 `json:"spin_iterations"`
}

// Block asks for writes on one leg.
type Block struct {
	Leg string `json:"leg"`
	// Writes to acknowledge in all threads together.
	Writes uint64 `json:"writes"`
	// For ends the block after that time even if Writes is not reached; 0
	// means no limit. With Writes 0 only time counts.
	For time.Duration `json:"for"`
	// RatePerSecond over all threads; 0 is as fast as possible.
	RatePerSecond float64 `json:"rate_per_second"`
}

// Result is what a block did.
type Result struct {
	// Acknowledged writes: each reached every one of its files whole.
	Acknowledged uint64 `json:"acknowledged"`
	// Bytes acknowledged, each counted once however many files it went to.
	Bytes uint64 `json:"bytes"`
	// Elapsed is from the first write's start to the last one's end.
	Elapsed time.Duration `json:"elapsed"`
	// ThreadCPUNs is what the writer threads' own CPU clocks
	// (CLOCK_THREAD_CPUTIME_ID) say, read when a thread begins the block
	// and when it ends it. The spin is in it.
	ThreadCPUNs uint64 `json:"thread_cpu_ns"`
	// Spin is the median cost of a write's spin by the same clock; one in
	// seven is timed. What a fixed loop costs depends on what the other half
	// of its processor does meanwhile, so it is measured where it runs. The
	// median leaves out the spins that an interrupt hit, which that clock
	// bills to the thread; SpinMean, their mean, holds them.
	Spin     time.Duration `json:"spin"`
	SpinMean time.Duration `json:"spin_mean"`
	// Late counts the writes of a block with a rate whose turn came while
	// their thread was still busy with an earlier one.
	Late uint64 `json:"late"`
	// Latencies is a compressed HDR histogram of nanoseconds, in base64 V2
	// encoding; see [DecodeLatencies]. It is the time from the write's start
	// until all of its files had it, without the spin; in a batch, from the
	// batch's submission to its completion.
	Latencies []byte `json:"latencies"`
}

// The modes and patterns of a [Spec].
const (
	ModeDirect   = "direct"
	ModeBuffered = "buffered"
	ModeDsync    = "dsync"

	PatternSeq  = "seq"
	PatternRand = "rand"
)

// The limits of a [Spec]. They are far above any sensible load and keep a slip
// of the pen from taking all memory.
const (
	// MaxThreads in a leg.
	MaxThreads = 1024
	// MaxSizeBytes of one write; the kernel writes at most 2 GiB at once.
	MaxSizeBytes = 1 << 30
	// MinSizeBytes holds the stamp that makes each write differ.
	MinSizeBytes = stampBytes
	// MaxBufferBytes of one thread on one leg: Batch writes.
	MaxBufferBytes = 1 << 30
	// directAlign is the smallest block of any device. One with larger
	// blocks refuses smaller writes itself.
	directAlign = 512
)

// batch is the number of writes of one system call.
func (s *Spec) batch() int {
	if s.Uring {
		return max(s.Batch, 1)
	}
	return 1
}

// slots is the number of places in a file that a write may go to.
func (s *Spec) slots() uint64 { return uint64(s.FileBytes) / uint64(s.SizeBytes) }

// check says what is wrong with a spec, and what would be right.
func (s *Spec) check() error {
	switch {
	case len(s.Targets) == 0 || len(s.Targets) > MaxThreads:
		return fmt.Errorf("%d threads: give 1 to %d entries in Targets", len(s.Targets), MaxThreads)
	case s.SizeBytes < MinSizeBytes || s.SizeBytes > MaxSizeBytes:
		return fmt.Errorf("writes of %d bytes: the size must be between %d and %d", s.SizeBytes, MinSizeBytes, MaxSizeBytes)
	case s.FileBytes < int64(s.SizeBytes):
		return fmt.Errorf("files of %d bytes: one write of %d does not fit", s.FileBytes, s.SizeBytes)
	case s.Mode != ModeDirect && s.Mode != ModeBuffered && s.Mode != ModeDsync:
		return fmt.Errorf("mode %q: want %q, %q or %q", s.Mode, ModeDirect, ModeBuffered, ModeDsync)
	case s.Mode == ModeDirect && s.SizeBytes%directAlign != 0:
		return fmt.Errorf("direct writes of %d bytes: the size must be a multiple of %d", s.SizeBytes, directAlign)
	case s.Pattern != PatternSeq && s.Pattern != PatternRand:
		return fmt.Errorf("pattern %q: want %q or %q", s.Pattern, PatternSeq, PatternRand)
	case s.FsyncEvery < 0:
		return fmt.Errorf("fdatasync after every %d writes: give 0 for never, or more", s.FsyncEvery)
	case s.Batch < 0 || s.Batch > uring.MaxEntries:
		return fmt.Errorf("a batch of %d: want 1 to %d", s.Batch, uring.MaxEntries)
	case s.batch()*s.SizeBytes > MaxBufferBytes:
		return fmt.Errorf("a batch of %d writes of %d bytes: it must fit into %d bytes", s.Batch, s.SizeBytes, MaxBufferBytes)
	}
	for i, files := range s.Targets {
		if len(files) == 0 {
			return fmt.Errorf("thread %d has no file to write to", i)
		}
		if s.Uring && len(files)*s.batch() > uring.MaxEntries {
			return fmt.Errorf("a batch of %d for %d files: the product must be at most %d", s.batch(), len(files), uring.MaxEntries)
		}
	}
	for _, cpu := range s.CPUs {
		if cpu < 0 || cpu >= maxCPUs {
			return fmt.Errorf("CPU %d: want 0 to %d", cpu, maxCPUs-1)
		}
	}
	return nil
}

// check says what is wrong with a block, and what would be right.
func (b *Block) check() error {
	switch {
	case b.Writes == 0 && b.For == 0:
		return fmt.Errorf("the block has no end: give Writes, For or both")
	case b.For < 0:
		return fmt.Errorf("a block of %v: time does not run backwards", b.For)
	case b.RatePerSecond != 0 && !(b.RatePerSecond >= minRate && b.RatePerSecond <= maxRate):
		return fmt.Errorf("a rate of %g writes per second: want 0 for no limit, or %g to %g", b.RatePerSecond, minRate, maxRate)
	}
	return nil
}

// The rates that a deadline in nanoseconds can hold.
const (
	minRate = 1e-3
	maxRate = 1e9
)

// maxCPUs is what a unix.CPUSet holds.
const maxCPUs = 1024
