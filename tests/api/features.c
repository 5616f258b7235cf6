/*
 * What a VM can be asked for: machine checks, payloads of exceptions, the triple fault as an event,
 * hypercalls and HLT by choice, statistics.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm_para.h>

#include "tests/api/api.h"

#define MSR_PLATFORM_INFO	0xce
#define MSR_MCG_CAP		0x179
#define MSR_MCG_STATUS		0x17a
#define MSR_MCG_CTL		0x17b
#define MSR_MC(bank, n)		(0x400u + 4 * (bank) + (n))

#define MCI_VAL		BIT(63)
#define MCI_OVER	BIT(62)
#define MCI_UC		BIT(61)
#define MCI_S		BIT(56)

/* Vector n leads to 0:0x1800 + n: a HLT of its own. */
static void vectors_machine(struct machine *m)
{
	u32 n;

	machine_new(m, PLAIN);
	for (n = 0; n < 32; n++) {
		*(u32 *)(m->ram + n * 4) = 0x1800 + n;
		m->ram[0x1800 + n] = 0xf4;
	}
	CODE(m, 0x90, 0xf4);
}

static void expect_vector(struct machine *m, u32 n)
{
	run_to_halt(m);
	assert_int_equal(get_regs(m->vcpu).rip, 0x1801 + n);
}

static struct kvm_vcpu_events get_events(struct machine *m)
{
	struct kvm_vcpu_events e;

	assert_int_equal(call(m->vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	return e;
}

/* ---- machine checks ------------------------------------------------------------------------- */

static long setup_mce(struct machine *m, u64 cap)
{
	return call(m->vcpu, KVM_X86_SETUP_MCE, &cap);
}

static void enable_cr4_mce(struct machine *m)
{
	struct kvm_sregs s = get_sregs(m->vcpu);

	s.cr4 |= BIT(6);
	assert_int_equal(call(m->vcpu, KVM_SET_SREGS, &s), 0);
}

static void test_mce_setup(void **state)
{
	struct machine m;
	u64 cap = 0;

	vectors_machine(&m);
	require_cap(&m, KVM_CAP_MCE);
	assert_int_equal(call(m.sys, KVM_X86_GET_MCE_CAP_SUPPORTED, &cap), 0);
	assert_true(cap & BIT(8));
	assert_int_equal(call_num(m.sys, KVM_CHECK_EXTENSION, KVM_CAP_MCE), 32);
	assert_int_equal(setup_mce(&m, 0), -EINVAL);
	assert_int_equal(setup_mce(&m, 33), -EINVAL);
	assert_int_equal(setup_mce(&m, 10 | BIT(40)), -EINVAL);
	assert_int_equal(setup_mce(&m, 10 | BIT(8)), 0);
	assert_int_equal(get_msr(m.vcpu, MSR_MCG_CAP), 10 | BIT(8));
	assert_true(get_msr(m.vcpu, MSR_MCG_CTL) == ~0ULL);
	assert_true(get_msr(m.vcpu, MSR_MC(9, 0)) == ~0ULL);
	assert_int_equal(set_msr(m.vcpu, MSR_MC(10, 0), 0), 0);
	machine_free(&m);
}

static void test_mce_inject(void **state)
{
	struct kvm_x86_mce mce = { .status = MCI_VAL | MCI_UC | MCI_S, .addr = 0x1234, .misc = 0x55,
		.mcg_status = 5, .bank = 3 };
	struct machine m;

	vectors_machine(&m);
	require_cap(&m, KVM_CAP_MCE);
	assert_int_equal(setup_mce(&m, 10 | BIT(8)), 0);
	mce.bank = 10;
	assert_int_equal(call(m.vcpu, KVM_X86_SET_MCE, &mce), -EINVAL);
	mce.bank = 3;
	mce.status = MCI_UC;
	assert_int_equal(call(m.vcpu, KVM_X86_SET_MCE, &mce), -EINVAL);
	/* A corrected error is noted; a second one overflows. */
	mce.status = MCI_VAL | 7;
	assert_int_equal(call(m.vcpu, KVM_X86_SET_MCE, &mce), 0);
	assert_true(get_msr(m.vcpu, MSR_MC(3, 1)) == (MCI_VAL | 7));
	assert_int_equal(call(m.vcpu, KVM_X86_SET_MCE, &mce), 0);
	assert_true(get_msr(m.vcpu, MSR_MC(3, 1)) == (MCI_VAL | MCI_OVER | 7));
	run_to_halt(&m);
	/* An uncorrected one is #MC. */
	enable_cr4_mce(&m);
	mce.status = MCI_VAL | MCI_UC | MCI_S;
	assert_int_equal(call(m.vcpu, KVM_X86_SET_MCE, &mce), 0);
	assert_int_equal(get_msr(m.vcpu, MSR_MC(3, 2)), 0x1234);
	assert_int_equal(get_msr(m.vcpu, MSR_MC(3, 3)), 0x55);
	assert_int_equal(get_msr(m.vcpu, MSR_MCG_STATUS), 5);
	expect_vector(&m, 18);
	/* While it is being handled, another one ends the processor. */
	assert_int_equal(call(m.vcpu, KVM_X86_SET_MCE, &mce), 0);
	run_until(&m, KVM_EXIT_SHUTDOWN);
	machine_free(&m);
}

/* ---- exceptions ----------------------------------------------------------------------------- */

static void test_payload(void **state)
{
	struct kvm_vcpu_events e;
	struct kvm_sregs s;
	struct machine m;

	vectors_machine(&m);
	require_cap(&m, KVM_CAP_EXCEPTION_PAYLOAD);
	e = get_events(&m);
	e.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	assert_int_equal(call(m.vcpu, KVM_SET_VCPU_EVENTS, &e), -EINVAL);
	enable_cap(m.vm, KVM_CAP_EXCEPTION_PAYLOAD, 1);
	s = get_sregs(m.vcpu);
	s.cr2 = 0x1111;
	assert_int_equal(call(m.vcpu, KVM_SET_SREGS, &s), 0);
	e = get_events(&m);
	assert_true(e.flags & KVM_VCPUEVENT_VALID_PAYLOAD);
	e.exception.pending = 1;
	e.exception.nr = 14;
	e.exception_has_payload = 1;
	e.exception_payload = 0x9999;
	assert_int_equal(call(m.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
	e = get_events(&m);
	assert_int_equal(e.exception.pending, 1);
	assert_int_equal(e.exception.injected, 0);
	assert_int_equal(e.exception_has_payload, 1);
	assert_int_equal(e.exception_payload, 0x9999);
	assert_int_equal(get_sregs(m.vcpu).cr2, 0x1111);
	expect_vector(&m, 14);
	assert_int_equal(get_sregs(m.vcpu).cr2, 0x9999);
	machine_free(&m);
}

static void test_triple_fault_event(void **state)
{
	struct kvm_vcpu_events e;
	struct machine m;

	vectors_machine(&m);
	require_cap(&m, KVM_CAP_X86_TRIPLE_FAULT_EVENT);
	e = get_events(&m);
	e.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	assert_int_equal(call(m.vcpu, KVM_SET_VCPU_EVENTS, &e), -EINVAL);
	enable_cap(m.vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1);
	e = get_events(&m);
	assert_true(e.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT);
	assert_int_equal(e.triple_fault.pending, 0);
	e.triple_fault.pending = 1;
	assert_int_equal(call(m.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
	assert_int_equal(get_events(&m).triple_fault.pending, 1);
	run_until(&m, KVM_EXIT_SHUTDOWN);
	assert_int_equal(get_events(&m).triple_fault.pending, 0);
	run_to_halt(&m);
	machine_free(&m);
}

/* ---- exits by choice ------------------------------------------------------------------------ */

static void set_args(struct machine *m, u64 gpa, u64 pages)
{
	struct kvm_regs r = get_regs(m->vcpu);

	r.rax = KVM_HC_MAP_GPA_RANGE;
	r.rbx = gpa;
	r.rcx = pages;
	r.rdx = 0x12;
	set_regs(m->vcpu, &r);
}

static void test_hypercall(void **state)
{
	struct kvm_enable_cap bad = { .cap = KVM_CAP_EXIT_HYPERCALL, .args = { 1 } };
	struct machine m;

	skip_on_emulated_host("leaves out hypercalls of real mode");
	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_EXIT_HYPERCALL);
	assert_int_equal(call_num(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_EXIT_HYPERCALL),
		1 << KVM_HC_MAP_GPA_RANGE);
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &bad), -EINVAL);
	CODE(&m, 0x0f, 0x01, 0xd9, 0xf4);	/* vmmcall; hlt */
	flat_mode(m.vcpu);
	set_args(&m, 0x1000, 2);
	run_to_halt(&m);
	assert_int_equal((u32)get_regs(m.vcpu).rax, (u32)-KVM_ENOSYS);
	enable_cap(m.vm, KVM_CAP_EXIT_HYPERCALL, 1 << KVM_HC_MAP_GPA_RANGE);
	CODE(&m, 0x0f, 0x01, 0xd9, 0xf4);
	flat_mode(m.vcpu);
	set_args(&m, 0x1001, 2);
	run_to_halt(&m);
	assert_int_equal((u32)get_regs(m.vcpu).rax, (u32)-KVM_EINVAL);
	CODE(&m, 0x0f, 0x01, 0xd9, 0xf4);
	flat_mode(m.vcpu);
	set_args(&m, 0x1000, 2);
	run_until(&m, KVM_EXIT_HYPERCALL);
	assert_int_equal(m.run->hypercall.nr, KVM_HC_MAP_GPA_RANGE);
	assert_int_equal(m.run->hypercall.args[0], 0x1000);
	assert_int_equal(m.run->hypercall.args[1], 2);
	assert_int_equal(m.run->hypercall.args[2], 0x12);
	assert_int_equal(m.run->hypercall.longmode, 0);
	m.run->hypercall.ret = 0x77;
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rax, 0x77);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 4);
	machine_free(&m);
}

/* HLT stays inside, though no chip is there to end it: an interrupt of user space does. */
static void test_disable_exits(void **state)
{
	struct kvm_enable_cap bad = { .cap = KVM_CAP_X86_DISABLE_EXITS, .args = { BIT(9) } };
	struct kvm_interrupt irq = { .irq = 0x20 };
	struct machine m;

	skip_on_emulated_host("runs HLT in its emulator");
	vectors_machine(&m);
	require_cap(&m, KVM_CAP_X86_DISABLE_EXITS);
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &bad), -EINVAL);
	enable_cap(m.vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_HLT);
	*(u32 *)(m.ram + 0x20 * 4) = 0x1900;
	memcpy(m.ram + 0x1900, "\xe6\x21", 2);	/* out 0x21, al */
	CODE(&m, 0xfb, 0xf4, 0xe6, 0x22);	/* sti; hlt; out 0x22, al */
	assert_int_equal(call(m.vcpu, KVM_INTERRUPT, &irq), 0);
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(m.run->io.port, 0x21);
	machine_free(&m);
}

/*
 * A locked access in two cache lines leaves behind its instruction, once; one in a line, or not locked,
 * does not. api.rst 7.22
 */
#define SPLIT_AT	0x5000u

static const struct locked {
	bool wide;		/* 64-bit mode */
	u8 size, n, code[8];	/* its operand is at (E)DI */
	bool locks;
} locked[] = {
	{ false, 4, 4, { 0xf0, 0x83, 0x07, 3 }, true },			/* lock add dword [], 3 */
	{ false, 2, 5, { 0x66, 0xf0, 0x83, 0x07, 3 }, true },		/* lock add word [], 3 */
	{ true, 8, 5, { 0xf0, 0x48, 0x83, 0x07, 3 }, true },		/* lock add qword [], 3 */
	{ false, 4, 4, { 0xf0, 0x83, 0x2f, 3 }, true },			/* lock sub dword [], 3 */
	{ false, 2, 4, { 0x66, 0xf0, 0x29, 0x07 }, true },		/* lock sub [], ax */
	{ true, 8, 4, { 0xf0, 0x48, 0x29, 0x07 }, true },		/* lock sub [], rax */
	{ false, 4, 3, { 0xf0, 0xff, 0x07 }, true },			/* lock inc dword [] */
	{ false, 4, 3, { 0xf0, 0xff, 0x0f }, true },			/* lock dec dword [] */
	{ false, 2, 4, { 0x66, 0xf0, 0xff, 0x0f }, true },		/* lock dec word [] */
	{ true, 8, 4, { 0xf0, 0x48, 0xff, 0x0f }, true },		/* lock dec qword [] */
	{ false, 4, 3, { 0xf0, 0xf7, 0x1f }, true },			/* lock neg dword [] */
	{ false, 2, 4, { 0x66, 0xf0, 0xf7, 0x1f }, true },		/* lock neg word [] */
	{ true, 8, 4, { 0xf0, 0x48, 0xf7, 0x1f }, true },		/* lock neg qword [] */
	{ false, 4, 3, { 0xf0, 0xf7, 0x17 }, true },			/* lock not dword [] */
	{ true, 8, 4, { 0xf0, 0x48, 0xf7, 0x17 }, true },		/* lock not qword [] */
	{ false, 4, 3, { 0xf0, 0x09, 0x07 }, true },			/* lock or [], eax */
	{ false, 4, 2, { 0x87, 0x07 }, true },				/* xchg [], eax */
	{ false, 2, 3, { 0x66, 0x87, 0x07 }, true },			/* xchg [], ax */
	{ true, 8, 3, { 0x48, 0x87, 0x07 }, true },			/* xchg [], rax */
	{ false, 4, 4, { 0xf0, 0x0f, 0xc1, 0x07 }, true },		/* lock xadd [], eax */
	{ true, 8, 5, { 0xf0, 0x48, 0x0f, 0xc1, 0x07 }, true },		/* lock xadd [], rax */
	{ false, 4, 4, { 0xf0, 0x0f, 0xb1, 0x0f }, true },		/* lock cmpxchg [], ecx */
	{ false, 2, 5, { 0x66, 0xf0, 0x0f, 0xb1, 0x0f }, true },	/* lock cmpxchg [], cx */
	{ true, 8, 5, { 0xf0, 0x48, 0x0f, 0xb1, 0x0f }, true },		/* lock cmpxchg [], rcx */
	{ false, 8, 4, { 0xf0, 0x0f, 0xc7, 0x0f }, true },		/* lock cmpxchg8b [] */
	{ false, 4, 5, { 0xf0, 0x0f, 0xba, 0x2f, 5 }, true },		/* lock bts dword [], 5 */
	{ true, 8, 6, { 0xf0, 0x48, 0x0f, 0xba, 0x2f, 50 }, true },	/* lock bts qword [], 50 */
	{ false, 4, 5, { 0xf0, 0x0f, 0xba, 0x37, 7 }, true },		/* lock btr dword [], 7 */
	{ false, 4, 5, { 0xf0, 0x0f, 0xba, 0x3f, 7 }, true },		/* lock btc dword [], 7 */
	{ false, 4, 4, { 0xf0, 0x0f, 0xab, 0x07 }, true },		/* lock bts [], eax */
	{ false, 4, 4, { 0xf0, 0x0f, 0xb3, 0x07 }, true },		/* lock btr [], eax */
	{ false, 4, 4, { 0xf0, 0x0f, 0xbb, 0x07 }, true },		/* lock btc [], eax */
	{ false, 4, 3, { 0x83, 0x07, 3 }, false },			/* add dword [], 3 */
	{ true, 8, 3, { 0x48, 0xff, 0x0f }, false },			/* dec qword [] */
	{ false, 4, 3, { 0x0f, 0xab, 0x07 }, false },			/* bts [], eax */
	{ false, 8, 3, { 0x0f, 0xc7, 0x0f }, false },			/* cmpxchg8b [] */
};

/* mov [its page], dl, as a first access takes a slow path anyway; the instruction; hlt */
#define TOUCH 2

/* CMPXCHG8B finds one of the two values in EDX:EAX, all others one in EAX, or none. */
static const u64 operands[] = { 0x8382818083828180, 5 };

static void locked_start(struct machine *m, const struct locked *l, u32 at, u64 operand)
{
	struct kvm_regs r = { .rip = CODE_AT, .rflags = 2, .rdi = at, .rsi = at & ~0xfffu, .rax = 5,
		.rbx = 0x12345678, .rcx = 0x9abcdef0 };

	memcpy(m->ram + CODE_AT, "\x88\x16", TOUCH);
	memcpy(m->ram + CODE_AT + TOUCH, l->code, l->n);
	m->ram[CODE_AT + TOUCH + l->n] = 0xf4;
	memcpy(m->ram + at, &operand, sizeof(operand));
	set_regs(m->vcpu, &r);
}

/* Detection off and on, both in the mode of one half of the table; the latter with so many vCPUs. */
struct lockers {
	struct machine off, on;
	int other;
	struct kvm_run *other_run;
};

static void lockers_mode(struct machine *m, bool wide)
{
	if (wide)
		paged_mode(m);
	else
		flat_mode(m->vcpu);
}

/* The second never runs; but two see a locked access in two pages happen at once. */
static void lockers_new(struct lockers *k, bool wide, int vcpus)
{
	machine_new(&k->off, PLAIN);
	machine_new(&k->on, PLAIN);
	k->other = vcpus > 1 ? vcpu_new(k->on.vm, 1, &k->other_run) : -1;
	enable_cap(k->off.vm, KVM_CAP_X86_BUS_LOCK_EXIT, KVM_BUS_LOCK_DETECTION_OFF);
	enable_cap(k->on.vm, KVM_CAP_X86_BUS_LOCK_EXIT, KVM_BUS_LOCK_DETECTION_EXIT);
	lockers_mode(&k->off, wide);
	lockers_mode(&k->on, wide);
}

static void lockers_free(struct lockers *k)
{
	if (k->other >= 0) {
		munmap(k->other_run, RUN_SIZE);
		assert_int_equal(api->close(k->other), 0);
	}
	machine_free(&k->on);
	machine_free(&k->off);
}

/* Right behind the instruction, or behind the HLT that follows it. */
static void same_outcome(struct lockers *k, const struct locked *l, u32 at)
{
	struct kvm_regs off = get_regs(k->off.vcpu), on = get_regs(k->on.vcpu);

	assert_int_equal(off.rip, CODE_AT + TOUCH + l->n + 1);
	off.rip = on.rip;
	assert_memory_equal(&on, &off, sizeof(on));
	assert_memory_equal(k->on.ram + at - 8, k->off.ram + at - 8, 24);
}

static void run_locked(struct lockers *k, const struct locked *l, u32 at, u64 operand, bool leaves)
{
	struct machine *m = &k->on;

	locked_start(&k->off, l, at, operand);
	run_to_halt(&k->off);
	locked_start(m, l, at, operand);
	if (leaves) {
		run_until(m, KVM_EXIT_X86_BUS_LOCK);
		assert_true(m->run->flags & KVM_RUN_X86_BUS_LOCK);
		assert_int_equal(get_regs(m->vcpu).rip, CODE_AT + TOUCH + l->n);
		same_outcome(k, l, at);
	}
	run_to_halt(m);
	assert_false(m->run->flags & KVM_RUN_X86_BUS_LOCK);
	assert_int_equal(get_regs(m->vcpu).rip, CODE_AT + TOUCH + l->n + 1);
	same_outcome(k, l, at);
}

static void run_all_locked(bool wide, int vcpus)
{
	struct lockers k;

	lockers_new(&k, wide, vcpus);
	for (size_t i = 0; i < ARRAY_SIZE(locked) * ARRAY_SIZE(operands); i++) {
		const struct locked *l = &locked[i / ARRAY_SIZE(operands)];
		u64 operand = operands[i % ARRAY_SIZE(operands)];

		if (l->wide != wide)
			continue;
		run_locked(&k, l, SPLIT_AT + 0x38, operand, false);
		run_locked(&k, l, SPLIT_AT + 0x40 - l->size / 2u, operand, l->locks);
		run_locked(&k, l, SPLIT_AT + 0x1000 - l->size / 2u, operand, l->locks);
	}
	lockers_free(&k);
}

static void test_bus_lock_modes(void **state)
{
	struct kvm_enable_cap bad = { .cap = KVM_CAP_X86_BUS_LOCK_EXIT, .args = { 3 } };
	struct machine m;

	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_X86_BUS_LOCK_EXIT);
	assert_int_equal(call_num(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_BUS_LOCK_EXIT), 3);
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &bad), -EINVAL);
	bad.args[0] = 4;
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &bad), -EINVAL);
	machine_free(&m);
}

static void test_bus_lock(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_X86_BUS_LOCK_EXIT);
	machine_free(&m);
	for (int vcpus = 1; vcpus <= 2; vcpus++) {
		run_all_locked(false, vcpus);
		run_all_locked(true, vcpus);
	}
}

/* Once on, another run of the same code leaves: what had been translated of it is gone. */
static void test_bus_lock_later(void **state)
{
	const u32 at = SPLIT_AT + 0x3e;
	struct kvm_regs again;
	struct machine m;

	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_X86_BUS_LOCK_EXIT);
	flat_mode(m.vcpu);
	locked_start(&m, &locked[0], at, 0);
	again = get_regs(m.vcpu);
	run_to_halt(&m);
	set_regs(m.vcpu, &again);
	run_to_halt(&m);
	assert_memory_equal(m.ram + at, &(u32){ 6 }, 4);
	enable_cap(m.vm, KVM_CAP_X86_BUS_LOCK_EXIT, KVM_BUS_LOCK_DETECTION_EXIT);
	set_regs(m.vcpu, &again);
	run_until(&m, KVM_EXIT_X86_BUS_LOCK);
	assert_memory_equal(m.ram + at, &(u32){ 9 }, 4);
	run_to_halt(&m);
	machine_free(&m);
}

/* Before there are vCPUs, and what its bits may be. api.rst 7.33 */
static void test_notify(void **state)
{
	static const struct { u64 arg; long answer; } turns[] = {
		{ 0, -EINVAL }, { KVM_X86_NOTIFY_VMEXIT_USER, -EINVAL }, { 1 | 4, -EINVAL },
		{ 128ULL << 32 | KVM_X86_NOTIFY_VMEXIT_ENABLED | KVM_X86_NOTIFY_VMEXIT_USER, 0 },
	};
	struct kvm_enable_cap cap = { .cap = KVM_CAP_X86_NOTIFY_VMEXIT };
	struct machine m;
	int vm;

	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_X86_NOTIFY_VMEXIT);
	vm = call_num(m.sys, KVM_CREATE_VM, 0);
	for (size_t i = 0; i < ARRAY_SIZE(turns); i++) {
		cap.args[0] = turns[i].arg;
		assert_int_equal(call(vm, KVM_ENABLE_CAP, &cap), turns[i].answer);
	}
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &cap), -EINVAL);
	api->close(vm);
	machine_free(&m);
}

/*
 * What came after Linux 6.1 and is not there has no capability, and is an unknown request. (Numbers of
 * <linux/kvm.h> of Linux 6.8.)
 */
#define CAP_USER_MEMORY2	231
#define CAP_MEMORY_FAULT_INFO	232
#define CAP_MEMORY_ATTRIBUTES	233
#define CAP_GUEST_MEMFD		234
#define CAP_VM_TYPES		235
#define SET_USER_MEMORY_REGION2	_IOW(KVMIO, 0x49, u8[160])
#define SET_MEMORY_ATTRIBUTES	_IOW(KVMIO, 0xd2, u8[32])
#define CREATE_GUEST_MEMFD	_IOWR(KVMIO, 0xd4, u8[64])

static void test_later(void **state)
{
	u64 arg[20] = { 0 };
	struct machine m;

	if (api_is_host())
		skip();
	machine_new(&m, PLAIN);
	for (u32 cap = CAP_USER_MEMORY2; cap <= CAP_VM_TYPES; cap++)
		assert_int_equal(call_num(m.vm, KVM_CHECK_EXTENSION, cap), 0);
	assert_int_equal(call(m.vm, SET_USER_MEMORY_REGION2, arg), -ENOTTY);
	assert_int_equal(call(m.vm, SET_MEMORY_ATTRIBUTES, arg), -ENOTTY);
	assert_int_equal(call(m.vm, CREATE_GUEST_MEMFD, arg), -ENOTTY);
	assert_int_equal(call_num(m.sys, KVM_CREATE_VM, 1), -EINVAL);	/* a VM with private memory */
	machine_free(&m);
}

static void test_mmu_pages(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_equal(call_num(m.vm, KVM_SET_NR_MMU_PAGES, 63), -EINVAL);
	assert_int_equal(call_num(m.vm, KVM_SET_NR_MMU_PAGES, 64), 0);
	if (api_is_host() && call_num(m.vm, KVM_GET_NR_MMU_PAGES, 0) == -ENOTTY)
		skip();		/* Linux 6.4 took it away */
	assert_int_equal(call_num(m.vm, KVM_GET_NR_MMU_PAGES, 0), 64);
	assert_int_equal(call_num(m.vm, KVM_SET_NR_MMU_PAGES, 1000), 0);
	assert_int_equal(call_num(m.vm, KVM_GET_NR_MMU_PAGES, 0), 1000);
	machine_free(&m);
}

static void test_platform_info(void **state)
{
	struct machine m;

	vectors_machine(&m);
	require_cap(&m, KVM_CAP_MSR_PLATFORM_INFO);
	assert_int_equal(set_msr(m.vcpu, MSR_PLATFORM_INFO, 0x12340000), 1);
	CODE(&m, 0x66, 0xb9, 0xce, 0x00, 0x00, 0x00, 0x0f, 0x32, 0xf4);	/* mov ecx; rdmsr; hlt */
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rax, 0x12340000);
	enable_cap(m.vm, KVM_CAP_MSR_PLATFORM_INFO, 0);
	real_mode(m.vcpu, CODE_AT);
	expect_vector(&m, 13);
	assert_int_equal(get_msr(m.vcpu, MSR_PLATFORM_INFO), 0x12340000);
	machine_free(&m);
}

/* Code where no memory is: its address cannot be read either. RSM without its area: it can. */
static void test_failure(void **state)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args = { 2 } };
	struct kvm_userspace_memory_region r = { .slot = 1 << 16, .memory_size = RAM_SIZE };
	struct machine m;

	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_EXIT_ON_EMULATION_FAILURE);
	require_cap(&m, KVM_CAP_X86_SMM);
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &cap), -EINVAL);
	enable_cap(m.vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
	/* SMBASE is 0x30000, where address space 1 has nothing but what is put at the handler. */
	r.userspace_addr = (u64)m.ram;
	r.guest_phys_addr = 0x38000;
	r.memory_size = 0x1000;
	assert_int_equal(call(m.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	memcpy(m.ram, "\x0f\xaa\x90\x90", 4);
	assert_int_equal(call_num(m.vcpu, KVM_SMI, 0), 0);
	run_until(&m, KVM_EXIT_INTERNAL_ERROR);
	assert_int_equal(m.run->emulation_failure.suberror, KVM_INTERNAL_ERROR_EMULATION);
	assert_in_range(m.run->emulation_failure.ndata, 3, 16);
	assert_true(m.run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
	assert_in_range(m.run->emulation_failure.insn_size, 2, 15);
	assert_memory_equal(m.run->emulation_failure.insn_bytes, "\x0f\xaa", 2);
	machine_free(&m);
}

/* ---- CPUID ---------------------------------------------------------------------------------- */

static void test_emulated_cpuid(void **state)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 e[8];
	} c = { .head.nent = 8 };
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_equal(call(m.sys, KVM_GET_EMULATED_CPUID, &c), 0);
	assert_in_range(c.head.nent, 1, 8);
	assert_int_equal(c.e[0].function, 0);
	assert_int_equal(c.e[0].eax, 7);
	assert_int_equal(c.e[1].function, 1);
	assert_true(c.e[1].ecx & BIT(22));	/* MOVBE */
	c.head.nent = 0;
	assert_int_equal(call(m.sys, KVM_GET_EMULATED_CPUID, &c), -E2BIG);
	machine_free(&m);
}

/* ---- statistics ----------------------------------------------------------------------------- */

/* A descriptor that is open follows what happens, and outlives what it tells of. */
static void test_stats_follow(void **state)
{
	struct machine m;
	int v, w, vm;
	u64 before;

	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_BINARY_STATS_FD);
	v = call_num(m.vcpu, KVM_GET_STATS_FD, 0);
	w = call_num(m.vcpu, KVM_GET_STATS_FD, 0);
	vm = call_num(m.vm, KVM_GET_STATS_FD, 0);
	assert_true(v >= 0 && w >= 0 && vm >= 0 && v != w);
	assert_int_equal(fcntl(v, F_GETFL) & O_ACCMODE, O_RDONLY);
	before = stat_of(v, "exits");
	CODE(&m, 0xe6, 0x80, 0xf4);
	run_until(&m, KVM_EXIT_IO);
	run_to_halt(&m);
	assert_int_equal(stat_of(v, "exits"), before + 2);
	assert_int_equal(stat_of(w, "exits"), before + 2);
	if (!api_is_host()) {
		assert_int_equal(stat_of(v, "io_exits"), 1);
		assert_int_equal(stat_of(v, "halt_exits"), 1);
		m.run->immediate_exit = 1;
		assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EINTR);
		assert_int_equal(stat_of(v, "signal_exits"), 1);
		assert_int_equal(stat_of(v, "other_exits"), 0);
		before++;
	}
	assert_int_equal(close(w), 0);
	if (!api_is_host()) {
		assert_int_equal(stat_of(vm, "vcpus"), 1);
		assert_int_equal(stat_of(vm, "slots"), 1);
	}
	machine_free(&m);
	assert_int_equal(stat_of(v, "exits"), before + 2);
	assert_int_equal(close(v), 0);
	assert_int_equal(close(vm), 0);
}

int test_features(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mce_setup),
		cmocka_unit_test(test_mce_inject),
		cmocka_unit_test(test_payload),
		cmocka_unit_test(test_triple_fault_event),
		cmocka_unit_test(test_hypercall),
		cmocka_unit_test(test_disable_exits),
		cmocka_unit_test(test_bus_lock_modes),
		cmocka_unit_test(test_bus_lock),
		cmocka_unit_test(test_bus_lock_later),
		cmocka_unit_test(test_notify),
		cmocka_unit_test(test_later),
		cmocka_unit_test(test_mmu_pages),
		cmocka_unit_test(test_platform_info),
		cmocka_unit_test(test_failure),
		cmocka_unit_test(test_emulated_cpuid),
		cmocka_unit_test(test_stats_follow),
	};

	return cmocka_run_group_tests_name("features", tests, NULL, NULL);
}
