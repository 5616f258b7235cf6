/*
 * The VM generation ID (Microsoft's "Virtual Machine Generation ID", 2012; the way that it takes through
 * firmware is QEMU's docs/specs/vmgenid). The guest finds 16 bytes by ACPI. Whoever copies a machine's state
 * loads it into another one: there they are other bytes, and an event says so, and the guest stirs its random
 * numbers.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "vmm/hw/vmgenid.h"

/* RFC 4122, 4.4. */
static int guid_make(u8 guid[VMGENID_SIZE])
{
	if (getrandom(guid, VMGENID_SIZE, 0) != VMGENID_SIZE)
		return -EIO;
	guid[7] = (guid[7] & 0x0F) | 0x40;	/* in the low byte's place of the third field's two */
	guid[8] = (guid[8] & 0x3F) | 0x80;
	return 0;
}

/* Where the guest, or its firmware, says that it is. */
static void vmgenid_write(struct vmgenid *v)
{
	u8 *at = NULL;

	memcpy(v->page + VMGENID_OFFSET, v->guid, VMGENID_SIZE);
	if (v->address && v->address <= ~0ULL - VMGENID_PAGE_SIZE)
		at = guest_memory_at(v->mem, v->address + VMGENID_OFFSET, VMGENID_SIZE);
	if (at)
		memcpy(at, v->guid, VMGENID_SIZE);
}

void vmgenid_place(struct vmgenid *v, u64 address)
{
	v->address = address;
	vmgenid_write(v);
}

/* ---- device ---------------------------------------------------------------------------------- */

/* The same machine goes on with its number; firmware places it anew. */
static void vmgenid_reset(void *dev)
{
	struct vmgenid *v = dev;

	v->address = 0;
	v->changed = false;
}

static void vmgenid_pause(void *dev)
{
	(void)dev;
}

/* Memory is there by now, and so are the event's registers. */
static void vmgenid_resume(void *dev)
{
	struct vmgenid *v = dev;

	if (!v->changed)
		return;
	v->changed = false;
	vmgenid_write(v);
	v->notify(v->arg);
}

static const struct state_field vmgenid_fields[] = {
	STATE_FIELD(struct vmgenid_state, address, 1),
	STATE_FIELD(struct vmgenid_state, guid, 1),
	STATE_FIELD(struct vmgenid_state, changed, 1),
};

static const struct state_table vmgenid_table =
	STATE_TABLE("vmgenid", struct vmgenid_state, 1, vmgenid_fields);

static void vmgenid_save(void *dev, void *state)
{
	const struct vmgenid *v = dev;
	struct vmgenid_state *st = state;

	st->address = v->address;
	memcpy(st->guid, v->guid, VMGENID_SIZE);
	st->changed = v->changed;
}

static int vmgenid_load(void *dev, const void *state)
{
	const struct vmgenid_state *st = state;
	struct vmgenid *v = dev;
	u8 guid[VMGENID_SIZE];

	if (st->changed > 1)
		return -EINVAL;
	memcpy(guid, v->guid, VMGENID_SIZE);
	if (!v->fixed && guid_make(guid) < 0)
		return -EIO;
	v->address = st->address;
	memcpy(v->guid, guid, VMGENID_SIZE);
	v->changed = st->changed || memcmp(st->guid, guid, VMGENID_SIZE) != 0;
	return 0;
}

const struct device_ops vmgenid_device_ops = {
	.table = &vmgenid_table, .reset = vmgenid_reset, .pause = vmgenid_pause,
	.resume = vmgenid_resume, .save = vmgenid_save, .load = vmgenid_load,
};

int vmgenid_init(struct vmgenid *v, const struct vmgenid_options *o, const struct guest_memory *mem,
		 void (*notify)(void *arg), void *arg)
{
	*v = (struct vmgenid){ .mem = mem, .notify = notify, .arg = arg, .fixed = o->fixed };
	memcpy(v->guid, o->guid, VMGENID_SIZE);
	if (!o->fixed && guid_make(v->guid) < 0)
		return -EIO;
	vmgenid_write(v);
	return 0;
}
