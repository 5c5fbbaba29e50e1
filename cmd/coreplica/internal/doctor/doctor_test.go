package doctor

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/coreplica/coreplica/internal/attachcheck"
	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func packed(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		panic(err) // Memory does not refuse.
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.String()
}

// files of a machine that has everything.
func goodFiles() map[string]string {
	return map[string]string{
		"proc/sys/kernel/osrelease":                 "6.1.0-18-amd64\n",
		"proc/version":                              "Linux version 6.1.0-18-amd64 SMP PREEMPT_DYNAMIC\n",
		"proc/config.gz":                            packed("CONFIG_IRQ_TIME_ACCOUNTING=y\n# CONFIG_PREEMPT_RT is not set\n"),
		"proc/self/status":                          "Name:\tx\nCapEff:\t000001ffffffffff\n",
		"proc/self/mounts":                          "nodev /sys/kernel/tracing tracefs rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n",
		"proc/filesystems":                          "nodev\ttmpfs\n\text4\n\tbtrfs\n",
		"proc/kallsyms":                             "ffffffff81000000 T _text\nffffffff81000010 T next\n",
		"proc/mdstat":                               "Personalities : [raid1]\n",
		"proc/drbd":                                 "version: 8\n",
		"proc/sys/kernel/perf_event_paranoid":       "2\n",
		"proc/sys/kernel/kptr_restrict":             "1\n",
		"proc/sys/kernel/unprivileged_bpf_disabled": "2\n",
		"proc/sys/kernel/io_uring_disabled":         "0\n",
		"sys/kernel/btf/vmlinux":                    "\x9f\xeb",
		"sys/kernel/security/lockdown":              "[none] integrity confidentiality\n",
		"sys/class/zram-control/hot_add":            "",
		"sys/module/nbd/refcnt":                     "0\n",
		"sys/devices/system/cpu/online":             "0-3,8\n",
		"sys/devices/system/cpu/smt/active":         "0\n",
		"sys/devices/system/node/online":            "0\n",
		"sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
		"dev/loop-control":   "",
		"dev/mapper/control": "",
	}
}

func rootOf(files map[string]string) fs.FS {
	root := fstest.MapFS{}
	for name, text := range files {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return root
}

// machine builds a machine from its files.
func machine(files map[string]string) Machine {
	identity := Identity{Library: "a/cpuid", Brand: "CPU", Features: map[string]bool{"SSE4.2": true}, L3Bytes: 1 << 20}
	second := identity
	second.Library = "b/cpuid"
	return Machine{
		Root: rootOf(files), CPUs: 5, Arch: "amd64",
		Attach:     func(string) error { return nil },
		Cycles:     func() error { return nil },
		LookPath:   func(name string) (string, error) { return "/usr/sbin/" + name, nil },
		Identities: []Identity{identity, second},
	}
}

// On the machine that has everything, no check complains. Without this, the
// cases below could all be found by a doctor that always complains.
func TestAHealthyMachine(t *testing.T) {
	report := Examine(machine(goodFiles()), "v1")
	if !report.CanRun || report.Schema != Schema || report.Version != "v1" {
		t.Errorf("can run %v, schema %q, version %q", report.CanRun, report.Schema, report.Version)
	}
	for _, check := range report.Checks {
		if check.Status == Miss || check.Status == Warn || check.Consequence != "" || check.Fix != "" {
			t.Errorf("a healthy machine has %+v", check)
		}
		if check.Detail == "" || check.Name == "" || check.Section == "" {
			t.Errorf("incomplete: %+v", check)
		}
	}
}

// defects take one thing away each. Just that check must change.
var defects = []struct {
	name     string
	inflict  func(*Machine, map[string]string)
	check    string
	status   Status
	detail   string
	fix      string
	cannot   bool // mirrorcost cannot run any more
	alsoMiss []string
}{
	{name: "an old kernel", inflict: set("proc/sys/kernel/osrelease", "5.4.0\n"), check: "release", status: Warn, detail: "5.4.0", fix: "newer kernel"},
	{name: "no BTF", inflict: remove("sys/kernel/btf/vmlinux"), check: "BTF", status: Miss, fix: "CONFIG_DEBUG_INFO_BTF", cannot: true},
	{name: "lockdown", inflict: set("sys/kernel/security/lockdown", "none integrity [confidentiality]\n"), check: "lockdown", status: Miss, detail: "confidentiality", fix: "lockdown=integrity", cannot: true},
	{name: "real time by name", inflict: set("proc/version", "Linux version 6.1 SMP PREEMPT_RT\n"), check: "PREEMPT_RT", status: Warn},
	{name: "real time by configuration", inflict: set("proc/config.gz", packed("CONFIG_PREEMPT_RT=y\n")), check: "PREEMPT_RT", status: Warn},
	{name: "a user", inflict: func(m *Machine, _ map[string]string) { m.UID = 1000 }, check: "root", status: Miss, detail: "1000", fix: "sudo", cannot: true},
	{name: "a container without CAP_SYS_ADMIN", inflict: set("proc/self/status", "CapEff:\t000001ffffdfffff\n"), check: "CAP_SYS_ADMIN", status: Miss, fix: "--cap-add=SYS_ADMIN", cannot: true},
	{name: "a container with no capability", inflict: set("proc/self/status", "CapEff:\t0000000000000000\n"), check: "CAP_BPF", status: Miss, fix: "--cap-add=BPF", cannot: true,
		alsoMiss: []string{"CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_SYSLOG"}},
	{name: "a clock that cannot be sampled", inflict: refuse("perf_event", syscall.EACCES), check: "perf_event", status: Miss, detail: "errno 13", fix: "perf_event_paranoid"},
	{name: "no fentry", inflict: refuse("fentry", syscall.EPERM), check: "fentry", status: Miss, detail: "operation not permitted (errno 1)"},
	{name: "no tp_btf", inflict: refuse("tp_btf", syscall.EINVAL), check: "tp_btf", status: Miss, detail: "errno 22"},
	{name: "no way in", inflict: func(m *Machine, _ map[string]string) {
		m.Attach = func(string) error { return syscall.EPERM }
	}, check: "the ledger's way in", status: Miss, cannot: true, alsoMiss: []string{"tracepoint", "raw_tracepoint", "tp_btf", "perf_event",
		"fentry", "fexit", "kprobe", "kprobe.multi", "uprobe", "lsm", "ringbuf", "iterator"}},
	{name: "hidden symbols", inflict: set("proc/kallsyms", "0000000000000000 T _text\n"), check: "kernel symbols", status: Miss, detail: "hidden", fix: "kptr_restrict"},
	{name: "no symbols", inflict: remove("proc/kallsyms"), check: "kernel symbols", status: Miss},
	{name: "no PMU", inflict: func(m *Machine, _ map[string]string) {
		m.Cycles = func() error { return syscall.ENOENT }
	}, check: "hardware counters", status: Miss, detail: "errno 2", fix: "bare metal"},
	{name: "no tracefs", inflict: set("proc/self/mounts", "bpf /sys/fs/bpf bpf rw 0 0\n"), check: "tracefs", status: Miss, fix: "mount -t tracefs nodev /sys/kernel/tracing"},
	{name: "no bpffs", inflict: set("proc/self/mounts", "nodev /sys/kernel/tracing tracefs rw 0 0\n"), check: "bpffs", status: Miss, fix: "mount -t bpf nodev /sys/fs/bpf"},
	{name: "no btrfs", inflict: set("proc/filesystems", "\text4\n"), check: "btrfs", status: Miss, fix: "CONFIG_BTRFS_FS", cannot: true},
	{name: "no loop devices", inflict: remove("dev/loop-control"), check: "loop devices", status: Miss, fix: "/dev/loop-control", cannot: true},
	{name: "no zram", inflict: remove("sys/class/zram-control/hot_add"), check: "zram devices", status: Miss},
	{name: "no md", inflict: remove("proc/mdstat"), check: "md", status: Miss},
	{name: "no device mapper", inflict: remove("dev/mapper/control"), check: "device mapper", status: Miss},
	{name: "no drbd", inflict: remove("proc/drbd"), check: "drbd", status: Miss},
	{name: "no nbd", inflict: remove("sys/module/nbd/refcnt"), check: "nbd client", status: Miss},
	{name: "io_uring forbidden", inflict: set("proc/sys/kernel/io_uring_disabled", "2\n"), check: "io_uring", status: Miss, fix: "io_uring_disabled=0"},
	{name: "no btrfs-progs", inflict: lose("mkfs.btrfs"), check: "mkfs.btrfs", status: Miss, fix: "apt-get install btrfs-progs", cannot: true},
	{name: "no bpftool", inflict: lose("bpftool"), check: "bpftool", status: Miss, fix: "apt-get install bpftool"},
	{name: "a narrow cpuset", inflict: func(m *Machine, _ map[string]string) { m.CPUs = 2 }, check: "CPUs", status: Warn, detail: "2 of 5"},
	{name: "SMT", inflict: set("sys/devices/system/cpu/smt/active", "1\n"), check: "SMT", status: Warn},
	{name: "a slow clock", inflict: set("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n"), check: "clocksource", status: Warn, detail: "hpet"},
	{name: "a hypervisor", inflict: func(m *Machine, _ map[string]string) {
		m.Identities[0].Virtual, m.Identities[1].Virtual = true, true
	}, check: "virtual machine", status: Warn},
	{name: "libraries that disagree", inflict: func(m *Machine, _ map[string]string) {
		m.Identities[1].Features = map[string]bool{"SSE4.2": false}
		m.Identities[1].L3Bytes = 0
	}, check: "CPUID libraries", status: Warn, detail: "SSE4.2: true and false; last cache: 1024 KiB and unknown"},
}

func set(name, text string) func(*Machine, map[string]string) {
	return func(_ *Machine, files map[string]string) { files[name] = text }
}

func remove(name string) func(*Machine, map[string]string) {
	return func(_ *Machine, files map[string]string) { delete(files, name) }
}

func refuse(kind string, errno syscall.Errno) func(*Machine, map[string]string) {
	return func(m *Machine, _ map[string]string) {
		m.Attach = func(name string) error {
			if name == kind {
				return fmt.Errorf("try %s: %w", kind, errno)
			}
			return nil
		}
	}
}

func lose(tool string) func(*Machine, map[string]string) {
	return func(m *Machine, _ map[string]string) {
		m.LookPath = func(name string) (string, error) {
			if name == tool {
				return "", errors.New("gone")
			}
			return "/bin/" + name, nil
		}
	}
}

func TestDefects(t *testing.T) {
	for _, defect := range defects {
		t.Run(defect.name, func(t *testing.T) {
			files := goodFiles()
			m := machine(nil)
			defect.inflict(&m, files)
			m.Root = rootOf(files)
			report := Examine(m, "")
			if report.CanRun == defect.cannot {
				t.Errorf("can run: %v", report.CanRun)
			}
			seen := false
			for _, check := range report.Checks {
				switch {
				case check.Name == defect.check:
					seen = true
					if check.Status != defect.status || !strings.Contains(check.Detail, defect.detail) || !strings.Contains(check.Fix, defect.fix) {
						t.Errorf("found %+v", check)
					}
					if check.Consequence == "" || check.Fix == "" {
						t.Errorf("no consequence or no fix: %+v", check)
					}
				case check.Status == Miss || check.Status == Warn:
					if !slices.Contains(defect.alsoMiss, check.Name) {
						t.Errorf("found besides: %+v", check)
					}
				}
			}
			if !seen {
				t.Errorf("there is no check %q", defect.check)
			}
		})
	}
}

// Debian's modules are not loaded before they are wanted; that is no lack.
func TestAModuleThatLiesReady(t *testing.T) {
	files := goodFiles()
	delete(files, "proc/mdstat")
	files["proc/filesystems"] = "\text4\n"
	files["lib/modules/6.1.0-18-amd64/modules.dep"] = "kernel/fs/btrfs/btrfs.ko: kernel/lib/raid6/raid6_pq.ko\nkernel/drivers/md/raid1.ko.xz: kernel/drivers/md/md-mod.ko.xz\n"
	report := Examine(machine(files), "")
	for _, name := range []string{"btrfs", "md"} {
		if check := find(t, report, name); check.Status != OK || !strings.Contains(check.Detail, "modprobe") {
			t.Errorf("found %+v", check)
		}
	}
	if !report.CanRun {
		t.Error("mount loads btrfs by itself")
	}
}

// CAP_SYS_ADMIN holds CAP_BPF and CAP_PERFMON, which were split from it.
func TestSysAdminHoldsBPF(t *testing.T) {
	files := goodFiles()
	files["proc/self/status"] = "CapEff:\t0000000400200000\n"
	report := Examine(machine(files), "")
	for _, name := range []string{"CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_SYSLOG"} {
		if check := find(t, report, name); check.Status != OK {
			t.Errorf("found %+v", check)
		}
	}
	files["proc/sys/kernel/osrelease"] = "5.10.0\n"
	if check := find(t, Examine(machine(files), ""), "CAP_SYS_RESOURCE"); check.Status != Miss || check.Needed {
		t.Errorf("before 5.11 the limit counts: %+v", check)
	}
}

func TestTheLedgerTakesTheBestWayIn(t *testing.T) {
	m := machine(goodFiles())
	m.Attach = func(kind string) error {
		if kind == "tp_btf" {
			return syscall.EINVAL
		}
		return nil
	}
	if check := find(t, Examine(m, ""), "the ledger's way in"); check.Detail != "raw_tracepoint" {
		t.Errorf("found %+v", check)
	}
}

func find(t *testing.T, report Report, name string) Check {
	t.Helper()
	for _, check := range report.Checks {
		if check.Name == name {
			return check
		}
	}
	t.Fatalf("there is no check %q", name)
	return Check{}
}

func TestTable(t *testing.T) {
	m := machine(goodFiles())
	m.LookPath = func(string) (string, error) { return "", fs.ErrNotExist }
	var out strings.Builder
	if err := Examine(m, "").WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\ntools\n  miss  mkfs.btrfs ",
		"\n          so:  btrfs mirrors cannot be made\n          fix: apt-get install btrfs-progs",
		"\nneeded and missing: tools, mkfs.btrfs (not found)\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
	if !strings.HasSuffix(out.String(), "\nmirrorcost can run here: no\n") {
		t.Errorf("the verdict is not the last line:\n%s", out.String())
	}
}

// Every kind that can be tried has a consequence, and none is made up.
func TestKindsAreThoseThatCanBeTried(t *testing.T) {
	var ours, theirs []string
	for _, kind := range kinds {
		ours = append(ours, kind.name)
	}
	for _, kind := range attachcheck.Kinds() {
		theirs = append(theirs, kind.Name)
	}
	if strings.Join(ours, " ") != strings.Join(theirs, " ") {
		t.Errorf("doctor knows %v, attachcheck %v", ours, theirs)
	}
}

//coreplica:guest kernel=6.1,6.12 topology=2x2 modules="loop;btrfs" expect=root,btf,bpf,kprobes,fentry,numa run=TestThisMachine|TestOrdinaryKernel

// A distribution's kernel has what the build machine's lacks, and the doctor says
// so.
func TestOrdinaryKernel(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.Kprobes, testkit.Fentry, testkit.NUMA)
	report := Examine(Local(), "test")
	for _, kind := range []string{"kprobe", "fentry", "tp_btf", "raw_tracepoint"} {
		if check := find(t, report, kind); check.Status != OK {
			t.Errorf("%s: %s: %s", kind, check.Status, check.Detail)
		}
	}
	if nodes := find(t, report, "NUMA nodes"); !strings.HasPrefix(nodes.Detail, "2") {
		t.Errorf("NUMA nodes: %s", nodes.Detail)
	}
}

// The examination of this very machine ends, whatever it finds, and leaves
// nothing: TestMain counts descriptors, and the mounts are compared here.
func TestThisMachine(t *testing.T) {
	mounts := testkit.Mounts("")
	before, err := mounts.List()
	if err != nil {
		t.Fatal(err)
	}
	report := Examine(Local(), "test")
	after, err := mounts.List()
	if err != nil {
		t.Fatal(err)
	}
	for id, point := range after {
		if _, was := before[id]; !was && (strings.Contains(point, "tracing") || strings.Contains(point, "bpf")) {
			t.Errorf("doctor mounted %s", point)
		}
	}
	if len(report.Checks) < 40 {
		t.Errorf("only %d checks", len(report.Checks))
	}
	if release := find(t, report, "release"); release.Detail == "Linux " {
		t.Error("this machine has no kernel release")
	}
}

// Each feature that a library is asked about has a reason in the table.
func TestEveryFeatureHasAReason(t *testing.T) {
	for name := range Local().Identities[0].Features {
		if reasons[name] == "" {
			t.Errorf("no reason is given for %s", name)
		}
	}
}
