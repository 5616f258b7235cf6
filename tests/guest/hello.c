/* The smallest guest: it prints and leaves. */
#include "guest.h"

void guest_main(void)
{
	check(true, "a guest runs");
	expect("descriptor", descriptor(0x12345678, 0xabcde, 0x9b, 0xc), 0x12ca9b345678bcdeULL);
	expect_fault("#UD caught", UD, 0, asm volatile("ud2"));
	expect_fault("#GP caught", GP, 0x60, asm volatile("mov %0, %%fs" :: "r"(0x63)));
}
