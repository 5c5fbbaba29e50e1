/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Samples kernel stacks on the CPU clock and files each under the ledger's
 * context. The sample is taken in the timer interrupt, so the interrupt itself
 * does not count as the context: what it interrupted does.
 */
#define ATTACH 2
#include "ledger.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define DEPTH 64
#define STACKS 65536
#define IN_USER_MODE -14 /* EFAULT: there is no kernel stack */

struct sample {
	u32 context;
	s64 stack; /* id in stacks, or IN_USER_MODE */
} __attribute__((packed));

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, STACKS);
	__uint(key_size, 4);
	__uint(value_size, DEPTH * 8);
} stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STACKS);
	__type(key, struct sample);
	__type(value, u64);
} samples SEC(".maps");

/* 0: samples taken, 1: in idle, 2: dropped */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 3);
	__type(key, u32);
	__type(value, u64);
} sampled SEC(".maps");

static __always_inline void bump(u32 i)
{
	u64 *v = bpf_map_lookup_elem(&sampled, &i);

	if (v)
		(*v)++;
}

SEC("perf_event")
int stacks_sample(struct bpf_perf_event_data *ctx)
{
	struct cpu *c = this_cpu();
	struct sample s = {};
	u64 one = 1, *n;

	if (!c)
		return 0;
	bump(0);
	s.context = c->soft ? c->soft : c->task;
	if (s.context == CTX_IDLE) {
		bump(1);
		return 0;
	}
	s.stack = bpf_get_stackid(ctx, &stacks, 0);
	if (s.stack < 0 && s.stack != IN_USER_MODE) {
		bump(2); /* two stacks share a bucket, or there is no room */
		return 0;
	}
	n = bpf_map_lookup_elem(&samples, &s);
	if (n)
		__sync_fetch_and_add(n, 1);
	else if (bpf_map_update_elem(&samples, &s, &one, BPF_NOEXIST)) {
		n = bpf_map_lookup_elem(&samples, &s);
		if (n)
			__sync_fetch_and_add(n, 1);
		else
			bump(2);
	}
	return 0;
}
