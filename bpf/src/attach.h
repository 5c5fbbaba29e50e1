/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * One source, three ways to attach. tp_btf reads kernel structures directly
 * and is the cheapest; raw_tp needs a helper call for each field; tracepoint
 * works where neither loads, and sees only what the trace event records.
 *
 * ATTACH is 1 (tp_btf), 2 (raw_tp) or 3 (tracepoint).
 */
#ifndef COREPLICA_ATTACH_H
#define COREPLICA_ATTACH_H

#include "types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define ATTACH_BTF 1
#define ATTACH_RAW 2
#define ATTACH_EVENT 3

#if ATTACH == ATTACH_BTF
#define ON(group, event) SEC("tp_btf/" #event)
#define FIELD(p, f) ((p)->f)
#define THIS_TASK() bpf_get_current_task_btf()
#elif ATTACH == ATTACH_RAW
#define ON(group, event) SEC("raw_tp/" #event)
#define FIELD(p, f) BPF_CORE_READ(p, f)
#define THIS_TASK() ((struct task_struct *)bpf_get_current_task())
#elif ATTACH == ATTACH_EVENT
#define ON(group, event) SEC("tracepoint/" #group "/" #event)
#define FIELD(p, f) BPF_CORE_READ(p, f)
#define THIS_TASK() ((struct task_struct *)bpf_get_current_task())
#else
#error "define ATTACH"
#endif

/* tp_btf and raw_tp programs get the tracepoint's arguments as words. */
#define ARG(ctx, i, type) ((type)((u64 *)(ctx))[i])

#endif
