/* CPUID through the API: tables of struct kvm_cpuid_entry2 in and out. api.rst 4.20, 4.46, 4.47 */
#include "hypervisor/api/api.h"
#include "hypervisor/x86/cpuid.h"

#define ENTRY_SIZE	sizeof(struct kvm_cpuid_entry2)
#define MAX_ENTRIES	ARRAY_SIZE(((struct vcpu *)0)->cpuid)
_Static_assert(ENTRY_SIZE == 40 && sizeof(struct kvm_cpuid2) == 8, "ABI of KVM_SET_CPUID2");

static u64 entries_of(const struct call *c)
{
	return c->arg + sizeof(struct kvm_cpuid2);
}

/* n entries to user space, which has room for head->nent. */
static long entries_out(struct call *c, const struct kvm_cpuid_entry2 *e, u32 n)
{
	struct kvm_cpuid2 *head = c->data;

	if (head->nent < n)
		return -E2BIG;
	head->nent = n;
	return os_user_write(entries_of(c), e, n * ENTRY_SIZE);
}

long sys_get_supported_cpuid(struct call *c)
{
	struct kvm_cpuid_entry2 *e = os_alloc(MAX_ENTRIES * ENTRY_SIZE);
	long ret;

	if (!e)
		return -ENOMEM;
	ret = entries_out(c, e, cpuid_supported(e, MAX_ENTRIES));
	os_free(e);
	return ret;
}

/* Of the n entries that user space has room for: their padding is to be zero. */
static bool padding_clean(const struct call *c, u32 n)
{
	struct kvm_cpuid_entry2 e;
	u32 i;

	for (i = 0; i < n; i++) {
		if (os_user_read(&e, entries_of(c) + i * ENTRY_SIZE, ENTRY_SIZE))
			return false;
		if (e.padding[0] | e.padding[1] | e.padding[2])
			return false;
	}
	return true;
}

/*
 * What is emulated whether the host has it or not: MOVBE, RDPID. KVM wants room for one entry more, of
 * the leaves that it looks at and finds empty.
 */
long sys_get_emulated_cpuid(struct call *c)
{
	const struct kvm_cpuid2 *head = c->data;
	static const struct kvm_cpuid_entry2 e[] = {
		{ .function = 0, .eax = 7 },
		{ .function = 1, .ecx = BIT(22) },
		{ .function = 7, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .ecx = BIT(22) },
	};

	if (!head->nent)
		return -E2BIG;
	if (!padding_clean(c, MIN(head->nent, MAX_ENTRIES)))
		return -EINVAL;
	return head->nent > ARRAY_SIZE(e) ? entries_out(c, e, ARRAY_SIZE(e)) : -E2BIG;
}

static bool entries_equal(const struct kvm_cpuid_entry2 *a, const struct kvm_cpuid_entry2 *b)
{
	return a->function == b->function && a->index == b->index && a->flags == b->flags &&
	       a->eax == b->eax && a->ebx == b->ebx && a->ecx == b->ecx && a->edx == b->edx;
}

/* Once a guest has seen its CPUID, it can only be set to what it is. Bits that follow the guest's
 * state are not compared: they are brought up to date in the new table, too. */
static long cpuid_unchanged(struct vcpu *v, const struct kvm_cpuid_entry2 *e, u32 n)
{
	struct kvm_cpuid_entry2 *old;
	bool same = true;

	if (n != v->cpuid_n)
		return -EINVAL;
	old = os_alloc(MAX_ENTRIES * ENTRY_SIZE);
	if (!old)
		return -ENOMEM;
	memcpy(old, v->cpuid, n * ENTRY_SIZE);
	cpuid_set(v, e, n);
	for (u32 i = 0; i < n && same; i++)
		same = entries_equal(&v->cpuid[i], &old[i]);
	cpuid_set(v, old, n);
	os_free(old);
	return same ? 0 : -EINVAL;
}

/* Canonical addresses have 48 bits or 57, as far as the kernel knows. */
static bool entries_valid(const struct kvm_cpuid_entry2 *e, u32 n)
{
	u32 i, bits;

	for (i = 0; i < n && e[i].function != 0x80000008; i++)
		;
	if (i == n)
		return true;
	bits = e[i].eax >> 8 & 0xff;
	return !bits || bits == 48 || bits == 57;
}

/* Which instructions exist, and which physical addresses, was decided by the old table. */
static long cpuid_install(struct vcpu *v, const struct kvm_cpuid_entry2 *e, u32 n)
{
	int ret;

	if (v->ran)
		return cpuid_unchanged(v, e, n);
	if (!entries_valid(e, n))
		return -EINVAL;
	ret = cpuid_set(v, e, n);
	if (ret)
		return ret;
	vcpu_update_mode(v);
	vcpu_request(v, REQ_CODE_FLUSH);
	vcpu_request(v, REQ_TLB_FLUSH);
	return 0;
}

static long cpuid_take(struct call *c, struct kvm_cpuid_entry2 *e, u32 n)
{
	int ret = os_user_read(e, entries_of(c), n * ENTRY_SIZE);

	return ret ? ret : cpuid_install(c->v, e, n);
}

long vcpu_set_cpuid2(struct call *c)
{
	const struct kvm_cpuid2 *head = c->data;
	struct kvm_cpuid_entry2 *e;
	long ret;

	if (head->nent > MAX_ENTRIES)
		return -E2BIG;
	e = os_alloc(MAX_ENTRIES * ENTRY_SIZE);
	if (!e)
		return -ENOMEM;
	ret = cpuid_take(c, e, head->nent);
	os_free(e);
	return ret;
}

/* The older form without sub-leaves. */
static long cpuid_take_old(struct call *c, struct kvm_cpuid_entry2 *e, u32 n)
{
	u64 at = c->arg + sizeof(struct kvm_cpuid);
	struct kvm_cpuid_entry old;
	u32 i;

	for (i = 0; i < n; i++) {
		if (os_user_read(&old, at + i * sizeof(old), sizeof(old)))
			return -EFAULT;
		e[i] = (struct kvm_cpuid_entry2){
			.function = old.function,
			.eax = old.eax, .ebx = old.ebx, .ecx = old.ecx, .edx = old.edx,
		};
	}
	return cpuid_install(c->v, e, n);
}

long vcpu_set_cpuid(struct call *c)
{
	const struct kvm_cpuid *head = c->data;
	struct kvm_cpuid_entry2 *e;
	long ret;

	if (head->nent > MAX_ENTRIES)
		return -E2BIG;
	e = os_alloc(MAX_ENTRIES * ENTRY_SIZE);
	if (!e)
		return -ENOMEM;
	ret = cpuid_take_old(c, e, head->nent);
	os_free(e);
	return ret;
}

long vcpu_get_cpuid2(struct call *c)
{
	return entries_out(c, c->v->cpuid, c->v->cpuid_n);
}
