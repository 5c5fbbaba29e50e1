package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"github.com/coreplica/coreplica/internal/attachcheck"
	"golang.org/x/sys/unix"
)

var lookups = map[Feature]func() string{
	Root:      root,
	BTF:       func() string { return file("/sys/kernel/btf/vmlinux") },
	BPF:       func() string { return attaches("raw_tracepoint") },
	Kprobes:   func() string { return attaches("kprobe") },
	Fentry:    func() string { return attaches("fentry") },
	LSM:       func() string { return attaches("lsm") },
	Tracefs:   func() string { return mountable("tracefs", "/sys/kernel/tracing") },
	BPFFS:     func() string { return mountable("bpf", "/sys/fs/bpf") },
	PMU:       func() string { return text(attachcheck.HardwareCycles()) },
	Btrfs:     func() string { return first(filesystem("btrfs"), command("mkfs.btrfs")) },
	Ext4:      func() string { return first(filesystem("ext4"), command("mkfs.ext4")) },
	Loop:      func() string { return openable("/dev/loop-control") },
	Zram:      func() string { return first(file("/sys/class/zram-control/hot_add"), root()) },
	MD:        func() string { return first(file("/proc/mdstat"), command("mdadm")) },
	BRD:       func() string { return first(openable("/dev/ram0"), openable("/dev/ram1"), openable("/dev/ram2")) },
	DM:        func() string { return openable("/dev/mapper/control") },
	IOUring:   ioUring,
	NUMA:      twoNodes,
	TwoCPUs:   twoCPUs,
	Cpuset:    func() string { return first(root(), cpuset()) },
	Hotplug:   func() string { return first(root(), hotplug()) },
	HugePages: func() string { return first(root(), file("/sys/kernel/mm/hugepages/hugepages-2048kB")) },
	Numactl:   func() string { return command("numactl") },
	Chromium:  func() string { return command("chromium", "chromium-browser", "google-chrome") },
	Perf:      func() string { return command("perf") },
	Bpftool:   func() string { return command("bpftool") },
	Clang14:   func() string { return command("clang-14") },
	Timing:    timing,
	Guest:     inGuest,
	Busybox:   func() string { return command("busybox") },
	QEMU:      func() string { return first(command("qemu-system-x86_64"), command("apt-get"), command("depmod")) },
	GoCommand: func() string { return command("go") },
	QEMUIO:    func() string { return first(command("qemu-io"), command("qemu-img")) },
	Vagrant: func() string {
		return first(command("vagrant"), file("/usr/share/vagrant-plugins/plugins.d/vagrant-libvirt.json"))
	},
	ShellLint: func() string { return command("shellcheck") },
	Spin:      func() string { return first(command("spin"), command("gcc")) },
	SchedFIFO: schedFIFO,
	Trial: func() string {
		if os.Getenv(TrialEnv) == "" {
			return TrialEnv + " is not set: `make trial` runs the long trials"
		}
		return ""
	},
}

// first returns the first reason that is not empty.
func first(reasons ...string) string {
	for _, reason := range reasons {
		if reason != "" {
			return reason
		}
	}
	return ""
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// timing is missing where a guest's code is translated: its clock runs while the
// host does other things, and nothing costs there what it costs elsewhere.
func timing() string {
	if os.Getenv("COREPLICA_GUEST") == "tcg" {
		return "a guest under TCG measures no time"
	}
	return ""
}

func inGuest() string {
	if os.Getenv("COREPLICA_GUEST") == "" {
		return "this is no guest of the lab: run `coreplica lab test`"
	}
	return ""
}

func root() string {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Sprintf("the effective user is %d", uid)
	}
	return ""
}

func attaches(kind string) string {
	k, err := attachcheck.ByName(kind)
	if err != nil {
		return err.Error()
	}
	return text(k.Try())
}

func file(path string) string {
	_, err := os.Stat(path)
	return text(err)
}

func openable(path string) string {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err.Error()
	}
	return text(f.Close())
}

func filesystem(name string) string {
	list, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(list)) {
		fields := strings.Fields(line)
		if len(fields) > 0 && fields[len(fields)-1] == name {
			return ""
		}
	}
	return "the kernel does not list the file system " + name
}

// mountable accepts a file system that is mounted where it belongs, or that
// root may mount there.
func mountable(kind, at string) string {
	if reason := first(filesystem(kind), file(at)); reason != "" {
		return reason
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err.Error()
	}
	if strings.Contains(string(mounts), " "+at+" "+kind+" ") {
		return ""
	}
	if reason := root(); reason != "" {
		return fmt.Sprintf("%s is not mounted on %s, and %s", kind, at, reason)
	}
	return ""
}

// command looks where root's programs are too: a user's PATH on Debian does
// not have them.
func command(names ...string) string {
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			return ""
		}
		for _, dir := range []string{"/usr/sbin", "/sbin"} {
			if _, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return ""
			}
		}
	}
	return fmt.Sprintf("there is no command %s", strings.Join(names, " or "))
}

func twoNodes() string {
	nodes, err := filepath.Glob("/sys/devices/system/node/node[0-9]*")
	if err != nil {
		return err.Error()
	}
	if len(nodes) < 2 {
		return fmt.Sprintf("the machine has %d memory node", len(nodes))
	}
	return ""
}

func twoCPUs() string {
	if n := runtime.NumCPU(); n < 2 {
		return fmt.Sprintf("this process may run on %d CPU", n)
	}
	return ""
}

// cpuset accepts version 1 with the controller mounted where everybody mounts
// it, and version 2 with the controller.
func cpuset() string {
	if file("/sys/fs/cgroup/cpuset/cpuset.cpus") == "" {
		return ""
	}
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return err.Error()
	}
	if !strings.Contains(string(controllers), "cpuset") {
		return "there is no cpuset controller"
	}
	return ""
}

// hotplug takes a CPU away from everybody on the machine, so it wants to be
// asked for.
func hotplug() string {
	if !Expected(Hotplug) {
		return fmt.Sprintf("switching a CPU off disturbs all of the machine: put %q into %s where it is yours", Hotplug, ExpectEnv)
	}
	return twoCPUs()
}

func ioUring() string {
	var params [120]byte // struct io_uring_params
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return "io_uring_setup: " + errno.Error()
	}
	return text(unix.Close(int(fd)))
}

// schedFIFO asks for the policy and gives it back.
func schedFIFO() string {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.SchedGetAttr(0, 0)
	if err == nil {
		err = unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	}
	if err == nil {
		err = unix.SchedSetAttr(0, before, 0)
	}
	return text(err)
}
