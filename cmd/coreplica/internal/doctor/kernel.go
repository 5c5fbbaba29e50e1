package doctor

import (
	"fmt"
	"strings"
)

// kernel looks at what was booted, and how.
func (e *examination) kernel() {
	old := ""
	if !e.atLeast(5, 15) {
		old = fmt.Sprintf("Linux %s", e.release())
	}
	e.lack(Check{
		Name: "release", Status: Warn,
		Consequence: "coreplica is tested on Linux 5.15 and newer; on older ones BPF lacks parts that its probes use",
		Fix:         "boot a newer kernel",
	}, old, "Linux "+e.release())

	btf := ""
	if !e.exists("sys/kernel/btf/vmlinux") {
		btf = "/sys/kernel/btf/vmlinux is not there"
	}
	e.lack(Check{
		Name: "BTF", Needed: true,
		Consequence: "no probe loads: they find the kernel's fields through its type information",
		Fix:         "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as the distributions' own kernels have it",
	}, btf, "/sys/kernel/btf/vmlinux")
	e.lockdown()
	e.scheduling()
}

func (e *examination) lockdown() {
	modes := e.text("sys/kernel/security/lockdown")
	complaint, fine := "", "none"
	switch {
	case modes == "":
		fine = "this kernel has no lockdown, or securityfs is not mounted"
	case strings.Contains(modes, "[confidentiality]"):
		complaint = "confidentiality"
	case strings.Contains(modes, "[integrity]"):
		fine = "integrity, which lets BPF read"
	}
	e.lack(Check{
		Name: "lockdown", Needed: true,
		Consequence: "BPF programs may not read the kernel's memory, so the ledger cannot tell tasks apart",
		Fix:         "boot with lockdown=integrity, or without secure boot",
	}, complaint, fine)

	switch value := e.text("proc/sys/kernel/unprivileged_bpf_disabled"); value {
	case "":
		e.info("unprivileged BPF", "the kernel does not say")
	case "0":
		e.info("unprivileged BPF", "allowed; coreplica runs as root and does not use it")
	default:
		e.info("unprivileged BPF", "forbidden (unprivileged_bpf_disabled="+value+"); coreplica runs as root and does not use it")
	}
}

// scheduling tells what changes the meaning of a CPU nanosecond.
func (e *examination) scheduling() {
	config, from := e.config()
	rt := ""
	if e.text("sys/kernel/realtime") == "1" || config["CONFIG_PREEMPT_RT"] == "y" || strings.Contains(e.text("proc/version"), "PREEMPT_RT") {
		rt = "this is a real-time kernel"
	}
	e.lack(Check{
		Name: "PREEMPT_RT", Status: Warn,
		Consequence: "interrupts and softirqs run in threads, so their cost stands under other names than on other kernels",
		Fix:         "compare figures of real-time kernels with each other only",
	}, rt, "not a real-time kernel")

	switch {
	case from == "":
		e.info("interrupt time accounting", "unknown: there is neither /proc/config.gz nor /boot/config-"+e.release())
	case config["CONFIG_IRQ_TIME_ACCOUNTING"] == "y":
		e.info("interrupt time accounting", "on ("+from+"): a task's own clock leaves interrupts out")
	default:
		e.info("interrupt time accounting", "off ("+from+"): a task's own clock holds the interrupts that it served; the ledger takes them out itself")
	}
}

// A capability that the job asks for. sysAdmin stands in for the two that were
// split from it.
type capability struct {
	name   string
	bit    uint
	needed bool
	status Status
	reason string
}

const sysAdmin = 21

var capabilities = []capability{
	{"CAP_BPF", 39, true, Miss, "loads BPF programs and maps"},
	{"CAP_PERFMON", 38, true, Miss, "attaches programs to tracepoints, samples stacks and lets programs read the kernel's memory"},
	{"CAP_SYS_ADMIN", sysAdmin, true, Miss, "mounts the mirror's file system and makes its loop or zram devices"},
	{"CAP_SYSLOG", 34, false, Miss, "shows the addresses of the kernel's functions, which give stacks their names"},
	{"CAP_SYS_RESOURCE", 24, false, Miss, "lifts the limit on locked memory, which kernels before 5.11 charge BPF to"},
	{"CAP_NET_ADMIN", 12, false, Info, "is for BPF on the network, which coreplica does not use"},
}

// privileges looks at what this process may do.
func (e *examination) privileges() {
	complaint := ""
	if e.UID != 0 {
		complaint = fmt.Sprintf("the effective user is %d", e.UID)
	}
	e.lack(Check{
		Name: "root", Needed: true,
		Consequence: "the mirror's devices and file systems cannot be made",
		Fix:         "run coreplica with sudo",
	}, complaint, "the effective user is 0")

	set := e.capabilities()
	has := func(bit uint) bool { return set>>bit&1 == 1 }
	for _, c := range capabilities {
		there := has(c.bit) || (c.bit == 38 || c.bit == 39) && has(sysAdmin)
		switch {
		case there:
			e.ok(c.name, c.reason)
		case c.bit == 24 && e.atLeast(5, 11):
			e.info(c.name, "absent, and not needed from Linux 5.11 on: it "+c.reason)
		case c.status == Info:
			e.info(c.name, "absent, and not needed: it "+c.reason)
		default:
			e.add(Check{
				Name: c.name, Status: c.status, Needed: c.needed, Detail: "absent",
				Consequence: "refused is what this capability allows: it " + c.reason,
				Fix:         "run as root, and in a container with --cap-add=" + strings.TrimPrefix(c.name, "CAP_") + " or --privileged",
			})
		}
	}
}
