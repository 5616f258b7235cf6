/* What virtio devices are where nobody said it: see defaults.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
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
#define MACHINE_ID_DIGITS 32
#define HASH_FIRST 2166136261u

static const u8 no_mac[6];

/* FNV-1a. */
static u32 hash(u32 h, const char *text)
{
	for (; *text; text++)
		h = (h ^ (u8)*text) * 16777619u;
	return h;
}

/* Another host's are others: machine-id(5). An image that was never started has none, or "uninitialized". */
static bool hash_host(u32 *h)
{
	char id[64] = "";
	FILE *f = fopen(MACHINE_ID, "re");

	if (f && !fgets(id, sizeof(id), f))
		id[0] = 0;
	if (f)
		fclose(f);
	id[strcspn(id, "\n")] = 0;
	*h = hash(*h, id);
	return strlen(id) == MACHINE_ID_DIGITS && strspn(id, "0123456789abcdefABCDEF") == strlen(id);
}

/*
 * Containers may have the host's machine-id, and each a tap0. A namespace's number is another one after
 * each boot and with each kernel, so the host's own, which alone has this file, does without.
 */
static u32 hash_namespace(u32 h)
{
	char text[32];
	struct stat st;

	if (access("/proc/sys/net/core/netdev_budget", F_OK) == 0 || stat("/proc/self/ns/net", &st) < 0)
		return h;
	snprintf(text, sizeof(text), "/%llu/", (unsigned long long)st.st_ino);
	return hash(h, text);
}

/* A relative path is another one in each folder. The socket itself need not be there yet. */
static u32 hash_path(u32 h, const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char *folder = slash ? strndup(path, name - path) : strdup(".");
	char *real = folder ? realpath(folder, NULL) : NULL;

	if (real && strcmp(real, "/") != 0)
		h = hash(h, real);
	h = real ? hash(hash(h, "/"), name) : hash(h, path);
	free(real);
	free(folder);
	return h;
}

/* The lower half of an address that is the same at each start. False: there is none. */
static bool nic_low(const struct nic_options *nic, unsigned i, u32 *low)
{
	*low = MAC_FIRST + i;
	if (nic->kind == NET_USER || nic->kind == NET_PASST)
		return true;
	*low = HASH_FIRST;
	/* Of a pattern the kernel makes the interface's name, from those that are free. */
	if (nic->kind == NET_SOCKET || (nic->kind == NET_TAP && strchr(nic->tap, '%')) || !hash_host(low))
		return false;
	*low = hash_namespace(*low);
	*low = nic->kind == NET_TAP ? hash(*low, nic->tap) : hash_path(*low, nic->socket);
	return true;
}

static void mac_make(u8 mac[6], u32 low)
{
	memcpy(mac, (const u8 [6]){ 0x52, 0x54, 0, low >> 16, low >> 8, low }, 6);
}

static bool mac_taken(const struct virtio_options *o, unsigned i, const u8 mac[6])
{
	for (unsigned k = 0; k < o->nics; k++)
		if (k != i && memcmp(o->nic[k].mac, mac, 6) == 0)
			return true;
	return false;
}

/*
 * Behind user and passt each machine is alone, and has what QEMU's have. An interface, or a vhost-user
 * back end's socket, is one machine's at a time, but others are beside it on the same network, so its
 * name tells them apart. Who else is on a socket cannot be known: a new address at each start.
 */
void virtio_nic_macs(struct virtio_options *o)
{
	u32 low;
	ssize_t n;

	for (unsigned i = 0; i < o->nics; i++) {
		u8 *mac = o->nic[i].mac;

		if (memcmp(mac, no_mac, 6) != 0)
			continue;
		if (!nic_low(&o->nic[i], i, &low)) {
			n = getrandom(&low, sizeof(low), 0);
			(void)n;
		}
		do
			mac_make(mac, low++);
		while (mac_taken(o, i, mac));
	}
}
