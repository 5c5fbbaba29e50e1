package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/coreplica/coreplica/internal/attachcheck"
)

// ledgerKinds can carry the ledger, best first.
var ledgerKinds = []string{"tp_btf", "raw_tracepoint", "tracepoint"}

// kinds says what the lack of each BPF program type costs.
var kinds = []struct{ name, consequence, fix string }{
	{"tracepoint", "the ledger has one way less to attach, its slowest",
		"mount -t tracefs nodev /sys/kernel/tracing"},
	{"raw_tracepoint", "the ledger has one way less to attach, its second choice",
		"give the process CAP_BPF and CAP_PERFMON (run as root)"},
	{"tp_btf", "the ledger attaches through raw tracepoints, which cost some nanoseconds more per event",
		"boot a kernel with CONFIG_DEBUG_INFO_BTF=y, and run as root"},
	{"perf_event", "no stacks: the cost of a write is measured, but not divided into stages",
		"sysctl kernel.perf_event_paranoid=1, or run as root"},
	{"fentry", "none for mirrorcost, which times no single function",
		"boot a kernel with CONFIG_FUNCTION_TRACER=y whose policy allows it"},
	{"fexit", "none for mirrorcost, which times no single function",
		"boot a kernel with CONFIG_FUNCTION_TRACER=y whose policy allows it"},
	{"kprobe", "none for mirrorcost, which uses no kprobe",
		"boot a kernel with CONFIG_KPROBES=y and CONFIG_KPROBE_EVENTS=y"},
	{"kprobe.multi", "none for mirrorcost, which uses no kprobe",
		"boot Linux 5.18 or newer with CONFIG_FPROBE=y"},
	{"uprobe", "none for mirrorcost, which looks into no program",
		"boot a kernel with CONFIG_UPROBE_EVENTS=y"},
	{"lsm", "none for mirrorcost, which decides over nobody's access",
		"boot with bpf in the lsm= list and CONFIG_BPF_LSM=y"},
	{"ringbuf", "none for mirrorcost, which counts in maps; events cannot be streamed",
		"boot Linux 5.8 or newer"},
	{"iterator", "tasks that run when the probes attach are found by their next switch only",
		"boot Linux 5.8 or newer with BTF"},
}

// bpf tries each program type.
func (e *examination) bpf() {
	var attach []string
	for _, kind := range kinds {
		err := e.Attach(kind.name)
		if err == nil {
			attach = append(attach, kind.name)
		}
		complaint := strings.TrimPrefix(refusal(err), "try "+kind.name+": ")
		e.lack(Check{Name: kind.name, Consequence: kind.consequence, Fix: kind.fix}, complaint, "loads and attaches")
	}
	best := ""
	for _, kind := range ledgerKinds {
		if best == "" && slices.Contains(attach, kind) {
			best = kind
		}
	}
	complaint := ""
	if best == "" {
		complaint = "none of " + strings.Join(ledgerKinds, ", ") + " attaches"
	}
	e.lack(Check{
		Name: "the ledger's way in", Needed: true,
		Consequence: "nothing can be measured",
		Fix:         "see the fixes above, tp_btf first",
	}, complaint, best)
}

// refusal shortens what the kernel said to one line with its errno.
func refusal(err error) string {
	if err == nil {
		return ""
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	if errno := attachcheck.Errno(err); errno != 0 {
		return fmt.Sprintf("%s (errno %d)", text, errno)
	}
	return text
}

// counters looks at what gives samples their names, and clocks their unit.
func (e *examination) counters() {
	e.kallsyms()
	paranoid := e.text("proc/sys/kernel/perf_event_paranoid")
	complaint := ""
	if (paranoid == "2" || paranoid == "3" || paranoid == "4") && e.UID != 0 && e.capabilities()>>38&1 == 0 {
		complaint = paranoid + ", and this process has no CAP_PERFMON"
	}
	e.lack(Check{
		Name:        "perf_event_paranoid",
		Consequence: "kernel stacks cannot be sampled",
		Fix:         "run as root, or sysctl kernel.perf_event_paranoid=1",
	}, complaint, orUnknown(paranoid)+"; root and CAP_PERFMON are above it")

	cycles := ""
	if err := e.Cycles(); err != nil {
		cycles = refusal(err)
	}
	e.lack(Check{
		Name:        "hardware counters",
		Consequence: "costs are given in nanoseconds, never in cycles or cache misses",
		Fix:         "run on bare metal, or on a virtual machine with a virtual PMU",
	}, cycles, "cycles can be counted")
}

// kallsyms reads the first symbol only: the file has 200,000 of them, and the
// kernel hides the addresses of all or none.
func (e *examination) kallsyms() {
	complaint := ""
	first, err := firstLine(e.Root, "proc/kallsyms")
	address, _, _ := strings.Cut(first, " ")
	switch {
	case err != nil:
		complaint = err.Error()
	case strings.Trim(address, "0") == "":
		complaint = "addresses are hidden (kptr_restrict=" + orUnknown(e.text("proc/sys/kernel/kptr_restrict")) + ")"
	}
	e.lack(Check{
		Name:        "kernel symbols",
		Consequence: "stacks hold addresses without names, so the cost is not divided into stages",
		Fix:         "run as root, with sysctl kernel.kptr_restrict=1 or 0",
	}, complaint, "/proc/kallsyms shows addresses (kptr_restrict="+orUnknown(e.text("proc/sys/kernel/kptr_restrict"))+")")
}

func orUnknown(value string) string {
	if value == "" {
		return "unknown"
	}
	return value
}

// firstLine reads the first line of a file that may be long.
func firstLine(root fs.FS, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", fmt.Errorf("read kernel symbols: %w", err)
	}
	var line [256]byte
	n, err := f.Read(line[:])
	if closeErr := f.Close(); n == 0 {
		return "", fmt.Errorf("read kernel symbols: %w", errors.Join(err, closeErr))
	}
	text, _, _ := strings.Cut(string(line[:n]), "\n")
	return text, nil
}
