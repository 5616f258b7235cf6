/* Says "idle" and sleeps in HLT with a timer tick each 10 ms. For the measurement of an idle guest. */
#include "chips.h"

void guest_main(void)
{
	irq_expect(PIC_BASE, EOI_PIC);
	pit_set(0, 2, 11932);
	pic_mask(0xfffe);
	print("idle\n");
	for (;;)
		sti_hlt_cli();
}
