/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The ledger's state: one struct cpu a CPU holds all that the hot path reads
 * and writes, so that an event costs one map lookup (which the JIT inlines) and
 * touches few cache lines.
 */
#ifndef COREPLICA_LEDGER_H
#define COREPLICA_LEDGER_H

#include "attach.h"

/* Contexts 0 to CTX_FIRST_NAMED-1 are fixed; the rest get a name on first sight. */
enum context {
	CTX_UNKNOWN = 0, /* no task was classified yet: unattributed */
	CTX_IDLE = 1,
	CTX_LOAD_USER = 2,
	CTX_LOAD_KERNEL = 3,
	CTX_SELF = 4,
	CTX_OTHER = 5,
	CTX_STOLEN = 6,
	CTX_WORKER_IDLE = 7, /* a workqueue thread between two works */
	CTX_OVERFLOW = 8,    /* more names than slots: unattributed */
	CTX_SOFTIRQ = 16,    /* + vector, 0 to 15 */
	CTX_VECTOR = 32,     /* + enum vector */
	CTX_FIRST_NAMED = 48,
	CTX_MAX = 256,
};

enum vector {
	VECTOR_LOCAL_TIMER = 0,
	VECTOR_RESCHEDULE = 1,
	VECTOR_CALL_FUNCTION = 2,
	VECTOR_CALL_FUNCTION_SINGLE = 3,
	VECTOR_IRQ_WORK = 4,
};

enum event {
	EVENT_SWITCH = 0,
	EVENT_IRQ = 1,
	EVENT_SOFTIRQ = 2,
	EVENT_VECTOR = 3,
	EVENT_WORK = 4,
	EVENT_SYSCALL = 5,
	EVENT_OVERFLOW = 6,
	EVENT_LOST = 7, /* switches that the kernel did not show */
	EVENT_MAX = 8,
};

enum flag {
	FLAG_ON = 1,
	/* The scheduler's clock leaves interrupts out (CONFIG_IRQ_TIME_ACCOUNTING). */
	FLAG_IRQ_TIME = 2,
	/* slice_start and exec_start belong to the task that runs. */
	FLAG_SLICE = 4,
	/* The running task came after idle. */
	FLAG_WOKEN = 8,
};

#define EXEC_SCALE_SHIFT 20

/* A name that this CPU looked up before, so that the map need not be asked. */
struct known {
	u64 a;
	u64 b;
	u64 context;
};

#define KNOWN 8

/* In order of use: what every event touches comes first. */
struct cpu {
	u64 last_ns;       /* when the last nanosecond was charged */
	u32 flags;
	u32 task;          /* context of the running task */
	u32 soft;          /* context of the running softirq, or 0 */
	u32 hard;          /* context of the running hardirq, or 0 */
	u32 load_tgid;
	u32 self_tgid;
	u64 slice_ns;      /* when the running task was switched in */
	u64 exec_ns;       /* the scheduler's clock then */
	u64 irq_slice_ns;  /* interrupts since then */
	u64 running;       /* address of the running task */
	u64 moved_ns;      /* of the idle slice before this one, billed to this one */
	u64 before_ns;     /* before this slice, billed to its task by the scheduler alone */
	u64 exec_scale;      /* our ns for a ns of that clock, << EXEC_SCALE_SHIFT */
	u64 irq_in_load_ns;  /* interrupts that hit the load's slices */
	u64 irq_in_other_ns; /* interrupts that hit other programs' slices */
	u64 plain;           /* a pointer goes in and comes out as a number */
	u64 events[EVENT_MAX];
	struct known known[KNOWN];
	u64 ns[CTX_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu);
} cpus SEC(".maps");

static __always_inline struct cpu *this_cpu(void)
{
	u32 zero = 0;
	struct cpu *c = bpf_map_lookup_elem(&cpus, &zero);

	if (!c || !(c->flags & FLAG_ON))
		return 0;
	return c;
}

static __always_inline u32 context_of(struct cpu *c)
{
	return c->hard ? c->hard : c->soft ? c->soft : c->task;
}

static __always_inline void note_irq(struct cpu *c, u64 d)
{
	c->irq_slice_ns += d;
	if (c->task == CTX_LOAD_USER || c->task == CTX_LOAD_KERNEL)
		c->irq_in_load_ns += d;
	else if (c->task == CTX_OTHER)
		c->irq_in_other_ns += d;
}

/*
 * charge gives the time since the last charge to the context that ran, for
 * programs that run with interrupts off. Sums telescope: whatever the order,
 * all contexts together gain exactly what last_ns moved.
 */
static __always_inline u64 charge(struct cpu *c)
{
	u64 now = bpf_ktime_get_ns();
	u64 d = now - c->last_ns;
	u32 x = context_of(c);

	c->last_ns = now;
	c->ns[x & (CTX_MAX - 1)] += d;
	if (c->hard | c->soft)
		note_irq(c, d);
	return now;
}

/*
 * charge_preemptible is for programs that an interrupt's program can interrupt
 * between two of its instructions: the exchange and the addition are atomic,
 * so no nanosecond is lost or counted twice.
 */
static __always_inline u64 charge_preemptible(struct cpu *c)
{
	u32 x = context_of(c);
	u64 now = bpf_ktime_get_ns();
	u64 d = now - __sync_lock_test_and_set(&c->last_ns, now);

	__sync_fetch_and_add(&c->ns[x & (CTX_MAX - 1)], d);
	if (c->hard | c->soft)
		note_irq(c, d);
	return now;
}

#endif
