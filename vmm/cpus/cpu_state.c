/*
 * The state of a vCPU as KVM hands it out, piece by piece: taken once at power-on, put back at
 * reset, and later what migration carries. Then the state that a boot loader would leave.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/cpus/cpu_state.h"

#define MSRS_MAX 1024

struct cpu_msrs {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[MSRS_MAX];
};

struct cpu_state {
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct kvm_xcrs xcrs;
	struct kvm_xsave xsave;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp_state;
	u32 have;	/* bit n: row n was read */
	u32 msrs;
	struct kvm_msr_entry msr[MSRS_MAX];
};

/* In the order of writing: XCR0 before the state that it enables, events and activity last. */
static const struct {
	const char *name;
	unsigned long get, set;
	size_t offset;
	int cap;	/* 0: every KVM has it */
} state_rows[] = {
#define ROW(NAME, field, c)                                                                 \
	{                                                                                   \
#NAME, KVM_GET_##NAME, KVM_SET_##NAME, offsetof(struct cpu_state, field), c \
	}
	ROW(SREGS, sregs, 0),
	ROW(REGS, regs, 0),
	ROW(XCRS, xcrs, KVM_CAP_XCRS),
	ROW(XSAVE, xsave, KVM_CAP_XSAVE),
	ROW(DEBUGREGS, debugregs, KVM_CAP_DEBUGREGS),
	ROW(LAPIC, lapic, KVM_CAP_IRQCHIP),
	ROW(VCPU_EVENTS, events, KVM_CAP_VCPU_EVENTS),
	ROW(MP_STATE, mp_state, KVM_CAP_MP_STATE),
#undef ROW
};

/* Numbers of all MSRs that the hypervisor wants saved. */
static struct kvm_msr_list *msr_list_get(const struct kvm *kvm)
{
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + MSRS_MAX * sizeof(u32));

	if (!list)
		return NULL;
	list->nmsrs = MSRS_MAX;
	if (kvm_ioctl(kvm, kvm->fd, KVM_GET_MSR_INDEX_LIST, list) < 0)
		list->nmsrs = 0;
	return list;
}

/* KVM_GET_MSRS stops at the first that this guest's CPUID does not have: skip it and go on. */
static void msrs_get(
	const struct kvm *kvm, int fd, const struct kvm_msr_list *list, struct cpu_state *s)
{
	struct cpu_msrs *m = calloc(1, sizeof(*m));
	u32 at = 0;

	if (!m)
		return;
	while (at < list->nmsrs) {
		u32 n = list->nmsrs - at;
		long done;

		m->head.nmsrs = n;
		for (u32 i = 0; i < n; i++)
			m->entry[i] = (struct kvm_msr_entry){ .index = list->indices[at + i] };
		done = kvm_ioctl(kvm, fd, KVM_GET_MSRS, m);
		if (done < 0 || done > (long)n)
			break;
		memcpy(&s->msr[s->msrs], m->entry, done * sizeof(m->entry[0]));
		s->msrs += done;
		at += done + 1;
	}
	free(m);
}

/* Some may be read but not written, or not with this value: skip those. */
static void msrs_set(const struct kvm *kvm, int fd, const struct kvm_msr_entry *entry, u32 count)
{
	struct cpu_msrs *m = calloc(1, sizeof(*m));
	u32 at = 0;

	if (!m)
		return;
	while (at < count) {
		long done;

		m->head.nmsrs = count - at;
		memcpy(m->entry, entry + at, (count - at) * sizeof(*entry));
		done = kvm_ioctl(kvm, fd, KVM_SET_MSRS, m);
		if (done < 0)
			break;
		at += done + 1;
	}
	free(m);
}

int cpu_state_get(const struct kvm *kvm, int fd, struct cpu_state **state, struct error *err)
{
	struct cpu_state *s = calloc(1, sizeof(*s));
	struct kvm_msr_list *list;

	*state = NULL;
	if (!s)
		return error_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < ARRAY_SIZE(state_rows); i++) {
		long ret;

		if (state_rows[i].cap && !kvm_capability(kvm, state_rows[i].cap))
			continue;
		ret = kvm_ioctl(kvm, fd, state_rows[i].get, (u8 *)s + state_rows[i].offset);
		if (ret < 0) {
			free(s);
			return error_set(
				err, -ret, "KVM_GET_%s: %s", state_rows[i].name, strerror(-ret));
		}
		s->have |= 1u << i;
	}
	list = msr_list_get(kvm);
	if (list)
		msrs_get(kvm, fd, list, s);
	free(list);
	*state = s;
	return 0;
}

int cpu_state_set(const struct kvm *kvm, int fd, const struct cpu_state *s, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(state_rows); i++) {
		long ret;

		if (!(s->have & 1u << i))
			continue;
		ret = kvm_ioctl(kvm, fd, state_rows[i].set, (const u8 *)s + state_rows[i].offset);
		if (ret < 0)
			return error_set(
				err, -ret, "KVM_SET_%s: %s", state_rows[i].name, strerror(-ret));
	}
	msrs_set(kvm, fd, s->msr, s->msrs);
	return 0;
}

/* ---- boot ------------------------------------------------------------------------------------ */

#define CR0_PE		BIT(0)
#define CR0_ET		BIT(4)
#define CR0_PG		BIT(31)
#define CR4_PAE		BIT(5)
#define EFER_LME	BIT(8)
#define EFER_LMA	BIT(10)
#define RFLAGS_FIXED	BIT(1)

#define SEG_CODE	11	/* execute, read, accessed */
#define SEG_DATA	3	/* read, write, accessed */
#define SEG_TSS_BUSY	11

static struct kvm_segment boot_segment(u16 selector, u8 type, bool code64)
{
	return (struct kvm_segment){
		.limit = 0xFFFFFFFF,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
		.g = 1,
		.l = code64,
		.db = !code64,
	};
}

static void boot_sregs(struct kvm_sregs *s, bool lmode)
{
	struct kvm_segment data = boot_segment(BOOT_DS, SEG_DATA, false);

	s->cs = boot_segment(BOOT_CS, SEG_CODE, lmode);
	s->ds = s->es = s->ss = s->fs = s->gs = data;
	s->tr = (struct kvm_segment){
		.limit = 0x67, .selector = BOOT_TR, .type = SEG_TSS_BUSY, .present = 1};
	s->gdt = (struct kvm_dtable){ .base = BOOT_GDT, .limit = BOOT_GDT_ENTRIES * 8 - 1 };
	s->idt = (struct kvm_dtable){ 0 };
	s->cr0 = CR0_PE | CR0_ET;
	s->cr4 = s->cr3 = s->efer = 0;
	if (lmode) {
		s->cr0 |= CR0_PG;
		s->cr3 = BOOT_PAGE_TABLES;
		s->cr4 = CR4_PAE;
		s->efer = EFER_LME | EFER_LMA;
	}
}

/* Intel MP 1.4, 3.6.2.2: firmware leaves the boot CPU in virtual wire mode. */
static int boot_lapic(const struct kvm *kvm, int fd)
{
	enum { REG_SVR = 0xF0, REG_LINT0 = 0x350, REG_LINT1 = 0x360 };
	enum { SVR_ENABLED = 0x1FF, MODE_EXTINT = 0x700, MODE_NMI = 0x400 };
	struct kvm_lapic_state lapic;
	u32 svr = SVR_ENABLED, lint0 = MODE_EXTINT, lint1 = MODE_NMI;
	long ret = kvm_ioctl(kvm, fd, KVM_GET_LAPIC, &lapic);

	if (ret < 0)
		return ret;
	memcpy(lapic.regs + REG_SVR, &svr, sizeof(svr));
	memcpy(lapic.regs + REG_LINT0, &lint0, sizeof(lint0));
	memcpy(lapic.regs + REG_LINT1, &lint1, sizeof(lint1));
	return kvm_ioctl(kvm, fd, KVM_SET_LAPIC, &lapic);
}

/* All CPUs alike, or Linux complains. Fast strings on; all memory write-back (SDM 3A 11.11.2.1). */
void cpu_state_set_firmware(const struct kvm *kvm, int fd)
{
	static const struct kvm_msr_entry msrs[] = {
		{ .index = 0x1A0, .data = 1 },
		{ .index = 0x2FF, .data = BIT(11) | 6 },
	};

	msrs_set(kvm, fd, msrs, ARRAY_SIZE(msrs));
}

int cpu_state_set_boot(
	const struct kvm *kvm, int fd, const struct boot_entry *entry, struct error *err)
{
	struct kvm_regs regs = {
		.rip = entry->rip, .rbx = entry->rbx, .rsi = entry->rsi, .rflags = RFLAGS_FIXED,
	};
	struct kvm_sregs sregs;
	long ret = kvm_ioctl(kvm, fd, KVM_GET_SREGS, &sregs);

	if (ret == 0) {
		boot_sregs(&sregs, entry->mode == BOOT_LONG);
		ret = kvm_ioctl(kvm, fd, KVM_SET_SREGS, &sregs);
	}
	if (ret == 0)
		ret = kvm_ioctl(kvm, fd, KVM_SET_REGS, &regs);
	if (ret == 0)
		ret = boot_lapic(kvm, fd);
	if (ret < 0)
		return error_set(
			err, -ret, "cannot set the CPU up for booting: %s", strerror(-ret));
	return 0;
}
