package testkit

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Feature is something that a test may need from the machine.
type Feature string

// The features. [Missing] knows how to look for each.
const (
	Root      Feature = "root"      // effective user 0
	BTF       Feature = "btf"       // the kernel describes its types
	BPF       Feature = "bpf"       // raw tracepoints load and attach
	Tracefs   Feature = "tracefs"   // mounted, or can be
	BPFFS     Feature = "bpffs"     // mounted, or can be
	Kprobes   Feature = "kprobes"   // a kprobe attaches
	Fentry    Feature = "fentry"    // an fentry program attaches
	LSM       Feature = "lsm"       // a BPF LSM program attaches
	PMU       Feature = "pmu"       // hardware counters
	Btrfs     Feature = "btrfs"     // the file system and mkfs.btrfs
	Ext4      Feature = "ext4"      // the file system and mkfs.ext4
	Loop      Feature = "loop"      // loop devices can be made
	Zram      Feature = "zram"      // zram devices can be made
	MD        Feature = "md"        // the kernel's software RAID and mdadm
	BRD       Feature = "brd"       // three RAM disks, /dev/ram0 to ram2
	DM        Feature = "dm"        // the device mapper
	IOUring   Feature = "iouring"   // io_uring is not forbidden
	NUMA      Feature = "numa"      // two memory nodes or more
	TwoCPUs   Feature = "twocpus"   // this process may run on two CPUs
	Cpuset    Feature = "cpuset"    // control groups with a cpuset can be made
	Hotplug   Feature = "hotplug"   // CPUs may be switched off; only where it is expected
	HugePages Feature = "hugepages" // 2 MiB pages can be reserved
	Numactl   Feature = "numactl"   // the numactl command
	Chromium  Feature = "chromium"  // a browser to look with
	Perf      Feature = "perf"      // the perf command
	Bpftool   Feature = "bpftool"   // the bpftool command
	Clang14   Feature = "clang14"   // the pinned compiler of the BPF objects
	Timing    Feature = "timing"    // measured time means something: not in a translated guest
	Guest     Feature = "guest"     // this is a guest of the lab, whose CPUs a test may switch off
	Busybox   Feature = "busybox"   // a shell and its tools in one static program, for nodes
	QEMU      Feature = "qemu"      // guests can run
	GoCommand Feature = "gocommand" // the go command, to build helpers
	QEMUIO    Feature = "qemuio"    // qemu-io and qemu-img, an NBD client that others wrote
	Vagrant   Feature = "vagrant"   // vagrant with its plugin for libvirt
	ShellLint Feature = "shelllint" // the shellcheck command
	Spin      Feature = "spin"      // the model checker, and gcc for its verifier
	SchedFIFO Feature = "schedfifo" // a thread may ask for the policy SCHED_FIFO
	Trial     Feature = "trial"     // the long statistical trials: make trial
)

// ExpectEnv names the environment variable that lists, with commas, the
// features that this machine must have.
const ExpectEnv = "COREPLICA_EXPECT"

// TrialEnv names the environment variable that switches the long trials on.
const TrialEnv = "COREPLICA_TRIAL"

// Need skips the test where a feature is missing, and fails it where the
// feature is expected. See the package comment.
func Need(tb testing.TB, features ...Feature) {
	tb.Helper()
	for _, feature := range features {
		if reason := Missing(feature); reason != "" {
			Skip(tb, feature, reason)
		}
	}
}

// Skip skips the test for a reason that only the test could find out. Like
// [Need], it fails the test where the feature is expected.
func Skip(tb testing.TB, feature Feature, reason string) {
	tb.Helper()
	if Expected(feature) {
		tb.Fatalf("feature %s is missing: %s. %s says that this machine must have it", feature, reason, ExpectEnv)
		return
	}
	tb.Skip(SkipLine(feature, reason))
}

// SkipLine is the line that [Skip] prints and [ParseSkip] reads.
func SkipLine(feature Feature, reason string) string {
	return fmt.Sprintf("SKIP coreplica feature=%s reason=%q", feature, reason)
}

// ParseSkip finds a [SkipLine] in a line of a test's output.
func ParseSkip(line string) (feature Feature, reason string, ok bool) {
	_, rest, found := strings.Cut(line, "SKIP coreplica feature=")
	if !found {
		return "", "", false
	}
	name, quoted, found := strings.Cut(rest, " reason=")
	if !found {
		return "", "", false
	}
	if _, err := fmt.Sscanf(quoted, "%q", &reason); err != nil {
		return "", "", false
	}
	return Feature(name), reason, true
}

// Expected reports whether [ExpectEnv] lists the feature.
func Expected(feature Feature) bool {
	return slices.Contains(strings.FieldsFunc(os.Getenv(ExpectEnv), func(r rune) bool {
		return r == ',' || r == ' '
	}), string(feature))
}

// found remembers what [Missing] found: trying a BPF program takes
// milliseconds, and a machine does not change under a test binary.
var found sync.Map // Feature → func() string

// Missing says why the machine lacks a feature, or returns "" where it has it.
func Missing(feature Feature) string {
	look, known := lookups[feature]
	if !known {
		return fmt.Sprintf("testkit does not know a feature %q", feature)
	}
	once, _ := found.LoadOrStore(feature, sync.OnceValue(look))
	return once.(func() string)()
}

// Features returns all features that [Missing] knows, sorted by name.
func Features() []Feature {
	var all []Feature
	for feature := range lookups {
		all = append(all, feature)
	}
	slices.Sort(all)
	return all
}
