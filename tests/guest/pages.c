/*
 * Code in more pages than an engine keeps a record of: whatever it forgets then, and in the midst of
 * what, each page's code runs as it stands there, in the present mode. SDM 3A 4.10, 11.6.
 */
#include "guest.h"

#define BASE	0x1000000ul
#define PAGES	8800u	/* of 64 MiB */
#define ROUNDS	4u

typedef ulong (*code)(void);

/* Instructions that 16-bit code would read otherwise: a NOP of 5 bytes, an immediate, the stack. */
static const u8 body[] = {
	0x0f, 0x1f, 0x44, 0x00, 0x00,	/* nopl 0(AX,AX,1) */
	0xb8, 0, 0, 0, 0,		/* mov $n, %eax */
	0x55, 0x5d,			/* push BP; pop BP */
	0xc3,
};

/* Each at another place in its page, not across its end. */
static u8 *place(u32 n)
{
	return (u8 *)(BASE + n * 4096ul + n * 16u % 4080u);
}

static void fill(void)
{
	for (u32 n = 0; n < PAGES; n++) {
		memcpy(place(n), body, sizeof(body));
		*(u32 *)(place(n) + 6) = n;
	}
}

static void walk(u32 step)
{
	sweep("functions in 8800 pages");
	for (u32 k = 0, n = 0; k < PAGES; k++, n = (n + step) % PAGES)
		sweep_check((u32)((code)place(n))() == n, "page %u", n);
	sweep_end();
}

void guest_main(void)
{
	fill();
	for (u32 round = 0; round < ROUNDS; round++)
		walk(round & 1 ? 7 : 1);
}
