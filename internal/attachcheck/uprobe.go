package attachcheck

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// uprobeTarget is never called. The breakpoint that a uprobe writes into it
// therefore disturbs nobody.
//
//go:noinline
func uprobeTarget() {}

// attachUprobe puts a probe on a function of this very program, so that no
// other file has to be there and no other process is touched.
func attachUprobe() (io.Closer, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, fmt.Errorf("read own mappings: %w", err)
	}
	offset, err := fileOffset(string(maps), uint64(reflect.ValueOf(uprobeTarget).Pointer()))
	if err != nil {
		return nil, err
	}
	return attached(ebpf.ProgramSpec{Type: ebpf.Kprobe}, func(prog *ebpf.Program) (io.Closer, error) {
		self, err := link.OpenExecutable("/proc/self/exe")
		if err != nil {
			return nil, fmt.Errorf("open own program: %w", err)
		}
		return self.Uprobe("", prog, &link.UprobeOptions{Address: offset, PID: os.Getpid()})
	})
}

// fileOffset translates an address into an offset in the mapped file, by the
// text of /proc/PID/maps. Unlike the symbol table, that also works for a
// program that was stripped or loaded at a random address.
func fileOffset(maps string, address uint64) (uint64, error) {
	for line := range strings.Lines(maps) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		low, high, _ := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseUint(low, 16, 64)
		end, err2 := strconv.ParseUint(high, 16, 64)
		offset, err3 := strconv.ParseUint(fields[2], 16, 64)
		if err1 != nil || err2 != nil || err3 != nil {
			continue
		}
		if start <= address && address < end {
			return address - start + offset, nil
		}
	}
	return 0, fmt.Errorf("find mapping of address %#x: there is none", address)
}
