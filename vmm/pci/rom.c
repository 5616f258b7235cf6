/*
 * Option ROMs from files (PCI Firmware 3.2, 5.1): a chain of images, each for a vendor and device. A file
 * serves several devices of a family, but firmware takes only images that name the very function they
 * are in, so what the file says is replaced by that.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/firmware/image.h"
#include "vmm/pci/pci.h"

#define ROM_FILE_MAX	(16U << 20)	/* a larger BAR finds no place below 4 GiB */
#define ROM_BLOCK	512

/* The ROM header, and what its pointer leads to. */
enum { HEADER_SIZE = 2, HEADER_CHECKSUM = 6, HEADER_PCI = 0x18, HEADER_END = 0x1A };
enum { PCIR_VENDOR = 4, PCIR_DEVICE = 6, PCIR_LENGTH = 0x10, PCIR_TYPE = 0x14, PCIR_LAST = 0x15,
       PCIR_SIZE = 0x18 };
#define ROM_SIGNATURE	0xAA55
#define LAST_IMAGE	BIT(7)
#define TYPE_BIOS	0

/* What makes the bytes of a BIOS' image add up to zero: byte 6, which is nothing else by convention. */
static void image_sum(u8 *image, u64 size)
{
	u8 sum = 0;

	for (u64 i = 0; i < size; i++)
		sum += image[i];
	image[HEADER_CHECKSUM] -= sum;
}

/* Bytes to the next image; 0: there is none. */
static u64 image_adopt(u8 *image, u64 left, u16 vendor, u16 device)
{
	u8 *pcir;
	u64 at, length, code;

	if (left < HEADER_END || pci_get_u16(image, 0) != ROM_SIGNATURE)
		return 0;
	at = pci_get_u16(image, HEADER_PCI);
	if (at < HEADER_END || at + PCIR_SIZE > left || memcmp(image + at, "PCIR", 4) != 0)
		return 0;
	pcir = image + at;
	pci_put_u16(pcir, PCIR_VENDOR, vendor);
	pci_put_u16(pcir, PCIR_DEVICE, device);
	code = image[HEADER_SIZE] * ROM_BLOCK;
	if (pcir[PCIR_TYPE] == TYPE_BIOS && code <= left)
		image_sum(image, code);
	length = pci_get_u16(pcir, PCIR_LENGTH) * ROM_BLOCK;
	return pcir[PCIR_LAST] & LAST_IMAGE || length >= left ? 0 : length;
}

void pci_rom_adopt(u8 *data, u64 size, u16 vendor, u16 device)
{
	u64 at = 0, step;

	while ((step = image_adopt(data + at, size - at, vendor, device)))
		at += step;
}

int pci_rom_open(struct pci_rom *rom, const char *path, u16 vendor, u16 device, struct error *err)
{
	struct image image;
	u8 *data = NULL;
	int ret = image_open(&image, path, err);

	*rom = (struct pci_rom){ 0 };
	if (ret < 0)
		return ret;
	if (image.size > ROM_FILE_MAX)
		ret = error_set(err, EINVAL, "%s: is no option ROM: it has more than 16M", path);
	if (ret == 0 && !(data = malloc(image.size)))
		ret = error_set(err, ENOMEM, "out of memory");
	if (ret == 0)
		ret = image_read(&image, 0, data, image.size, "ROM", err);
	if (ret == 0 && (image.size < HEADER_END || pci_get_u16(data, 0) != ROM_SIGNATURE))
		ret = error_set(err, EINVAL, "%s: is no option ROM: it does not begin like one", path);
	if (ret == 0) {
		pci_rom_adopt(data, image.size, vendor, device);
		*rom = (struct pci_rom){ data, image.size };
	} else {
		free(data);
	}
	image_close(&image);
	return ret;
}

void pci_rom_close(struct pci_rom *rom)
{
	free((void *)rom->data);
	*rom = (struct pci_rom){ 0 };
}
