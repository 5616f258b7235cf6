/*
 * KVM_GET_STATS_FD: a vCPU's counters (x86/stat.h) and a VM's in KVM's binary form, which describes
 * itself. api.rst 4.133
 *
 * What the descriptors read is a file of ours. Its values are those of the last KVM_RUN that ended,
 * or while a vCPU runs of the last millisecond (core/request.c).
 */
#include "hypervisor/api/api.h"

#define STATS_NAME_SIZE	48u	/* KVM_STATS_NAME_SIZE of the kernel */

enum { UNIT_COUNT, UNIT_NS, UNIT_BYTES, UNIT_NOW_BYTES, UNIT_NOW_COUNT };

static const struct {
	u32 flags;
	s16 exponent;
} units[] = {
	[UNIT_COUNT] = { KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_NONE, 0 },
	[UNIT_NS] = { KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_SECONDS, -9 },
	[UNIT_BYTES] = { KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_BYTES, 0 },
	[UNIT_NOW_BYTES] = { KVM_STATS_TYPE_INSTANT | KVM_STATS_UNIT_BYTES, 0 },
	[UNIT_NOW_COUNT] = { KVM_STATS_TYPE_INSTANT | KVM_STATS_UNIT_NONE, 0 },
};

struct counter {
	const char *name;
	u32 unit;
};
#define COUNTER(name, unit)	{ #name, UNIT_##unit },
static const struct counter vcpu_counters[] = { VCPU_STATS(COUNTER) };
static const struct counter vm_counters[] = { VM_STATS(COUNTER) };
#define NR_VCPU		ARRAY_SIZE(vcpu_counters)
#define NR_VM		ARRAY_SIZE(vm_counters)
_Static_assert(sizeof(struct vcpu_stat) == NR_VCPU * sizeof(u64), "a row for each counter");
_Static_assert(sizeof(struct vm_stat) == NR_VM * sizeof(u64), "a row for each counter");

/* The file: then n descriptors, then n values. */
struct stats_head {
	struct kvm_stats_header header;
	char id[STATS_NAME_SIZE];
	struct stats_desc {
		struct kvm_stats_desc fixed;
		char name[STATS_NAME_SIZE];
	} desc[];
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

static void number_put(char *to, u32 number)
{
	u32 div = 1;

	while (number / div > 9)
		div *= 10;
	for (; div; div /= 10)
		*to++ = '0' + number / div % 10;
}

static size_t data_offset(u32 n)
{
	return offsetof(struct stats_head, desc) + n * sizeof(struct stats_desc);
}

static void head_fill(struct stats_head *f, const struct counter *c, u32 n)
{
	f->header = (struct kvm_stats_header){
		.name_size = STATS_NAME_SIZE,
		.num_desc = n,
		.id_offset = offsetof(struct stats_head, id),
		.desc_offset = offsetof(struct stats_head, desc),
		.data_offset = data_offset(n),
	};
	for (u32 i = 0; i < n; i++) {
		struct stats_desc *d = &f->desc[i];

		d->fixed.flags = units[c[i].unit].flags | KVM_STATS_BASE_POW10;
		d->fixed.exponent = units[c[i].unit].exponent;
		d->fixed.size = 1;
		d->fixed.offset = i * sizeof(u64);
		name_put(d->name, c[i].name);
	}
}

/* Made when first asked for. 0 or -errno. */
static int stats_create(struct stats_file *s, const char *name, const struct counter *c, u32 n)
{
	size_t size = data_offset(n) + n * sizeof(u64);
	void *mem;
	int file;

	if (s->data)
		return 0;
	file = os_file_create(name, size, &mem);
	if (file < 0)
		return file;
	head_fill(mem, c, n);
	s->file = file;
	s->size = size;
	s->head = mem;
	return 0;
}

/* From now on it is kept up to date. */
static void stats_ready(struct stats_file *s)
{
	store_release(&s->data, (u64 *)((char *)s->head + s->head->header.data_offset));
}

void stats_free(struct stats_file *s)
{
	if (s->data)
		os_file_close(s->file, s->head, s->size);
}

long vcpu_get_stats_fd(struct call *c)
{
	struct stats_file *s = &c->v->stats;
	int ret = stats_create(s, "kvm-vcpu-stats", vcpu_counters, NR_VCPU);

	if (ret)
		return ret;
	if (!s->data) {
		number_put(s->head->id + name_put(s->head->id, "kvm-qumra/vcpu-"), c->v->id);
		stats_ready(s);
	}
	vcpu_stats_publish(c->v);
	return os_file_open(s->file);
}

static long vm_get_stats_locked(struct vm *vm)
{
	struct stats_file *s = &vm->stats;
	int ret = stats_create(s, "kvm-vm-stats", vm_counters, NR_VM);

	if (ret)
		return ret;
	if (!s->data) {
		name_put(s->head->id, "kvm-qumra");
		stats_ready(s);
	}
	vm_stats_publish(vm);
	return os_file_open(s->file);
}

long vm_get_stats_fd(struct call *c)
{
	long ret;

	os_mutex_lock(&c->vm->lock);
	ret = vm_get_stats_locked(c->vm);
	os_mutex_unlock(&c->vm->lock);
	return ret;
}

void vcpu_stats_each(const struct vcpu *v, void (*fn)(void *arg, const char *name, u64 value),
	void *arg)
{
	const u64 *value = (const u64 *)&v->stat;

	for (u32 n = 0; n < NR_VCPU; n++)
		fn(arg, vcpu_counters[n].name, READ_ONCE(value[n]));
}
