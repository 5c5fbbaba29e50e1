package mirrorcost

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreplica/coreplica/bpf"
	"github.com/coreplica/coreplica/mirrorcost/mirror"
)

// ErrUsage means that a plan contradicts itself or asks for what cannot be. The
// machine was not touched.
var ErrUsage = errors.New("bad usage")

// Plan says what to compare and how. It is plain data; [DefaultPlan] is a useful
// one.
type Plan struct {
	// Baseline and Mirror are names of [mirror.Kinds].
	Baseline string
	Mirror   string
	// Legs is the number of files that the kinds "files" and "uring" write.
	Legs int

	// SizeBytes of a write, a multiple of 512.
	SizeBytes int
	// Count is the number of writes of each leg in each pass; 0 lets
	// Duration decide.
	Count uint64
	// Duration of the ledger pass, both legs together, unless Count is set.
	// The sampled pass takes two fifths of it.
	Duration time.Duration
	// Mode is "direct", "buffered" or "dsync".
	Mode string
	// FsyncEvery calls fdatasync after so many writes of a thread; 0 never.
	FsyncEvery int
	// Pattern is "seq" or "rand".
	Pattern string
	Seed    uint64
	Threads int
	CPUs    []int
	// RatePerSecond over all threads; 0 takes half of what the slower leg
	// can do. Saturate writes as fast as possible instead.
	RatePerSecond float64
	Saturate      bool
	// Batch is the number of writes a system call of the kind "uring".
	Batch int
	// Csum is "off", "on" (crc32c), or the name of a checksum; empty means
	// off for direct I/O and on otherwise.
	Csum string
	// Quads of four blocks.
	Quads int
	// Spin adds a known amount of CPU time to each write of the mirror.
	Spin time.Duration

	// Substrate, Dir, Devices, Force: see [mirror.Options].
	Substrate string
	Dir       string
	Devices   []string
	Force     bool
	// DeviceBytes of each made device and FileBytes of each target file.
	DeviceBytes int64
	FileBytes   int64
	// SampleHz is how often the sampled pass takes a stack on each CPU; a
	// prime does not march in step with the kernel's tick.
	SampleHz int
	// ProbeCost measures what the probes cost the load.
	ProbeCost bool
}

// MinQuads is the number of quads below which an interval says little.
const MinQuads = 16

// Limits of a plan, each with its reason.
const (
	maxSizeBytes = 64 << 20 // beyond, a block holds too few writes to divide by
	maxThreads   = 64       // the load's table of threads
	maxQuads     = 10_000   // hours
	maxBatch     = 1024     // entries of the ring
	maxLegs      = 16       // devices that the block probe counts
	maxSampleHz  = 25_000   // beyond, the samples are most of what runs
)

// DefaultPlan compares 4 KiB O_DIRECT writes to btrfs on one loop device with
// the same on two, in about a minute.
func DefaultPlan() Plan {
	return Plan{
		Baseline:    "btrfs-single",
		Mirror:      "btrfs-raid1",
		Legs:        2,
		SizeBytes:   4096,
		Duration:    32 * time.Second,
		Mode:        "direct",
		Pattern:     "rand",
		Seed:        1,
		Threads:     1,
		Batch:       1,
		Quads:       MinQuads,
		Substrate:   "loop",
		DeviceBytes: 1 << 30,
		FileBytes:   64 << 20,
		SampleHz:    bpf.DefaultFrequency,
		ProbeCost:   true,
	}
}

// Validate returns the first thing that is wrong with a plan, as an error that
// wraps [ErrUsage] and says the fix.
func (p *Plan) Validate() error {
	for _, check := range []func() string{p.wrongKind, p.wrongLoad, p.wrongExtent, p.wrongPlace} {
		if wrong := check(); wrong != "" {
			return fmt.Errorf("%w: %s", ErrUsage, wrong)
		}
	}
	return nil
}

func (p *Plan) wrongKind() string {
	var known []string
	for _, k := range mirror.Kinds() {
		known = append(known, k.Name)
	}
	for _, name := range []string{p.Baseline, p.Mirror} {
		if !slices.Contains(known, name) {
			return fmt.Sprintf("unknown mirror %q; known are %s", name, strings.Join(known, ", "))
		}
	}
	if p.Legs < 1 || p.Legs > maxLegs {
		return fmt.Sprintf("--legs %d is not between 1 and %d", p.Legs, maxLegs)
	}
	return ""
}

func (p *Plan) wrongLoad() string {
	switch {
	case p.SizeBytes < 512 || p.SizeBytes%512 != 0 || p.SizeBytes > maxSizeBytes:
		return fmt.Sprintf("--size %d is not a multiple of 512 between 512 and %d bytes", p.SizeBytes, maxSizeBytes)
	case !slices.Contains([]string{"direct", "buffered", "dsync"}, p.Mode):
		return fmt.Sprintf("unknown --mode %q; known are direct, buffered, dsync", p.Mode)
	case !slices.Contains([]string{"seq", "rand"}, p.Pattern):
		return fmt.Sprintf("unknown --pattern %q; known are seq, rand", p.Pattern)
	case !slices.Contains([]string{"", "on", "off", "crc32c", "xxhash", "sha256", "blake2"}, p.Csum):
		return fmt.Sprintf("unknown --csum %q; known are on, off, crc32c, xxhash, sha256, blake2", p.Csum)
	case p.FsyncEvery < 0:
		return "--fsync-every must not be negative"
	case p.Threads < 1 || p.Threads > maxThreads:
		return fmt.Sprintf("--threads %d is not between 1 and %d", p.Threads, maxThreads)
	case p.Batch < 1 || p.Batch > maxBatch:
		return fmt.Sprintf("--batch %d is not between 1 and %d", p.Batch, maxBatch)
	case p.Batch > 1 && p.Baseline != "uring" && p.Mirror != "uring":
		return "--batch needs --baseline or --mirror uring; the others write once a system call"
	case p.Spin < 0 || p.Spin > time.Second:
		return "--spin is not between 0 and 1s"
	case p.RatePerSecond < 0:
		return "--rate must not be negative"
	}
	return ""
}

func (p *Plan) wrongExtent() string {
	switch {
	case p.Quads < 1 || p.Quads > maxQuads:
		return fmt.Sprintf("--quads %d is not between 1 and %d", p.Quads, maxQuads)
	case p.SampleHz < 1 || p.SampleHz > maxSampleHz:
		return fmt.Sprintf("--sample-hz %d is not between 1 and %d", p.SampleHz, maxSampleHz)
	case p.Count == 0 && p.Duration <= 0:
		return "zero writes: give --count or --duration"
	case p.Count > 0 && p.Count < uint64(2*p.Quads):
		return fmt.Sprintf("--count %d does not fill the %d blocks of a leg; lower --quads", p.Count, 2*p.Quads)
	case p.Count == 0 && p.Duration < time.Duration(p.Quads)*4*minBlock:
		return fmt.Sprintf("--duration %s leaves less than %s for each of %d blocks; lower --quads", p.Duration, minBlock, 4*p.Quads)
	case p.FileBytes < int64(p.SizeBytes):
		return fmt.Sprintf("--file-size %d is smaller than one write of %d bytes", p.FileBytes, p.SizeBytes)
	}
	return ""
}

func (p *Plan) wrongPlace() string {
	switch {
	case !slices.Contains([]string{"loop", "loop-dio", "zram", "devices"}, p.Substrate):
		return fmt.Sprintf("unknown --substrate %q; known are loop, loop-dio, zram, devices", p.Substrate)
	case p.Substrate == "loop-dio" && p.Dir == "":
		return "--substrate loop-dio needs --dir"
	case p.Substrate == "devices" && len(p.Devices) == 0:
		return "--substrate devices needs --devices"
	}
	return ""
}

// minBlock is the shortest block that is not mostly its own beginning and end.
const minBlock = 20 * time.Millisecond

// csum resolves Csum to the name of a checksum, or "" for none.
func (p *Plan) csum() string {
	switch p.Csum {
	case "off":
		return ""
	case "on":
		return "crc32c"
	case "":
		if p.Mode == "direct" {
			return ""
		}
		return "crc32c"
	}
	return p.Csum
}

// quota returns how many of the writes of a leg the i-th of its n blocks does,
// so that the blocks add up to total and differ by one at most.
func quota(total uint64, i, n int) uint64 {
	share := total / uint64(n)
	if uint64(i) < total%uint64(n) {
		share++
	}
	return share
}
