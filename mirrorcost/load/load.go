package load

import "time"

// Spec says how to write to one leg.
type Spec struct {
	// Targets has one entry a thread, each with the files that every write
	// goes to.
	Targets [][]string `json:"targets"`
	// FileBytes is the size of each target; writes stay inside it.
	FileBytes int64 `json:"file_bytes"`
	SizeBytes int   `json:"size_bytes"`
	// Mode is "direct", "buffered" or "dsync".
	Mode string `json:"mode"`
	// FsyncEvery calls fdatasync after so many writes of a thread; 0 never.
	FsyncEvery int `json:"fsync_every"`
	// Pattern is "seq" or "rand"; Seed makes "rand" repeatable.
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
	Acknowledged uint64        `json:"acknowledged"`
	Bytes        uint64        `json:"bytes"`
	Elapsed      time.Duration `json:"elapsed"`
	// UserNs and Spin are the threads' own CPU clocks' view.
	ThreadCPUNs uint64 `json:"thread_cpu_ns"`
	// Latencies is a compressed HDR histogram of nanoseconds, in base64 V2
	// encoding; see [DecodeLatencies].
	Latencies []byte `json:"latencies"`
}
