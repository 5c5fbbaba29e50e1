package stage

import (
	"strings"
)

// Stage is a part of the way of a write through the kernel.
type Stage string

// The stages, in the order of that way.
const (
	User             Stage = "user"
	SyscallEntry     Stage = "syscall entry"
	Copy             Stage = "copy"
	Bookkeeping      Stage = "bookkeeping"
	DataChecksum     Stage = "data checksum"
	MetadataChecksum Stage = "metadata checksum"
	Enqueue          Stage = "enqueue"
	Substrate        Stage = "substrate"
	Completion       Stage = "completion"
	Locking          Stage = "locking"
	Scheduling       Stage = "scheduling"
	Other            Stage = "other"
)

// Stages returns all stages in the order in which they are shown.
func Stages() []Stage {
	return []Stage{
		User, SyscallEntry, Copy, Bookkeeping, DataChecksum, MetadataChecksum,
		Enqueue, Substrate, Completion, Locking, Scheduling, Other,
	}
}

// Charge says whether kernel work belongs to the cost of a write.
type Charge struct {
	// Charged work belongs to the write. Shared work serves other file
	// systems too, so part of it may not. Substrate work belongs to the
	// device below the mirror.
	Charged, Shared, Substrate bool
}

// Table is a set of rules for one kind of mirror. It is immutable and safe for
// concurrent use.
type Table struct {
	stages     patterns[Stage]
	whole      patterns[Stage]
	interrupts patterns[bool]
	works      patterns[Charge]
	kthreads   patterns[Charge]
	rules      []Rule
}

// Classify returns the stage of a kernel stack, leaf first, that ran in a
// context of the ledger such as "load/kernel" or "softirq/BLOCK". It never
// panics, whatever the stack holds.
func (t *Table) Classify(stack []string, context string) Stage {
	if context == "load/user" {
		return User
	}
	frames := make([]string, 0, len(stack))
	for _, function := range stack {
		frames = append(frames, plain(function))
		if _, came := t.interrupts.find(frames[len(frames)-1]); came {
			break
		}
	}
	// Whole stages own everything that runs below their function: what the
	// loop driver copies and locks is the substrate's.
	for _, function := range frames {
		if stage, ok := t.whole.find(function); ok {
			return stage
		}
	}
	for _, function := range frames {
		if stage, ok := t.stages.find(function); ok {
			return stage
		}
	}
	return byContext(context)
}

// byContext is for stacks that no rule knows.
func byContext(context string) Stage {
	switch context {
	case "softirq/BLOCK", "softirq/IRQ_POLL":
		return Completion
	case "softirq/TIMER", "softirq/HRTIMER", "softirq/SCHED":
		return Scheduling
	}
	return Other
}

// Worker says whether a kernel worker's function belongs to a write.
func (t *Table) Worker(function string) Charge {
	c, _ := t.works.find(plain(function))
	return c
}

// KThread says whether a kernel thread, named without its CPU, belongs to a
// write.
func (t *Table) KThread(name string) Charge {
	c, _ := t.kthreads.find(name)
	return c
}

// Rules returns the rules in the order of their files.
func (t *Table) Rules() []Rule { return append([]Rule(nil), t.rules...) }

// probePrefixes begin the names of functions that only the measuring runs.
var probePrefixes = []string{"bpf_prog_", "bpf_trace_run", "bpf_overflow_handler", "bpf_get_stackid", "__bpf_get_stack", "bpf_raw_tp", "perf_trace_", "trace_call_bpf", "__perf_event_overflow", "perf_swevent_hrtimer", "perf_callchain"}

// IsProbe reports whether a stack is inside a probe rather than in what it
// observes.
func IsProbe(stack []string) bool {
	for _, function := range stack {
		for _, prefix := range probePrefixes {
			if strings.HasPrefix(function, prefix) {
				return true
			}
		}
	}
	return false
}

// enablers switch interrupts on again, or run right after.
var enablers = newPatterns(map[string]bool{
	"_raw_spin_unlock_irq*": true, "_raw_read_unlock_irq*": true, "_raw_write_unlock_irq*": true,
	"finish_task_switch*": true, "__local_bh_enable_ip": true, "*_irq_enable": true, "local_irq_restore": true,
	"irqentry_exit*": true, "syscall_exit_to_user_mode*": true, "exit_to_user_mode_*": true, "do_syscall_64": true,
	"pv_native_irq_enable": true, "pv_native_safe_halt": true, "default_idle": true, "acpi_safe_halt": true,
	"handle_softirqs": true, "__do_softirq": true, "el0_svc*": true, "entry_SYSCALL_64*": true,
})

// Smeared reports whether a stack's leaf is a place where interrupts are
// switched on: a clock interrupt that fell into the section before it fires
// there, so the sample may belong to anything since they were switched off.
func Smeared(stack []string) bool {
	if len(stack) == 0 {
		return false
	}
	on, _ := enablers.find(plain(stack[0]))
	return on
}

// plain takes the suffixes off that compilers add to a function's name.
func plain(function string) string {
	for {
		i := strings.LastIndexByte(function, '.')
		if i <= 0 {
			return function
		}
		switch suffix, _, _ := strings.Cut(function[i+1:], "_"); {
		case suffix == "isra", suffix == "part", suffix == "cold", suffix == "constprop", suffix == "llvm",
			strings.Trim(suffix, "0123456789abcdef") == "":
			function = function[:i]
		default:
			return function
		}
	}
}
