/*
 * KVM's paravirtual interfaces through the API: features that CPUID enforces, clock, steal time, hypercalls
 * that reach other vCPUs. Linux Documentation/virt/kvm/x86/{msr,hypercalls}.rst, api.rst 4.86, 8.x.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/api/flat.h"

#define MSR_SYSTEM_TIME		0x4b564d01
#define MSR_ASYNC_PF_EN		0x4b564d02
#define MSR_STEAL_TIME		0x4b564d03
#define MSR_PV_EOI		0x4b564d04
#define MSR_ASYNC_PF_INT	0x4b564d06
#define HC_KICK			5
#define HC_SEND_IPI		10
#define HC_SCHED_YIELD		11
#define E_NOSYS			(-1000)

/* This machine's own emulation of KVM knows some of it only. */
static void need(struct machine *m, int cap)
{
	if (call_num(m->sys, KVM_CHECK_EXTENSION, cap) > 0)
		return;
	machine_free(m);
	skip();
}

static void enable(int vcpu, u32 cap, u64 arg)
{
	struct kvm_enable_cap e = { .cap = cap, .args = { arg } };

	assert_int_equal(call(vcpu, KVM_ENABLE_CAP, &e), 0);
}

/* ---- features ------------------------------------------------------------------------------------ */

static void test_enforced(void **state)
{
	static const u32 msrs[] = { 0x11, 0x12, 0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04,
				    0x4b564d05, 0x4b564d06, 0x4b564d07 };
	struct kvm_enable_cap wrong = { .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .flags = 1 };
	struct machine m;
	size_t i;
	u64 val;

	machine_new(&m, WITH_IRQCHIP);
	need(&m, KVM_CAP_ENFORCE_PV_FEATURE_CPUID);
	assert_int_equal(call(m.vcpu, KVM_ENABLE_CAP, &wrong), -EINVAL);
	for (i = 0; i < ARRAY_SIZE(msrs); i++)
		assert_int_equal(msr_get(m.vcpu, msrs[i], &val), 1);
	enable(m.vcpu, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1);
	for (i = 0; i < ARRAY_SIZE(msrs); i++) {
		assert_int_equal(msr_put(m.vcpu, msrs[i], 1), 0);
		assert_int_equal(flat_rdmsr(&m, msrs[i], &val), KVM_EXIT_SHUTDOWN);
	}
	machine_free(&m);
}

/* Beside another hypervisor's leaves, KVM's are found by their signature. */
static void test_enforced_leaf(void **state)
{
	struct machine m;
	u64 val;

	machine_new(&m, WITH_IRQCHIP);
	need(&m, KVM_CAP_ENFORCE_PV_FEATURE_CPUID);
	skip_on_emulated_host("has no hypercalls in its own machine");
	enable(m.vcpu, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1);
	assert_int_equal(flat_hypercall(&m, HC_SCHED_YIELD, 0, 0, 0, 0), E_NOSYS);
	assert_int_equal(flat_hypercall(&m, HC_KICK, 0, 0, 0, 0), E_NOSYS);
	assert_int_equal(flat_hypercall(&m, HC_SEND_IPI, 0, 0, 0, 0x41), E_NOSYS);
	machine_free(&m);
	machine_new(&m, WITH_IRQCHIP);	/* CPUID is fixed once a vCPU has run */
	enable(m.vcpu, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1);
	cpuid_with(&m, 0x100, false);
	assert_int_equal(flat_hypercall(&m, HC_SCHED_YIELD, 0, 0, 0, 0), 0);
	assert_int_equal(msr_get(m.vcpu, MSR_SYSTEM_TIME, &val), 1);
	machine_free(&m);
}

/* ---- clock --------------------------------------------------------------------------------------- */

#define CLOCK_FLAGS	29	/* in the clock page */
#define GUEST_STOPPED	2

static void test_guest_stopped(void **state)
{
	struct machine m;
	u8 *flags;

	machine_new(&m, PLAIN);
	need(&m, KVM_CAP_KVMCLOCK_CTRL);
	flags = m.ram + FLAT_DATA + CLOCK_FLAGS;
	assert_int_equal(call_num(m.vcpu, KVM_KVMCLOCK_CTRL, 0), -EINVAL);
	assert_int_equal(flat_wrmsr(&m, MSR_SYSTEM_TIME, FLAT_DATA | 1), KVM_EXIT_IO);
	assert_false(*flags & GUEST_STOPPED);
	assert_int_equal(call_num(m.vcpu, KVM_KVMCLOCK_CTRL, 0), 0);
	assert_int_equal(flat_wrmsr(&m, 0x8b, 0), KVM_EXIT_IO);
	assert_true(*flags & GUEST_STOPPED);
	/* It is the guest's to clear, whatever else is written. */
	assert_int_equal(msr_put(m.vcpu, MSR_SYSTEM_TIME, FLAT_DATA | 1), 1);
	assert_int_equal(flat_wrmsr(&m, 0x8b, 0), KVM_EXIT_IO);
	assert_true(*flags & GUEST_STOPPED);
	*flags &= ~GUEST_STOPPED;
	assert_int_equal(msr_put(m.vcpu, MSR_SYSTEM_TIME, FLAT_DATA | 1), 1);
	assert_int_equal(flat_wrmsr(&m, 0x8b, 0), KVM_EXIT_IO);
	assert_false(*flags & GUEST_STOPPED);
	machine_free(&m);
}

/* ---- steal time ---------------------------------------------------------------------------------- */

struct steal {
	u64 steal;
	u32 version, flags;
	u8 preempted, pad[3];
};
#define PREEMPTED_FLUSH	3

static u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static u64 run_delay(void)
{
	unsigned long long ran = 0, waited = 0;
	FILE *f = fopen("/proc/thread-self/schedstat", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%llu %llu", &ran, &waited), 2);
	fclose(f);
	return waited;
}

static bool hog_stop;

static void *hog(void *arg)
{
	while (!__atomic_load_n(&hog_stop, __ATOMIC_RELAXED))
		;
	return NULL;
}

/* Until this thread has waited for that long beside another one on the same processor. */
static void wait_beside_hog(u64 ns)
{
	u64 from = run_delay();
	pthread_t t;

	hog_stop = false;
	assert_int_equal(pthread_create(&t, NULL, hog, NULL), 0);
	while (run_delay() - from < ns)
		;
	__atomic_store_n(&hog_stop, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
}

static void run_once(struct machine *m)
{
	assert_int_equal(flat_wrmsr(m, 0x8b, 0), KVM_EXIT_IO);
}

#define STOLEN_NS	5000000

static void test_steal(void **state)
{
	cpu_set_t old, one;
	volatile struct steal *st;
	struct machine m;
	u64 before, waited, start;
	u32 version;

	machine_new(&m, PLAIN);
	if (api_is_host())
		cpuid_with(&m, 0, false);
	st = (volatile struct steal *)(m.ram + FLAT_DATA);
	skip_on_emulated_host("does not know steal time");
	assert_int_equal(msr_put(m.vcpu, MSR_STEAL_TIME, FLAT_DATA | 0x3e), 0);
	/* User space may set the MSR first and memory afterwards. */
	memset((void *)st, 0x5a, sizeof(*st));
	assert_int_equal(msr_put(m.vcpu, MSR_STEAL_TIME, FLAT_DATA | 1), 1);
	assert_int_equal(st->preempted, 0x5a);
	memset((void *)st, 0, sizeof(*st));
	st->preempted = PREEMPTED_FLUSH;
	sched_getaffinity(0, sizeof(old), &old);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	run_once(&m);
	assert_int_equal(st->preempted, 0);
	assert_int_equal(st->version & 1, 0);
	before = st->steal;
	version = st->version;
	start = now_ns();
	waited = run_delay();
	wait_beside_hog(STOLEN_NS);
	waited = run_delay() - waited;
	run_once(&m);
	assert_true(st->version > version);
	assert_true(st->steal - before >= waited);
	assert_true(st->steal - before <= now_ns() - start + waited);
	sched_setaffinity(0, sizeof(old), &old);
	machine_free(&m);
}

/* ---- other vCPUs --------------------------------------------------------------------------------- */

static u32 mp_state(int vcpu)
{
	struct kvm_mp_state s;

	assert_int_equal(call(vcpu, KVM_GET_MP_STATE, &s), 0);
	return s.mp_state;
}

static void test_kick(void **state)
{
	struct kvm_mp_state halted = { .mp_state = KVM_MP_STATE_HALTED };
	struct kvm_run *run;
	struct machine m;
	int other;

	machine_new(&m, WITH_IRQCHIP);
	skip_on_emulated_host("has no hypercalls in its own machine");
	other = vcpu_new(m.vm, 1, &run);
	assert_int_equal(call(other, KVM_SET_MP_STATE, &halted), 0);
	assert_int_equal(flat_hypercall(&m, HC_KICK, 0, 7, 0, 0), 0);
	assert_int_equal(mp_state(other), KVM_MP_STATE_HALTED);
	assert_int_equal(flat_hypercall(&m, HC_KICK, 0, 1, 0, 0), 0);
	assert_int_equal(mp_state(other), KVM_MP_STATE_RUNNABLE);
	munmap(run, RUN_SIZE);
	api->close(other);
	machine_free(&m);
}

static void test_send_ipi(void **state)
{
	struct kvm_run *run;
	struct machine m;
	int other;

	machine_new(&m, WITH_IRQCHIP);
	skip_on_emulated_host("has no hypercalls in its own machine");
	other = vcpu_new(m.vm, 33, &run);
	lapic_enable(other);
	/* 32-bit words here: the second one begins at 32. */
	assert_int_equal(flat_hypercall(&m, HC_SEND_IPI, 2, 0, 0, 0x41), 0);
	assert_false(lapic_requested(other, 0x41));
	assert_int_equal(flat_hypercall(&m, HC_SEND_IPI, 0, 2, 0, 0x41), 1);
	assert_true(lapic_requested(other, 0x41));
	assert_int_equal(flat_hypercall(&m, HC_SEND_IPI, 4, 0, 31, 0x42), 1);
	assert_true(lapic_requested(other, 0x42));
	assert_int_equal(flat_hypercall(&m, HC_SEND_IPI, 4, 0, 34, 0x43), 0);
	assert_int_equal(flat_hypercall(&m, HC_SEND_IPI, 4, 0, 31, 0xc0043), -EINVAL);
	munmap(run, RUN_SIZE);
	api->close(other);
	machine_free(&m);
}

/* ---- the rest ------------------------------------------------------------------------------------ */

/* User space sets the MSRs, as after a migration: the guest's tasks that wait for pages are woken. */
static void test_async_pf(void **state)
{
	struct machine m;
	u32 *token;

	machine_new(&m, WITH_IRQCHIP);
	skip_on_emulated_host("does not know asynchronous page faults");
	lapic_enable(m.vcpu);
	token = (u32 *)(m.ram + FLAT_DATA + 4);
	assert_int_equal(msr_put(m.vcpu, MSR_ASYNC_PF_EN, FLAT_DATA | 0x19), 0);
	assert_int_equal(msr_put(m.vcpu, MSR_ASYNC_PF_EN, (1ULL << 40) | 9), 0);
	assert_int_equal(msr_put(m.vcpu, MSR_ASYNC_PF_INT, 0x61), 1);
	assert_int_equal(msr_put(m.vcpu, MSR_ASYNC_PF_EN, FLAT_DATA | 9), 1);
	assert_int_equal(*token, 0);
	run_once(&m);
	assert_int_equal(*token, 0xffffffff);
	assert_true(lapic_requested(m.vcpu, 0x61));
	machine_free(&m);
}

static void test_async_pf_without_apic(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	skip_on_emulated_host("does not know asynchronous page faults");
	assert_int_equal(msr_put(m.vcpu, MSR_ASYNC_PF_EN, FLAT_DATA | 9), 0);
	assert_int_equal(msr_put(m.vcpu, MSR_ASYNC_PF_EN, 0), 1);
	machine_free(&m);
}

static void test_pv_eoi_msr(void **state)
{
	struct machine m;
	u64 val;

	machine_new(&m, WITH_IRQCHIP);
	skip_on_emulated_host("does not know EOI in memory");
	assert_int_equal(msr_put(m.vcpu, MSR_PV_EOI, FLAT_DATA | 3), 0);
	assert_int_equal(msr_put(m.vcpu, MSR_PV_EOI, (1ULL << 40) | 1), 0);
	assert_int_equal(msr_put(m.vcpu, MSR_PV_EOI, FLAT_DATA | 1), 1);
	assert_int_equal(msr_get(m.vcpu, MSR_PV_EOI, &val), 1);
	assert_int_equal(val, FLAT_DATA | 1);
	machine_free(&m);
}

/* With the quirk disabled, the other vendor's instruction is what it is on a processor. */
static void test_hypercall_insn(void **state)
{
	static const u8 vmmcall[] = { 0x0f, 0x01, 0xd9 }, vmcall[] = { 0x0f, 0x01, 0xc1 };
	struct kvm_enable_cap quirk = { .cap = KVM_CAP_DISABLE_QUIRKS,
					.args = { KVM_X86_QUIRK_FIX_HYPERCALL_INSN } };
	struct kvm_regs r = { .rax = 1 };
	struct machine m;

	machine_new(&m, PLAIN);
	skip_on_emulated_host("has no hypercalls in its own machine");
	assert_int_equal(flat_insn(&m, vmmcall, 3, &r), KVM_EXIT_IO);
	assert_int_equal(r.rax, 0);
	if (!api_is_host())
		assert_memory_equal(m.ram + CODE_AT, vmcall, 3);
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &quirk), 0);
	r.rax = 1;
	if (!api_is_host()) {
		assert_int_equal(flat_insn(&m, vmmcall, 3, &r), KVM_EXIT_SHUTDOWN);
		assert_memory_equal(m.ram + CODE_AT, vmmcall, 3);
	}
	machine_free(&m);
}

int test_pv(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_enforced),
		cmocka_unit_test(test_enforced_leaf),
		cmocka_unit_test(test_guest_stopped),
		cmocka_unit_test(test_steal),
		cmocka_unit_test(test_kick),
		cmocka_unit_test(test_send_ipi),
		cmocka_unit_test(test_async_pf),
		cmocka_unit_test(test_async_pf_without_apic),
		cmocka_unit_test(test_pv_eoi_msr),
		cmocka_unit_test(test_hypercall_insn),
	};

	return cmocka_run_group_tests_name("pv", tests, NULL, NULL);
}
