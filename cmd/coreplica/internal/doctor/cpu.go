package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/coreplica/coreplica/numa/identity"
)

// Identity is what one CPUID library says.
type Identity = identity.CPU

// reasons say why a feature matters to the cost of a mirrored write.
var reasons = map[string]string{
	"SSE4.2":    "crc32c, the default checksum of btrfs",
	"PCLMULQDQ": "crc32c over several streams",
	"AVX2":      "parity and wide copies",
	"AVX512F":   "parity and wide copies",
	"SHA-NI":    "sha256, a checksum of btrfs",
	"ERMS":      "fast copies between user and kernel",
	"RDTSCP":    "a time stamp with the CPU's number",
	"CRC32":     "crc32c, the default checksum of btrfs",
	"SHA2":      "sha256, a checksum of btrfs",
}

// cpu looks at the processors.
func (e *examination) cpu() {
	e.topology()
	if len(e.Identities) == 0 {
		return
	}
	first := e.Identities[0]
	e.info("model", orUnknown(first.Brand))
	for _, name := range slices.Sorted(maps.Keys(first.Features)) {
		detail := "absent: " + reasons[name]
		if first.Features[name] {
			detail = "there: " + reasons[name]
		}
		e.info(name, detail)
	}
	e.info("last cache", cacheSize(first.L3Bytes))
	complaint := ""
	if first.Virtual {
		complaint = "a hypervisor is there"
	}
	e.lack(Check{
		Name: "virtual machine", Status: Warn,
		Consequence: "time stolen by the host and exits to it are part of what is measured; reports show the stolen share",
		Fix:         "measure on bare metal where figures are to be compared with others'",
	}, complaint, "no hypervisor is seen")
	for _, second := range e.Identities[1:] {
		e.agreement(first, second)
	}
}

// agreement compares two libraries. They read the same instruction, so a
// difference is a fault or a gap of one of them.
func (e *examination) agreement(a, b Identity) {
	var differ []string
	say := func(what string, left, right any) {
		if left != right {
			differ = append(differ, fmt.Sprintf("%s: %v and %v", what, left, right))
		}
	}
	say("model", orUnknown(a.Brand), orUnknown(b.Brand))
	for _, name := range slices.Sorted(maps.Keys(a.Features)) {
		if there, asked := b.Features[name]; asked {
			say(name, a.Features[name], there)
		}
	}
	say("last cache", cacheSize(a.L3Bytes), cacheSize(b.L3Bytes))
	say("virtual machine", a.Virtual, b.Virtual)
	e.lack(Check{
		Name: "CPUID libraries", Status: Warn,
		Consequence: "coreplica goes by " + a.Library + ", and " + b.Library + " reads this CPU otherwise",
		Fix:         "none is needed; /proc/cpuinfo tells which one is right",
	}, strings.Join(differ, "; "), a.Library+" and "+b.Library+" agree")
}

func cacheSize(bytes int) string {
	if bytes <= 0 {
		return "unknown"
	}
	return fmt.Sprintf("%d KiB", bytes>>10)
}

// topology looks at what /sys says of CPUs, clock and memory nodes.
func (e *examination) topology() {
	online := countList(e.text("sys/devices/system/cpu/online"))
	complaint := ""
	if e.CPUs < online {
		complaint = fmt.Sprintf("this process may run on %d of %d", e.CPUs, online)
	}
	e.lack(Check{
		Name: "CPUs", Status: Warn,
		Consequence: "the load has less to run on; the kernel's workers and the ledger still use all CPUs",
		Fix:         "start coreplica without taskset, or from a cpuset that holds all CPUs",
	}, complaint, fmt.Sprintf("%d, all usable", online))

	smt := ""
	if e.text("sys/devices/system/cpu/smt/active") == "1" {
		smt = "two threads share a core"
	}
	e.lack(Check{
		Name: "SMT", Status: Warn,
		Consequence: "a nanosecond costs more while the sibling thread works, so costs depend on the placement",
		Fix:         "echo off > /sys/devices/system/cpu/smt/control for figures that repeat better",
	}, smt, "not active")

	clock := e.text("sys/devices/system/clocksource/clocksource0/current_clocksource")
	slow := ""
	switch clock {
	case "tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page", "":
	default:
		slow = clock
	}
	e.lack(Check{
		Name: "clocksource", Status: Warn,
		Consequence: "reading the clock is slow, so each event of the ledger costs more",
		Fix:         "boot with clocksource=tsc if the kernel calls the TSC stable (dmesg | grep -i tsc)",
	}, slow, orUnknown(clock))

	switch nodes := countList(e.text("sys/devices/system/node/online")); nodes {
	case 0:
		e.info("NUMA nodes", "the kernel shows none, so there is one")
	case 1:
		e.info("NUMA nodes", "1: nothing here is remote")
	default:
		e.info("NUMA nodes", fmt.Sprintf("%d: costs depend on the node of the load and of the device", nodes))
	}
}
