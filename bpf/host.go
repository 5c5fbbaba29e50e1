package bpf

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/cpulist"
)

// OnlineCPUs returns the numbers of the CPUs that are online, in order.
func OnlineCPUs() ([]int, error) {
	list, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil, fmt.Errorf("read online CPUs: %w", err)
	}
	return ParseCPUList(string(list))
}

// ParseCPUList reads a list of one CPU or more such as "0-3,8", in the kernel's
// format.
func ParseCPUList(list string) ([]int, error) {
	cpus, err := cpulist.Parse(list)
	if err == nil && len(cpus) == 0 {
		err = fmt.Errorf("parse list %q: it names no CPU", list)
	}
	return cpus, err
}

// irqTimeAccounting reports whether this kernel leaves interrupts out of a
// task's sum_exec_runtime. A kernel that does not show its configuration is
// taken for one that does not.
func irqTimeAccounting() bool {
	config, err := kernelConfig()
	return err == nil && bytes.Contains(config, []byte("\nCONFIG_IRQ_TIME_ACCOUNTING=y\n"))
}

func kernelConfig() ([]byte, error) {
	if f, err := os.Open("/proc/config.gz"); err == nil {
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, fmt.Errorf("read /proc/config.gz: %w", err)
		}
		return io.ReadAll(z)
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, fmt.Errorf("read kernel release: %w", err)
	}
	return os.ReadFile("/boot/config-" + unix.ByteSliceToString(uts.Release[:]))
}

// irqNames reads the names of the interrupt lines' actions.
func irqNames() map[uint64]string {
	f, err := os.Open("/proc/interrupts")
	if err != nil {
		return nil
	}
	defer f.Close()
	return parseInterrupts(f)
}

// parseInterrupts takes the last field of each numbered line of /proc/interrupts:
// the action's name, which tells lines apart better than their number.
func parseInterrupts(r io.Reader) map[uint64]string {
	names := map[uint64]string{}
	for s := bufio.NewScanner(r); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 {
			continue
		}
		irq, err := strconv.ParseUint(strings.TrimSuffix(fields[0], ":"), 10, 32)
		if err == nil {
			names[irq] = fields[len(fields)-1]
		}
	}
	return names
}
