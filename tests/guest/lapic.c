/* The local APIC in xAPIC and x2APIC mode: self-IPIs, priorities, NMI, EOI, errors. SDM 3A chapter 10. */
#include "chips.h"

static void open_window(void)
{
	asm volatile("sti; nop; nop; cli" ::: "memory");
}

static void self_ipi(int vector)
{
	lapic_write(LAPIC_ICR, ICR_SELF | ICR_ASSERT | vector);
}

static void delivery(void)
{
	irq_reset();
	irq_expect(0x61, EOI_NONE);
	self_ipi(0x61);
	expect("pending in IRR", lapic_bit(LAPIC_IRR, 0x61), 1);
	expect("not in service", lapic_bit(LAPIC_ISR, 0x61), 0);
	open_window();
	expect("delivered", irq_count[0x61], 1);
	expect("gone from IRR", lapic_bit(LAPIC_IRR, 0x61), 0);
	expect("in service", lapic_bit(LAPIC_ISR, 0x61), 1);
	expect("PPR follows the service", lapic_read(LAPIC_PPR), 0x60);
	expect("an edge: TMR clear", lapic_bit(LAPIC_TMR, 0x61), 0);
	self_ipi(0x61);
	open_window();
	expect("not nested in itself", irq_count[0x61], 1);
	lapic_eoi();
	open_window();
	expect("again after EOI", irq_count[0x61], 2);
	lapic_eoi();
	expect("PPR at rest", lapic_read(LAPIC_PPR), 0);
}

static void priorities(void)
{
	irq_reset();
	irq_expect(0x61, EOI_NONE);
	irq_expect(0x6f, EOI_NONE);
	irq_expect(0x72, EOI_NONE);
	self_ipi(0x61);
	self_ipi(0x72);
	open_window();
	expect("the higher class first", irq_order[0], 0x72);
	expect("the lower waits", irq_order_len, 1);
	lapic_eoi();
	open_window();
	expect("then the lower", irq_order[1], 0x61);
	self_ipi(0x6f);
	open_window();
	expect("the same class waits", irq_order_len, 2);
	self_ipi(0x72);
	open_window();
	expect("a higher class interrupts", irq_order[2], 0x72);
	lapic_eoi();
	lapic_eoi();
	open_window();
	expect("EOI ends the highest first", irq_order[3], 0x6f);
	lapic_eoi();
	expect("all ended", lapic_read(LAPIC_PPR), 0);
}

static void task_priority(void)
{
	irq_reset();
	irq_expect(0x61, EOI_LAPIC);
	lapic_write(LAPIC_TPR, 0x60);
	expect("PPR follows TPR", lapic_read(LAPIC_PPR), 0x60);
	self_ipi(0x61);
	open_window();
	expect("TPR 0x60 holds 0x61", irq_count[0x61], 0);
	lapic_write(LAPIC_TPR, 0x5f);
	open_window();
	expect("TPR 0x5f lets it pass", irq_count[0x61], 1);
	lapic_write(LAPIC_TPR, 0);
#ifdef __x86_64__
	asm volatile("mov %0, %%cr8" :: "r"(6ul));
	expect("CR8 is the class of TPR", lapic_read(LAPIC_TPR), 0x60);
	self_ipi(0x61);
	open_window();
	expect("CR8 6 holds 0x61", irq_count[0x61], 1);
	lapic_write(LAPIC_TPR, 0x35);
	{
		ulong cr8;

		asm volatile("mov %%cr8, %0" : "=r"(cr8));
		expect("TPR is seen in CR8", cr8, 3);
	}
	open_window();
	expect("lowered: delivered", irq_count[0x61], 2);
	expect_fault("CR8 reserved bits", GP, 0, asm volatile("mov %0, %%cr8" :: "r"(16ul)));
	asm volatile("mov %0, %%cr8" :: "r"(0ul));
#endif
}

static volatile u32 nmis;
static volatile bool nmi_again;

static void nmi_seen(struct trap_frame *f)
{
	nmis++;
	if (nmi_again) {
		nmi_again = false;
		lapic_write(LAPIC_ICR, ICR_SELF | ICR_ASSERT | 0x400);
		asm volatile("nop; nop; nop" ::: "memory");
		check(nmis == 1, "NMI is blocked until iret");
	}
}

static void send_nmi(void)
{
	if (lapic_x2apic())
		wrmsr(0x830, (u64)lapic_read(LAPIC_ID) << 32 | ICR_ASSERT | 0x400);
	else {
		lapic_write(LAPIC_ICR2, lapic_read(LAPIC_ID));
		lapic_write(LAPIC_ICR, ICR_ASSERT | 0x400);
	}
	asm volatile("nop; nop; nop" ::: "memory");
}

static void nmi(void)
{
	trap_handle(NMI, nmi_seen);
	nmis = 0;
	send_nmi();
	expect("NMI with IF clear", nmis, 1);
	trap_handle(NMI, NULL);
}

static void broadcast(void)
{
	u32 id = lapic_read(LAPIC_ID);

	irq_reset();
	irq_expect(0x63, EOI_LAPIC);
	if (lapic_x2apic()) {
		wrmsr(0x830, (u64)id << 32 | ICR_ASSERT | 0x63);
		open_window();
		expect("IPI to our own ID", irq_count[0x63], 1);
		wrmsr(0x830, (u64)(id + 5) << 32 | ICR_ASSERT | 0x63);
	} else {
		lapic_write(LAPIC_ICR2, id);
		lapic_write(LAPIC_ICR, ICR_ASSERT | 0x63);
		open_window();
		expect("IPI to our own ID", irq_count[0x63], 1);
		lapic_write(LAPIC_ICR2, id + (5u << 24));
		lapic_write(LAPIC_ICR, ICR_ASSERT | 0x63);
	}
	open_window();
	expect("IPI to nobody", irq_count[0x63], 1);
	lapic_write(LAPIC_ICR, ICR_ASSERT | 2 << 18 | 0x63);
	open_window();
	expect("to all with self", irq_count[0x63], 2);
	lapic_write(LAPIC_ICR, ICR_ASSERT | 3 << 18 | 0x63);
	open_window();
	expect("to all but self", irq_count[0x63], 2);
}

static void logical(void)
{
	irq_reset();
	irq_expect(0x63, EOI_LAPIC);
	lapic_write(LAPIC_DFR, 0xffffffff);
	lapic_write(LAPIC_LDR, 0x02000000);
	lapic_write(LAPIC_ICR2, 0x02000000);
	lapic_write(LAPIC_ICR, ICR_ASSERT | 1 << 11 | 0x63);
	open_window();
	expect("flat: our bit", irq_count[0x63], 1);
	lapic_write(LAPIC_ICR2, 0x01000000);
	lapic_write(LAPIC_ICR, ICR_ASSERT | 1 << 11 | 0x63);
	open_window();
	expect("flat: another's bit", irq_count[0x63], 1);
	lapic_write(LAPIC_ICR2, 0xff000000);
	lapic_write(LAPIC_ICR, ICR_ASSERT | 1 << 11 | 0x63);
	open_window();
	expect("flat: all bits", irq_count[0x63], 2);
	lapic_write(LAPIC_DFR, 0x0fffffff);
	lapic_write(LAPIC_LDR, 0x31000000);		/* cluster 3, member 0 */
	lapic_write(LAPIC_ICR2, 0x31000000);
	lapic_write(LAPIC_ICR, ICR_ASSERT | 1 << 11 | 0x63);
	open_window();
	expect("cluster: ours", irq_count[0x63], 3);
	lapic_write(LAPIC_ICR2, 0x21000000);
	lapic_write(LAPIC_ICR, ICR_ASSERT | 1 << 11 | 0x63);
	open_window();
	expect("cluster: another", irq_count[0x63], 3);
	lapic_write(LAPIC_DFR, 0xffffffff);
}

static void disabled(void)
{
	irq_reset();
	irq_expect(0x61, EOI_LAPIC);
	lapic_write(LAPIC_LVTT, 0x61);
	lapic_write(LAPIC_SVR, 0xff);
	check(lapic_read(LAPIC_LVTT) & LVT_MASKED, "software disable masks the LVT");
	lapic_write(LAPIC_LVTT, 0x61);
	check(lapic_read(LAPIC_LVTT) & LVT_MASKED, "and keeps it so");
	lapic_write(LAPIC_SVR, 0x1ff);
	lapic_write(LAPIC_LVTT, LVT_MASKED | 0x61);
	lapic_write(LAPIC_LVT0, 0x700);
}

static void errors(void)
{
	lapic_write(LAPIC_ESR, 0);
	irq_reset();
	irq_expect(0x67, EOI_LAPIC);
	irq_expect(5, EOI_NONE);		/* who delivers it, survives */
	lapic_write(LAPIC_LVTERR, 0x67);
	self_ipi(0x05);
	open_window();
	lapic_write(LAPIC_ESR, 0);
	check(lapic_read(LAPIC_ESR) & 0x60, "illegal vector in ESR");
	expect("the error interrupt", irq_count[0x67], 1);
	lapic_write(LAPIC_ESR, 0);
	lapic_write(LAPIC_ESR, 0);
	expect("ESR clears", lapic_read(LAPIC_ESR), 0);
	lapic_write(LAPIC_LVTERR, LVT_MASKED);
}

static void registers(void)
{
	u32 version = lapic_read(LAPIC_VER);

	check((version & 0xff) >= 0x10 && (version & 0xff) <= 0x15, "version %x", version);
	check((version >> 16 & 0xff) >= 3, "LVT entries");
	lapic_write(LAPIC_TPR, 0xab);
	expect("TPR", lapic_read(LAPIC_TPR), 0xab);
	lapic_write(LAPIC_TPR, 0);
	lapic_write(LAPIC_TDCR, 0xffffffff & 0xb);
	expect("divide configuration", lapic_read(LAPIC_TDCR), 0xb);
	lapic_write(LAPIC_LVT1, 0x400);
	expect("LVT1: NMI", lapic_read(LAPIC_LVT1) & 0x107ff, 0x400);
	lapic_write(LAPIC_LVT1, LVT_MASKED);
	expect("SVR", lapic_read(LAPIC_SVR) & 0x1ff, 0x1ff);
}

static void all(void)
{
	registers();
	delivery();
	priorities();
	task_priority();
	nmi();
	broadcast();
	errors();
	disabled();
}

static void x2apic(void)
{
	u64 base = rdmsr(MSR_APIC_BASE);

	group("x2APIC");
	if (!(cpuid(1, 0).ecx & BIT(21))) {
		skip("all", "not in CPUID");
		return;
	}
	expect_fault("x2APIC without xAPIC enabled", GP, 0, wrmsr(MSR_APIC_BASE, (base & ~BIT(11)) | BIT(10)));
	wrmsr(MSR_APIC_BASE, base | BIT(10));
	check(lapic_x2apic(), "enabled");
	all();
	expect_fault("back to xAPIC directly", GP, 0, wrmsr(MSR_APIC_BASE, base));
	expect_fault("reserved bits of TPR", GP, 0, wrmsr(0x808, 0x100));
	expect_fault("EOI of another value", GP, 0, wrmsr(0x80b, 1));
	expect_fault("read of EOI", GP, 0, rdmsr(0x80b));
	expect_fault("write of ID", GP, 0, wrmsr(0x802, 1));
	expect_fault("write of LDR", GP, 0, wrmsr(0x80d, 1));
	expect_fault("DFR does not exist", GP, 0, rdmsr(0x80e));
	expect_fault("ICR2 does not exist", GP, 0, rdmsr(0x831));
	expect_fault("ESR of another value", GP, 0, wrmsr(0x828, 1));
	{
		u32 id = rdmsr(0x802);

		expect("LDR follows the ID", rdmsr(0x80d), (id >> 4) << 16 | 1u << (id & 15));
	}
	irq_reset();
	irq_expect(0x66, EOI_LAPIC);
	wrmsr(0x83f, 0x66);
	open_window();
	expect("SELF IPI register", irq_count[0x66], 1);
	wrmsr(MSR_APIC_BASE, base & ~(BIT(10) | BIT(11)));
	expect("disabled: CPUID shows no APIC", cpuid(1, 0).edx & BIT(9), 0);
	wrmsr(MSR_APIC_BASE, base);
	expect("enabled: CPUID shows it", cpuid(1, 0).edx >> 9 & 1, 1);
	expect_fault("reserved bits of APIC_BASE", GP, 0, wrmsr(MSR_APIC_BASE, base | BIT(9)));
	lapic_write(LAPIC_SVR, 0x1ff);
}

void guest_main(void)
{
	group("xAPIC");
	all();
	logical();
	trap_handle(NMI, nmi_seen);
	nmis = 0;
	nmi_again = true;
	send_nmi();
	expect("the second NMI comes after iret", nmis, 2);
	trap_handle(NMI, NULL);
	x2apic();
}
