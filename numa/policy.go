package numa

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Mode is what a memory policy does (Documentation/admin-guide/mm/
// numa_memory_policy.rst).
type Mode int

// The modes, by the names of set_mempolicy(2). Local takes pages on the node of
// the CPU that touches them first. Bind takes them on the given nodes only, from
// the nearest; when those are full, the kernel kills for memory. Prefer takes them
// on one node while it has room. Interleave deals them out in turn.
const (
	ModeLocal Mode = iota
	ModeBind
	ModePrefer
	ModeInterleave
)

// modes has names and the kernel's numbers.
var modes = []struct {
	name   string
	kernel uintptr
}{
	{"local", unix.MPOL_LOCAL}, {"bind", unix.MPOL_BIND}, {"prefer", unix.MPOL_PREFERRED}, {"interleave", unix.MPOL_INTERLEAVE},
}

func (m Mode) String() string {
	if m < 0 || int(m) >= len(modes) {
		return fmt.Sprintf("Mode(%d)", int(m))
	}
	return modes[m].name
}

// Policy says on which nodes memory should lie. The zero value is Local.
type Policy struct {
	Mode  Mode
	Nodes List
}

// LocalPolicy takes pages where they are touched first.
func LocalPolicy() Policy { return Policy{} }

// Bind takes pages on the given nodes and nowhere else.
func Bind(nodes ...int) Policy { return Policy{ModeBind, ListOf(nodes...)} }

// Prefer takes pages on a node while it has room.
func Prefer(node int) Policy { return Policy{ModePrefer, ListOf(node)} }

// Interleave deals pages out to the given nodes in turn.
func Interleave(nodes ...int) Policy { return Policy{ModeInterleave, ListOf(nodes...)} }

func (p Policy) String() string {
	if len(p.Nodes) == 0 {
		return p.Mode.String()
	}
	return p.Mode.String() + ":" + p.Nodes.String()
}

// PolicyError says that the kernel refused a policy.
type PolicyError struct {
	Policy Policy
	Err    error
}

func (e *PolicyError) Error() string {
	text := fmt.Sprintf("set memory policy %s: %v", e.Policy, e.Err)
	if e.Err == unix.EINVAL {
		text += ": name nodes that have memory and are in this process's cpuset, see `coreplica numa topo`"
	}
	return text
}
func (e *PolicyError) Unwrap() error { return e.Err }

// check refuses what the kernel would misunderstand.
func (p Policy) check() error {
	switch {
	case p.Mode < 0 || int(p.Mode) >= len(modes):
		return &PolicyError{p, fmt.Errorf("there is no mode %d", int(p.Mode))}
	case p.Mode == ModeLocal && len(p.Nodes) > 0:
		return &PolicyError{p, fmt.Errorf("the local policy takes no nodes")}
	case p.Mode == ModePrefer && len(p.Nodes) != 1:
		return &PolicyError{p, fmt.Errorf("it prefers one node, not %d", len(p.Nodes))}
	case p.Mode != ModeLocal && len(p.Nodes) == 0:
		return &PolicyError{p, fmt.Errorf("it names no node")}
	case len(p.Nodes) > 0 && (p.Nodes[0] < 0 || p.Nodes[len(p.Nodes)-1] >= maxNodes):
		return &PolicyError{p, fmt.Errorf("want nodes from 0 to %d", maxNodes-1)}
	}
	return nil
}

// Apply sets the policy of memory that the caller has mapped and not touched yet,
// such as a file that processes share.
func (p Policy) Apply(mapping []byte) error {
	if len(mapping) == 0 {
		return p.check()
	}
	return p.apply(mapping)
}

// apply sets the policy of a mapping, before its first page is touched.
func (p Policy) apply(memory []byte) error {
	if err := p.check(); err != nil {
		return err
	}
	var nodes [maxNodes / 64]uint64
	for _, n := range p.Nodes {
		nodes[n/64] |= 1 << (n % 64)
	}
	at, bits := unsafe.Pointer(&nodes), uintptr(maxNodes+1) // The kernel reads one bit less than it is told.
	if len(p.Nodes) == 0 {
		at, bits = nil, 0
	}
	_, _, errno := unix.Syscall6(unix.SYS_MBIND, uintptr(unsafe.Pointer(unsafe.SliceData(memory))), uintptr(len(memory)),
		modes[p.Mode].kernel, uintptr(at), bits, 0)
	if errno == unix.ENOSYS && p.Mode == ModeLocal {
		return nil // A kernel without NUMA knows no other policy.
	}
	if errno != 0 {
		return &PolicyError{p, errno}
	}
	return nil
}
