package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// LedgerOptions say how to open a ledger. The zero value takes the cheapest
// form that the kernel accepts.
type LedgerOptions struct {
	// Forms limits the ways to attach that are tried; empty means all.
	Forms []AttachType
	// Pinned is a folder on bpffs where bpftool pinned the probes. Empty
	// loads the embedded objects.
	Pinned string
}

// Ledger accounts for every nanosecond of every CPU. Its methods may be called
// from several goroutines.
type Ledger struct {
	mu      sync.Mutex
	main    *probe
	vectors *probe
	cpus    []int
	names   map[uint32]string
	symbols *Symbols
	irqTime bool
	// execScale is the scale of the scheduler's clock, << execScaleShift.
	execScale uint64
}

// OpenLedger loads the ledger's programs and attaches them. They do nothing
// until [Ledger.Start].
//
// The irq_vectors programs are optional: where they are refused, their time
// stays with what they interrupted, and [Ledger.Attached] lacks them.
func OpenLedger(o LedgerOptions) (*Ledger, error) {
	if _, err := os.Stat("/sys/kernel/realtime"); err == nil {
		return nil, errors.New("open ledger: this is a PREEMPT_RT kernel, whose softirqs run in threads; use a kernel without it")
	}
	// Kernels before 5.11 charge maps to RLIMIT_MEMLOCK.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("open ledger: %w: %w; %s", ErrRefused, err, needsPrivilege)
	}
	cpus, err := OnlineCPUs()
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	scale, err := schedulerClockScale()
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	main, err := open("ledger", loadOptions{forms: o.Forms, pinned: o.Pinned, change: func(s *ebpf.CollectionSpec) {
		s.Maps["snapshots"].MaxEntries = uint32(cpus[len(cpus)-1] + 1)
	}})
	if err != nil {
		return nil, err
	}
	err = main.need([]string{"ledger_start", "ledger_snapshot", "ledger_sched_switch"},
		[]string{"cpus", "names", "next_name", "snapshots"})
	if err != nil {
		_ = main.Close()
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Ledger{main: main, cpus: cpus, names: map[uint32]string{}, irqTime: irqTimeAccounting(), execScale: uint64(scale * (1 << execScaleShift))}
	vectors, err := open("vectors", loadOptions{
		forms: []AttachType{main.form}, pinned: o.Pinned, share: l.shared(),
	})
	if err == nil {
		l.vectors = vectors
	}
	return l, nil
}

// Attached says which probe is attached in which form.
func (l *Ledger) Attached() map[string]string {
	at := map[string]string{"ledger": string(l.main.form)}
	if l.vectors != nil {
		at["vectors"] = string(l.vectors.form)
	}
	return at
}

// KnowsStolen reports whether stolen time is measured. The trace event form
// does not see the next task's accounting, so it cannot.
func (l *Ledger) KnowsStolen() bool { return l.main.form != Tracepoint }

// Start opens the books on every CPU. Threads of the process load become
// "load", those of the process self "coreplica". The task on each CPU is known
// from here on.
func (l *Ledger) Start(load, self int) error {
	var flags uint64
	if l.irqTime {
		flags |= flagIRQTime
	}
	args := []uint64{uint64(load), uint64(self), flags, l.execScale}
	for _, cpu := range l.cpus {
		if _, err := runOn(l.main.programs["ledger_start"], cpu, args); err != nil {
			return fmt.Errorf("start ledger on CPU %d: %w", cpu, err)
		}
	}
	return nil
}

// Detach takes the programs off their tracepoints, so that the kernel runs as
// if they were not loaded. Attach puts them back; after it, Start again.
func (l *Ledger) Detach() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.main.detach()
	if l.vectors != nil {
		err = errors.Join(err, l.vectors.detach())
	}
	return err
}

// Attach attaches what Detach took off.
func (l *Ledger) Attach() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.main.attach(); err != nil {
		return fmt.Errorf("attach ledger: %w", err)
	}
	if l.vectors != nil {
		if err := l.vectors.attach(); err != nil {
			return fmt.Errorf("attach vectors: %w", err)
		}
	}
	return nil
}

// Close detaches and unloads. It is idempotent.
func (l *Ledger) Close() error {
	if l == nil {
		return nil
	}
	return errors.Join(l.vectors.Close(), l.main.Close())
}

// Snapshot closes the books on each CPU, by a program that runs on that CPU, and
// reads them. CPUs are closed one after the other; the difference of two
// snapshots uses each CPU's own instants.
func (l *Ledger) Snapshot() (*Snapshot, error) {
	s := &Snapshot{cpus: map[int]*cpuState{}}
	for _, cpu := range l.cpus {
		ret, err := runOn(l.main.programs["ledger_snapshot"], cpu, nil)
		if err != nil {
			return nil, l.orOffline(fmt.Errorf("close the books on CPU %d: %w", cpu, err))
		}
		if ret != 1 {
			return nil, fmt.Errorf("close the books on CPU %d: the ledger was not started there", cpu)
		}
		state := new(cpuState)
		if err := l.main.maps["snapshots"].Lookup(uint32(cpu), state); err != nil {
			return nil, fmt.Errorf("read the books of CPU %d: %w", cpu, err)
		}
		s.cpus[cpu] = state
	}
	return s, nil
}

// ErrCPUsChanged is wrapped where a CPU went offline, or came back: its time has a
// hole, and what ran there was moved.
var ErrCPUsChanged = errors.New("the set of online CPUs changed while it was measured; run again and leave the CPUs as they are")

// orOffline adds the reason to an error if CPUs went offline.
func (l *Ledger) orOffline(err error) error {
	online, listErr := OnlineCPUs()
	if listErr != nil || slices.Equal(online, l.cpus) {
		return err
	}
	return fmt.Errorf("CPUs %v are online and were %v: %w (%w)", online, l.cpus, ErrCPUsChanged, err)
}

// Hotplug is the context of the threads that take CPUs offline and back. It has
// no time while the CPUs stay as they are.
const Hotplug = "kthread/cpuhp"

// runOn runs a raw_tp program on a CPU (bpf(2), BPF_PROG_TEST_RUN with
// BPF_F_TEST_RUN_ON_CPU).
func runOn(prog *ebpf.Program, cpu int, args []uint64) (uint32, error) {
	const testRunOnCPU = 1
	o := &ebpf.RunOptions{CPU: uint32(cpu), Flags: testRunOnCPU}
	if args != nil {
		o.Context = args
	}
	return prog.Run(o)
}

// ContextName returns the name of a ledger context, such as "load/kernel",
// "worker/loop_workfn", "kthread/ksoftirqd", "softirq/BLOCK" or
// "hardirq/virtio1-req.0".
func (l *Ledger) ContextName(id uint32) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if name, ok := fixedName(id); ok {
		return name
	}
	if _, ok := l.names[id]; !ok {
		l.readNames()
	}
	if name, ok := l.names[id]; ok {
		return name
	}
	return Unattributed
}

func (l *Ledger) readNames() {
	var (
		key nameKey
		id  uint32
	)
	irqs := irqNames()
	for it := l.main.maps["names"].Iterate(); it.Next(&key, &id); {
		if _, ok := l.names[id]; !ok {
			l.names[id] = l.describe(key, irqs)
		}
	}
}

func (l *Ledger) describe(key nameKey, irqs map[uint64]string) string {
	switch key.B {
	case nameIRQ:
		if name := irqs[key.A]; name != "" {
			return "hardirq/" + name
		}
		return fmt.Sprintf("hardirq/%d", key.A)
	case nameWork:
		if l.symbols == nil {
			// Without symbols the address still tells works apart.
			l.symbols, _ = LoadSymbols()
		}
		return "worker/" + l.symbols.Name(key.A)
	}
	var comm [16]byte
	binary.NativeEndian.PutUint64(comm[:8], key.A)
	binary.NativeEndian.PutUint64(comm[8:], key.B)
	name, _, _ := bytes.Cut(comm[:], []byte{0})
	return "kthread/" + threadName(string(name))
}

// threadName drops the CPU from the name of a per-CPU thread.
func threadName(comm string) string {
	name, cpu, ok := strings.Cut(comm, "/")
	if ok && strings.Trim(cpu, "0123456789") == "" {
		return name
	}
	return comm
}

// Names of the fixed contexts.
const (
	Idle       = "idle"
	LoadUser   = "load/user"
	LoadKernel = "load/kernel"
	Self       = "coreplica"
	// WorkerPool is a kernel worker that woke up and found nothing to do.
	WorkerPool    = "worker/pool"
	OtherPrograms = "other programs"
	Stolen        = "stolen"
	Unattributed  = "unattributed"
)

var softirqs = [...]string{"HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"}

var vectorNames = [...]string{"local_timer", "reschedule", "call_function", "call_function_single", "irq_work"}

var fixedNames = map[uint32]string{
	ctxUnknown: Unattributed, ctxIdle: Idle, ctxLoadUser: LoadUser, ctxLoadKernel: LoadKernel, ctxSelf: Self,
	ctxOther: OtherPrograms, ctxStolen: Stolen, ctxWorkerIdle: WorkerPool, ctxOverflow: Unattributed,
}

func fixedName(id uint32) (string, bool) {
	switch {
	case id >= ctxSoftirq && id < ctxSoftirq+uint32(len(softirqs)):
		return "softirq/" + softirqs[id-ctxSoftirq], true
	case id >= ctxVector && id < ctxVector+uint32(len(vectorNames)):
		return "hardirq/" + vectorNames[id-ctxVector], true
	case id < ctxFirstNamed:
		if name, ok := fixedNames[id]; ok {
			return name, true
		}
		return Unattributed, true
	}
	return "", false
}

// Overflow returns how many times a context could not be named because all
// slots were taken; its time is in "unattributed".
func (s *Snapshot) Overflow() uint64 { return s.events()["overflow"] }

func (s *Snapshot) events() map[string]uint64 {
	sum := map[string]uint64{}
	for _, c := range s.cpus {
		for i, name := range eventNames {
			sum[name] += c.Events[i]
		}
	}
	return sum
}
