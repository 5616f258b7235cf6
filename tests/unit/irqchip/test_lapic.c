/* The local APIC: priorities, messages, modes, state. */
#include "fake.h"

#define SHORTHAND(n)	((u32)(n) << 18)
#define LOGICAL		BIT(11)
#define ASSERT		BIT(14)

static void ipi(struct vcpu *v, u32 dest, u32 icr)
{
	apic_write(v, LR_ICR2, dest << 24);
	apic_write(v, LR_ICR, icr);
}

static void x2apic_on(struct vcpu *v)
{
	assert_int_equal(lapic_set_base(v, lapic_get_base(v) | APICBASE_EXTD, false), 0);
}

static u64 rdmsr(struct vcpu *v, unsigned int nr)
{
	u64 val = ~0ULL;

	assert_int_equal(lapic_msr_read(v, 0x800 + nr, &val), 0);
	return val;
}

static int wrmsr(struct vcpu *v, unsigned int nr, u64 val)
{
	return lapic_msr_write(v, 0x800 + nr, val);
}

static void post(struct vcpu *v, u8 vector)
{
	lapic_accept_vector(v->lapic, vector, false);
}

static void test_reset_values(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[1];

	lapic_reset(v, false);
	assert_int_equal(lapic_get_base(v), LAPIC_DEFAULT_BASE | APICBASE_EN);
	assert_int_equal(
		lapic_get_base(m->cpu[0]), LAPIC_DEFAULT_BASE | APICBASE_EN | APICBASE_BSP);
	assert_int_equal(apic_read(v, LR_ID), 0x01000000);
	assert_int_equal(apic_read(v, LR_VERSION), 0x50014);
	assert_int_equal(apic_read(v, LR_DFR), 0xffffffff);
	assert_int_equal(apic_read(v, LR_SVR), 0xff);
	assert_int_equal(apic_read(v, LR_LVT_LINT0), 0x10000);
	assert_int_equal(apic_read(v, LR_LVT_TIMER), 0x10000);
	lapic_reset(m->cpu[0], false);
	/* The firmware's virtual wire. */
	assert_int_equal(apic_read(m->cpu[0], LR_LVT_LINT0), 0x700);
	m->vm.disabled_quirks = KVM_X86_QUIRK_LINT0_REENABLED;
	lapic_reset(m->cpu[0], false);
	assert_int_equal(apic_read(m->cpu[0], LR_LVT_LINT0), 0x10000);
}

static void test_init_keeps_the_id(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[1];

	apic_write(v, LR_ID, 0x77000000);
	apic_write(v, LR_TPR, 0x20);
	lapic_reset(v, true);
	assert_int_equal(apic_read(v, LR_ID), 0x77000000);
	assert_int_equal(apic_read(v, LR_TPR), 0);
	lapic_reset(v, false);
	assert_int_equal(apic_read(v, LR_ID), 0x01000000);
}

static void test_priorities(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];

	post(v, 0x45);
	post(v, 0x61);
	post(v, 0x6f);
	assert_int_equal(take(v), 0x6f);
	assert_int_equal(apic_read(v, LR_PPR), 0x60);
	assert_int_equal(take(v), -1);		/* the same class waits */
	post(v, 0x70);
	assert_int_equal(take(v), 0x70);	/* a higher one nests */
	apic_write(v, LR_EOI, 0);
	assert_int_equal(take(v), -1);
	apic_write(v, LR_EOI, 0);
	assert_int_equal(take(v), 0x61);
	apic_write(v, LR_EOI, 0);
	apic_write(v, LR_TPR, 0x4f);
	assert_int_equal(apic_read(v, LR_PPR), 0x4f);
	assert_int_equal(take(v), -1);
	v->requests = 0;
	apic_write(v, LR_TPR, 0x3f);
	assert_true(v->requests & BIT(REQ_EVENT));	/* the run loop must look again */
	assert_int_equal(take(v), 0x45);
	apic_write(v, LR_EOI, 0);
	apic_write(v, LR_EOI, 0);		/* one too many does nothing */
	assert_int_equal(apic_read(v, LR_PPR), 0x3f);
}

static void test_eoi_asks_for_the_next(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];

	post(v, 0x61);
	assert_int_equal(take(v), 0x61);
	post(v, 0x62);
	v->requests = 0;
	apic_write(v, LR_EOI, 0);
	assert_true(v->requests & BIT(REQ_EVENT));
	assert_int_equal(take(v), 0x62);
	v->requests = 0;
	apic_write(v, LR_EOI, 0);
	assert_int_equal(v->requests, 0);
}

static void test_cr8(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];

	lapic_set_cr8(v, 9);
	assert_int_equal(apic_read(v, LR_TPR), 0x90);
	apic_write(v, LR_TPR, 0xa5);
	assert_int_equal(lapic_get_cr8(v), 10);
	post(v, 0x91);
	assert_int_equal(take(v), -1);
	lapic_set_cr8(v, 8);
	assert_int_equal(take(v), 0x91);
}

static void test_software_disable(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];

	apic_write(v, LR_LVT_TIMER, 0x20030);
	apic_write(v, LR_SVR, 0xff);
	assert_int_equal(apic_read(v, LR_LVT_TIMER), 0x30030);
	apic_write(v, LR_LVT_TIMER, 0x20030);	/* stays masked */
	assert_int_equal(apic_read(v, LR_LVT_TIMER), 0x30030);
	post(v, 0x50);
	assert_int_equal(take(v), -1);
	apic_enable(v);
	assert_int_equal(take(v), -1);		/* it was not accepted at all */
	post(v, 0x50);
	apic_write(v, LR_SVR, 0xff);
	assert_int_equal(take(v), 0x50);	/* what was accepted is still delivered */
}

static void test_access_sizes(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];
	u64 wide = ~0ULL;
	u8 byte = 0;

	lapic_mmio_read(v, LR_VERSION << 4 | 2, 1, &byte);
	assert_int_equal(byte, 5);
	lapic_mmio_read(v, LR_VERSION << 4, 8, &wide);
	assert_true(wide == 0);
	byte = 0x50;
	lapic_mmio_write(v, LR_TPR << 4, 1, &byte);
	assert_int_equal(apic_read(v, LR_TPR), 0);
	wide = 0x50;
	lapic_mmio_write(v, LR_TPR << 4, 8, &wide);
	assert_int_equal(apic_read(v, LR_TPR), 0);
	lapic_mmio_write(v, LR_TPR << 4 | 4, 4, &wide);
	assert_int_equal(apic_read(v, LR_TPR), 0);
	for (u32 off = 0; off < 4096; off++)
		for (unsigned int len = 1; len <= 8; len *= 2)
			lapic_mmio_read(v, off, len, &wide);
}

static void test_error_status(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];

	apic_write(v, LR_LVT_ERROR, 0xfe);
	ipi(v, 0, 0x0f);			/* illegal vector */
	assert_int_equal(apic_read(v, LR_ESR), 0);	/* not before a write */
	assert_int_equal(take(v), 0xfe);
	apic_write(v, LR_EOI, 0);
	apic_write(v, LR_ESR, 0);
	assert_int_equal(apic_read(v, LR_ESR), ESR_SEND_ILLEGAL);
	apic_write(v, LR_ESR, 0);
	assert_int_equal(apic_read(v, LR_ESR), 0);
	apic_read(v, 0x3a);			/* a register that is not there */
	post(v, 5);
	apic_write(v, LR_ESR, 0);
	assert_int_equal(apic_read(v, LR_ESR), ESR_ILLEGAL_REG | ESR_RECV_ILLEGAL);
	apic_write(v, LR_LVT_ERROR, 0x03);	/* an error about the error entry ends somewhere */
	post(v, 5);
}

static void test_ipi_destinations(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	ipi(v, 2, 0x41);
	ipi(v, 0, SHORTHAND(APIC_TO_SELF) | 0x42);
	ipi(v, 0, SHORTHAND(APIC_TO_OTHERS) | 0x53);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(take(m->cpu[i]), i ? 0x53 : 0x42);
	apic_write(m->cpu[2], LR_EOI, 0);
	assert_int_equal(take(m->cpu[2]), 0x41);
	ipi(v, 0, SHORTHAND(APIC_TO_ALL) | 0x64);
	ipi(v, 0xff, 0x75);
	for (unsigned int i = 0; i < 4; i++) {
		assert_int_equal(take(m->cpu[i]), 0x75);
		apic_write(m->cpu[i], LR_EOI, 0);
		assert_int_equal(take(m->cpu[i]), 0x64);
	}
}

static void test_logical_cluster(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	for (unsigned int i = 0; i < 4; i++) {
		apic_write(m->cpu[i], LR_DFR, 0);
		assert_int_equal(apic_read(m->cpu[i], LR_DFR), 0x0fffffff);
		apic_write(m->cpu[i], LR_LDR, (i / 2 << 4 | 1u << (i & 1)) << 24);
	}
	ipi(v, 0x13, LOGICAL | 0x41);	/* cluster 1, both */
	assert_int_equal(take(m->cpu[0]), -1);
	assert_int_equal(take(m->cpu[1]), -1);
	assert_int_equal(take(m->cpu[2]), 0x41);
	assert_int_equal(take(m->cpu[3]), 0x41);
	ipi(v, 0x02, LOGICAL | 0x51);
	assert_int_equal(take(m->cpu[1]), 0x51);
	assert_int_equal(take(m->cpu[3]), -1);
}

static void test_invalid_ipis(void **state)
{
	struct machine *m = *state;

	ipi(m->cpu[0], 0, SHORTHAND(APIC_TO_SELF) | APIC_INIT << 8 | ASSERT);
	ipi(m->cpu[0], 0, SHORTHAND(APIC_TO_ALL) | APIC_INIT << 8 | ASSERT);
	ipi(m->cpu[0], 0, SHORTHAND(APIC_TO_ALL) | APIC_SIPI << 8 | 0x99);
	ipi(m->cpu[0], 1, APIC_SMI << 8);
	ipi(m->cpu[0], 1, APIC_RESERVED << 8 | 0x40);
	ipi(m->cpu[0], 1, APIC_EXTINT << 8 | 0x40);
	fake_serve(m);
	assert_int_equal(m->inits, 0);
	assert_int_equal(take(m->cpu[1]), -1);
}

static void test_start_up(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[1];

	ipi(m->cpu[0], 1, APIC_SIPI << 8 | 0x99);	/* waits for INIT first */
	fake_serve(m);
	assert_int_equal(v->mp_state, KVM_MP_STATE_UNINITIALIZED);
	ipi(m->cpu[0], 1, APIC_INIT << 8 | ASSERT | BIT(15));
	fake_serve(m);
	assert_int_equal(m->inits, 1);
	assert_int_equal(v->mp_state, KVM_MP_STATE_INIT_RECEIVED);
	ipi(m->cpu[0], 1, APIC_INIT << 8 | BIT(15));	/* level de-assert */
	fake_serve(m);
	assert_int_equal(m->inits, 1);
	ipi(m->cpu[0], 1, APIC_SIPI << 8 | 0x99);
	fake_serve(m);
	assert_int_equal(v->mp_state, KVM_MP_STATE_RUNNABLE);
	assert_int_equal(v->seg[SEG_CS].sel, 0x9900);
	assert_true(v->seg[SEG_CS].base == 0x99000);
	ipi(m->cpu[0], 1, APIC_SIPI << 8 | 0x55);	/* the second one is ignored */
	fake_serve(m);
	assert_int_equal(v->seg[SEG_CS].sel, 0x9900);
	/* The bootstrap processor does not wait after INIT; INIT and SIPI at once work in that
	 * order. */
	ipi(v, 0, APIC_INIT << 8 | ASSERT);
	ipi(m->cpu[0], 2, APIC_INIT << 8 | ASSERT);
	ipi(m->cpu[0], 2, APIC_SIPI << 8 | 0x10);
	fake_serve(m);
	assert_int_equal(m->cpu[0]->mp_state, KVM_MP_STATE_RUNNABLE);
	assert_int_equal(m->cpu[2]->mp_state, KVM_MP_STATE_RUNNABLE);
	assert_true(m->cpu[2]->seg[SEG_CS].base == 0x10000);
}

static void test_nmi(void **state)
{
	struct machine *m = *state;

	ipi(m->cpu[0], 0, SHORTHAND(APIC_TO_OTHERS) | APIC_NMI << 8);
	fake_serve(m);
	assert_false(m->cpu[0]->nmi_pending);
	assert_true(m->cpu[1]->nmi_pending);
	assert_true(m->cpu[3]->nmi_pending);
}

static void test_base_transitions(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];
	u64 off = LAPIC_DEFAULT_BASE | APICBASE_BSP, on = off | APICBASE_EN,
	    x2 = on | APICBASE_EXTD;

	assert_int_equal(lapic_set_base(v, off | APICBASE_EXTD, false), -EINVAL);
	assert_int_equal(lapic_set_base(v, on | BIT(9), false), -EINVAL);
	assert_int_equal(lapic_set_base(v, on | BIT(0), false), -EINVAL);
	assert_int_equal(lapic_set_base(v, on | BIT(40), false), -EINVAL);	/* beyond 40 bits */
	assert_int_equal(lapic_set_base(v, x2, false), 0);
	assert_int_equal(lapic_set_base(v, on, false), -EINVAL);
	assert_int_equal(lapic_get_base(v), x2);
	assert_int_equal(lapic_set_base(v, off, false), 0);
	assert_int_equal(lapic_set_base(v, x2, false), -EINVAL);
	assert_int_equal(lapic_set_base(v, on, false), 0);
	assert_int_equal(apic_read(v, LR_ID), 0);
	assert_int_equal(apic_read(v, LR_SVR), 0xff);	/* a stay in "disabled" resets */
	/* User space may go anywhere that is possible. */
	assert_int_equal(lapic_set_base(v, off, true), 0);
	assert_int_equal(lapic_set_base(v, x2, true), 0);
	assert_int_equal(lapic_set_base(v, on, true), 0);
	assert_int_equal(lapic_set_base(v, off | APICBASE_EXTD, true), -EINVAL);
	v->guest_features[0] = v->guest_features[1] = 0;
	assert_int_equal(lapic_set_base(v, x2, false), -EINVAL);
}

static void test_page_moves_and_vanishes(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];
	u64 rest = APICBASE_EN | APICBASE_BSP;

	assert_true(lapic_owns(v, 0xfee00000));
	assert_true(lapic_owns(v, 0xfee00fff));
	assert_false(lapic_owns(v, 0xfee01000));
	assert_int_equal(lapic_set_base(v, 0xd0000000 | rest, false), 0);
	assert_true(lapic_owns(v, 0xd0000300));
	assert_false(lapic_owns(v, 0xfee00300));
	x2apic_on(v);
	assert_int_equal(apic_read(v, LR_VERSION), 0xffffffff);
	apic_write(v, LR_TPR, 0x40);
	assert_int_equal(lapic_get_cr8(v), 0);
	v->vm->disabled_quirks = KVM_X86_QUIRK_LAPIC_MMIO_HOLE;
	assert_false(lapic_owns(v, 0xd0000300));
}

static void test_x2apic_registers(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[3];
	u64 val;

	assert_int_equal(lapic_msr_read(v, 0x802, &val), -EINVAL);	/* xAPIC mode: no MSRs */
	x2apic_on(v);
	assert_int_equal(rdmsr(v, LR_ID), 3);
	assert_int_equal(rdmsr(v, LR_LDR), 8);
	assert_int_equal(rdmsr(v, LR_VERSION), 0x50014);
	assert_int_equal(lapic_msr_read(v, 0x800 + LR_DFR, &val), -EINVAL);
	assert_int_equal(lapic_msr_read(v, 0x800 + LR_ICR2, &val), -EINVAL);
	assert_int_equal(lapic_msr_read(v, 0x800 + LR_EOI, &val), -EINVAL);
	assert_int_equal(lapic_msr_read(v, 0x800 + LR_SELF_IPI, &val), -EINVAL);
	assert_int_equal(lapic_msr_read(v, 0x840, &val), -EINVAL);
	assert_int_equal(lapic_msr_read(v, 0x8ff, &val), -EINVAL);
	assert_int_equal(wrmsr(v, LR_ID, 3), -EINVAL);
	assert_int_equal(wrmsr(v, LR_LDR, 3), -EINVAL);
	assert_int_equal(wrmsr(v, LR_EOI, 1), -EINVAL);
	assert_int_equal(wrmsr(v, LR_EOI, 0), 0);
	assert_int_equal(wrmsr(v, LR_ESR, 1), -EINVAL);
	assert_int_equal(wrmsr(v, LR_ESR, 0), 0);
	assert_int_equal(wrmsr(v, LR_TPR, 0x100), -EINVAL);
	assert_int_equal(wrmsr(v, LR_TPR, 0xf0), 0);
	assert_int_equal(wrmsr(v, LR_TPR, 1ULL << 32), -EINVAL);
	/* Linux 6.1 takes and keeps reserved bits. */
	assert_int_equal(wrmsr(v, LR_ICR, BIT(20) | 0x41), 0);
	assert_int_equal(wrmsr(v, LR_LVT_TIMER, BIT(19) | 0x40), -EINVAL);
	assert_int_equal(wrmsr(v, 0x3a, 0), -EINVAL);
}

static void test_x2apic_messages(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	for (unsigned int i = 0; i < 4; i++)
		x2apic_on(m->cpu[i]);
	assert_int_equal(wrmsr(v, LR_ICR, 2ULL << 32 | 0x41), 0);
	assert_int_equal(rdmsr(v, LR_ICR), 2ULL << 32 | 0x41);
	assert_int_equal(take(m->cpu[2]), 0x41);
	assert_int_equal(wrmsr(v, LR_ICR, 0x0aULL << 32 | LOGICAL | 0x42), 0);
	assert_int_equal(take(m->cpu[1]), 0x42);
	assert_int_equal(take(m->cpu[2]), -1);
	assert_int_equal(take(m->cpu[3]), 0x42);
	assert_int_equal(wrmsr(v, LR_ICR, 0xffULL << 32 | 0x53), 0);	/* no broadcast: an ID */
	assert_int_equal(take(m->cpu[3]), -1);
	assert_int_equal(wrmsr(v, LR_ICR, 0xffffffffULL << 32 | 0x53), 0);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(take(m->cpu[i]), 0x53);
	assert_int_equal(wrmsr(v, LR_SELF_IPI, 0x64), 0);
	assert_int_equal(take(v), 0x64);
	io_entry(m, 16, 0xffULL << 56 | 0x75);	/* a chip's broadcast does reach x2APICs */
	assert_int_equal(line(m, 16, 1), 4);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(take(m->cpu[i]), 0x75);
	m->vm.x2apic_exact = true;		/* api.rst 7.7: it is an ID, or CPUs of cluster 0 */
	line(m, 16, 0);
	io_entry(m, 16, 0xffULL << 56 | 0x86);
	assert_int_equal(line(m, 16, 1), -1);
	io_entry(m, 17, 0x0aULL << 56 | LOGICAL | 0x87);
	assert_int_equal(line(m, 17, 1), 2);
	assert_int_equal(take(m->cpu[0]), -1);
	assert_int_equal(take(m->cpu[1]), 0x87);
	assert_int_equal(take(m->cpu[3]), 0x87);
}

static void test_state_round_trip(void **state)
{
	struct machine *m = *state, *n = machine_new(1);
	struct vcpu *v = m->cpu[0], *w = n->cpu[0];
	struct kvm_lapic_state s, again;

	apic_write(v, LR_LDR, 0x05000000);
	apic_write(v, LR_TPR, 0x20);
	apic_write(v, LR_LVT_TIMER, 0x200ee);
	apic_write(v, LR_TDCR, 0xb);
	apic_write(v, LR_TMICT, 5000000);
	post(v, 0x61);
	post(v, 0x72);
	assert_int_equal(take(v), 0x72);
	fake_advance(m, 1000000);
	fake_now = 1000000;		/* another host, another clock */
	lapic_get_state(v, &s);
	lapic_set_state(w, &s);
	fake_now = 1000000;
	assert_int_equal(apic_read(w, LR_TPR), 0x20);
	assert_int_equal(lapic_get_cr8(w), 2);
	lapic_get_state(w, &again);
	assert_memory_equal(
		s.regs + LR_LDR * 16, again.regs + LR_LDR * 16, (LR_TMCCT - LR_LDR) * 16);
	assert_int_equal(take(w), -1);
	apic_write(w, LR_EOI, 0);
	assert_int_equal(take(w), 0x61);
	machine_free(n);
}

static void test_state_x2apic_ids(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[3];
	struct kvm_lapic_state s;

	x2apic_on(v);
	lapic_get_state(v, &s);
	assert_int_equal(*(u32 *)(s.regs + 0x20), 3 << 24);
	assert_int_equal(lapic_set_state(v, &s), 0);
	m->vm.x2apic_32bit_ids = true;
	assert_int_equal(lapic_set_state(v, &s), -EINVAL);
	lapic_get_state(v, &s);
	assert_int_equal(*(u32 *)(s.regs + 0x20), 3);
	assert_int_equal(lapic_set_state(v, &s), 0);
	assert_int_equal(rdmsr(v, LR_LDR), 8);
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_setup_smp, machine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_reset_values),
		T(test_init_keeps_the_id),
		T(test_priorities),
		T(test_eoi_asks_for_the_next),
		T(test_cr8),
		T(test_software_disable),
		T(test_access_sizes),
		T(test_error_status),
		T(test_ipi_destinations),
		T(test_logical_cluster),
		T(test_invalid_ipis),
		T(test_start_up),
		T(test_nmi),
		T(test_base_transitions),
		T(test_page_moves_and_vanishes),
		T(test_x2apic_registers),
		T(test_x2apic_messages),
		T(test_state_round_trip),
		T(test_state_x2apic_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
