/*
 * A virtqueue whose driver is hostile. The input: a byte of features, a byte of size, then operations
 * of a byte each; operations that write into the ring take their values from the input too. What must
 * hold: buffers lie in the guest's memory, at most as many are in flight as the ring has, a broken
 * queue stays broken.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/virtio/sg.h"
#include "vmm/virtio/virtq.h"

#define BASE 0x10000ULL
#define SIZE 0x4000
#define DESC 0x0000	/* offsets in RAM */
#define DRIVER 0x1000
#define DEVICE 0x1400
#define BUFFERS 0x2000

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

struct fuzz {
	const u8 *in, *end;
	u8 *ram;
	struct virtq q;
	struct virtq_chain held[8];
	unsigned n;
};

static u8 take(struct fuzz *f)
{
	return f->in < f->end ? *f->in++ : 0;
}

static void check_chain(const struct fuzz *f, const struct virtq_chain *c)
{
	u64 bytes[2] = { 0 };

	assert(c->outs + c->ins <= VIRTQ_SIZE_MAX && c->slots && c->slots <= f->q.config.size);
	for (unsigned i = 0; i < c->outs + c->ins; i++) {
		const u8 *at = c->iov[i].iov_base;

		assert(at >= f->ram && at < f->ram + SIZE);
		assert(c->iov[i].iov_len <= (size_t)(f->ram + SIZE - at));
		bytes[i >= c->outs] += c->iov[i].iov_len;
	}
	assert(bytes[0] == c->out_bytes && bytes[1] == c->in_bytes);
	sg_zero(c->iov + c->outs, c->ins, 0, 64);
}

static void op_pop(struct fuzz *f)
{
	bool broken = f->q.broken;
	int ret;

	if (f->n == ARRAY_SIZE(f->held))
		return;
	ret = virtq_pop(&f->q, &f->held[f->n]);
	assert(!broken || ret == 0);
	assert((ret == -EPROTO) == (f->q.broken && !broken));
	if (ret > 0)
		check_chain(f, &f->held[f->n++]);
	assert(f->q.in_flight <= f->q.config.size);
}

static void op_push(struct fuzz *f)
{
	unsigned n = 1 + take(f) % 3;
	struct virtq_used used[3];

	if (f->n < n)
		return;
	for (unsigned i = 0; i < n; i++) {
		const struct virtq_chain *c = &f->held[--f->n];

		used[i] = (struct virtq_used){ c->id, c->slots, take(f) };
	}
	virtq_push(&f->q, used, n);
}

static void op_desc(struct fuzz *f)
{
	u8 *d = f->ram + DESC + 16 * (take(f) % 64), kind = take(f);
	u64 addr = BASE + BUFFERS + 16 * take(f);
	u32 len = take(f);
	u16 a = kind & 7, b = take(f) % 16;

	if (kind & 8)
		addr = (u64)take(f) << 56 | (u64)take(f) << 10;
	if (kind & 16)
		addr = BASE + DESC + 16 * (take(f) % 64), len *= 16;
	if (kind & 32)
		len |= (u32)take(f) << 24;
	if (f->q.flags & VIRTQ_F_PACKED) {
		u16 flags = a | (kind & 64 ? BIT(7) : 0) | (kind & 128 ? BIT(15) : 0);

		a = b;
		b = flags;
	}
	memcpy(d, &addr, 8);
	memcpy(d + 8, &len, 4);
	memcpy(d + 12, &a, 2);
	memcpy(d + 14, &b, 2);
}

static void op_avail(struct fuzz *f)
{
	u16 word = take(f) % 80, value = take(f);

	if (word > 70)
		value |= take(f) << 8;
	memcpy(f->ram + DRIVER + 2 * word, &value, 2);
}

static void op_index(struct fuzz *f)
{
	u16 idx;

	memcpy(&idx, f->ram + DRIVER + 2, 2);
	idx += take(f) % 4;
	memcpy(f->ram + DRIVER + 2, &idx, 2);
}

static void op_kicks(struct fuzz *f)
{
	if (take(f) & 1)
		virtq_kicks_on(&f->q);
	else
		virtq_kicks_off(&f->q);
}

static void op_unpop(struct fuzz *f)
{
	struct virtq_chain c;

	if (virtq_pop(&f->q, &c) > 0)
		virtq_unpop(&f->q, &c);
}

static void (*const ops[])(struct fuzz *f) = {
	op_pop, op_pop, op_push, op_desc, op_desc, op_avail, op_index, op_index, op_kicks, op_unpop,
};

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct fuzz *f = calloc(1, sizeof(*f));
	struct guest_memory mem = { .size = SIZE, .count = 1 };
	struct virtq_config config = { BASE + DESC, BASE + DRIVER, BASE + DEVICE, 0 };
	u8 flags;

	*f = (struct fuzz){ .in = data, .end = data + size, .ram = malloc(SIZE) };
	memset(f->ram, 0, SIZE);
	mem.region[0] = (struct guest_region){ BASE, SIZE, f->ram };
	flags = take(f) & 7;
	config.size = take(f) % 65;
	if (virtq_start(&f->q, &mem, &config, flags) == 0)
		while (f->in < f->end)
			ops[take(f) % ARRAY_SIZE(ops)](f);
	free(f->ram);
	free(f);
	return 0;
}
