/*
 * The local APIC's inside, shared by its files: registers (lapic.c), messages between APICs
 * (lapic_msg.c), timer (lapic_timer.c), saved state (lapic_state.c). SDM 3A chapter 11 ("APIC").
 *
 * Who touches what: IRR, TMR, the latent error bits and `events` are set by any thread, atomically.
 * Identity registers (ID, LDR, DFR, SVR, LVT) are written by the owning vCPU's thread only and read
 * by any. All the rest belongs to the owner.
 */
#ifndef QUMRA_HYPERVISOR_IRQCHIP_LAPIC_H
#define QUMRA_HYPERVISOR_IRQCHIP_LAPIC_H

#include "hypervisor/irqchip/irqchip.h"

/* Register numbers: offset in the xAPIC page >> 4, and MSR number - 0x800. SDM 3A table 11-1 */
enum lapic_reg_nr {
	LR_ID = 0x02, LR_VERSION = 0x03, LR_TPR = 0x08, LR_APR = 0x09, LR_PPR = 0x0a, LR_EOI = 0x0b,
	LR_RRD = 0x0c, LR_LDR = 0x0d, LR_DFR = 0x0e, LR_SVR = 0x0f,
	LR_ISR = 0x10, LR_TMR = 0x18, LR_IRR = 0x20, LR_ESR = 0x28,
	LR_LVT_CMCI = 0x2f,
	LR_ICR = 0x30, LR_ICR2 = 0x31,
	LR_LVT_TIMER = 0x32, LR_LVT_THERMAL = 0x33, LR_LVT_PERF = 0x34, LR_LVT_LINT0 = 0x35,
	LR_LVT_LINT1 = 0x36, LR_LVT_ERROR = 0x37,
	LR_TMICT = 0x38, LR_TMCCT = 0x39, LR_TDCR = 0x3e, LR_SELF_IPI = 0x3f,
	NR_LAPIC_REGS,
};

#define LAPIC_VERSION		0x50014u /* entries 0 to 5, no EOI-broadcast suppression */
#define LAPIC_VERSION_CMCI	0x60014u /* entries 0 to 6 */
#define LAPIC_DEFAULT_BASE	0xfee00000ULL
#define APICBASE_BSP		BIT(8)
#define APICBASE_EXTD		BIT(10)
#define APICBASE_EN		BIT(11)

#define SVR_ENABLE		BIT(8)
#define LVT_VECTOR		0xffu
#define LVT_MODE		0x700u
#define LVT_MODE_SHIFT		8
#define LVT_MASKED		BIT(16)
#define LVT_TIMER_MODE		(BIT(17) | BIT(18))
#define LVT_TIMER_ONESHOT	0
#define LVT_TIMER_PERIODIC	BIT(17)
#define LVT_TIMER_DEADLINE	BIT(18)

#define ESR_SEND_ILLEGAL	BIT(5)
#define ESR_RECV_ILLEGAL	BIT(6)
#define ESR_ILLEGAL_REG		BIT(7)

/* Delivery modes of ICR, LVT, MSI and redirection entries. SDM 3A 11.6.1 */
enum apic_mode {
	APIC_FIXED, APIC_LOWEST, APIC_SMI, APIC_RESERVED,
	APIC_NMI, APIC_INIT, APIC_SIPI, APIC_EXTINT,
};

enum apic_shorthand { APIC_TO_DEST, APIC_TO_SELF, APIC_TO_ALL, APIC_TO_OTHERS };

/* lapic.events */
#define LAPIC_EV_NMI	BIT(0)
#define LAPIC_EV_INIT	BIT(1)
#define LAPIC_EV_SIPI	BIT(2)
#define LAPIC_EV_SMI	BIT(3)
#define LAPIC_EV_NMI2	BIT(4)	/* one more */

struct lapic {
	struct vcpu *vcpu;
	u32 reg[NR_LAPIC_REGS];
	u32 errors;		/* ESR_* seen since the last write of ESR; atomic */
	u32 events;		/* LAPIC_EV_*; atomic */
	u32 sipi_vector;	/* of LAPIC_EV_SIPI */
	u32 arbitration;	/* lowest-priority messages taken; atomic */
	u64 user_eoi[4];	/* vectors for irqchip_user_eoi(); the owner's thread */
	struct lapic_timer {
		struct os_timer os;
		u64 deadline;	/* ns of the next expiry, 0: not running */
		u64 period;	/* ns, of TMICT at the present divisor */
		u64 tsc;	/* TSC-deadline mode: IA32_TSC_DEADLINE */
	} timer;
	struct vapic {		/* vapic.c */
		u64 addr;
		u32 written;
		bool on, report;
	} vapic;
};

void lapic_set_tpr(struct lapic *l, u32 tpr);
void vapic_tpr_accessed(struct lapic *l, bool write);

/* A message on the bus between APICs. */
struct apic_msg {
	u32 dest;
	u8 vector;
	u8 mode;		/* enum apic_mode */
	u8 shorthand;		/* enum apic_shorthand; all but APIC_TO_DEST need a source */
	bool logical;
	bool level;		/* trigger mode */
	bool assert;
	bool lowest;		/* redirection hint: one destination of several */
	bool ipi;		/* from an ICR: 0xff is no broadcast to an x2APIC */
};

static inline bool lapic_has_cmci(const struct lapic *l)
{
	return l->reg[LR_VERSION] == LAPIC_VERSION_CMCI;
}

static inline bool lapic_hw_enabled(const struct lapic *l)
{
	return READ_ONCE(l->vcpu->msr.apic_base) & APICBASE_EN;
}

static inline bool lapic_x2apic(const struct lapic *l)
{
	return (READ_ONCE(l->vcpu->msr.apic_base) & (APICBASE_EN | APICBASE_EXTD)) ==
	       (APICBASE_EN | APICBASE_EXTD);
}

static inline bool lapic_sw_enabled(const struct lapic *l)
{
	return lapic_hw_enabled(l) && (READ_ONCE(l->reg[LR_SVR]) & SVR_ENABLE);
}

static inline u32 lapic_physical_id(const struct lapic *l)
{
	return lapic_x2apic(l) ? l->vcpu->id : READ_ONCE(l->reg[LR_ID]) >> 24;
}

/* 256-bit registers: eight of 32 bits each. */
static inline bool lapic_test(const struct lapic *l, unsigned int first, u8 vector)
{
	return READ_ONCE(l->reg[first + (vector >> 5)]) >> (vector & 31) & 1;
}

/* Return the bit's old value. */
static inline bool lapic_test_set(struct lapic *l, unsigned int first, u8 vector)
{
	u32 bit = 1u << (vector & 31);

	return __atomic_fetch_or(&l->reg[first + (vector >> 5)], bit, __ATOMIC_ACQ_REL) & bit;
}

static inline bool lapic_test_clear(struct lapic *l, unsigned int first, u8 vector)
{
	u32 bit = 1u << (vector & 31);

	return __atomic_fetch_and(&l->reg[first + (vector >> 5)], ~bit, __ATOMIC_ACQ_REL) & bit;
}

/* lapic.c */
int lapic_highest(const struct lapic *l, unsigned int first);	/* vector or -1 */
void lapic_check_pending(struct lapic *l);	/* requests REQ_EVENT if a vector can be taken */
void lapic_init_x2apic_id(struct lapic *l);

/* lapic_msg.c. Any thread. */
/* Destinations that took it; -1: there is none. source may be NULL without a shorthand. */
int lapic_deliver(struct vm *vm, struct lapic *source, const struct apic_msg *m);
/* Is this one of its destinations? */
bool lapic_is_dest(const struct lapic *l, const struct apic_msg *m);
/* To the APIC ids first + n for each n in a set of two words of so many bits. How many took it. */
int lapic_deliver_set(struct vm *vm, const u64 set[2], u32 bits, u32 first, const struct apic_msg *m);
/* True when accepted. */
bool lapic_accept_vector(struct lapic *l, u8 vector, bool level);
void lapic_local(struct lapic *l, unsigned int lvt);	/* a local source fired */
void lapic_error(struct lapic *l, u32 bits);
void lapic_send_ipi(struct lapic *l, u32 icr, u32 dest);
bool lapic_takes_extint(const struct lapic *l);	/* the PIC's INT reaches this processor */
void lapic_pic_raised(struct vm *vm);		/* the PIC's INT went up */
void lapic_watchdog_nmi(struct vm *vm);		/* a PIT tick for LINT0 lines in NMI mode */

/* split.c: EOI with a split irqchip. The owner's thread. */
void split_eoi(struct lapic *l, u8 vector);
/* lapic_pv.c. The owner's thread. */
/* MSR_KVM_PV_EOI_EN, or Hyper-V's assist page in its form. 0 or -EINVAL. */
int lapic_pv_eoi_set(struct vcpu *v, u64 val);
void lapic_pv_eoi_offer(struct lapic *l, u8 vector); /* it has just gone into service, alone */
void lapic_eoi(struct lapic *l);

/* lapic_timer.c. The owner's thread. */
void lapic_timer_init(struct lapic *l);
void lapic_timer_stop(struct lapic *l);
void lapic_timer_start(struct lapic *l, u32 count); /* from TMICT and TDCR, counting from count */
void lapic_timer_restore(struct lapic *l, u32 count);	/* by KVM_SET_LAPIC */
u32 lapic_timer_count(const struct lapic *l);
void lapic_timer_write_lvt(struct lapic *l, u32 val);
void lapic_timer_write_divide(struct lapic *l, u32 val);

#endif
