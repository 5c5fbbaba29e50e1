/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The ledger: every nanosecond of every CPU goes to exactly one context.
 *
 * A context is what runs: a hard interrupt, else a softirq, else the task. The
 * programs below only say when that changes. Programs on the interrupt vectors
 * are in vectors.bpf.c, since not every architecture has them.
 */
#include "ledger.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* More than any way from the idle task's last instruction to the next task. */
#define WAKE_UP_NS 50000

#define PF_IDLE 0x00000002
#define PF_IO_WORKER 0x00000010
#define PF_WQ_WORKER 0x00000020
#define PF_KTHREAD 0x00200000

/* Tags in the last word of a name; a comm ends in a zero byte, so none clashes. */
#define NAME_WORK (0xffULL << 56 | 1)
#define NAME_IRQ (0xffULL << 56 | 2)

struct name {
	u64 a;
	u64 b;
};

/* name to context, filled on first sight */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CTX_MAX);
	__type(key, struct name);
	__type(value, u32);
} names SEC(".maps");

/* the next free context, counted from CTX_FIRST_NAMED */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} next_name SEC(".maps");

/* threads of the load that lost their CPU outside of a system call */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u8);
} in_user SEC(".maps");

/* how many of them there are: most of the time none, and a look is cheap */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} in_user_count SEC(".maps");

/* copies of struct cpu, made by ledger_snapshot on the CPU itself */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, struct cpu);
} snapshots SEC(".maps");

static __noinline u32 new_name(struct cpu *c, struct name *n)
{
	u32 zero = 0, id, *next, *known;

	if (!c || !n)
		return CTX_OVERFLOW;
	next = bpf_map_lookup_elem(&next_name, &zero);
	if (!next || *next >= CTX_MAX - CTX_FIRST_NAMED) {
		c->events[EVENT_OVERFLOW]++;
		return CTX_OVERFLOW;
	}
	id = CTX_FIRST_NAMED + __sync_fetch_and_add(next, 1);
	if (id >= CTX_MAX || bpf_map_update_elem(&names, n, &id, BPF_NOEXIST)) {
		/* Another CPU may have named it first. */
		known = bpf_map_lookup_elem(&names, n);
		if (known)
			return *known;
		c->events[EVENT_OVERFLOW]++;
		return CTX_OVERFLOW;
	}
	return id;
}

static __noinline u32 look_up(struct cpu *c, struct name *n)
{
	u32 *id;

	if (!c || !n)
		return CTX_OVERFLOW;
	id = bpf_map_lookup_elem(&names, n);
	return id ? *id : new_name(c, n);
}

static __always_inline u32 named(struct cpu *c, u64 a, u64 b)
{
	/* Functions are aligned to 16 bytes, and comms differ in their letters. */
	u64 h = a ^ b ^ a >> 4 ^ a >> 9 ^ a >> 17;
	struct known *k = &c->known[h & (KNOWN - 1)];

	if (k->a != a || k->b != b) {
		struct name n = { a, b };

		k->context = look_up(c, &n);
		k->a = a;
		k->b = b;
	}
	return k->context;
}

static __always_inline u32 work_context(struct cpu *c, u64 func)
{
	return named(c, func, NAME_WORK);
}

static __always_inline u32 classify_kernel(struct cpu *c, struct task_struct *t)
{
	struct name n = {};

	if (FIELD(t, flags) & PF_WQ_WORKER) {
		struct kthread *k = FIELD(t, worker_private);
		struct worker *w = BPF_CORE_READ(k, data);
		u64 func = (u64)BPF_CORE_READ(w, current_func);

		return func ? work_context(c, func) : CTX_WORKER_IDLE;
	}
	bpf_core_read(&n, sizeof(n), &t->comm);
	return named(c, n.a, n.b);
}

static __always_inline u32 classify(struct cpu *c, struct task_struct *t)
{
	u32 flags = FIELD(t, flags), pid, tgid, zero = 0;
	u64 *count;

	if (flags & PF_IDLE)
		return CTX_IDLE;
	if (flags & PF_KTHREAD)
		return classify_kernel(c, t);
	tgid = FIELD(t, tgid);
	if (tgid != c->load_tgid)
		return tgid == c->self_tgid ? CTX_SELF : CTX_OTHER;
	if (flags & PF_IO_WORKER)
		return CTX_LOAD_KERNEL;
	count = bpf_map_lookup_elem(&in_user_count, &zero);
	if (!count || !*count)
		return CTX_LOAD_KERNEL;
	pid = FIELD(t, pid);
	if (bpf_map_delete_elem(&in_user, &pid))
		return CTX_LOAD_KERNEL;
	__sync_fetch_and_add(count, -1);
	return CTX_LOAD_USER;
}

/* remember_mode is called while the task that leaves is still current. */
static __always_inline void remember_mode(struct cpu *c)
{
	u32 pid, zero = 0;
	u8 yes = 1;
	u64 *count;

	if (c->task != CTX_LOAD_USER)
		return;
	pid = (u32)bpf_get_current_pid_tgid();
	count = bpf_map_lookup_elem(&in_user_count, &zero);
	if (count && !bpf_map_update_elem(&in_user, &pid, &yes, BPF_NOEXIST))
		__sync_fetch_and_add(count, 1);
}

#if ATTACH == ATTACH_EVENT
/*
 * The trace event does not carry the next task, so it is classified when its
 * first event comes, and stolen time is not known.
 */
static __always_inline void late(struct cpu *c)
{
	if (c->task == CTX_UNKNOWN)
		c->task = classify(c, THIS_TASK());
}

ON(sched, sched_switch)
int ledger_sched_switch(void *ctx)
{
	struct cpu *c = this_cpu();

	if (!c)
		return 0;
	late(c);
	charge(c);
	c->events[EVENT_SWITCH]++;
	remember_mode(c);
	c->irq_slice_ns = 0;
	c->task = CTX_UNKNOWN;
	return 0;
}
#else
static __always_inline void late(struct cpu *c)
{
}

/*
 * lost notices that the task which leaves is not the one that came: some kernels
 * hide a switch from their own tracepoint. Who ran since the last event is then
 * not known, and the time says so.
 */
static __always_inline bool lost(struct cpu *c, u64 leaves)
{
	if (c->running == leaves)
		return 0;
	c->task = CTX_UNKNOWN;
	c->flags &= ~FLAG_SLICE;
	c->events[EVENT_LOST]++;
	return 1;
}

/*
 * settle takes what the hypervisor stole out of the slice that ends: our time
 * less the time that the scheduler accounted, which is what the slice added to
 * the task's sum_exec_runtime. Both ends of that are in exec_start, which every
 * scheduling class sets as a task comes and brings up to date as it leaves; of
 * the idle task, which has none, the neighbours' is taken.
 *
 * When a CPU wakes up, the scheduler bills to the task everything since its
 * wake-up was asked for: the way out of the halted state, the rest of the
 * interrupt, and the way from there to the switch. Only the last is work for the
 * task. It is taken from the idle slice and given to the task's, so that the sum
 * telescopes; the rest stays idle and interrupt, and is noted for comparison with
 * the scheduler's own figures. What exceeds WAKE_UP_NS in an idle slice is a
 * wake-up that the hypervisor delayed: nobody was robbed, so it stays idle.
 *
 * The scheduler's clock is scaled to ours: the two may be calibrated apart.
 */
static __always_inline void settle(struct cpu *c, u64 exec_ns, u64 last_d)
{
	u64 exec = (exec_ns - c->exec_ns) * c->exec_scale >> EXEC_SCALE_SHIFT;
	s64 stolen = (c->last_ns - c->slice_ns) - exec;
	s64 moved = c->moved_ns, before = c->before_ns;

	if (c->flags & FLAG_IRQ_TIME)
		stolen -= c->irq_slice_ns;
	c->moved_ns = 0;
	c->before_ns = 0;
	if (c->task == CTX_IDLE) {
		if (stolen < 0 || stolen > WAKE_UP_NS)
			return;
		/* Without an interrupt the CPU was polling for the wake-up. */
		if (c->irq_slice_ns && (s64)last_d < stolen) {
			c->before_ns = stolen - last_d;
			stolen = last_d;
		}
		c->moved_ns = stolen;
	} else {
		stolen += before;
		if (c->flags & FLAG_WOKEN && stolen < -moved) {
			before += -moved - stolen;
			stolen = -moved;
		}
		if (c->task == CTX_LOAD_USER || c->task == CTX_LOAD_KERNEL)
			c->irq_in_load_ns += before;
		else if (c->task == CTX_OTHER)
			c->irq_in_other_ns += before;
	}
	c->ns[c->task & (CTX_MAX - 1)] -= stolen;
	c->ns[CTX_STOLEN] += stolen;
}

ON(sched, sched_switch)
int ledger_sched_switch(void *ctx)
{
	struct task_struct *prev = ARG(ctx, 1, struct task_struct *);
	struct task_struct *next = ARG(ctx, 2, struct task_struct *);
	struct cpu *c = this_cpu();
	bool known, from_idle, to_idle;
	u64 exec_ns, last_ns;

	if (!c)
		return 0;
	known = !lost(c, (u64)prev);
	last_ns = c->last_ns;
	charge(c);
	from_idle = FIELD(prev, flags) & PF_IDLE;
	exec_ns = from_idle ? FIELD(next, se.exec_start) : FIELD(prev, se.exec_start);
	if (known) {
		if (c->flags & FLAG_SLICE)
			settle(c, exec_ns, c->last_ns - last_ns);
		remember_mode(c);
	}
	c->events[EVENT_SWITCH]++;
	c->task = classify(c, next);
	to_idle = c->task == CTX_IDLE;
	c->running = (u64)next;
	c->slice_ns = c->last_ns;
	c->exec_ns = to_idle || from_idle ? exec_ns : FIELD(next, se.exec_start);
	c->irq_slice_ns = 0;
	c->flags |= FLAG_SLICE;
	if (from_idle)
		c->flags |= FLAG_WOKEN;
	else
		c->flags &= ~FLAG_WOKEN;
	return 0;
}
#endif

ON(irq, irq_handler_entry)
int ledger_irq_entry(void *ctx)
{
	struct cpu *c = this_cpu();

	if (!c)
		return 0;
	late(c);
	charge(c);
	c->events[EVENT_IRQ]++;
#if ATTACH == ATTACH_EVENT
	c->hard = named(c, ((struct trace_event_raw_irq_handler_entry *)ctx)->irq, NAME_IRQ);
#else
	c->hard = named(c, ARG(ctx, 0, u32), NAME_IRQ);
#endif
	return 0;
}

ON(irq, irq_handler_exit)
int ledger_irq_exit(void *ctx)
{
	struct cpu *c = this_cpu();

	if (!c)
		return 0;
	charge(c);
	c->hard = 0;
	return 0;
}

ON(irq, softirq_entry)
int ledger_softirq_entry(void *ctx)
{
	struct cpu *c = this_cpu();

	if (!c)
		return 0;
	late(c);
	charge_preemptible(c);
	c->events[EVENT_SOFTIRQ]++;
#if ATTACH == ATTACH_EVENT
	c->soft = CTX_SOFTIRQ + (((struct trace_event_raw_softirq *)ctx)->vec & 15);
#else
	c->soft = CTX_SOFTIRQ + (ARG(ctx, 0, u32) & 15);
#endif
	return 0;
}

ON(irq, softirq_exit)
int ledger_softirq_exit(void *ctx)
{
	struct cpu *c = this_cpu();

	if (!c)
		return 0;
	charge_preemptible(c);
	c->soft = 0;
	return 0;
}

/*
 * The end of a work needs no program of its own: until the next work starts or
 * the thread is switched out, what runs is the end of this one.
 */
ON(workqueue, workqueue_execute_start)
int ledger_work_start(void *ctx)
{
	struct cpu *c = this_cpu();
	u32 context;
	u64 func;

	if (!c)
		return 0;
	late(c);
#if ATTACH == ATTACH_EVENT
	func = (u64)((struct trace_event_raw_workqueue_execute_start *)ctx)->function;
#else
	/* The verifier forbids arithmetic on what it knows to be a pointer. */
	*(volatile u64 *)&c->plain = (u64)FIELD(ARG(ctx, 0, struct work_struct *), func);
	func = *(volatile u64 *)&c->plain;
#endif
	context = work_context(c, func);
	/* Waking up the thread is part of the work that it was woken for. */
	if (c->task == CTX_WORKER_IDLE)
		c->task = context;
	charge_preemptible(c);
	c->events[EVENT_WORK]++;
	c->task = context;
	return 0;
}

ON(raw_syscalls, sys_enter)
int ledger_sys_enter(void *ctx)
{
	struct cpu *c = this_cpu();

	if (!c)
		return 0;
	late(c);
	if (c->task != CTX_LOAD_USER && c->task != CTX_LOAD_KERNEL)
		return 0;
	/* Whatever was thought, up to here the thread was in user mode. */
	c->task = CTX_LOAD_USER;
	charge_preemptible(c);
	c->events[EVENT_SYSCALL]++;
	c->task = CTX_LOAD_KERNEL;
	return 0;
}

ON(raw_syscalls, sys_exit)
int ledger_sys_exit(void *ctx)
{
	struct cpu *c = this_cpu();

	if (!c)
		return 0;
	late(c);
	if (c->task != CTX_LOAD_KERNEL)
		return 0;
	charge_preemptible(c);
	c->task = CTX_LOAD_USER;
	return 0;
}

/*
 * ledger_start runs once on each CPU before the first instant, so the task on
 * it is known from the start. Arguments: tgid of the load, tgid of the tool,
 * flags, the scale of the scheduler's clock.
 */
SEC("raw_tp")
int ledger_start(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	struct cpu *c = bpf_map_lookup_elem(&cpus, &zero);

	if (!c)
		return 0;
	c->load_tgid = ctx->args[0];
	c->self_tgid = ctx->args[1];
	c->exec_scale = ctx->args[3];
	c->soft = 0;
	c->hard = 0;
	c->moved_ns = 0;
	c->before_ns = 0;
	c->last_ns = bpf_ktime_get_ns();
	c->flags = ctx->args[2] | FLAG_ON;
#if ATTACH == ATTACH_EVENT
	c->task = CTX_UNKNOWN;
#else
	c->task = classify(c, (struct task_struct *)bpf_get_current_task_btf());
	c->running = bpf_get_current_task();
#endif
	return 0;
}

/* ledger_snapshot closes the books of its CPU and copies them out. */
SEC("raw_tp")
int ledger_snapshot(void *ctx)
{
	u32 id = bpf_get_smp_processor_id();
	struct cpu *c = this_cpu();
	struct cpu *copy = bpf_map_lookup_elem(&snapshots, &id);

	if (!c || !copy)
		return 0;
	late(c);
	charge(c);
	bpf_probe_read_kernel(copy, sizeof(*copy), c);
	return 1;
}
