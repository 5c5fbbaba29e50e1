package bpf

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/testkit"
)

// BenchmarkEvent times a getppid system call, in which the kernel does next to
// nothing, with no probe, with an empty one, and with the ledger's own, each way
// to attach. It makes two events (sys_enter, sys_exit), and the difference of
// two rows, halved, is what one costs; the metric ns/event says it.
func BenchmarkEvent(b *testing.B) {
	testkit.Need(b, testkit.Root, testkit.BTF, testkit.BPF)
	var none float64
	b.Run("none", func(b *testing.B) { none = timeCalls(b, 0) })
	for _, form := range AttachTypes() {
		b.Run(fmt.Sprintf("empty/%s", form), func(b *testing.B) {
			attachEmpty(b, form)
			timeCalls(b, none)
		})
		b.Run(fmt.Sprintf("ledger-of-others/%s", form), func(b *testing.B) {
			l := openLedger(b, LedgerOptions{Forms: []AttachType{form}})
			if err := l.Start(0, 0); err != nil {
				b.Fatal(err)
			}
			timeCalls(b, none)
		})
		b.Run(fmt.Sprintf("ledger-of-load/%s", form), func(b *testing.B) {
			l := openLedger(b, LedgerOptions{Forms: []AttachType{form}})
			if err := l.Start(unix.Getpid(), 0); err != nil {
				b.Fatal(err)
			}
			timeCalls(b, none)
		})
	}
}

func timeCalls(b *testing.B, none float64) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		for range 1000 {
			_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		}
	}
	each := float64(b.Elapsed()) / float64(b.N) / 1000
	b.ReportMetric(each, "ns/call")
	if none > 0 {
		b.ReportMetric((each-none)/2, "ns/event")
	}
	return each
}

// attachEmpty attaches programs that return at once to sys_enter and sys_exit.
func attachEmpty(b *testing.B, form AttachType) {
	b.Helper()
	for _, event := range []string{"sys_enter", "sys_exit"} {
		spec := &ebpf.ProgramSpec{
			License:      "Dual MIT/GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		}
		switch form {
		case TPBTF:
			spec.Type, spec.AttachType, spec.AttachTo = ebpf.Tracing, ebpf.AttachTraceRawTp, event
		case RawTracepoint:
			spec.Type = ebpf.RawTracepoint
		case Tracepoint:
			spec.Type = ebpf.TracePoint
		}
		prog, err := ebpf.NewProgram(spec)
		if err != nil {
			b.Fatal(err)
		}
		var l link.Link
		if l, err = attachOne(prog, [2]string{"raw_syscalls", event}); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			_ = l.Close()
			_ = prog.Close()
		})
	}
}

// BenchmarkSnapshot times closing the books of all CPUs, which happens three
// times a block.
func BenchmarkSnapshot(b *testing.B) {
	testkit.Need(b, testkit.Root, testkit.BTF, testkit.BPF)
	l := openLedger(b, LedgerOptions{})
	if err := l.Start(0, 0); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := l.Snapshot(); err != nil {
			b.Fatal(err)
		}
	}
}
