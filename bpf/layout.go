package bpf

// Contexts as in src/ledger.h; a test compares them with the object's own type
// information.
const (
	ctxUnknown    = 0
	ctxIdle       = 1
	ctxLoadUser   = 2
	ctxLoadKernel = 3
	ctxSelf       = 4
	ctxOther      = 5
	ctxStolen     = 6
	ctxWorkerIdle = 7
	ctxOverflow   = 8
	ctxSoftirq    = 16
	ctxVector     = 32
	ctxFirstNamed = 48
	ctxMax        = 256
)

const (
	flagIRQTime = 2

	flagBioBased = 1 << 31 // BIO_BASED in src/blockio.bpf.c
	flagTeaches  = 1 << 30 // TEACHES there
	memberShift  = 8       // MEMBER_SHIFT there

	execScaleShift = 20

	nameWork = 0xff<<56 | 1
	nameIRQ  = 0xff<<56 | 2
)

// The events that the ledger counts, by their place in cpuState.Events.
var eventNames = [...]string{"sched_switch", "irq_handler", "softirq", "irq_vector", "work", "syscall", "overflow", "lost_switch"}

// cpuState mirrors struct cpu in src/ledger.h.
type cpuState struct {
	LastNs       uint64
	Flags        uint32
	Task         uint32
	Soft         uint32
	Hard         uint32
	LoadTGID     uint32
	SelfTGID     uint32
	SliceNs      uint64
	ExecNs       uint64
	IRQSliceNs   uint64
	Running      uint64
	MovedNs      uint64
	BeforeNs     uint64
	ExecScale    uint64
	IRQInLoadNs  uint64
	IRQInOtherNs uint64
	Plain        uint64
	Events       [8]uint64
	Known        [8][3]uint64
	Ns           [ctxMax]uint64
}

// nameKey mirrors struct name in src/ledger.bpf.c.
type nameKey struct {
	A, B uint64
}

// deviceCounts mirrors struct device in src/blockio.bpf.c.
type deviceCounts struct {
	BiosData      uint64
	BiosMetadata  uint64
	Flushes       uint64
	Merges        uint64
	Requests      uint64
	BytesData     uint64
	BytesMetadata uint64
	Drops         uint64
	Latency       [40]uint64
}

// sampleKey mirrors struct sample in src/stacks.bpf.c.
type sampleKey struct {
	Context uint32
	Stack   int64
}
