/* What virtio devices are where nobody said it: see defaults.h. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "vmm/virtio/defaults.h"

#define DISK_QUEUES_MAX 4

unsigned virtio_disk_queues(const struct disk_options *o, unsigned cpus)
{
	return o->queues ? o->queues : MIN(cpus, (unsigned)DISK_QUEUES_MAX);
}

/*
 * Debian's iPXE, as the package of QEMU's ROMs has it; the first one is for BIOS and UEFI. A machine
 * without them only cannot start from a network.
 */
const char *virtio_nic_rom(const struct nic_options *o, bool firmware)
{
	static const char *const files[] = {
		"/usr/lib/ipxe/qemu/efi-virtio.rom", "/usr/lib/ipxe/qemu/pxe-virtio.rom" };

	if (o->rom)
		return strcmp(o->rom, "off") == 0 ? NULL : o->rom;
	for (size_t i = 0; firmware && i < ARRAY_SIZE(files); i++)
		if (access(files[i], R_OK) == 0)
			return files[i];
	return NULL;
}

/* ---- addresses ------------------------------------------------------------------------------- */

#define MAC_FIRST 0x123456	/* behind 52:54:00, as QEMU has it; the next network has one more */
#define MACHINE_ID "/etc/machine-id"

/* FNV-1a. */
static u32 hash(u32 h, const char *text)
{
	for (; *text; text++)
		h = (h ^ (u8)*text) * 16777619u;
	return h;
}

/* Another host's are others: machine-id(5). */
static u32 hash_of_host(void)
{
	char id[64] = "";
	FILE *f = fopen(MACHINE_ID, "re");

	if (f && !fgets(id, sizeof(id), f))
		id[0] = 0;
	if (f)
		fclose(f);
	return hash(2166136261u, id);
}

/*
 * Behind user and passt each machine is alone, and has what QEMU's have. An interface, or a vhost-user
 * back end's socket, is one machine's at a time, but others are beside it on the same network, so its
 * name tells them apart. Who else is on a socket cannot be known: a new address at each start.
 */
void virtio_nic_mac(const struct virtio_options *o, unsigned i, u8 mac[6])
{
	static const u8 none[6];
	const struct nic_options *nic = &o->nic[i];
	const char *name = nic->kind == NET_TAP ? nic->tap : nic->kind == NET_VHOST ? nic->socket : NULL;
	u32 low = name ? hash(hash_of_host(), name) : MAC_FIRST + i;
	ssize_t n;

	memcpy(mac, nic->mac, 6);
	if (memcmp(mac, none, 6) != 0)
		return;
	if (nic->kind == NET_SOCKET) {
		n = getrandom(&low, sizeof(low), 0);
		(void)n;
	}
	memcpy(mac, (const u8 [6]){ 0x52, 0x54, 0, low >> 16, low >> 8, low }, 6);
}
