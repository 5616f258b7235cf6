/* Starting CPUs, and giving them work. SDM 3A 8.4 */
#include "smp.h"

#ifdef __x86_64__
#define AP_PAGE		0x9000ul

extern u8 ap_code[], ap_code_end[];
void ap_main(void);

static struct ap {
	u32 up;
	smp_fn fn;
	ulong arg;
} __attribute__((aligned(64))) aps[SMP_MAX];

u32 smp_self(void)
{
	u32 id = lapic_read(LAPIC_ID);

	return lapic_x2apic() ? id : id >> 24;
}

void smp_ipi(u32 cpu, u32 icr)
{
	lapic_write(LAPIC_ICR2, cpu << 24);
	lapic_write(LAPIC_ICR, icr);
}

static void woken(struct trap_frame *f)
{
	lapic_eoi();
}

void ap_main(void)
{
	struct ap *ap;

	idt_load(256 * 16 - 1);
	lapic_write(LAPIC_SVR, 0x1ff);
	lapic_write(LAPIC_TPR, 0);
	ap = &aps[smp_self()];
	STORE(ap->up, 1);
	for (;;) {
		smp_fn fn;

		cli();
		fn = LOAD(ap->fn);
		if (!fn) {
			sti_hlt_cli();
			continue;
		}
		fn(smp_self(), ap->arg);
		STORE(ap->fn, NULL);
	}
}

bool smp_start_one(u32 cpu)
{
	u64 end = rdtsc() + 1000000ull * tsc_per_us();

	memcpy((void *)AP_PAGE, ap_code, ap_code_end - ap_code);
	trap_handle(VEC_SMP_WAKE, woken);
	smp_ipi(cpu, ICR_INIT | ICR_ASSERT | BIT(15));
	smp_ipi(cpu, ICR_INIT | BIT(15));	/* the deassert that old parts want */
	delay_us(1000);
	smp_ipi(cpu, ICR_STARTUP | ICR_ASSERT | AP_PAGE >> 12);
	while (!LOAD(aps[cpu].up) && rdtsc() < end)
		pause_cpu();
	return LOAD(aps[cpu].up);
}

u32 smp_start(u32 n)
{
	u32 cpu, up = 1;

	for (cpu = 1; cpu < n; cpu++)
		up += smp_start_one(cpu);
	if (up != n) {
		print("FAIL %u of %u CPUs run\n", up, n);
		guest_exit(0x12);
	}
	return up;
}

void smp_call(u32 cpu, smp_fn fn, ulong arg)
{
	aps[cpu].arg = arg;
	STORE(aps[cpu].fn, fn);
	smp_ipi(cpu, ICR_ASSERT | VEC_SMP_WAKE);
}

void smp_wait(u32 cpu)
{
	while (LOAD(aps[cpu].fn))
		pause_cpu();
}

void smp_all(u32 n, smp_fn fn, ulong arg)
{
	u32 cpu;

	for (cpu = 1; cpu < n; cpu++)
		smp_call(cpu, fn, arg);
	fn(0, arg);
	for (cpu = 1; cpu < n; cpu++)
		smp_wait(cpu);
}

void smp_meet(u32 n)
{
	static u32 arrived;
	u32 round = __atomic_fetch_add(&arrived, 1, __ATOMIC_ACQ_REL) / n;

	while (LOAD(arrived) < (round + 1) * n)
		pause_cpu();
}
#endif
