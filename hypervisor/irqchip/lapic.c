/*
 * The local APIC's registers, seen through the xAPIC page or the x2APIC MSRs, and its priority
 * logic. SDM 3A chapter 11; where processors differ, we are KVM's APIC: version 14h, six LVT
 * entries.
 */
#include "hypervisor/irqchip/lapic.h"

#include <linux/errno.h>

#include "hypervisor/irqchip/chips.h"
#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/hyperv.h"
#include "hypervisor/x86/system.h"

/* ---- the register table ---------------------------------------------------------------------- */

/* Access by the xAPIC page (R, W) and by MSR (R2, W2). SDM 3A tables 11-1 and 11-6 */
enum { R = 1, W = 2, R2 = 4, W2 = 8, RO = R | R2, RW = R | W | R2 | W2 };

struct lapic_row {
	u8 access;
	u32 mask;	/* writable bits */
	u32 ignored;	/* not writable, yet no #GP when written by MSR: status bits */
};

#define LVT_STATUS	BIT(12)			/* delivery status */
#define LINT_STATUS	(LVT_STATUS | BIT(14))	/* and remote IRR */
#define LINT_BITS	(LVT_VECTOR | LVT_MODE | BIT(13) | BIT(15) | LVT_MASKED)

static const struct lapic_row lapic_rows[NR_LAPIC_REGS] = {
	[LR_ID]		= { R | W | R2, 0xff000000, 0 },
	[LR_VERSION]	= { RO, 0, 0 },
	[LR_TPR]	= { RW, 0xff, 0 },
	[LR_APR]	= { R, 0, 0 },
	[LR_PPR]	= { RO, 0, 0 },
	[LR_EOI]	= { W | W2, 0, 0 },
	[LR_RRD]	= { R, 0, 0 },
	[LR_LDR]	= { R | W | R2, 0xff000000, 0 },
	[LR_DFR]	= { R | W, 0xf0000000, 0 },
	[LR_SVR]	= { RW, 0x3ff, BIT(12) },
	[LR_ISR ... LR_ISR + 7] = { RO, 0, 0 },
	[LR_TMR ... LR_TMR + 7] = { RO, 0, 0 },
	[LR_IRR ... LR_IRR + 7] = { RO, 0, 0 },
	[LR_ESR]	= { RW, 0, 0 },
	[LR_LVT_CMCI]	= { RW, LVT_VECTOR | LVT_MODE | LVT_MASKED, LVT_STATUS },
	[LR_ICR]	= { RW, ~(u32)LVT_STATUS, LVT_STATUS },	/* KVM keeps reserved bits */
	[LR_ICR2]	= { R | W, 0xff000000, 0 },
	[LR_LVT_TIMER]	= { RW, LVT_VECTOR | LVT_MASKED | LVT_TIMER_MODE, LVT_STATUS },
	[LR_LVT_THERMAL] = { RW, LVT_VECTOR | LVT_MODE | LVT_MASKED, LVT_STATUS },
	[LR_LVT_PERF]	= { RW, LVT_VECTOR | LVT_MODE | LVT_MASKED, LVT_STATUS },
	[LR_LVT_LINT0]	= { RW, LINT_BITS, LINT_STATUS },
	[LR_LVT_LINT1]	= { RW, LINT_BITS, LINT_STATUS },
	[LR_LVT_ERROR]	= { RW, LVT_VECTOR | LVT_MASKED, LVT_STATUS },
	[LR_TMICT]	= { RW, 0xffffffff, 0 },
	[LR_TMCCT]	= { RO, 0, 0 },
	[LR_TDCR]	= { RW, 0xb, 0 },
	[LR_SELF_IPI]	= { W2, 0xff, 0 },
};

/* May a register be read or written in this way? */
static bool lapic_may(const struct lapic *l, unsigned int nr, u8 how)
{
	if (nr >= NR_LAPIC_REGS || !(lapic_rows[nr].access & how))
		return false;
	return nr != LR_LVT_CMCI || lapic_has_cmci(l);
}

/* ---- priorities ------------------------------------------------------------------------------ */

int lapic_highest(const struct lapic *l, unsigned int first)
{
	for (int i = 7; i >= 0; i--) {
		u32 word = READ_ONCE(l->reg[first + i]);

		if (word)
			return i * 32 + 31 - __builtin_clz(word);
	}
	return -1;
}

/* SDM 3A 11.8.3.1 */
static u32 lapic_ppr(const struct lapic *l)
{
	u32 tpr = l->reg[LR_TPR];
	int isr = lapic_highest(l, LR_ISR);
	u32 in_service = isr < 0 ? 0 : (u32)isr & 0xf0;

	return (tpr & 0xf0) >= in_service ? tpr : in_service;
}

/* The vector that may interrupt now, or -1. */
static int lapic_deliverable(const struct lapic *l)
{
	int irr;

	if (!lapic_hw_enabled(l))
		return -1;
	irr = lapic_highest(l, LR_IRR);
	if (irr < 0 || ((u32)irr & 0xf0) <= (lapic_ppr(l) & 0xf0))
		return -1;
	return irr;
}

void lapic_check_pending(struct lapic *l)
{
	if (lapic_deliverable(l) >= 0)
		vcpu_request(l->vcpu, REQ_EVENT);
}

/* ---- interrupts for the run loop ------------------------------------------------------------- */

/* An ExtINT waits: from our PIC or, with a split irqchip, from KVM_INTERRUPT. */
static bool lapic_has_extint(const struct vcpu *v)
{
	bool pending = irqchip_has_pic(v->vm) ? pic_output(v->vm->irqchip) : v->user_pic_pending;

	return pending && lapic_takes_extint(v->lapic);
}

bool irqchip_has_interrupt(struct vcpu *v)
{
	if (!v->lapic)
		return false;
	return lapic_has_extint(v) || lapic_deliverable(v->lapic) >= 0;
}

static int extint_ack(struct vcpu *v)
{
	if (irqchip_has_pic(v->vm))
		return pic_ack(v->vm->irqchip);
	v->user_pic_pending = false;
	return v->user_pic_vector;
}

bool irqchip_user_pic_ready(const struct vcpu *v)
{
	return !v->user_pic_pending && lapic_takes_extint(v->lapic);
}

int irqchip_ack_interrupt(struct vcpu *v)
{
	struct lapic *l = v->lapic;
	int vector;

	if (!l)
		return -1;
	fpu_put(v);
	if (lapic_has_extint(v)) {
		vector = extint_ack(v);
		if (vector >= 0)
			return vector;
	}
	vector = lapic_deliverable(l);
	if (vector < 0)
		return -1;
	lapic_test_clear(l, LR_IRR, (u8)vector);
	if (unlikely(v->hv) && hv_auto_eoi(v, (u8)vector))
		return vector;
	lapic_test_set(l, LR_ISR, (u8)vector);
	if (unlikely(v->msr.kvm_pv_eoi & 1))
		lapic_pv_eoi_offer(l, (u8)vector);
	return vector;
}

/* SDM 3A 11.8.5 */
void lapic_eoi(struct lapic *l)
{
	struct irqchip *ic = l->vcpu->vm->irqchip;
	int vector = lapic_highest(l, LR_ISR);
	bool level;

	if (vector < 0)
		return;
	lapic_test_clear(l, LR_ISR, (u8)vector);
	level = lapic_test(l, LR_TMR, (u8)vector);
	if (l->vcpu->vm->split_irqchip)
		split_eoi(l, (u8)vector);
	else if (ic && (level || ioapic_handles(ic, (u8)vector)))
		ioapic_eoi(ic, (u8)vector, level);
	if (unlikely(l->vcpu->hv))
		hv_acked(l->vcpu, (u8)vector);
	lapic_check_pending(l);
}

/* ---- reads ----------------------------------------------------------------------------------- */

static u32 lapic_read(struct lapic *l, unsigned int nr)
{
	switch (nr) {
	case LR_TPR:
		vapic_tpr_accessed(l, false);
		return l->reg[LR_TPR];
	case LR_PPR:
		return lapic_ppr(l);
	case LR_TMCCT:
		lapic_timer_expired(l->vcpu);
		return lapic_timer_count(l);
	default:
		return READ_ONCE(l->reg[nr]);
	}
}

/* ---- writes ---------------------------------------------------------------------------------- */

static void lapic_write_svr(struct lapic *l, u32 val)
{
	WRITE_ONCE(l->reg[LR_SVR], val);
	if (val & SVR_ENABLE)
		return;
	/* SDM 3A 11.4.7.2: disabled by software, all entries are masked and stay so. */
	for (unsigned int i = LR_LVT_TIMER; i <= LR_LVT_ERROR; i++)
		WRITE_ONCE(l->reg[i], l->reg[i] | LVT_MASKED);
	if (lapic_has_cmci(l))
		WRITE_ONCE(l->reg[LR_LVT_CMCI], l->reg[LR_LVT_CMCI] | LVT_MASKED);
}

static void lapic_write_lvt(struct lapic *l, unsigned int nr, u32 val)
{
	if (!(l->reg[LR_SVR] & SVR_ENABLE))
		val |= LVT_MASKED;
	if (nr == LR_LVT_TIMER) {
		lapic_timer_expired(l->vcpu);
		lapic_timer_write_lvt(l, val);
	}
	WRITE_ONCE(l->reg[nr], val);
	if (nr == LR_LVT_LINT0)	/* the PIC may have been waiting */
		vcpu_request(l->vcpu, REQ_EVENT);
}

static void lapic_write_esr(struct lapic *l)
{
	/* SDM 3A 11.5.3: a write latches what was seen since the last one. */
	l->reg[LR_ESR] = __atomic_exchange_n(&l->errors, 0, __ATOMIC_ACQ_REL);
}

static void lapic_write_icr(struct lapic *l, u32 val)
{
	l->reg[LR_ICR] = val;
	lapic_send_ipi(l, val, lapic_x2apic(l) ? l->reg[LR_ICR2] : l->reg[LR_ICR2] >> 24);
}

void lapic_set_tpr(struct lapic *l, u32 tpr)
{
	l->reg[LR_TPR] = tpr;
	l->vcpu->cr8 = tpr >> 4;
	lapic_check_pending(l);
}

/* val: masked to the writable bits. */
static void lapic_write(struct lapic *l, unsigned int nr, u32 val)
{
	switch (nr) {
	case LR_TPR:
		vapic_tpr_accessed(l, true);
		lapic_set_tpr(l, val);
		break;
	case LR_EOI:
		lapic_eoi(l);
		break;
	case LR_DFR:
		WRITE_ONCE(l->reg[LR_DFR], val | 0x0fffffff);
		break;
	case LR_SVR:
		lapic_write_svr(l, val);
		break;
	case LR_ESR:
		lapic_write_esr(l);
		break;
	case LR_ICR:
		lapic_write_icr(l, val);
		break;
	case LR_LVT_CMCI:
	case LR_LVT_TIMER ... LR_LVT_ERROR:
		lapic_write_lvt(l, nr, val);
		break;
	case LR_TMICT:
		if ((l->reg[LR_LVT_TIMER] & LVT_TIMER_MODE) == LVT_TIMER_DEADLINE)
			break;
		lapic_timer_expired(l->vcpu);
		l->reg[LR_TMICT] = val;
		lapic_timer_start(l, val);
		break;
	case LR_TDCR:
		lapic_timer_expired(l->vcpu);
		lapic_timer_write_divide(l, val);
		break;
	case LR_SELF_IPI:
		lapic_send_ipi(l, APIC_TO_SELF << 18 | val, 0);
		break;
	default:
		WRITE_ONCE(l->reg[nr], val);
	}
}

/* ---- the xAPIC page -------------------------------------------------------------------------- */

bool lapic_owns(const struct vcpu *v, u64 gpa)
{
	u64 base = v->msr.apic_base;

	if (!v->lapic || (gpa ^ base) & ~0xfffULL)
		return false;
	if (lapic_hw_enabled(v->lapic) && !lapic_x2apic(v->lapic))
		return true;
	/* KVM's hole: nothing is there, and user space is not asked either. */
	return !(v->vm->disabled_quirks & KVM_X86_QUIRK_LAPIC_MMIO_HOLE);
}

static bool lapic_page_mapped(const struct lapic *l)
{
	return lapic_hw_enabled(l) && !lapic_x2apic(l);
}

/*
 * SDM 3A 11.4.1: registers are read and written as aligned 32-bit words. As KVM, narrower reads
 * within a register work, other accesses do nothing.
 */
void lapic_mmio_read(struct vcpu *v, u32 off, unsigned int len, void *data)
{
	struct lapic *l = v->lapic;
	unsigned int nr = off >> 4, at = off & 15;
	u32 val;

	lapic_pv_eoi_sync(v);
	if (!lapic_page_mapped(l)) {
		memset(data, 0xff, len);
		return;
	}
	memset(data, 0, len);
	if (!lapic_may(l, nr, R)) {
		lapic_error(l, ESR_ILLEGAL_REG);
		return;
	}
	if (at + len > sizeof(val))
		return;
	val = lapic_read(l, nr);
	memcpy(data, (char *)&val + at, len);
}

void lapic_mmio_write(struct vcpu *v, u32 off, unsigned int len, const void *data)
{
	struct lapic *l = v->lapic;
	unsigned int nr = off >> 4;
	u32 val;

	lapic_pv_eoi_sync(v);
	if (!lapic_page_mapped(l) || len != sizeof(val) || off & 15)
		return;
	if (!lapic_may(l, nr, W)) {
		lapic_error(l, ESR_ILLEGAL_REG);
		return;
	}
	memcpy(&val, data, sizeof(val));
	lapic_write(l, nr, val & lapic_rows[nr].mask);
}

/* ---- x2APIC MSRs ----------------------------------------------------------------------------- */

int lapic_msr_read(struct vcpu *v, u32 index, u64 *val)
{
	struct lapic *l = v->lapic;
	unsigned int nr = index - 0x800;

	if (!l || !lapic_x2apic(l) || !lapic_may(l, nr, R2))
		return -EINVAL;
	lapic_pv_eoi_sync(v);
	*val = lapic_read(l, nr);
	if (nr == LR_ICR)
		*val |= (u64)l->reg[LR_ICR2] << 32;
	return 0;
}

/* Reserved bits fault on processors; KVM (Linux 6.1) takes them, as its selftests expect. */
static int x2apic_write_icr(struct lapic *l, u64 val)
{
	l->reg[LR_ICR2] = (u32)(val >> 32);
	lapic_write(l, LR_ICR, (u32)val & lapic_rows[LR_ICR].mask);
	return 0;
}

int lapic_msr_write(struct vcpu *v, u32 index, u64 val)
{
	struct lapic *l = v->lapic;
	unsigned int nr = index - 0x800;

	if (!l || !lapic_x2apic(l) || !lapic_may(l, nr, W2))
		return -EINVAL;
	lapic_pv_eoi_sync(v);
	if (nr == LR_ICR)
		return x2apic_write_icr(l, val);
	/* SDM 3A 11.12.1.3: reserved bits fault; EOI and ESR take zero only. */
	if (val & ~(u64)(lapic_rows[nr].mask | lapic_rows[nr].ignored))
		return -EINVAL;
	lapic_write(l, nr, (u32)val & lapic_rows[nr].mask);
	return 0;
}

/* Hyper-V's MSRs for EOI, ICR and TPR: in xAPIC mode too, ICR as one. TLFS 9.4 */
int lapic_hv_read(struct vcpu *v, unsigned int nr, u64 *val)
{
	struct lapic *l = v->lapic;

	if (!l || !(lapic_rows[nr].access & R2))
		return -EINVAL;
	lapic_pv_eoi_sync(v);
	*val = lapic_read(l, nr);
	if (nr == LR_ICR)
		*val |= (u64)l->reg[LR_ICR2] << 32;
	return 0;
}

int lapic_hv_write(struct vcpu *v, unsigned int nr, u64 val)
{
	struct lapic *l = v->lapic;

	if (!l)
		return -EINVAL;
	lapic_pv_eoi_sync(v);
	if (nr == LR_ICR)
		return x2apic_write_icr(l, val);
	if (val >> 32)
		return -EINVAL;
	lapic_write(l, nr, (u32)val & lapic_rows[nr].mask);
	return 0;
}

/* ---- IA32_APIC_BASE, CR8 --------------------------------------------------------------------- */

u64 lapic_get_base(const struct vcpu *v)
{
	return v->msr.apic_base;
}

enum lapic_state { LAPIC_OFF = 0, LAPIC_BAD = 1, LAPIC_XAPIC = 2, LAPIC_X2APIC = 3 };

static enum lapic_state lapic_state_of(u64 base)
{
	return base >> 10 & 3;
}

/* SDM 3A 11.12.5: a guest enters x2APIC mode from xAPIC mode, and leaves it for "disabled". */
static bool lapic_transition_valid(enum lapic_state from, enum lapic_state to)
{
	if (to == LAPIC_BAD)
		return false;
	return !(from == LAPIC_X2APIC && to == LAPIC_XAPIC) &&
	       !(from == LAPIC_OFF && to == LAPIC_X2APIC);
}

static void lapic_defaults(struct lapic *l);

static void lapic_switch(struct lapic *l, enum lapic_state to)
{
	if (to == LAPIC_OFF)
		lapic_defaults(l);
	else if (to == LAPIC_X2APIC)
		lapic_init_x2apic_id(l);
	else
		WRITE_ONCE(l->reg[LR_ID], l->vcpu->id << 24);
	vcpu_request(l->vcpu, REQ_EVENT);
}

int lapic_set_base(struct vcpu *v, u64 val, bool host)
{
	u64 reserved = v->mmu.maxphyaddr_mask | MASK(63, 52) | 0x2ff;
	enum lapic_state from = lapic_state_of(v->msr.apic_base), to = lapic_state_of(val);

	if (!vcpu_has(v, F_X2APIC))
		reserved |= APICBASE_EXTD;
	if (val & reserved || to == LAPIC_BAD)
		return -EINVAL;
	if (!host && !lapic_transition_valid(from, to))
		return -EINVAL;
	fpu_put(v);
	WRITE_ONCE(v->msr.apic_base, val);
	if (from == to)
		return 0;
	if (v->lapic)
		lapic_switch(v->lapic, to);
	cpuid_update(v);
	return 0;
}

u64 lapic_get_cr8(const struct vcpu *v)
{
	return v->lapic ? v->lapic->reg[LR_TPR] >> 4 : v->cr8;
}

void lapic_set_cr8(struct vcpu *v, u64 cr8)
{
	v->cr8 = cr8 & 15;
	if (!v->lapic)
		return;
	lapic_pv_eoi_sync(v);
	v->lapic->reg[LR_TPR] = (u32)v->cr8 << 4;
	lapic_check_pending(v->lapic);
}

/* ---- lifetime -------------------------------------------------------------------------------- */

/* SDM 3A 11.12.10.1: the logical ID is derived. */
void lapic_init_x2apic_id(struct lapic *l)
{
	u32 id = l->vcpu->id;

	WRITE_ONCE(l->reg[LR_ID], id);
	WRITE_ONCE(l->reg[LR_LDR], (id >> 4) << 16 | 1u << (id & 15));
}

static bool lapic_is_bsp(const struct lapic *l)
{
	return l->vcpu->id == l->vcpu->vm->bsp_id;
}

/* SDM 3A 11.4.7.1: all registers but the ID. */
static void lapic_defaults(struct lapic *l)
{
	u32 id = l->reg[LR_ID], version = l->reg[LR_VERSION];

	lapic_timer_stop(l);
	for (unsigned int i = 0; i < NR_LAPIC_REGS; i++)
		WRITE_ONCE(l->reg[i], 0);
	l->reg[LR_ID] = id;
	l->reg[LR_VERSION] = version ? version : LAPIC_VERSION;
	l->reg[LR_DFR] = 0xffffffff;
	l->reg[LR_SVR] = 0xff;
	for (unsigned int i = LR_LVT_TIMER; i <= LR_LVT_ERROR; i++)
		l->reg[i] = LVT_MASKED;
	if (lapic_has_cmci(l))
		l->reg[LR_LVT_CMCI] = LVT_MASKED;
	/* Firmware that leaves a virtual wire behind is assumed, as KVM does. */
	if (lapic_is_bsp(l) && !(l->vcpu->vm->disabled_quirks & KVM_X86_QUIRK_LINT0_REENABLED))
		l->reg[LR_LVT_LINT0] = APIC_EXTINT << LVT_MODE_SHIFT;
	WRITE_ONCE(l->errors, 0);
	l->vcpu->cr8 = 0;
}

void lapic_reset(struct vcpu *v, bool init)
{
	struct lapic *l = v->lapic;

	if (!init) {
		u64 bsp = v->id == v->vm->bsp_id ? APICBASE_BSP : 0;

		WRITE_ONCE(v->msr.apic_base, LAPIC_DEFAULT_BASE | bsp | APICBASE_EN);
	}
	v->cr8 = 0;
	if (!l)
		return;
	if (!init) {
		l->reg[LR_ID] = v->id << 24;
		WRITE_ONCE(l->events, 0);
	}
	lapic_defaults(l);
	l->vapic.on = false;
	if (lapic_x2apic(l))
		lapic_init_x2apic_id(l);
}

int lapic_create(struct vcpu *v)
{
	struct lapic *l = os_alloc(sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->vcpu = v;
	lapic_timer_init(l);
	v->lapic = l;
	lapic_reset(v, false);
	return 0;
}

void lapic_destroy(struct vcpu *v)
{
	if (!v->lapic)
		return;
	os_timer_destroy(&v->lapic->timer.os);
	os_free(v->lapic);
	v->lapic = NULL;
}
