/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The x86 interrupt vectors that irq_handler_entry does not show. They are an
 * object of their own because one missing BTF id fails a whole load.
 */
#include "ledger.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

static __always_inline int enter(u32 vector)
{
	struct cpu *c = this_cpu();

	if (!c)
		return 0;
	charge(c);
	c->events[EVENT_VECTOR]++;
	c->hard = CTX_VECTOR + vector;
	return 0;
}

static __always_inline int leave(void)
{
	struct cpu *c = this_cpu();

	if (!c)
		return 0;
	charge(c);
	c->hard = 0;
	return 0;
}

#define VECTOR(name, id)                                                       \
	ON(irq_vectors, name##_entry) int vector_##name##_entry(void *ctx)     \
	{                                                                      \
		return enter(id);                                              \
	}                                                                      \
	ON(irq_vectors, name##_exit) int vector_##name##_exit(void *ctx)       \
	{                                                                      \
		return leave();                                                \
	}

VECTOR(local_timer, VECTOR_LOCAL_TIMER)
VECTOR(reschedule, VECTOR_RESCHEDULE)
VECTOR(call_function, VECTOR_CALL_FUNCTION)
VECTOR(call_function_single, VECTOR_CALL_FUNCTION_SINGLE)
VECTOR(irq_work, VECTOR_IRQ_WORK)
