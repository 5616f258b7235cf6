/* What input devices say of themselves (virtio 1.2, 5.8.5): see input.h. */
#include <linux/input.h>
#include <string.h>

#include "vmm/virtio/input.h"

#define VENDOR	0x1AF4
#define VERSION	1

const struct input_kind virtio_keyboard = {
	.name = "Qumra virtio keyboard", .product = 1,
	.first = KEY_ESC, .last = KEY_MICMUTE,
	.types = BIT(EV_LED) | BIT(EV_REP),	/* the driver repeats */
	.leds = BIT(LED_NUML) | BIT(LED_CAPSL) | BIT(LED_SCROLLL),
};

const struct input_kind virtio_tablet = {
	.name = "Qumra virtio tablet", .product = 3,
	.first = BTN_LEFT, .last = BTN_MIDDLE,
	.types = BIT(EV_REL) | BIT(EV_ABS),
	.wheel = true, .axes = true,
};

static void bit_set(u8 *map, unsigned bit)
{
	map[bit / 8] |= 1 << bit % 8;
}

/* Bytes up to the last with a bit. */
static u8 map_size(const u8 *map)
{
	u8 size = 128;

	while (size && !map[size - 1])
		size--;
	return size;
}

static u8 make_events(const struct input_kind *kind, u8 type, u8 *map)
{
	if (type == EV_KEY)
		for (unsigned key = kind->first; key <= kind->last; key++)
			bit_set(map, key);
	if (type == EV_LED)
		memcpy(map, &kind->leds, sizeof(kind->leds));
	if (type == EV_REP && kind->types & BIT(EV_REP))
		memset(map, 1 << REP_DELAY | 1 << REP_PERIOD, 1);
	if (type == EV_REL && kind->wheel)
		bit_set(map, REL_WHEEL);
	if (type == EV_ABS && kind->axes)
		map[0] = 1 << ABS_X | 1 << ABS_Y;
	return map_size(map);
}

static u8 make_axis(const struct input_kind *kind, u8 axis, u8 *data)
{
	const struct virtio_input_absinfo info = { .max = INPUT_ABS_MAX };

	if (!kind->axes || axis > ABS_Y)
		return 0;
	memcpy(data, &info, sizeof(info));
	return sizeof(info);
}

static u8 make_ids(const struct input_kind *kind, u8 *data)
{
	const struct virtio_input_devids ids = { BUS_VIRTUAL, VENDOR, kind->product, VERSION };

	memcpy(data, &ids, sizeof(ids));
	return sizeof(ids);
}

u8 input_config_make(const struct input_kind *kind, u8 select, u8 subsel, u8 data[128])
{
	memset(data, 0, 128);
	if (select == VIRTIO_INPUT_CFG_EV_BITS)
		return make_events(kind, subsel, data);
	if (select == VIRTIO_INPUT_CFG_ABS_INFO)
		return make_axis(kind, subsel, data);
	if (subsel)
		return 0;
	if (select == VIRTIO_INPUT_CFG_ID_NAME) {
		memcpy(data, kind->name, strlen(kind->name));
		return strlen(kind->name);
	}
	return select == VIRTIO_INPUT_CFG_ID_DEVIDS ? make_ids(kind, data) : 0;
}
