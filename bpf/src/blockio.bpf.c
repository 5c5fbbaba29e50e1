/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Counts what reaches the devices of a mirror: bios of data and of metadata,
 * flushes, merges, requests, and the time from a bio's queueing to its
 * completion. It counts bios because mirrors fan out at that level, and because
 * bio-based devices (zram, md, dm) have no requests.
 */
#include "attach.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define MAX_DEVICES 32
#define BUCKETS 40

#define REQ_OP_MASK 0xff
#define REQ_OP_WRITE 1
#define REQ_OP_ZONE_APPEND 7

struct device {
	u64 bios_data;
	u64 bios_metadata;
	u64 flushes;
	u64 merges;
	u64 requests;
	u64 bytes_data;
	u64 bytes_metadata;
	u64 completed;
	u64 drops; /* bios whose start could not be remembered */
	u64 latency[BUCKETS]; /* bucket i: below 2^i ns */
};

/* dev_t of the kernel to slot; filled by user space */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_DEVICES);
	__type(key, u32);
	__type(value, u32);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_DEVICES);
	__type(key, u32);
	__type(value, struct device);
} counts SEC(".maps");

/* bio (or device and sector, for the trace event) to the time it was queued */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, u64);
} queued SEC(".maps");

static __always_inline struct device *find(u32 dev)
{
	u32 *slot = bpf_map_lookup_elem(&devices, &dev);

	return slot ? bpf_map_lookup_elem(&counts, slot) : 0;
}

static __always_inline void start(struct device *d, u64 key)
{
	u64 now = bpf_ktime_get_ns();

	if (bpf_map_update_elem(&queued, &key, &now, BPF_ANY))
		d->drops++;
}

static __always_inline u32 log2_ceiling(u64 v)
{
	u32 r = 0;

#pragma unroll
	for (int i = 5; i >= 0; i--) {
		if (v >> (1 << i)) {
			v >>= 1 << i;
			r += 1 << i;
		}
	}
	return v ? r + 1 : 0;
}

static __always_inline void finish(struct device *d, u64 key)
{
	u64 *at = bpf_map_lookup_elem(&queued, &key);
	u32 bucket;

	if (!at)
		return;
	bucket = log2_ceiling(bpf_ktime_get_ns() - *at);
	bpf_map_delete_elem(&queued, &key);
	d->completed++;
	d->latency[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}

static __always_inline void count_bio(struct device *d, u32 bytes, bool metadata, bool flush)
{
	if (flush)
		d->flushes++;
	if (!bytes)
		return;
	if (metadata) {
		d->bios_metadata++;
		d->bytes_metadata += bytes;
	} else {
		d->bios_data++;
		d->bytes_data += bytes;
	}
}

#if ATTACH == ATTACH_EVENT
struct rwbs {
	bool write, metadata, flush;
};

/* rwbs is [F]{W,R,D,...}[F][A][S][M]; see blk_fill_rwbs() in the kernel. */
static __always_inline struct rwbs parse(const char *s)
{
	struct rwbs r = {};

	if (s[0] == 'F')
		r.flush = 1;
#pragma unroll
	for (int i = 0; i < 8; i++) {
		if (!s[i])
			break;
		if (s[i] == 'W')
			r.write = 1;
		if (s[i] == 'M')
			r.metadata = 1;
	}
	return r;
}

static __always_inline u64 place(u32 dev, u64 sector)
{
	return (u64)dev << 40 ^ sector;
}

ON(block, block_bio_queue)
int blockio_bio_queue(struct trace_event_raw_block_bio *ctx)
{
	char flags[8] = {};
	struct device *d = find(ctx->dev);
	struct rwbs r;

	if (!d)
		return 0;
	bpf_core_read(flags, sizeof(flags), &ctx->rwbs);
	r = parse(flags);
	if (!r.write && !r.flush)
		return 0;
	count_bio(d, ctx->nr_sector << 9, r.metadata, r.flush);
	start(d, place(ctx->dev, ctx->sector));
	return 0;
}

ON(block, block_bio_complete)
int blockio_bio_complete(struct trace_event_raw_block_bio_complete *ctx)
{
	struct device *d = find(ctx->dev);

	if (d)
		finish(d, place(ctx->dev, ctx->sector));
	return 0;
}

static __always_inline int merge(struct trace_event_raw_block_bio *ctx)
{
	struct device *d = find(ctx->dev);

	if (d)
		d->merges++;
	return 0;
}

ON(block, block_bio_backmerge)
int blockio_backmerge(struct trace_event_raw_block_bio *ctx)
{
	return merge(ctx);
}

ON(block, block_bio_frontmerge)
int blockio_frontmerge(struct trace_event_raw_block_bio *ctx)
{
	return merge(ctx);
}

ON(block, block_rq_issue)
int blockio_rq_issue(struct trace_event_raw_block_rq *ctx)
{
	struct device *d = find(ctx->dev);

	if (d)
		d->requests++;
	return 0;
}
#else
static __always_inline u32 dev_of(struct bio *b)
{
	return FIELD(b, bi_bdev->bd_dev);
}

ON(block, block_bio_queue)
int blockio_bio_queue(void *ctx)
{
	struct bio *b = ARG(ctx, 0, struct bio *);
	struct device *d = find(dev_of(b));
	u32 opf, op;

	if (!d)
		return 0;
	opf = FIELD(b, bi_opf);
	op = opf & REQ_OP_MASK;
	if (op != REQ_OP_WRITE && op != REQ_OP_ZONE_APPEND)
		return 0;
	count_bio(d, FIELD(b, bi_iter.bi_size),
		  opf >> bpf_core_enum_value(enum req_flag_bits, __REQ_META) & 1,
		  opf >> bpf_core_enum_value(enum req_flag_bits, __REQ_PREFLUSH) & 1);
	start(d, (u64)b);
	return 0;
}

ON(block, block_bio_complete)
int blockio_bio_complete(void *ctx)
{
	struct bio *b = ARG(ctx, 1, struct bio *);
	struct device *d = find(dev_of(b));

	if (d)
		finish(d, (u64)b);
	return 0;
}

static __always_inline int merge(void *ctx)
{
	struct device *d = find(dev_of(ARG(ctx, 0, struct bio *)));

	if (d)
		d->merges++;
	return 0;
}

ON(block, block_bio_backmerge)
int blockio_backmerge(void *ctx)
{
	return merge(ctx);
}

ON(block, block_bio_frontmerge)
int blockio_frontmerge(void *ctx)
{
	return merge(ctx);
}

ON(block, block_rq_issue)
int blockio_rq_issue(void *ctx)
{
	struct request *rq = ARG(ctx, 0, struct request *);
	struct device *d = find(FIELD(rq, q->disk->part0->bd_dev));

	if (d)
		d->requests++;
	return 0;
}
#endif
