/*
 * KVM_GET_STATS_FD of a vCPU: its counters (x86/stat.h) in KVM's binary form, which describes
 * itself. api.rst 4.130
 *
 * The descriptor is a file with the values as they were when it was made, so KVM_CAP_BINARY_STATS_FD
 * is not announced: those who keep one open expect it to follow.
 */
#include "hypervisor/api/api.h"

#define STATS_NAME_SIZE	48u	/* KVM_STATS_NAME_SIZE of the kernel */

enum { UNIT_COUNT, UNIT_NS, UNIT_BYTES, UNIT_NOW_BYTES };

static const struct {
	u32 flags;
	s16 exponent;
} units[] = {
	[UNIT_COUNT] = { KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_NONE, 0 },
	[UNIT_NS] = { KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_SECONDS, -9 },
	[UNIT_BYTES] = { KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_BYTES, 0 },
	[UNIT_NOW_BYTES] = { KVM_STATS_TYPE_INSTANT | KVM_STATS_UNIT_BYTES, 0 },
};

static const struct {
	const char *name;
	u32 unit;
} counters[] = {
#define COUNTER(name, unit)	{ #name, UNIT_##unit },
	VCPU_STATS(COUNTER)
#undef COUNTER
};
#define NR_COUNTERS	ARRAY_SIZE(counters)
_Static_assert(sizeof(struct vcpu_stat) == NR_COUNTERS * sizeof(u64), "a row for each counter");

struct stats_file {
	struct kvm_stats_header header;
	char id[STATS_NAME_SIZE];
	struct stats_desc {
		struct kvm_stats_desc fixed;
		char name[STATS_NAME_SIZE];
	} desc[NR_COUNTERS];
	u64 data[NR_COUNTERS];
};
_Static_assert(sizeof(struct kvm_stats_header) == 24 && sizeof(struct kvm_stats_desc) == 16, "ABI");
_Static_assert(sizeof(struct stats_desc) == 16 + STATS_NAME_SIZE, "ABI");

/* into: STATS_NAME_SIZE zeroes. */
static u32 name_put(char *into, const char *name)
{
	u32 n = 0;

	for (; name[n] && n < STATS_NAME_SIZE - 1; n++)
		into[n] = name[n];
	return n;
}

static void id_put(char *id, u32 number)
{
	u32 n = name_put(id, "qumra/vcpu-"), div = 1;

	while (number / div > 9)
		div *= 10;
	for (; div; div /= 10)
		id[n++] = '0' + number / div % 10;
}

static void stats_fill(struct stats_file *f, const struct vcpu *v)
{
	f->header = (struct kvm_stats_header){
		.name_size = STATS_NAME_SIZE,
		.num_desc = NR_COUNTERS,
		.id_offset = offsetof(struct stats_file, id),
		.desc_offset = offsetof(struct stats_file, desc),
		.data_offset = offsetof(struct stats_file, data),
	};
	id_put(f->id, v->id);
	for (u32 n = 0; n < NR_COUNTERS; n++) {
		struct stats_desc *d = &f->desc[n];

		d->fixed.flags = units[counters[n].unit].flags | KVM_STATS_BASE_POW10;
		d->fixed.exponent = units[counters[n].unit].exponent;
		d->fixed.size = 1;
		d->fixed.offset = n * sizeof(u64);
		name_put(d->name, counters[n].name);
	}
	memcpy(f->data, &v->stat, sizeof(f->data));
}

/* User space closes it with close(2), like every file. */
long vcpu_get_stats_fd(struct call *c)
{
	void *mem;
	int fd = os_fd_create("kvm-vcpu-stats", NULL, sizeof(struct stats_file), &mem);

	if (fd < 0)
		return fd;
	stats_fill(mem, c->v);
	os_fd_unmap(mem, sizeof(struct stats_file));
	return fd;
}

void vcpu_stats_each(const struct vcpu *v, void (*fn)(void *arg, const char *name, u64 value),
	void *arg)
{
	const u64 *value = (const u64 *)&v->stat;

	for (u32 n = 0; n < NR_COUNTERS; n++)
		fn(arg, counters[n].name, READ_ONCE(value[n]));
}
