/* Says "ready", gives back what it hears on COM1 in capitals, powers off at "q". For the tests of the command. */
#include "guest.h"

void guest_main(void)
{
	print("ready\n");
	for (;;) {
		u8 c;

		while (!(inb(0x3f8 + 5) & 1))
			asm volatile("pause");
		c = inb(0x3f8);
		if (c == 'q') {
			print("bye\n");
			outw(0x604, 0x2000 | 5 << 10);		/* S5 by our DSDT */
			outw(0x604, 0x2000);
			print("still here\n");
		} else if (c == 't') {
			idt_load(0);
			asm volatile("ud2");
		} else if (c == 'r') {
			outb(0x64, 0xfe);
		}
		print_char(c >= 'a' && c <= 'z' ? c - 32 : c);
	}
}
