/* Power-up, RESET and INIT: SDM 3A 9.1.1, table 9-1. */
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/msr.h"
#include "hypervisor/x86/system.h"

#define RESET_CR0	(CR0_CD | CR0_NW | CR0_ET)
#define RESET_RIP	0xfff0
#define RESET_CS	0xf000
#define RESET_CS_BASE	0xffff0000ULL
#define RESET_LIMIT	0xffff
#define RESET_SMBASE	0x30000

#define ATTR_CODE	(SEG_P | SEG_S | SEG_TYPE_CODE | SEG_TYPE_RW | SEG_TYPE_A)
#define ATTR_DATA	(SEG_P | SEG_S | SEG_TYPE_RW | SEG_TYPE_A)
#define ATTR_LDT	(SEG_P | 2u)
#define ATTR_TSS32_BUSY	(SEG_P | 11u)

static void reset_segments(struct vcpu *v)
{
	unsigned int s;

	for (s = SEG_ES; s <= SEG_GS; s++)
		v->seg[s] = (struct segment) { .limit = RESET_LIMIT, .attr = ATTR_DATA };
	v->seg[SEG_CS] = (struct segment) {
		.base = RESET_CS_BASE, .limit = RESET_LIMIT, .attr = ATTR_CODE, .sel = RESET_CS,
	};
	v->seg[SEG_LDTR] = (struct segment) { .limit = RESET_LIMIT, .attr = ATTR_LDT };
	v->seg[SEG_TR] = (struct segment) { .limit = RESET_LIMIT, .attr = ATTR_TSS32_BUSY };
	v->gdt = (struct dtable) { .limit = RESET_LIMIT };
	v->idt = (struct dtable) { .limit = RESET_LIMIT };
}

static void reset_registers(struct vcpu *v, bool init)
{
	u32 id[4];

	cpuid_read(v, 1, 0, id);
	memset(v->r, 0, sizeof(v->r));
	v->r[R_RDX] = id[0];	/* the processor's signature */
	v->r[R_RIP] = RESET_RIP;
	v->rflags = RFLAGS_FIXED;
	/* INIT leaves CD and NW as they are. */
	v->cr0 = init ? (v->cr0 & (CR0_CD | CR0_NW)) | CR0_ET : RESET_CR0;
	v->cr2 = v->cr3 = v->cr4 = v->cr8 = 0;
	v->efer = 0;
	memset(v->pdpte, 0, sizeof(v->pdpte));
	memset(v->dr, 0, sizeof(v->dr));
	v->dr6 = DR6_FIXED;
	v->dr7 = DR7_FIXED;
	v->xss = 0;
	if (!init)
		v->xcr0 = XCR0_X87;
}

static void reset_events(struct vcpu *v)
{
	v->event = v->delivering = v->pending_db = (struct event) { .type = EV_NONE };
	v->nmi_pending = 0;
	v->nmi_blocked = false;
	v->irq_shadow = v->mov_ss_shadow = false;
	v->step_tf = v->rf_keep = false;
	v->halted = false;
	v->extint_pending = false;
	v->smm = v->smi_pending = v->smm_inside_nmi = false;
	v->mem_space = 0;
	v->msr.smi_count = 0;
	memset(&v->io, 0, sizeof(v->io));
}

void vcpu_reset(struct vcpu *v, bool init)
{
	reset_events(v);
	reset_segments(v);
	reset_registers(v, init);
	fpu_reset(v, init);
	msr_reset(v, init);
	if (!init) {
		v->msr.smbase = RESET_SMBASE;
		pmu_reset(v);
	}
	lapic_reset(v, init);
	mmu_flush_all(v);
	cpuid_update(v);
	vcpu_update_mode(v);
}
