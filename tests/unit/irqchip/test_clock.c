/* The paravirtual clock: what a guest computes from its page, as Linux does. */
#include "fake.h"

#include "hypervisor/x86/system.h"

static u8 memory[8192];
static u32 tsc_khz = 2500000;
static u64 wall_ns;
static unsigned int odd_writes, even_writes;

u32 os_tsc_khz(void)
{
	return tsc_khz;
}

u64 tsc_host(void)
{
	return (u64)((u128)fake_now * tsc_khz / 1000000) + 777777;
}

u64 tsc_scale(const struct vcpu *v, u64 host)
{
	return host;
}

u32 vcpu_tsc_khz(const struct vcpu *v)
{
	return tsc_khz;
}

u64 os_wall_ns(void)
{
	return wall_ns + fake_now;
}

void os_yield(void)
{
}

int vm_read_guest(struct vm *vm, u64 gpa, void *buf, size_t n)
{
	if (n > sizeof(memory) || gpa > sizeof(memory) - n)
		return -EFAULT;
	memcpy(buf, memory + gpa, n);
	return 0;
}

int vm_write_guest(struct vm *vm, u64 gpa, const void *buf, size_t n)
{
	if (n > sizeof(memory) || gpa > sizeof(memory) - n)
		return -EFAULT;
	memcpy(memory + gpa, buf, n);
	if (n == 4)
		*(*(u32 *)(memory + gpa) & 1 ? &odd_writes : &even_writes) += 1;
	return 0;
}

struct page {
	u32 version, pad;
	u64 tsc, time;
	u32 mul;
	s8 shift;
	u8 flags;
};

/* Linux __pvclock_read_cycles() */
static u64 guest_time(struct vcpu *v, const struct page *p)
{
	u64 delta = tsc_host() + v->tsc_offset - p->tsc;

	delta = p->shift >= 0 ? delta << p->shift : delta >> -p->shift;
	return p->time + (u64)((u128)delta * p->mul >> 32);
}

static void test_time(void **state)
{
	static const u32 khz[] = {1000, 33333, 999999, 1000000, 1000001, 2400000, 2500000, 5000000};
	struct page p;

	for (unsigned int i = 0; i < ARRAY_SIZE(khz); i++) {
		struct machine *m = machine_new(1);
		struct vcpu *v = m->cpu[0];

		tsc_khz = khz[i];
		m->vm.clock_offset = -(s64)fake_now;
		v->tsc_offset = -tsc_host();
		v->msr.kvm_system_time = 0x100 | 1;
		odd_writes = even_writes = 0;
		kvmclock_update(v);
		assert_int_equal(odd_writes, 1);
		assert_int_equal(even_writes, 1);
		memcpy(&p, memory + 0x100, sizeof(p));
		assert_int_equal(p.version & 1, 0);
		assert_int_equal(p.flags, 1);
		assert_true(p.mul >= 1u << 31);
		fake_now += 3600 * 1000000000ULL; /* an hour: good to a microsecond and a tick */
		assert_in_range(
			guest_time(v, &p), 3599999998000ULL - 2000000 / khz[i], 3600000001000ULL);
		assert_in_range(kvmclock_now(&m->vm), guest_time(v, &p) - 1, guest_time(v, &p) + 1);
		machine_free(m);
	}
	tsc_khz = 2500000;
}

static void test_version_moves_on(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];
	struct page a, b;

	v->msr.kvm_system_time = 0x101;
	kvmclock_update(v);
	memcpy(&a, memory + 0x100, sizeof(a));
	kvmclock_update(v);
	memcpy(&b, memory + 0x100, sizeof(b));
	assert_int_not_equal(a.version, b.version);
	/* The same line, however often it is asked for. */
	assert_memory_equal(&a.tsc, &b.tsc, sizeof(a) - 8);
	memory[0x100]++;					/* left odd by somebody */
	kvmclock_update(v);
	assert_int_equal(memory[0x100] & 1, 0);
}

static void test_disabled_or_outside(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];

	memset(memory, 0xaa, sizeof(memory));
	v->msr.kvm_system_time = 0x100;
	kvmclock_update(v);
	v->msr.kvm_system_time = 0x100001;
	kvmclock_update(v);
	v->msr.kvm_system_time = ~0ULL;
	kvmclock_update(v);
	for (unsigned int i = 0; i < sizeof(memory); i++)
		assert_int_equal(memory[i], 0xaa);
}

static void test_vcpus_agree(void **state)
{
	struct machine *m = *state;
	struct page p[2];

	memset(memory, 0, sizeof(memory));

	for (unsigned int i = 0; i < 2; i++) {
		m->cpu[i]->msr.kvm_system_time = 0x100 * (i + 1) | 1;
		fake_now += 12345;
		kvmclock_update(m->cpu[i]);
		memcpy(&p[i], memory + 0x100 * (i + 1), sizeof(p[i]));
	}
	assert_true(guest_time(m->cpu[0], &p[0]) == guest_time(m->cpu[0], &p[1]));
	assert_int_equal(p[1].flags, 1);
	m->cpu[1]->tsc_offset = 5000;
	kvmclock_update(m->cpu[0]);
	/* TSCs differ: a page is good for its own vCPU only. */
	assert_int_equal(memory[0x100 + 29], 0);
}

/* "The guest was stopped": once told, until the guest has cleared it. */
static void test_stopped(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];
	u8 *flags = memory + 0x100 + 29;

	memset(memory, 0, sizeof(memory));
	v->msr.kvm_system_time = 0x101;
	v->pv.guest_stopped = true;
	kvmclock_update(v);
	assert_int_equal(*flags & 2, 2);
	kvmclock_update(v);
	assert_int_equal(*flags & 2, 2);
	*flags = 0;
	kvmclock_update(v);
	assert_int_equal(*flags & 2, 0);
}

static void test_wall(void **state)
{
	struct machine *m = *state;
	u32 wall[3];

	m->vm.clock_offset = -(s64)fake_now;
	wall_ns = 1700000000ULL * 1000000000 + 123456789 - fake_now;
	kvmclock_now(&m->vm);
	fake_now += 5000000000ULL;
	kvmclock_write_wall(m->cpu[0], 0x200);
	memcpy(wall, memory + 0x200, sizeof(wall));
	assert_int_equal(wall[0] & 1, 0);
	assert_int_equal(wall[1], 1700000000);
	assert_in_range(wall[2], 123456788, 123456792);
	kvmclock_write_wall(m->cpu[0], 0x100000);
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_setup_smp, machine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_time), T(test_version_moves_on), T(test_disabled_or_outside),
		T(test_vcpus_agree), T(test_stopped), T(test_wall),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
