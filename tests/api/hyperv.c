/*
 * Hyper-V's interfaces through the API: CPUID and what it enforces, MSRs, hypercalls here and in user space,
 * the synthetic interrupt controller, timers and reference time. api.rst (KVM_CAP_HYPERV*, KVM_EXIT_HYPERV,
 * KVM_HYPERV_EVENTFD), TLFS.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/api/flat.h"

enum { GUEST_OS_ID = 0x40000000, HYPERCALL, VP_INDEX, RESET, VP_RUNTIME = 0x40000010,
       TIME_REF_COUNT = 0x40000020, REFERENCE_TSC, TSC_FREQUENCY, APIC_FREQUENCY,
       HV_EOI = 0x40000070, HV_ICR, HV_TPR, VP_ASSIST_PAGE,
       SCONTROL = 0x40000080, SVERSION, SIEFP, SIMP, EOM, SINT0 = 0x40000090,
       STIMER0_CONFIG = 0x400000b0, STIMER0_COUNT, SYNDBG_CONTROL = 0x400000f1, SYNDBG_STATUS,
       SYNDBG_OPTIONS = 0x400000ff, CRASH_P0 = 0x40000100, CRASH_CTL = 0x40000105, REENLIGHTENMENT,
       TSC_EMULATION, TSC_EMULATION_STATUS };
enum { FLUSH_SPACE = 2, FLUSH_LIST = 3, LONG_SPIN = 8, SEND_IPI = 0xb, FLUSH_SPACE_EX = 0x13,
       FLUSH_LIST_EX = 0x14, SEND_IPI_EX = 0x15, POST_MESSAGE = 0x5c, SIGNAL_EVENT = 0x5d,
       RESET_DEBUG = 0x6b };
enum { OK, INVALID_CODE = 2, INVALID_INPUT, INVALID_ALIGNMENT, ACCESS_DENIED = 6, OPERATION_DENIED = 8 };
#define FAST	BIT(16)
#define VAR(n)	((u64)(n) << 17)
#define REPS(n)	((u64)(n) << 32)
#define DATA(m)	((m)->ram + FLAT_DATA)

static void enable(int vcpu, u32 cap, u64 arg)
{
	struct kvm_enable_cap e = { .cap = cap, .args = { arg } };

	assert_int_equal(call(vcpu, KVM_ENABLE_CAP, &e), 0);
}

/* A guest that sees Hyper-V, with an id of its own and a local APIC. */
static void hv_capable_machine(struct machine *m)
{
	machine_new(m, WITH_IRQCHIP);
	if (call_num(m->sys, KVM_CHECK_EXTENSION, KVM_CAP_HYPERV_SYNIC2) <= 0) {
		machine_free(m);
		skip();
	}
}

static void hv_machine(struct machine *m)
{
	hv_capable_machine(m);
	cpuid_with(m, 0x100, true);
	lapic_enable(m->vcpu);
	assert_int_equal(flat_wrmsr(m, GUEST_OS_ID, 0x8100000000000000), KVM_EXIT_IO);
}

static u64 wide(u64 high, u64 low)
{
	return high << 32 | (u32)low;
}

/* Returns the exit; *result is RDX:RAX. */
static u32 hv_call(struct machine *m, u64 control, u64 in, u64 out, u64 *result)
{
	static const u8 insn[] = { 0x0f, 0x01, 0xc1 };
	struct kvm_regs r = {
		.rax = (u32)control, .rdx = control >> 32, .rcx = (u32)in, .rbx = in >> 32,
		.rsi = (u32)out, .rdi = out >> 32,
	};
	u32 ret = flat_insn(m, insn, sizeof(insn), &r);

	*result = wide(r.rdx, r.rax);
	return ret;
}

static u64 hv_result(struct machine *m, u64 control, u64 in, u64 out)
{
	u64 result;

	assert_int_equal(hv_call(m, control, in, out, &result), KVM_EXIT_IO);
	return result;
}

/* Input in memory. */
static u64 hv_memory(struct machine *m, u64 control, const u64 *in, size_t n)
{
	memcpy(DATA(m), in, n * sizeof(u64));
	return hv_result(m, control, FLAT_DATA, 0);
}

/* ---- CPUID --------------------------------------------------------------------------------------- */

static void check_leaves(const struct kvm_cpuid2 *c)
{
	assert_int_equal(c->nent, 10);
	assert_int_equal(c->entries[0].function, 0x40000000);
	assert_int_equal(c->entries[0].eax, 0x40000082);
	assert_memory_equal(&c->entries[0].ebx, "Linux KVM Hv", 12);
	assert_memory_equal(&c->entries[1].eax, "Hv#1", 4);
}

static void test_cpuid(void **state)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 32 * sizeof(c->entries[0]));
	struct machine m;
	u32 system_edx;

	hv_machine(&m);
	c->nent = 9;
	assert_int_equal(call(m.sys, KVM_GET_SUPPORTED_HV_CPUID, c), -E2BIG);
	assert_int_equal(call(m.vcpu, KVM_GET_SUPPORTED_HV_CPUID, c), -E2BIG);
	assert_int_equal(c->nent, 9);
	c->nent = 32;
	assert_int_equal(call(m.sys, KVM_GET_SUPPORTED_HV_CPUID, c), 0);
	check_leaves(c);
	system_edx = c->entries[3].edx;
	assert_true(system_edx & BIT(19));
	assert_int_equal(call(m.vcpu, KVM_GET_SUPPORTED_HV_CPUID, c), 0);
	check_leaves(c);
	assert_int_equal(c->entries[3].edx, system_edx);
	machine_free(&m);
	/* Direct timers and IPIs want a local APIC. */
	machine_new(&m, PLAIN);
	assert_int_equal(call(m.vcpu, KVM_GET_SUPPORTED_HV_CPUID, c), 0);
	assert_false(c->entries[3].edx & BIT(19));
	machine_free(&m);
	free(c);
}

/* Without "Hv#1" in CPUID the guest has none of it; user space has. */
static void test_not_seen(void **state)
{
	struct machine m;
	u64 val;

	hv_capable_machine(&m);
	cpuid_with(&m, 0, false);
	lapic_enable(m.vcpu);
	assert_int_equal(set_msr(m.vcpu, GUEST_OS_ID, 0x8100000000000000), 1);
	assert_int_equal(flat_rdmsr(&m, GUEST_OS_ID, &val), KVM_EXIT_SHUTDOWN);
	assert_int_equal(msr_get(m.vcpu, GUEST_OS_ID, &val), 1);
	assert_true(val == 0x8100000000000000);
	assert_int_equal(flat_hypercall(&m, 99, 0, 0, 0, 0), -1000);
	machine_free(&m);
}

static void test_enforced(void **state)
{
	struct machine m;
	u64 val;

	hv_machine(&m);
	enable(m.vcpu, KVM_CAP_HYPERV_ENFORCE_CPUID, 1);
	assert_int_equal(flat_rdmsr(&m, VP_INDEX, &val), KVM_EXIT_IO);
	/* The synthetic controller was not enabled. */
	assert_int_equal(flat_rdmsr(&m, SCONTROL, &val), KVM_EXIT_SHUTDOWN);
	machine_free(&m);
}

/* ---- MSRs ---------------------------------------------------------------------------------------- */

static void test_hypercall_page(void **state)
{
	static const u8 vmcall[] = { 0x0f, 0x01, 0xc1, 0xc3 }, vmmcall[] = { 0x0f, 0x01, 0xd9, 0xc3 };
	struct machine m;
	u64 val;

	hv_machine(&m);
	assert_int_equal(flat_wrmsr(&m, HYPERCALL, FLAT_DATA | 1), KVM_EXIT_IO);
	assert_true(!memcmp(DATA(&m), vmcall, 4) || !memcmp(DATA(&m), vmmcall, 4));
	assert_int_equal(flat_wrmsr(&m, HYPERCALL, BIT(40) | 1), KVM_EXIT_SHUTDOWN);
	/* No id, no calls. */
	assert_int_equal(msr_put(m.vcpu, GUEST_OS_ID, 0), 1);
	assert_int_equal(msr_get(m.vcpu, HYPERCALL, &val), 1);
	assert_int_equal(val, FLAT_DATA);
	assert_int_equal(flat_hypercall(&m, 99, 0, 0, 0, 0), -1000);
	machine_free(&m);
}

static void test_plain_msrs(void **state)
{
	struct machine m;
	u64 val, more;

	hv_machine(&m);
	assert_int_equal(flat_rdmsr(&m, VP_INDEX, &val), KVM_EXIT_IO);
	assert_int_equal(val, 0);
	assert_int_equal(flat_wrmsr(&m, VP_INDEX, 1), KVM_EXIT_SHUTDOWN);
	assert_int_equal(msr_put(m.vcpu, VP_INDEX, 5), 1);
	assert_int_equal(flat_rdmsr(&m, VP_INDEX, &val), KVM_EXIT_IO);
	assert_int_equal(val, 5);
	assert_int_equal(flat_rdmsr(&m, TSC_FREQUENCY, &val), KVM_EXIT_IO);
	assert_int_equal(val, call_num(m.vcpu, KVM_GET_TSC_KHZ, 0) * 1000);
	assert_int_equal(flat_rdmsr(&m, APIC_FREQUENCY, &val), KVM_EXIT_IO);
	assert_int_equal(val, 1000000000);
	assert_int_equal(flat_rdmsr(&m, VP_RUNTIME, &val), KVM_EXIT_IO);
	assert_int_equal(msr_put(m.vcpu, VP_RUNTIME, 1ULL << 40), 1);
	assert_int_equal(flat_rdmsr(&m, VP_RUNTIME, &more), KVM_EXIT_IO);
	assert_true(more >= 1ULL << 40 && more < (1ULL << 40) + 100000000);
	assert_int_equal(flat_wrmsr(&m, TSC_EMULATION_STATUS, 1), KVM_EXIT_SHUTDOWN);
	assert_int_equal(flat_wrmsr(&m, REENLIGHTENMENT, 0x100ff), KVM_EXIT_IO);
	assert_int_equal(msr_get(m.vcpu, REENLIGHTENMENT, &val), 1);
	assert_int_equal(val, 0x100ff);
	machine_free(&m);
}

static void test_apic_msrs(void **state)
{
	struct kvm_lapic_state s;
	struct machine m;
	u64 val;

	hv_machine(&m);
	assert_int_equal(flat_wrmsr(&m, HV_TPR, 0x50), KVM_EXIT_IO);
	assert_int_equal(flat_rdmsr(&m, HV_TPR, &val), KVM_EXIT_IO);
	assert_int_equal(val, 0x50);
	assert_int_equal(call(m.vcpu, KVM_GET_LAPIC, &s), 0);
	assert_int_equal(s.regs[0x80], 0x50);
	assert_int_equal(flat_rdmsr(&m, HV_EOI, &val), KVM_EXIT_SHUTDOWN);
	assert_int_equal(flat_wrmsr(&m, HV_EOI, 0), KVM_EXIT_IO);
	/* To oneself. */
	assert_int_equal(flat_wrmsr(&m, HV_ICR, 0x44061), KVM_EXIT_IO);
	assert_true(lapic_requested(m.vcpu, 0x61));
	machine_free(&m);
}

static void test_assist_page(void **state)
{
	struct machine m;
	u64 val;

	hv_machine(&m);
	memset(DATA(&m), 0xff, 16);
	assert_int_equal(flat_wrmsr(&m, VP_ASSIST_PAGE, FLAT_DATA | 1), KVM_EXIT_IO);
	assert_int_equal(*(u32 *)DATA(&m), 0);
	assert_int_equal(*(u32 *)(DATA(&m) + 4), 0xffffffff);
	assert_int_equal(msr_get(m.vcpu, VP_ASSIST_PAGE, &val), 1);
	assert_int_equal(val, FLAT_DATA | 1);
	assert_int_equal(flat_wrmsr(&m, VP_ASSIST_PAGE, BIT(40) | 1), KVM_EXIT_SHUTDOWN);
	machine_free(&m);
}

static void test_crash_and_reset(void **state)
{
	struct kvm_regs r;
	struct machine m;
	u64 val;

	hv_machine(&m);
	assert_int_equal(flat_wrmsr(&m, CRASH_P0 + 2, 1234), KVM_EXIT_IO);
	assert_int_equal(flat_wrmsr(&m, CRASH_CTL, BIT(63)), KVM_EXIT_SYSTEM_EVENT);
	assert_int_equal(m.run->system_event.type, KVM_SYSTEM_EVENT_CRASH);
	/* The write is over: the next instruction is that behind it. */
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 2);
	assert_int_equal(flat_go_on(&m, &r), KVM_EXIT_IO);
	assert_int_equal(msr_get(m.vcpu, CRASH_P0 + 2, &val), 1);
	assert_int_equal(val, 1234);
	assert_int_equal(flat_wrmsr(&m, RESET, 0), KVM_EXIT_IO);
	assert_int_equal(flat_wrmsr(&m, RESET, 1), KVM_EXIT_SYSTEM_EVENT);
	assert_int_equal(m.run->system_event.type, KVM_SYSTEM_EVENT_RESET);
	machine_free(&m);
}

/* The debugger's registers: user space answers a command with a status. */
static void test_debugger(void **state)
{
	struct kvm_regs r;
	struct machine m;
	u64 val;

	hv_machine(&m);
	assert_int_equal(flat_wrmsr(&m, SYNDBG_CONTROL, 0x1001), KVM_EXIT_HYPERV);
	assert_int_equal(m.run->hyperv.type, KVM_EXIT_HYPERV_SYNDBG);
	assert_int_equal(m.run->hyperv.u.syndbg.msr, SYNDBG_CONTROL);
	assert_int_equal(m.run->hyperv.u.syndbg.control, 0x1001);
	m.run->hyperv.u.syndbg.status = 77;
	assert_int_equal(flat_go_on(&m, &r), KVM_EXIT_IO);
	assert_int_equal(flat_rdmsr(&m, SYNDBG_STATUS, &val), KVM_EXIT_IO);
	assert_int_equal(val, 77);
	assert_int_equal(hv_result(&m, RESET_DEBUG, 0, 0), OPERATION_DENIED);
	assert_int_equal(flat_wrmsr(&m, SYNDBG_OPTIONS, BIT(2)), KVM_EXIT_IO);
	assert_int_equal(hv_call(&m, RESET_DEBUG, 1, 2, &val), KVM_EXIT_HYPERV);
	assert_int_equal(m.run->hyperv.type, KVM_EXIT_HYPERV_HCALL);
	machine_free(&m);
}

/* ---- time ---------------------------------------------------------------------------------------- */

struct tsc_page {
	volatile u32 sequence, reserved;
	volatile u64 scale;
	volatile s64 offset;
};

static u64 page_time(const struct tsc_page *p, u64 tsc)
{
	return (u64)((unsigned __int128)tsc * p->scale >> 64) + p->offset;
}

/* Page and counter by the guest's own clocks, within 10 ms. */
static void check_page(struct machine *m, const struct tsc_page *p)
{
	u64 count, tsc, by_page;

	assert_int_equal(flat_rdmsr(m, 0x10, &tsc), KVM_EXIT_IO);
	assert_int_equal(flat_rdmsr(m, TIME_REF_COUNT, &count), KVM_EXIT_IO);
	by_page = page_time(p, tsc);
	assert_true(count >= by_page && count - by_page < 100000);
}

/* At another rate of the guest's TSC the page is another, and the time the same. */
static void test_reference_time_scaled(void **state)
{
	struct tsc_page *p;
	struct machine m;
	u64 freq, scale;
	long khz;

	hv_machine(&m);
	if (call_num(m.sys, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) <= 0) {
		machine_free(&m);
		skip();
	}
	p = (struct tsc_page *)DATA(&m);
	assert_int_equal(flat_wrmsr(&m, REFERENCE_TSC, FLAT_DATA | 1), KVM_EXIT_IO);
	scale = p->scale;
	khz = call_num(m.vcpu, KVM_GET_TSC_KHZ, 0) / 2;
	assert_int_equal(call_num(m.vcpu, KVM_SET_TSC_KHZ, khz), 0);
	assert_int_equal(flat_rdmsr(&m, TSC_FREQUENCY, &freq), KVM_EXIT_IO);
	assert_int_equal(freq, khz * 1000);
	check_page(&m, p);
	assert_in_range(p->scale, 2 * scale - scale / 1000, 2 * scale + scale / 1000);
	machine_free(&m);
}

static void test_reference_time(void **state)
{
	struct kvm_clock_data zero = { .clock = 0 };
	struct tsc_page *p;
	struct machine m;
	s64 offset;
	u64 val;

	hv_machine(&m);
	p = (struct tsc_page *)DATA(&m);
	assert_int_equal(flat_wrmsr(&m, TIME_REF_COUNT, 1), KVM_EXIT_SHUTDOWN);
	assert_int_equal(flat_wrmsr(&m, REFERENCE_TSC, FLAT_DATA), KVM_EXIT_IO);
	assert_int_equal(p->sequence, 0);
	assert_int_equal(flat_wrmsr(&m, REFERENCE_TSC, FLAT_DATA | 1), KVM_EXIT_IO);
	assert_int_not_equal(p->sequence, 0);
	check_page(&m, p);
	/* The clock is set back: the page follows. */
	offset = p->offset;
	assert_int_equal(call(m.vm, KVM_SET_CLOCK, &zero), 0);
	assert_int_equal(flat_rdmsr(&m, TIME_REF_COUNT, &val), KVM_EXIT_IO);
	assert_true(val < 10000000);
	assert_true(p->offset != offset);
	check_page(&m, p);
	/* But not while the guest relies on what it says. */
	assert_int_equal(flat_wrmsr(&m, TSC_EMULATION, 1), KVM_EXIT_IO);
	offset = p->offset;
	assert_int_equal(call(m.vm, KVM_SET_CLOCK, &zero), 0);
	check_page(&m, p);
	assert_true(p->offset == offset);
	/* User space names the page before memory is filled in: written when the vCPU runs. */
	memset(p, 0, sizeof(*p));
	assert_int_equal(flat_wrmsr(&m, TSC_EMULATION, 0), KVM_EXIT_IO);
	assert_int_equal(msr_put(m.vcpu, REFERENCE_TSC, FLAT_DATA | 1), 1);
	assert_int_equal(p->sequence, 0);
	check_page(&m, p);
	assert_int_not_equal(p->sequence, 0);
	machine_free(&m);
}

/* ---- hypercalls ---------------------------------------------------------------------------------- */

static void test_call_forms(void **state)
{
	u64 flush[] = { 0, 1, 0, 0 };
	struct machine m;

	hv_machine(&m);
	assert_int_equal(hv_result(&m, 0xbeef, 0, 0), INVALID_CODE);
	assert_int_equal(hv_result(&m, LONG_SPIN, 0, 0), OK);
	assert_int_equal(hv_result(&m, LONG_SPIN | REPS(1), 0, 0), INVALID_INPUT);
	assert_int_equal(hv_result(&m, LONG_SPIN | VAR(1), 0, 0), INVALID_INPUT);
	assert_int_equal(hv_result(&m, LONG_SPIN | BIT(30), 0, 0), INVALID_INPUT);
	assert_int_equal(hv_memory(&m, FLUSH_SPACE, flush, 3), OK);
	assert_int_equal(hv_memory(&m, FLUSH_LIST, flush, 3), INVALID_INPUT);
	assert_true(hv_memory(&m, FLUSH_LIST | REPS(3), flush, 3) == (OK | REPS(3)));
	assert_int_equal(hv_result(&m, FLUSH_SPACE, BIT(40), 0), INVALID_INPUT);
	assert_int_equal(hv_result(&m, FLUSH_SPACE | FAST, 0, 1), OK);
	/* A set of no processors, of one bank where two were announced, of all. */
	memset(flush, 0, sizeof(flush));
	assert_int_equal(hv_memory(&m, FLUSH_SPACE_EX, flush, 4), OK);
	flush[3] = 1;
	assert_int_equal(hv_memory(&m, FLUSH_SPACE_EX, flush, 4), INVALID_INPUT);
	assert_int_equal(hv_memory(&m, FLUSH_SPACE_EX | VAR(1), flush, 4), OK);
	flush[2] = 1;
	assert_int_equal(hv_memory(&m, FLUSH_SPACE_EX | VAR(1), flush, 4), OK);
	machine_free(&m);
}

static void test_call_ipi(void **state)
{
	u64 ipi[] = { 0x51, 1 }, ex[] = { 0x52, 0, 1, 0 };
	struct kvm_run *run;
	struct machine m;
	int other;

	hv_machine(&m);
	other = vcpu_new(m.vm, 9, &run);
	lapic_enable(other);
	assert_int_equal(hv_memory(&m, SEND_IPI, ipi, 2), OK);
	assert_true(lapic_requested(m.vcpu, 0x51));
	assert_false(lapic_requested(other, 0x51));
	/* By index, whatever the APIC's id is; fast too. */
	assert_int_equal(hv_result(&m, SEND_IPI | FAST, 0x54, 2), OK);
	assert_true(lapic_requested(other, 0x54));
	assert_int_equal(hv_result(&m, SEND_IPI | FAST, 0x8, 2), INVALID_INPUT);
	assert_int_equal(hv_result(&m, SEND_IPI | FAST, BIT(32) | 0x55, 2), INVALID_INPUT);
	ex[3] = 2;
	assert_int_equal(hv_memory(&m, SEND_IPI_EX | VAR(1), ex, 4), OK);
	assert_true(lapic_requested(other, 0x52));
	assert_false(lapic_requested(m.vcpu, 0x52));
	ex[0] = 0x53;
	ex[1] = 1;	/* all; the banks are still counted */
	assert_int_equal(hv_memory(&m, SEND_IPI_EX, ex, 4), INVALID_INPUT);
	assert_int_equal(hv_memory(&m, SEND_IPI_EX | VAR(1), ex, 4), OK);
	assert_true(lapic_requested(other, 0x53) && lapic_requested(m.vcpu, 0x53));
	/* User space gives the other one another index. */
	assert_int_equal(msr_put(other, VP_INDEX, 7), 1);
	assert_int_equal(hv_result(&m, SEND_IPI | FAST, 0x56, 2), OK);
	assert_false(lapic_requested(other, 0x56));
	assert_int_equal(hv_result(&m, SEND_IPI | FAST, 0x57, 0x80), OK);
	assert_true(lapic_requested(other, 0x57));
	munmap(run, RUN_SIZE);
	api->close(other);
	machine_free(&m);
}

/* The set of processors of a fast call comes in XMM registers. */
static void test_call_xmm(void **state)
{
	struct kvm_fpu fpu;
	struct machine m;
	u64 half[2] = { 1, 1 };	/* bank 0 is given; bank 0: this processor */

	hv_machine(&m);
	assert_int_equal(call(m.vcpu, KVM_GET_FPU, &fpu), 0);
	memcpy(fpu.xmm[0], half, 16);
	assert_int_equal(call(m.vcpu, KVM_SET_FPU, &fpu), 0);
	assert_int_equal(hv_result(&m, SEND_IPI_EX | FAST | VAR(1), 0x58, 0), OK);
	assert_true(lapic_requested(m.vcpu, 0x58));
	half[1] = 2;
	memcpy(fpu.xmm[0], half, 16);
	assert_int_equal(call(m.vcpu, KVM_SET_FPU, &fpu), 0);
	assert_int_equal(hv_result(&m, SEND_IPI_EX | FAST | VAR(1), 0x59, 0), OK);
	assert_false(lapic_requested(m.vcpu, 0x59));
	assert_int_equal(hv_result(&m, SEND_IPI_EX | FAST | VAR(12), 0x59, 0), INVALID_INPUT);
	machine_free(&m);
}

/* ---- translations of other processors ------------------------------------------------------------ */

#define DIRECTORY	0x5000
#define TABLE		0x6000
#define FRAME(n)	(0x7000 + 0x1000 * ((n) & 1))
#define WORST		0x3000	/* the largest value that the other one has read */
#define ROUNDS		0x3004	/* how often it has */
#define STOP		0x3008
#define LOOP_AT		0x1800
#define PTE(at)		((at) | 3)
#define PDE_LARGE	0x83

/* at 0x400000: a page that moves; below: all of RAM */
static void reader_tables(struct machine *m)
{
	*(u32 *)(m->ram + DIRECTORY) = PDE_LARGE;
	*(u32 *)(m->ram + DIRECTORY + 4) = PTE(TABLE);
	*(u32 *)(m->ram + FRAME(0)) = 100;
	*(u32 *)(m->ram + FRAME(1)) = 101;
}

/*
 * again: mov eax, [0x400000]; cmp eax, [WORST]; jbe 1f; mov [WORST], eax; 1: inc dword [ROUNDS];
 * cmp dword [STOP], 0; je again; out
 */
static const u8 reader_loop[] = {
	0xa1, 0, 0, 0x40, 0, 0x3b, 0x05, 0, 0x30, 0, 0, 0x76, 5, 0xa3, 0, 0x30, 0, 0,
	0xff, 0x05, 4, 0x30, 0, 0, 0x83, 0x3d, 8, 0x30, 0, 0, 0, 0x74, 0xdf, 0xe6, 0x10,
};

/* As flat_insn() has set the first one up, at LOOP_AT. */
static void start_like(struct machine *m, int vcpu, bool paging)
{
	struct kvm_sregs s = get_sregs(m->vcpu);
	struct kvm_regs r = { .rip = LOOP_AT, .rsp = 0x7000, .rflags = 2 };
	struct kvm_mp_state run = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_sregs own = get_sregs(vcpu);

	s.apic_base = own.apic_base;
	if (paging) {
		s.cr3 = DIRECTORY;
		s.cr4 |= 0x10;
		s.cr0 |= BIT(31);
	}
	assert_int_equal(call(vcpu, KVM_SET_SREGS, &s), 0);
	set_regs(vcpu, &r);
	assert_int_equal(call(vcpu, KVM_SET_MP_STATE, &run), 0);
}

static void *run_thread(void *vcpu)
{
	return (void *)call_num(*(int *)vcpu, KVM_RUN, 0);
}

static void wait_rounds(struct machine *m, u32 n)
{
	volatile u32 *rounds = (volatile u32 *)(m->ram + ROUNDS);
	u32 from = *rounds;

	while (*rounds - from < n)
		sched_yield();
}

#define GONE	0xdead

/* With one processor for both threads, the other one is mostly out of its turn in the midst of its loop. */
static void one_processor(cpu_set_t *old)
{
	cpu_set_t one;

	sched_getaffinity(0, sizeof(*old), old);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
}

/* The page moves; when the call has come back, nobody may touch the frame that it has left. */
static u32 page_moves(struct machine *m, u32 round)
{
	u32 *left = (u32 *)(m->ram + FRAME(~round)), *now = (u32 *)(m->ram + FRAME(round));

	*(volatile u32 *)now = 100 + (round & 1);
	*(volatile u32 *)(m->ram + TABLE) = PTE(FRAME(round));
	/* fast: the mask in XMM0, where zero is all; or in memory */
	if (round & 2)
		assert_int_equal(hv_result(m, FLUSH_SPACE | FAST, 0, 0), OK);
	else
		assert_int_equal(hv_memory(m, FLUSH_SPACE, (u64[]){ 0, 0, 2 }, 3), OK);
	*(volatile u32 *)left = GONE;
	wait_rounds(m, 2);
	return *(volatile u32 *)(m->ram + WORST) == GONE;
}

static void test_flush_others(void **state)
{
	struct kvm_run *run;
	struct machine m;
	pthread_t thread;
	cpu_set_t old;
	u32 i, wrong = 0;
	void *ret;
	int other;

	hv_machine(&m);
	one_processor(&old);
	other = vcpu_new(m.vm, 1, &run);
	reader_tables(&m);
	*(u32 *)(m.ram + TABLE) = PTE(FRAME(0));
	memcpy(m.ram + LOOP_AT, reader_loop, sizeof(reader_loop));
	start_like(&m, other, true);
	pthread_create(&thread, NULL, run_thread, &other);
	wait_rounds(&m, 2);
	for (i = 1; i <= 100 && !wrong; i++)
		wrong += page_moves(&m, i);
	*(volatile u32 *)(m.ram + STOP) = 1;
	pthread_join(thread, &ret);
	sched_setaffinity(0, sizeof(old), &old);
	assert_null(ret);
	assert_int_equal(wrong, 0);
	munmap(run, RUN_SIZE);
	api->close(other);
	machine_free(&m);
}

/*
 * mov ebp, 20000; again: mov eax, fast flush; xor edx, edx; xor ecx, ecx; xor ebx, ebx; mov esi, all;
 * xor edi, edi; vmcall; dec ebp; jnz again; out
 */
static const u8 flush_loop[] = {
	0xbd, 0x20, 0x4e, 0, 0, 0xb8, 0x02, 0, 1, 0, 0x31, 0xd2, 0x31, 0xc9, 0x31, 0xdb, 0xbe, 1, 0, 0, 0,
	0x31, 0xff, 0x0f, 0x01, 0xc1, 0x4d, 0x75, 0xe8, 0xe6, 0x10,
};

/* Processors that flush each other wait for each other, and yet come on. */
static void test_flush_each_other(void **state)
{
	struct kvm_run *run;
	struct machine m;
	pthread_t thread;
	void *ret;
	int other;

	hv_machine(&m);
	other = vcpu_new(m.vm, 1, &run);
	cpuid_with(&(struct machine){ .sys = m.sys, .vcpu = other }, 0x100, true);
	memcpy(m.ram + LOOP_AT, flush_loop, sizeof(flush_loop));
	start_like(&m, other, false);
	start_like(&m, m.vcpu, false);
	pthread_create(&thread, NULL, run_thread, &other);
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), 0);
	pthread_join(thread, &ret);
	assert_null(ret);
	assert_int_equal(m.run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(run->exit_reason, KVM_EXIT_IO);
	munmap(run, RUN_SIZE);
	api->close(other);
	machine_free(&m);
}

/* ---- what user space serves ---------------------------------------------------------------------- */

static void test_user_calls(void **state)
{
	struct kvm_regs r;
	struct machine m;
	u64 result;

	hv_machine(&m);
	assert_int_equal(hv_result(&m, POST_MESSAGE, FLAT_DATA, 0), INVALID_INPUT);
	enable(m.vcpu, KVM_CAP_HYPERV_SYNIC2, 0);
	assert_int_equal(hv_call(&m, POST_MESSAGE, FLAT_DATA, 0x123456789, &result), KVM_EXIT_HYPERV);
	assert_int_equal(m.run->hyperv.type, KVM_EXIT_HYPERV_HCALL);
	assert_int_equal(m.run->hyperv.u.hcall.input, POST_MESSAGE);
	assert_int_equal(m.run->hyperv.u.hcall.params[0], FLAT_DATA);
	assert_int_equal(m.run->hyperv.u.hcall.params[1], 0x123456789);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT);
	m.run->hyperv.u.hcall.result = 0x500000011;
	/* The call is over before anything else, also if the vCPU is to run no further. */
	m.run->immediate_exit = 1;
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EINTR);
	m.run->immediate_exit = 0;
	r = get_regs(m.vcpu);
	assert_int_equal(r.rip, CODE_AT + 3);
	assert_int_equal(wide(r.rdx, r.rax), 0x500000011);
	assert_int_equal(flat_go_on(&m, &r), KVM_EXIT_IO);
	machine_free(&m);
}

/* A call that user space serves: its answer ends it. */
static void expect_user_call(struct machine *m, u64 control, u64 in)
{
	struct kvm_regs r;
	u64 result;

	assert_int_equal(hv_call(m, control, in, 0, &result), KVM_EXIT_HYPERV);
	assert_int_equal(m->run->hyperv.u.hcall.params[0], in);
	m->run->hyperv.u.hcall.result = 5;
	assert_int_equal(flat_go_on(m, &r), KVM_EXIT_IO);
	assert_int_equal(wide(r.rdx, r.rax), 5);
}

static long assign(int vm, u32 conn, int fd, u32 flags)
{
	struct kvm_hyperv_eventfd e = { .conn_id = conn, .fd = fd, .flags = flags };

	return call(vm, KVM_HYPERV_EVENTFD, &e);
}

static void test_connections(void **state)
{
	int fd = eventfd(0, EFD_NONBLOCK);
	struct machine m;
	u64 count, in = 0x1234;

	hv_machine(&m);
	enable(m.vcpu, KVM_CAP_HYPERV_SYNIC2, 0);
	assert_int_equal(assign(m.vm, 0x1000000, fd, 0), -EINVAL);
	assert_int_equal(assign(m.vm, 0x1234, fd, 2), -EINVAL);
	assert_int_equal(assign(m.vm, 0x1234, -1, 0), -EBADF);
	assert_int_equal(assign(m.vm, 0x1234, 0, 0), -EINVAL);
	assert_int_equal(assign(m.vm, 0x1234, fd, KVM_HYPERV_EVENTFD_DEASSIGN), -ENOENT);
	assert_int_equal(assign(m.vm, 0x1234, fd, 0), 0);
	assert_int_equal(assign(m.vm, 0x1234, fd, 0), -EEXIST);
	assert_int_equal(hv_result(&m, SIGNAL_EVENT | FAST, 0x1234, 0), OK);
	assert_int_equal(hv_memory(&m, SIGNAL_EVENT, &in, 1), OK);
	assert_int_equal(read(fd, &count, 8), 8);
	assert_int_equal(count, 2);
	assert_int_equal(hv_result(&m, SIGNAL_EVENT, FLAT_DATA + 4, 0), INVALID_ALIGNMENT);
	assert_int_equal(hv_result(&m, SIGNAL_EVENT | FAST, BIT(24), 0), INVALID_INPUT);
	/* What nobody here knows is user space's. */
	expect_user_call(&m, SIGNAL_EVENT | FAST, 0x1235);
	expect_user_call(&m, SIGNAL_EVENT | FAST, BIT(32) | 0x1234);
	assert_int_equal(assign(m.vm, 0x1234, fd, KVM_HYPERV_EVENTFD_DEASSIGN), 0);
	expect_user_call(&m, SIGNAL_EVENT | FAST, 0x1234);
	assert_int_equal(read(fd, &count, 8), -1);
	close(fd);
	machine_free(&m);
}

/* ---- the synthetic interrupt controller ---------------------------------------------------------- */

static void test_synic(void **state)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_HYPERV_SYNIC2, .args = { 1 } };
	struct kvm_regs r;
	struct machine m;
	u64 val;

	machine_new(&m, PLAIN);
	if (call_num(m.sys, KVM_CHECK_EXTENSION, KVM_CAP_HYPERV_SYNIC2) > 0) {
		assert_int_equal(call(m.vcpu, KVM_ENABLE_CAP, &cap), -EINVAL);
		cap.args[0] = 0;
		assert_int_equal(call(m.vcpu, KVM_ENABLE_CAP, &cap), -EINVAL);
	}
	machine_free(&m);
	hv_machine(&m);
	assert_int_equal(msr_put(m.vcpu, SCONTROL, 0), 1);
	assert_int_equal(msr_put(m.vcpu, SCONTROL, 1), 0);
	enable(m.vcpu, KVM_CAP_HYPERV_SYNIC, 0);
	assert_int_equal(flat_rdmsr(&m, SVERSION, &val), KVM_EXIT_IO);
	assert_int_equal(val, 1);
	assert_int_equal(flat_rdmsr(&m, SINT0 + 15, &val), KVM_EXIT_IO);
	assert_int_equal(val, BIT(16));
	/* The page is cleared, then user space hears of it. */
	memset(DATA(&m), 0xff, 4096);
	assert_int_equal(flat_wrmsr(&m, SIMP, FLAT_DATA | 1), KVM_EXIT_HYPERV);
	assert_int_equal(m.run->hyperv.type, KVM_EXIT_HYPERV_SYNIC);
	assert_int_equal(m.run->hyperv.u.synic.msr, SIMP);
	assert_int_equal(m.run->hyperv.u.synic.control, 1);
	assert_int_equal(m.run->hyperv.u.synic.msg_page, FLAT_DATA | 1);
	assert_int_equal(DATA(&m)[0] | DATA(&m)[4095], 0);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 2);
	assert_int_equal(flat_go_on(&m, &r), KVM_EXIT_IO);
	/* With the second version it is not. */
	enable(m.vcpu, KVM_CAP_HYPERV_SYNIC2, 0);
	memset(DATA(&m), 0xff, 4096);
	assert_int_equal(flat_wrmsr(&m, SIEFP, FLAT_DATA | 1), KVM_EXIT_HYPERV);
	assert_int_equal(m.run->hyperv.u.synic.evt_page, FLAT_DATA | 1);
	assert_int_equal(DATA(&m)[0], 0xff);
	assert_int_equal(flat_wrmsr(&m, SINT0 + 2, 0xf), KVM_EXIT_SHUTDOWN);
	assert_int_equal(flat_wrmsr(&m, SINT0 + 2, 0x1000f), KVM_EXIT_IO);
	machine_free(&m);
}

static void test_sint_routing(void **state)
{
	struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry e; } route = {
		.head.nr = 1,
		.e = { .gsi = 40, .type = KVM_IRQ_ROUTING_HV_SINT, .u.hv_sint = { .vcpu = 0, .sint = 3 } },
	};
	struct kvm_irq_level line = { .irq = 40, .level = 1 };
	struct machine m;

	hv_machine(&m);
	enable(m.vcpu, KVM_CAP_HYPERV_SYNIC2, 0);
	assert_int_equal(call(m.vm, KVM_SET_GSI_ROUTING, &route), 0);
	/* Masked so far. */
	assert_int_equal(call(m.vm, KVM_IRQ_LINE, &line), 0);
	assert_false(lapic_requested(m.vcpu, 0x63));
	assert_int_equal(flat_wrmsr(&m, SINT0 + 3, 0x63), KVM_EXIT_IO);
	assert_int_equal(call(m.vm, KVM_IRQ_LINE, &line), 0);
	assert_true(lapic_requested(m.vcpu, 0x63));
	route.e.flags = 1;
	assert_int_equal(call(m.vm, KVM_SET_GSI_ROUTING, &route), -EINVAL);
	machine_free(&m);
}

/* ---- timers -------------------------------------------------------------------------------------- */

#define ENABLE		BIT(0)
#define PERIODIC	BIT(1)
#define AUTO_ENABLE	BIT(3)
#define DIRECT		BIT(12)
#define VECTOR(n)	((u64)(n) << 4)
#define SINT(n)		((u64)(n) << 16)

struct message {
	volatile u32 type;
	volatile u8 size, flags, reserved[2];
	u64 sender;
	volatile u32 index, reserved2;
	volatile u64 expiration, delivery;
};

static u64 ref_time(struct machine *m)
{
	u64 now;

	assert_int_equal(msr_get(m->vcpu, TIME_REF_COUNT, &now), 1);
	return now;
}

/* The guest runs (and so do its timers) until it is so. */
static void run_until_requested(struct machine *m, u8 vector)
{
	while (!lapic_requested(m->vcpu, vector))
		assert_int_equal(flat_wrmsr(m, 0x8b, 0), KVM_EXIT_IO);
}

static void test_direct_timer(void **state)
{
	struct machine m;
	u64 due, config;

	hv_machine(&m);
	assert_int_equal(flat_wrmsr(&m, STIMER0_CONFIG, DIRECT), KVM_EXIT_SHUTDOWN);
	enable(m.vcpu, KVM_CAP_HYPERV_SYNIC2, 0);
	assert_int_equal(flat_wrmsr(&m, STIMER0_CONFIG, DIRECT | VECTOR(0x71) | AUTO_ENABLE), KVM_EXIT_IO);
	due = ref_time(&m) + 50000;	/* 5 ms */
	assert_int_equal(flat_wrmsr(&m, STIMER0_COUNT, due), KVM_EXIT_IO);
	assert_false(ref_time(&m) < due - 10000 && lapic_requested(m.vcpu, 0x71));
	run_until_requested(&m, 0x71);
	assert_true(ref_time(&m) >= due);
	/* A one-shot timer is over then. */
	assert_int_equal(msr_get(m.vcpu, STIMER0_CONFIG, &config), 1);
	assert_false(config & ENABLE);
	/* One whose time is over already. */
	assert_int_equal(flat_wrmsr(&m, STIMER0_CONFIG + 2, DIRECT | VECTOR(0x72) | AUTO_ENABLE), KVM_EXIT_IO);
	assert_int_equal(flat_wrmsr(&m, STIMER0_COUNT + 2, 1), KVM_EXIT_IO);
	run_until_requested(&m, 0x72);
	machine_free(&m);
}

static void test_timer_messages(void **state)
{
	struct message *slot;
	struct machine m;
	u64 due;

	hv_machine(&m);
	enable(m.vcpu, KVM_CAP_HYPERV_SYNIC2, 0);
	slot = (struct message *)(DATA(&m) + 2 * 256);
	assert_int_equal(flat_wrmsr(&m, SIMP, FLAT_DATA | 1), KVM_EXIT_HYPERV);
	assert_int_equal(flat_wrmsr(&m, SINT0 + 2, 0x73), KVM_EXIT_IO);
	assert_int_equal(flat_wrmsr(&m, STIMER0_CONFIG + 6, SINT(2) | AUTO_ENABLE), KVM_EXIT_IO);
	due = ref_time(&m) + 10000;
	slot->type = 1;	/* taken */
	assert_int_equal(flat_wrmsr(&m, STIMER0_COUNT + 6, due), KVM_EXIT_IO);
	while (!(slot->flags & 1))
		assert_int_equal(flat_wrmsr(&m, 0x8b, 0), KVM_EXIT_IO);
	assert_false(lapic_requested(m.vcpu, 0x73));
	/* The guest frees the slot, and says so. */
	slot->flags = 0;
	slot->type = 0;
	assert_int_equal(flat_wrmsr(&m, EOM, 0), KVM_EXIT_IO);
	run_until_requested(&m, 0x73);
	assert_int_equal(slot->type, 0x80000010);
	assert_int_equal(slot->size, 24);
	assert_int_equal(slot->index, 3);
	assert_int_equal(slot->expiration, due);
	assert_true(slot->delivery >= due);
	machine_free(&m);
}

static void test_periodic_timer(void **state)
{
	struct message *slot;
	struct machine m;
	u64 last;
	int i;

	hv_machine(&m);
	enable(m.vcpu, KVM_CAP_HYPERV_SYNIC2, 0);
	slot = (struct message *)(DATA(&m) + 4 * 256);
	assert_int_equal(flat_wrmsr(&m, SIMP, FLAT_DATA | 1), KVM_EXIT_HYPERV);
	assert_int_equal(flat_wrmsr(&m, SINT0 + 4, 0x74), KVM_EXIT_IO);
	assert_int_equal(flat_wrmsr(&m, STIMER0_COUNT, 10000), KVM_EXIT_IO);
	assert_int_equal(flat_wrmsr(&m, STIMER0_CONFIG, SINT(4) | PERIODIC | ENABLE), KVM_EXIT_IO);
	for (i = 0, last = 0; i < 5; i++) {
		slot->type = 0;
		while (!slot->type)
			assert_int_equal(flat_wrmsr(&m, 0x8b, 0), KVM_EXIT_IO);
		assert_true(slot->expiration > last);
		if (last)
			assert_int_equal((slot->expiration - last) % 10000, 0);
		last = slot->expiration;
	}
	/* A slot that is taken costs the period its message, and no more. */
	assert_false(slot->flags & 1);
	assert_int_equal(flat_wrmsr(&m, STIMER0_COUNT, 0), KVM_EXIT_IO);
	assert_int_equal(msr_get(m.vcpu, STIMER0_CONFIG, &last), 1);
	assert_false(last & ENABLE);
	machine_free(&m);
}

int test_hyperv(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cpuid),
		cmocka_unit_test(test_not_seen),
		cmocka_unit_test(test_enforced),
		cmocka_unit_test(test_hypercall_page),
		cmocka_unit_test(test_plain_msrs),
		cmocka_unit_test(test_apic_msrs),
		cmocka_unit_test(test_assist_page),
		cmocka_unit_test(test_crash_and_reset),
		cmocka_unit_test(test_debugger),
		cmocka_unit_test(test_reference_time),
		cmocka_unit_test(test_reference_time_scaled),
		cmocka_unit_test(test_call_forms),
		cmocka_unit_test(test_call_ipi),
		cmocka_unit_test(test_call_xmm),
		cmocka_unit_test(test_flush_others),
		cmocka_unit_test(test_flush_each_other),
		cmocka_unit_test(test_user_calls),
		cmocka_unit_test(test_connections),
		cmocka_unit_test(test_synic),
		cmocka_unit_test(test_sint_routing),
		cmocka_unit_test(test_direct_timer),
		cmocka_unit_test(test_timer_messages),
		cmocka_unit_test(test_periodic_timer),
	};

	return cmocka_run_group_tests_name("hyperv", tests, NULL, NULL);
}
