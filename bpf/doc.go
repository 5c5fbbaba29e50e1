// Package bpf is the kernel's side of coreplica: probes that account for every
// nanosecond of every CPU ([Ledger]), count what reaches the block devices
// ([BlockIO]) and sample kernel stacks ([Stacks]).
//
// The probes attach to tracepoints and to the CPU clock, because these load
// where kprobes and fentry are refused. Each comes in three forms and the
// first that really loads and attaches is taken: tp_btf, raw_tracepoint,
// tracepoint (see [AttachType]). Symbols being present proves nothing; only an
// attempt does.
//
// The ledger follows KUtrace (Sites, Understanding Software Dynamics, 2021) in
// what it sees, and differs in that it keeps sums instead of a trace: it costs
// tens of nanoseconds an event and no memory bandwidth to speak of.
//
// What it cannot see: time between an interrupt's arrival and the kernel's
// first tracepoint in it goes to what was interrupted, and so does an
// interrupt vector without a tracepoint (inter-processor interrupts on arm64).
// PREEMPT_RT kernels run softirqs in threads that may be switched out, which
// the ledger does not follow; [OpenLedger] refuses them.
package bpf
