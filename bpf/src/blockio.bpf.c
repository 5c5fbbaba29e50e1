/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Counts what reaches the devices of a mirror: bios of data and of metadata,
 * flushes, merges, requests, and the time that writes take. It counts bios
 * because mirrors fan out at that level, and because bio-based devices (zram,
 * md, dm) have no requests. Those are timed from a bio's queueing to its
 * completion; the others from a request's issue to its completion, since the
 * kernel does not trace the completion of a bio that a request carried.
 */
#include "attach.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define MAX_DEVICES 32
#define BUCKETS 40

#define REQ_OP_MASK 0xff
#define REQ_OP_WRITE 1
#define REQ_OP_FLUSH 2
#define REQ_OP_ZONE_APPEND 7

struct device {
	u64 bios_data;
	u64 bios_metadata;
	u64 flushes;
	u64 merges;
	u64 requests;
	u64 bytes_data;
	u64 bytes_metadata;
	u64 drops; /* starts that were overwritten */
	u64 latency[BUCKETS]; /* bucket i: below 2^i ns */
};

/*
 * dev_t of the kernel to what is known of the device; filled by user space. The
 * lowest byte is its slot, the next one, less one, the slot of the array that it
 * is a member of. The upper half is the first sector of data.
 *
 * md does not tell its members what is metadata: its superblock, in front of the
 * data, says nothing, and it drops REQ_META from the bios that it copies. So an
 * array teaches which of its sectors hold metadata, and is not counted itself.
 */
#define BIO_BASED (1U << 31)
#define TEACHES (1U << 30)
#define MEMBER_SHIFT 8

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_DEVICES);
	__type(key, u32);
	__type(value, u64);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_DEVICES);
	__type(key, u32);
	__type(value, struct device);
} counts SEC(".maps");

/* Sectors of arrays that were last written as metadata; the key is below. */
#define TAUGHT 16384

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, TAUGHT);
	__type(key, u64);
	__type(value, u8);
} taught SEC(".maps");

/*
 * When the writes in flight began, by bio or request (device and sector, for the
 * trace event). Two that share a slot cost one of them its latency, which is
 * counted; a hash map would cost all of them its locks.
 */
#define STARTED 16384

struct begun {
	u64 key;
	u64 ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STARTED);
	__type(key, u32);
	__type(value, struct begun);
} started SEC(".maps");

static __always_inline struct begun *slot_of(u64 key)
{
	u32 slot = (key ^ key >> 6 ^ key >> 14 ^ key >> 23 ^ key >> 37) & (STARTED - 1);

	return bpf_map_lookup_elem(&started, &slot);
}

struct found {
	struct device *d;
	u64 about;
	bool bio_based;
};

static __always_inline struct found find(u32 dev)
{
	u64 *value = bpf_map_lookup_elem(&devices, &dev);
	struct found f = {};
	u32 slot;

	if (!value)
		return f;
	f.about = *value;
	slot = f.about & 0xff;
	f.bio_based = f.about & BIO_BASED;
	f.d = bpf_map_lookup_elem(&counts, &slot);
	return f;
}

static __always_inline u64 lesson(u64 array, u64 sector)
{
	return array << 56 | sector;
}

static __always_inline bool is_metadata(struct found *f, u64 sector, bool said)
{
	u64 first = f->about >> 32;
	u64 array = f->about >> MEMBER_SHIFT & 0xff;
	u64 key;

	if (said || sector < first)
		return 1;
	if (!array)
		return 0;
	key = lesson(array - 1, sector - first);
	return bpf_map_lookup_elem(&taught, &key) != 0;
}

/* teach is for writes to an array that carry bytes. */
static __always_inline void teach(struct found *f, u64 sector, bool metadata)
{
	u64 key = lesson(f->about & 0xff, sector);
	u8 yes = 1;

	if (metadata)
		bpf_map_update_elem(&taught, &key, &yes, BPF_ANY);
	else
		bpf_map_delete_elem(&taught, &key);
}

static __always_inline void start(struct device *d, u64 key)
{
	struct begun *at = slot_of(key);

	if (!at)
		return;
	if (at->key)
		d->drops++;
	at->ns = bpf_ktime_get_ns();
	at->key = key;
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
	struct begun *at = slot_of(key);
	u32 bucket;

	if (!at || at->key != key)
		return;
	bucket = log2_ceiling(bpf_ktime_get_ns() - at->ns);
	at->key = 0;
	d->latency[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}

static __always_inline void count_bio(struct found *f, u64 sector, u32 bytes, bool metadata, bool flush)
{
	struct device *d = f->d;

	if (f->about & TEACHES) {
		if (bytes)
			teach(f, sector, metadata);
		return;
	}
	if (flush)
		d->flushes++;
	if (!bytes)
		return;
	if (is_metadata(f, sector, metadata)) {
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
	struct found f = find(ctx->dev);
	struct rwbs r;

	if (!f.d)
		return 0;
	bpf_core_read(flags, sizeof(flags), &ctx->rwbs);
	r = parse(flags);
	if (!r.write && !r.flush)
		return 0;
	count_bio(&f, ctx->sector, ctx->nr_sector << 9, r.metadata, r.flush);
	if (f.bio_based && !(f.about & TEACHES))
		start(f.d, place(ctx->dev, ctx->sector));
	return 0;
}

ON(block, block_bio_complete)
int blockio_bio_complete(struct trace_event_raw_block_bio_complete *ctx)
{
	struct found f = find(ctx->dev);

	if (f.d && f.bio_based)
		finish(f.d, place(ctx->dev, ctx->sector));
	return 0;
}

static __always_inline int merge(struct trace_event_raw_block_bio *ctx)
{
	struct device *d = find(ctx->dev).d;

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
	char flags[8] = {};
	struct device *d = find(ctx->dev).d;
	struct rwbs r;

	if (!d)
		return 0;
	bpf_core_read(flags, sizeof(flags), &ctx->rwbs);
	r = parse(flags);
	if (!r.write && !r.flush)
		return 0;
	d->requests++;
	start(d, place(ctx->dev, ctx->sector));
	return 0;
}

ON(block, block_rq_complete)
int blockio_rq_complete(struct trace_event_raw_block_rq_completion *ctx)
{
	struct device *d = find(ctx->dev).d;

	if (d)
		finish(d, place(ctx->dev, ctx->sector));
	return 0;
}
#else
/* number is a pointer's value: the verifier forbids arithmetic on pointers. */
static __always_inline u64 number(void *p)
{
	u64 n = 0;

	bpf_probe_read_kernel(&n, sizeof(n), &p);
	return n;
}

static __always_inline u32 dev_of(struct bio *b)
{
	struct block_device *bdev = FIELD(b, bi_bdev);

	return FIELD(bdev, bd_dev);
}

static __always_inline bool writes(u32 op)
{
	return op == REQ_OP_WRITE || op == REQ_OP_ZONE_APPEND || op == REQ_OP_FLUSH;
}

ON(block, block_bio_queue)
int blockio_bio_queue(void *ctx)
{
	struct bio *b = ARG(ctx, 0, struct bio *);
	struct found f = find(dev_of(b));
	u32 opf;

	if (!f.d)
		return 0;
	opf = FIELD(b, bi_opf);
	if (!writes(opf & REQ_OP_MASK))
		return 0;
	count_bio(&f, FIELD(b, bi_iter.bi_sector), FIELD(b, bi_iter.bi_size),
		  opf >> bpf_core_enum_value(enum req_flag_bits, __REQ_META) & 1,
		  opf >> bpf_core_enum_value(enum req_flag_bits, __REQ_PREFLUSH) & 1);
	if (f.bio_based && !(f.about & TEACHES))
		start(f.d, number(b));
	return 0;
}

ON(block, block_bio_complete)
int blockio_bio_complete(void *ctx)
{
	struct bio *b = ARG(ctx, 1, struct bio *);
	struct found f = find(dev_of(b));

	if (f.d && f.bio_based)
		finish(f.d, number(b));
	return 0;
}

static __always_inline int merge(void *ctx)
{
	struct device *d = find(dev_of(ARG(ctx, 0, struct bio *))).d;

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

static __always_inline struct device *device_of(struct request *rq)
{
	struct request_queue *q = FIELD(rq, q);
	struct gendisk *disk = FIELD(q, disk);
	struct block_device *part0 = FIELD(disk, part0);

	return find(FIELD(part0, bd_dev)).d;
}

ON(block, block_rq_issue)
int blockio_rq_issue(void *ctx)
{
	struct request *rq = ARG(ctx, 0, struct request *);
	struct device *d = device_of(rq);

	if (!d || !writes(FIELD(rq, cmd_flags) & REQ_OP_MASK))
		return 0;
	d->requests++;
	start(d, number(rq));
	return 0;
}

ON(block, block_rq_complete)
int blockio_rq_complete(void *ctx)
{
	struct request *rq = ARG(ctx, 0, struct request *);
	struct device *d = device_of(rq);

	if (d)
		finish(d, number(rq));
	return 0;
}
#endif
