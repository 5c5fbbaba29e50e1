package attachcheck

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// Kind is one way to run BPF code.
type Kind struct {
	// Name is the kernel's word for it, e.g. "tp_btf".
	Name string
	// attach loads a program and attaches it. What it returns detaches both.
	attach func() (io.Closer, error)
}

// target is a function of the kernel that every kernel with block devices has,
// that modules may call (so it is not inlined), and that only fsync calls.
const target = "vfs_fsync_range"

// event is a tracepoint that every kernel has.
const eventGroup, event = "sched", "sched_process_exit"

var kinds = []Kind{
	{"tracepoint", attachTracepoint},
	{"raw_tracepoint", attachRawTracepoint},
	{"tp_btf", func() (io.Closer, error) { return attachTracing(ebpf.AttachTraceRawTp, event) }},
	{"perf_event", attachPerfEvent},
	{"fentry", func() (io.Closer, error) { return attachTracing(ebpf.AttachTraceFEntry, target) }},
	{"fexit", func() (io.Closer, error) { return attachTracing(ebpf.AttachTraceFExit, target) }},
	{"kprobe", attachKprobe},
	{"kprobe.multi", attachKprobeMulti},
	{"uprobe", attachUprobe},
	{"lsm", attachLSM},
	{"ringbuf", makeRingbuf},
	{"iterator", attachIterator},
}

// Kinds returns all kinds, the ones that the ledger can use first.
func Kinds() []Kind { return append([]Kind(nil), kinds...) }

// ByName returns the kind of that name.
func ByName(name string) (Kind, error) {
	for _, kind := range kinds {
		if kind.Name == name {
			return kind, nil
		}
	}
	return Kind{}, fmt.Errorf("find BPF kind %q: there is no such kind", name)
}

// Try attaches and detaches a program of this kind. The error wraps the
// kernel's errno where there is one.
func (k Kind) Try() error {
	attached, err := k.attach()
	if err != nil {
		return fmt.Errorf("try %s: %w", k.Name, err)
	}
	if err := attached.Close(); err != nil {
		return fmt.Errorf("detach %s: %w", k.Name, err)
	}
	return nil
}

// Errno returns the kernel's errno inside err, or 0.
func Errno(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return 0
}

// unguessed leaves a guess of cilium/ebpf out of the text of an error: it
// blames every EPERM on the limit of locked memory, which was lifted just
// before.
type unguessed struct{ error }

func (u unguessed) Unwrap() error { return u.error }

func (u unguessed) Error() string {
	return strings.ReplaceAll(u.error.Error(), " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", "")
}

// pair closes a link, then its program.
type pair struct{ first, second io.Closer }

func (p pair) Close() error { return errors.Join(p.first.Close(), p.second.Close()) }

// program loads "return 0".
func program(spec ebpf.ProgramSpec) (*ebpf.Program, error) {
	spec.Name = "coreplica_try"
	spec.License = "Dual MIT/GPL"
	spec.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift the limit on locked memory, which kernels before 5.11 charge BPF to: %w", err)
	}
	prog, err := ebpf.NewProgram(&spec)
	if err != nil {
		return nil, unguessed{err} // Its text begins with "load program".
	}
	return prog, nil
}

// attached loads a program and gives it to attach, and unloads it again if
// attach fails.
func attached(spec ebpf.ProgramSpec, attach func(*ebpf.Program) (io.Closer, error)) (io.Closer, error) {
	prog, err := program(spec)
	if err != nil {
		return nil, err
	}
	on, err := attach(prog)
	if err != nil {
		_ = prog.Close() // The reason that matters is that it did not attach.
		return nil, fmt.Errorf("attach: %w", err)
	}
	return pair{on, prog}, nil
}

func attachTracepoint() (io.Closer, error) {
	return attached(ebpf.ProgramSpec{Type: ebpf.TracePoint}, func(prog *ebpf.Program) (io.Closer, error) {
		return link.Tracepoint(eventGroup, event, prog, nil)
	})
}

func attachRawTracepoint() (io.Closer, error) {
	return attached(ebpf.ProgramSpec{Type: ebpf.RawTracepoint}, func(prog *ebpf.Program) (io.Closer, error) {
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: event, Program: prog})
	})
}

func attachTracing(how ebpf.AttachType, to string) (io.Closer, error) {
	spec := ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: how, AttachTo: to}
	return attached(spec, func(prog *ebpf.Program) (io.Closer, error) {
		return link.AttachTracing(link.TracingOptions{Program: prog})
	})
}

func attachKprobe() (io.Closer, error) {
	return attached(ebpf.ProgramSpec{Type: ebpf.Kprobe}, func(prog *ebpf.Program) (io.Closer, error) {
		return link.Kprobe(target, prog, nil)
	})
}

func attachKprobeMulti() (io.Closer, error) {
	spec := ebpf.ProgramSpec{Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceKprobeMulti}
	return attached(spec, func(prog *ebpf.Program) (io.Closer, error) {
		return link.KprobeMulti(prog, link.KprobeMultiOptions{Symbols: []string{target}})
	})
}

func attachLSM() (io.Closer, error) {
	spec := ebpf.ProgramSpec{Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "syslog"}
	return attached(spec, func(prog *ebpf.Program) (io.Closer, error) {
		return link.AttachLSM(link.LSMOptions{Program: prog})
	})
}

func attachIterator() (io.Closer, error) {
	spec := ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "bpf_map"}
	return attached(spec, func(prog *ebpf.Program) (io.Closer, error) {
		return link.AttachIter(link.IterOptions{Program: prog})
	})
}

func makeRingbuf() (io.Closer, error) {
	const bytes = 64 << 10 // A multiple of the page on every architecture.
	ring, err := ebpf.NewMap(&ebpf.MapSpec{Name: "coreplica_try", Type: ebpf.RingBuf, MaxEntries: bytes})
	if err != nil {
		return nil, fmt.Errorf("make: %w", err)
	}
	return ring, nil
}
