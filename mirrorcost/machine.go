package mirrorcost

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/klauspost/cpuid/v2"
	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/bpf"
	"github.com/coreplica/coreplica/mirrorcost/report"
)

// describeMachine says where the figures were measured.
func describeMachine() (m report.Machine, err error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return m, fmt.Errorf("read kernel release: %w", err)
	}
	cpus, err := bpf.OnlineCPUs()
	if err != nil {
		return m, err
	}
	m.Kernel = unix.ByteSliceToString(uts.Release[:]) + " " + unix.ByteSliceToString(uts.Machine[:])
	m.CPUs = len(cpus)
	m.CPUModel = strings.Join(strings.FieldsFunc(cpuid.CPU.BrandName, func(r rune) bool { return r == 0 || r == ' ' }), " ")
	m.Virtual = virtual()
	return m, nil
}

// virtual reports whether a hypervisor is below this kernel. arm64 has no CPU
// flag for it, but virtual firmware names itself.
func virtual() bool {
	if cpuid.CPU.VM() {
		return true
	}
	vendor, err := os.ReadFile("/sys/class/dmi/id/sys_vendor")
	if errors.Is(err, os.ErrNotExist) {
		vendor, _ = os.ReadFile("/proc/device-tree/hypervisor/compatible")
	}
	for _, name := range []string{"QEMU", "KVM", "VMware", "Xen", "xen", "Microsoft Corporation", "Amazon EC2", "Google"} {
		if strings.Contains(string(vendor), name) {
			return true
		}
	}
	return false
}
