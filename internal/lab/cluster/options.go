package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/coreplica/coreplica/internal/lab"
	"github.com/coreplica/coreplica/internal/lab/kernel"
)

// MaxNodes bounds a lab. A translated node takes a CPU and some 500 MB.
const MaxNodes = 16

// DiskBytes is the size of a node's disk where no other is given.
const DiskBytes = 1 << 30

// Options of [Open].
type Options struct {
	Nodes    int
	Kernel   *kernel.Kernel
	Topology lab.Topology
	// Seed decides about the network's faults and what power cuts take.
	Seed uint64
	// DiskBytes is the size of each node's disk, [DiskBytes] if zero. KeepAll
	// makes disks that lose nothing: the control.
	DiskBytes int64
	KeepAll   bool
	// Modules, Tools, Files, Sysctl and Applets are those of lab.Spec, for
	// every node.
	Modules []string
	Tools   []string
	Files   map[string]string
	Sysctl  map[string]string
	Applets map[string][]string
	// Start is run on each node when it is up, with COREPLICA_NODE and
	// COREPLICA_HOSTS set; it may be empty.
	Start  []string
	Logger *slog.Logger
}

// ErrOptions is wrapped by the errors about options.
var ErrOptions = errors.New("this lab cannot be")

func (o *Options) check() error {
	if o.Nodes < 1 || o.Nodes > MaxNodes {
		return fmt.Errorf("%w: %d nodes, want 1 to %d", ErrOptions, o.Nodes, MaxNodes)
	}
	if o.DiskBytes == 0 {
		o.DiskBytes = DiskBytes
	}
	const smallest = 1 << 20
	if o.DiskBytes < smallest || o.DiskBytes%4096 != 0 {
		return fmt.Errorf("%w: a disk of %d bytes, want at least %d and a multiple of 4096", ErrOptions, o.DiskBytes, smallest)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// name, address and card of the i-th node. The network reaches no further than
// the lab.
func name(i int) string    { return fmt.Sprintf("node%d", i+1) }
func address(i int) string { return fmt.Sprintf("10.77.0.%d", i+1) }
func card(i int) net.HardwareAddr {
	return net.HardwareAddr{0x52, 0x54, 0x00, 0x4c, 0x00, byte(i + 1)}
}

// hosts are the lines of /etc/hosts that name all nodes.
func (o *Options) hosts() []string {
	var lines []string
	for i := range o.Nodes {
		lines = append(lines, address(i)+" "+name(i))
	}
	return lines
}
