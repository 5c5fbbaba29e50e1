/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The few kernel types that the probes read. Each declares only the fields
 * that are used: CO-RE relocates them to where the running kernel keeps them,
 * so order and size here mean nothing.
 */
#ifndef COREPLICA_TYPES_H
#define COREPLICA_TYPES_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

typedef __u8 u8;
typedef __u32 u32;
typedef __u64 u64;
typedef __s64 s64;
typedef _Bool bool;

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_STACK_TRACE = 7,
	BPF_MAP_TYPE_LRU_HASH = 9,
};

enum { BPF_ANY = 0, BPF_NOEXIST = 1 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sched_entity {
	u64 exec_start;
};

struct task_struct {
	int pid;
	int tgid;
	unsigned int flags;
	char comm[16];
	struct sched_entity se;
	void *worker_private;
};

/* What a kernel thread's worker_private points at (kernel/kthread.c). */
struct kthread {
	void *data;
};

/* A workqueue's thread (kernel/workqueue_internal.h). */
struct worker {
	void *current_func;
};

struct work_struct {
	void *func;
};

struct block_device {
	u32 bd_dev;
};

struct bvec_iter {
	u64 bi_sector;
	unsigned int bi_size;
};

struct bio {
	struct block_device *bi_bdev;
	unsigned int bi_opf;
	struct bvec_iter bi_iter;
};

struct gendisk {
	struct block_device *part0;
};

struct request_queue {
	struct gendisk *disk;
};

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int __data_len;
};

enum req_flag_bits {
	__REQ_META = 12,
	__REQ_PREFLUSH = 18,
};

struct trace_event_raw_irq_handler_entry {
	int irq;
};

struct trace_event_raw_softirq {
	unsigned int vec;
};

struct trace_event_raw_workqueue_execute_start {
	void *function;
};

struct trace_event_raw_block_bio {
	u32 dev;
	u64 sector;
	unsigned int nr_sector;
	char rwbs[8];
};

struct trace_event_raw_block_bio_complete {
	u32 dev;
	u64 sector;
	char rwbs[8];
};

struct trace_event_raw_block_rq {
	u32 dev;
	u64 sector;
	unsigned int bytes;
	char rwbs[8];
};

struct trace_event_raw_block_rq_completion {
	u32 dev;
	u64 sector;
};

#pragma clang attribute pop

/* A perf_event program's context; opaque, it is only handed on. */
struct bpf_perf_event_data;

struct bpf_raw_tracepoint_args {
	u64 args[0];
};

#endif
