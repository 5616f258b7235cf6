/* The queue of a PS/2 device: see ps2.h. */
#include <string.h>

#include "vmm/hw/ps2.h"

bool ps2_send(struct ps2_device *dev, const u8 *data, unsigned n)
{
	struct ps2_queue *q = &dev->queue;

	if (n > ps2_room(dev))
		return false;
	memcpy(q->data + q->len, data, n);
	q->len += n;
	return true;
}

void ps2_ready(struct ps2_device *dev)
{
	if (dev->ready)
		dev->ready(dev->arg);
}

void ps2_clear(struct ps2_device *dev)
{
	dev->queue.len = 0;
}

bool ps2_take(struct ps2_device *dev, u8 *value)
{
	struct ps2_queue *q = &dev->queue;

	if (!q->len)
		return false;
	*value = dev->last = q->data[0];
	q->len--;
	memmove(q->data, q->data + 1, q->len);
	if (dev->sent)
		dev->sent(dev);
	return true;
}

void ps2_put_back(struct ps2_device *dev, u8 value)
{
	struct ps2_queue *q = &dev->queue;
	unsigned keep = MIN(q->len, PS2_QUEUE - 1);

	memmove(q->data + 1, q->data, keep);
	q->data[0] = value;
	q->len = keep + 1;
}
