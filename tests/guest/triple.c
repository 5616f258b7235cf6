/* A triple fault: the machine ends, and qumra says so by its status. SDM 3A 6.15 (#DF). */
#include "guest.h"

void guest_main(void)
{
	check(true, "about to fault three times");
	idt_load(0);
	asm volatile("ud2");
	check(false, "it came back");
}
