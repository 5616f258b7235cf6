/*
 * What is plugged into the two ports of an i8042: bytes to and from a device with a small queue
 * (IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device"). A device calls
 * ready when it has something to send; the controller takes bytes as it can.
 */
#ifndef QUMRA_VMM_HW_PS2_H
#define QUMRA_VMM_HW_PS2_H

#include "lib/types.h"

#define PS2_QUEUE 32

#define PS2_ACK		0xFA
#define PS2_RESEND	0xFE
#define PS2_TEST_OK	0xAA

struct ps2_queue {
	u8 data[PS2_QUEUE];
	u8 len;
};

struct ps2_device {
	struct ps2_queue queue;		/* to the controller, the oldest first */
	u8 last;			/* sent last, for RESEND */
	void (*write)(struct ps2_device *dev, u8 value);	/* from the controller */
	void (*sent)(struct ps2_device *dev);	/* there is room; may be NULL */
	void (*ready)(void *arg);	/* the controller's */
	void *arg;
};

static inline unsigned ps2_room(const struct ps2_device *dev)
{
	return PS2_QUEUE - dev->queue.len;
}

/* All of them or none. The caller says ps2_ready() when it is through. */
bool ps2_send(struct ps2_device *dev, const u8 *data, unsigned n);
void ps2_ready(struct ps2_device *dev);
void ps2_clear(struct ps2_device *dev);
/* For the controller: false: there is nothing. */
bool ps2_take(struct ps2_device *dev, u8 *value);
/* It could not be delivered after all. */
void ps2_put_back(struct ps2_device *dev, u8 value);

#endif
