/* Commands of the hostile guests to the test's host: OUT of one to HOST_PORT, arguments in RBX, RCX
 * and RSI. */
#ifndef HOSTILE_HOST_H
#define HOSTILE_HOST_H

#define HOST_PORT	0x500	/* read: 1 when the time is over; + 4: seed; + 8, + 12: an address */

#define HOST_START_CPU	1	/* RBX: where, RCX: its stack, RSI: its RDI */
#define HOST_SLOT_DELETE 2
#define HOST_SLOT_CREATE 3	/* RBX: which of two memories */
#define HOST_CHURN	4	/* the slot comes and goes until HOST_QUIET */
#define HOST_DMA	5	/* random bytes into RCX bytes at RBX until HOST_QUIET */
#define HOST_QUIET	6
#define HOST_CHECK	7	/* the canaries, now */

#define SPARE_SLOT	0x10000000ul
#define SPARE_BYTES	0x100000ul
#define ROM_SLOT	0xf0000000ul
#define NOTHING_THERE	0xd0000000ul

#endif
