/*
 * virtio input devices (virtio 1.2, 5.8): a keyboard, and a tablet that knows places. Events are those
 * of Linux's evdev, gathered to reports that end with SYN_REPORT.
 *
 * While the driver has given no buffers events wait, as many as fit. When they no longer do the device
 * still knows what is held down and where the pointer is, and tells the difference later: a key is
 * never stuck.
 */
#ifndef QUMRA_VMM_VIRTIO_INPUT_H
#define QUMRA_VMM_VIRTIO_INPUT_H

#include <linux/input-event-codes.h>
#include <linux/virtio_input.h>

#include "vmm/display/input.h"
#include "vmm/virtio/virtio.h"

#define INPUT_WAITING	256	/* events */
#define INPUT_KEY_BYTES	((KEY_MAX + 1) / 8)
#define INPUT_AXES	2
#define INPUT_ABS_MAX	0x7FFF

/* What a device can do. */
struct input_kind {
	const char *name;
	u16 product;
	u16 first, last;	/* keys: all of these */
	u32 types;		/* others than EV_KEY, by bit: EV_REL … */
	u32 leds;
	bool wheel;
	bool axes;
};

extern const struct input_kind virtio_keyboard, virtio_tablet;

/* What the person does, and what of it is in events already. */
struct input_now {
	u8 down[INPUT_KEY_BYTES];
	u32 abs[INPUT_AXES];
};

struct virtio_input {
	struct virtio_device dev;
	const struct input_kind *kind;
	u8 select, subsel;	/* of the configuration */
	u32 leds;		/* that the driver has lit, by LED_* */
	struct input_now now, told;
	u16 events;		/* waiting for buffers */
	struct virtio_input_event event[INPUT_WAITING];
};

int virtio_input_init(struct virtio_input *v, const struct input_kind *kind,
		      const struct guest_memory *mem, struct io_thread *io, struct error *err);
void virtio_input_destroy(struct virtio_input *v);
/* Takes from input what it can. Under the machine's lock. */
void virtio_input_attach(struct virtio_input *v, struct input *input);
/* As input's key_first and place: arg is the device. Under the machine's lock. */
bool virtio_input_key(void *arg, unsigned code, bool down);
bool virtio_input_place(void *arg, const struct input_place *place);

/* input_kinds.c: 5.8.5, what the configuration says to a selection; the bytes of it, 0: nothing. */
u8 input_config_make(const struct input_kind *kind, u8 select, u8 subsel, u8 data[128]);

extern const struct device_ops virtio_input_device_ops;	/* self: a struct virtio_input */

#endif
