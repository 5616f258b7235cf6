/* A triple fault on another CPU than the first, while all are busy: the machine ends. */
#include "smp.h"

static void busy(u32 cpu, ulong arg)
{
	for (;;)
		pause_cpu();
}

static void fault_thrice(u32 cpu, ulong arg)
{
	idt_load(0);
	asm volatile("ud2");
}

void guest_main(void)
{
	smp_start(4);
	smp_call(1, busy, 0);
	smp_call(2, busy, 0);
	smp_call(3, fault_thrice, 0);
	busy(0, 0);
}
