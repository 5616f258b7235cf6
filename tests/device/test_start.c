/* What firmware starts a machine by: option ROMs, and virtio-net as iPXE drives it. */
#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/device/virtio_board.h"
#include "vmm/firmware/boot_order.h"
#include "vmm/virtio/pci.h"
#include "vmm/virtio/rng.h"

/* ---- option ROMs ----------------------------------------------------------------------------- */

enum { BIOS_IMAGE = 1024, EFI_IMAGE = 512, PCIR = 0x40 };

/* An image of 512-byte blocks for 1AF4:1000. */
static void image_make(u8 *p, unsigned size, u8 type, bool last)
{
	memset(p, 0x5A, size);
	pci_put_u16(p, 0, 0xAA55);
	p[2] = size / 512;
	pci_put_u16(p, 0x18, PCIR);
	memcpy(p + PCIR, "PCIR", 4);
	pci_put_u16(p, PCIR + 4, 0x1AF4);
	pci_put_u16(p, PCIR + 6, 0x1000);
	pci_put_u16(p, PCIR + 0x10, size / 512);
	p[PCIR + 0x14] = type;
	p[PCIR + 0x15] = last ? 0x80 : 0;
	p[6] = 0;
	for (unsigned i = 0; i < size && type == 0; i++)
		p[6] -= i == 6 ? 0 : p[i];
}

static u8 sum_of(const u8 *p, unsigned size)
{
	u8 sum = 0;

	while (size--)
		sum += *p++;
	return sum;
}

/* A BIOS image keeps its checksum, an EFI image its bytes; both become the function's. */
static void test_rom_adopt(void **state)
{
	u8 rom[BIOS_IMAGE + EFI_IMAGE + 100], before[sizeof(rom)];

	(void)state;
	memset(rom, 0x33, sizeof(rom));
	image_make(rom, BIOS_IMAGE, 0, false);
	image_make(rom + BIOS_IMAGE, EFI_IMAGE, 3, true);
	assert_int_equal(sum_of(rom, BIOS_IMAGE), 0);
	memcpy(before, rom, sizeof(rom));
	pci_rom_adopt(rom, sizeof(rom), 0x1AF4, 0x1041);
	assert_int_equal(pci_get_u16(rom, PCIR + 6), 0x1041);
	assert_int_equal(sum_of(rom, BIOS_IMAGE), 0);
	assert_int_not_equal(rom[6], before[6]);
	assert_int_equal(pci_get_u16(rom, BIOS_IMAGE + PCIR + 6), 0x1041);
	pci_put_u16(rom, PCIR + 6, 0x1000);
	pci_put_u16(rom, BIOS_IMAGE + PCIR + 6, 0x1000);
	rom[6] = before[6];
	assert_memory_equal(rom, before, sizeof(rom));
}

/* Whatever a file holds, only bytes of its own are touched: the sanitizer looks at both ends. */
static void test_rom_hostile(void **state)
{
	static const struct { unsigned at; u16 value; } spoil[] = {
		{ 0, 0 }, { 0x18, 0xFFFF }, { 0x18, 0 }, { 0x18, BIOS_IMAGE - 4 }, { 2, 0xFF },
		{ PCIR + 0x10, 0 }, { PCIR + 0x10, 0xFFFF }, { PCIR, 0 }, { 0x18, 0x1A },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(spoil); i++)
		for (unsigned size = 0; size <= BIOS_IMAGE; size += size < 80 ? 1 : 59) {
			u8 whole[BIOS_IMAGE], *rom = malloc(size + !size);

			image_make(whole, BIOS_IMAGE, 0, false);
			pci_put_u16(whole, spoil[i].at, spoil[i].value);
			memcpy(rom, whole, size);
			pci_rom_adopt(rom, size, 1, 2);
			free(rom);
		}
}

static void test_rom_file(void **state)
{
	char path[] = "/tmp/test-rom-XXXXXX";
	u8 image[BIOS_IMAGE];
	struct error err = ERROR_INIT;
	struct pci_rom rom;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "text is no ROM, however long it is", 34, 0), 34);
	assert_int_equal(pci_rom_open(&rom, path, 1, 2, &err), -EINVAL);
	assert_non_null(strstr(err.text, "is no option ROM"));
	image_make(image, sizeof(image), 0, true);
	assert_int_equal(pwrite(fd, image, sizeof(image), 0), sizeof(image));
	err = (struct error)ERROR_INIT;
	assert_int_equal(pci_rom_open(&rom, path, 0x1234, 0x5678, &err), 0);
	assert_int_equal(rom.size, sizeof(image));
	assert_int_equal(pci_get_u16(rom.data, PCIR + 4), 0x1234);
	assert_int_equal(pci_get_u16(rom.data, PCIR + 6), 0x5678);
	pci_rom_close(&rom);
	close(fd);
	unlink(path);
	assert_int_equal(pci_rom_open(&rom, path, 1, 2, &err), -ENOENT);
}

/* ---- the common structure, read in parts ----------------------------------------------------- */

static u64 common_in(struct virtio_pci *p, unsigned reg, unsigned size)
{
	return virtio_pci_io_ops.read(p, VIRTIO_PCI_COMMON + reg, size) & MASK(8 * size - 1, 0);
}

static void test_common_parts(void **state)
{
	static struct board b;
	static struct virtio_rng rng;
	static struct virtio_pci p;
	u32 features;

	(void)state;
	board_init(&b);
	assert_int_equal(virtio_rng_init(&rng, &b.ram.mem, &b.io, &b.err), 0);
	assert_int_equal(virtio_pci_init(&p, &rng.dev, NULL, NULL, &b.err), 0);
	features = common_in(&p, VIRTIO_PCI_COMMON_DF, 4);
	assert_int_not_equal(features >> 16, 0);
	assert_int_equal(common_in(&p, VIRTIO_PCI_COMMON_DF, 2), features & 0xFFFF);
	assert_int_equal(common_in(&p, VIRTIO_PCI_COMMON_DF + 2, 2), features >> 16);
	assert_int_equal(common_in(&p, VIRTIO_PCI_COMMON_DF + 3, 1), features >> 24);
	assert_int_equal(common_in(&p, VIRTIO_PCI_COMMON_Q_SIZE, 1), common_in(&p, VIRTIO_PCI_COMMON_Q_SIZE, 2) & 0xFF);
	/* More than a field is none. */
	assert_int_equal(common_in(&p, VIRTIO_PCI_COMMON_NUMQ, 4), 0);
	assert_int_equal(common_in(&p, VIRTIO_PCI_COMMON_NUMQ, 2), 1);
	virtio_pci_destroy(&p);
	virtio_destroy(&rng.dev);
	board_free(&b);
}

/* ---- boot order ------------------------------------------------------------------------------ */

static void test_boot_order(void **state)
{
	static char text[BOOT_TEXT_MAX];
	struct boot_order o = { 0 };
	struct pci_bus root = { 0 }, behind = { 0 };
	const struct pci_device port = { .bus = &root, .devfn = PCI_DEVFN(16, 0) }, disk[] = {
		{ .bus = &root, .devfn = PCI_DEVFN(1, 0) }, { .bus = &root, .devfn = PCI_DEVFN(31, 7) },
		{ .bus = &behind, .devfn = PCI_DEVFN(0, 0) } };
	const struct pci_device card = { .bus = &root, .devfn = PCI_DEVFN(2, 0) };
	static const char want[] = "/rom@x\n/pci@i0cf8/ethernet@2/ethernet-phy@0\n"
		"/pci@i0cf8/scsi@1f,7/channel@0/disk@a,0\n/pci@i0cf8/scsi@1/disk@0,0\n"
		"/pci@i0cf8/pci-bridge@10/scsi@0/disk@0,0";

	(void)state;
	assert_int_equal(boot_order_text(&o, NULL, text), 0);
	assert_int_equal(boot_order_text(&o, "/rom@x", text), sizeof("/rom@x"));
	assert_string_equal(text, "/rom@x");
	behind.bridge = (struct pci_device *)&port;
	boot_order_add(&o, 9, "scsi", &disk[0], "disk@0,0");
	boot_order_add(&o, 12, "scsi", &disk[2], "disk@0,0");
	boot_order_add(&o, 3, "ethernet", &card, "ethernet-phy@0");
	boot_order_add(&o, 4, "scsi", &disk[1], "channel@0/disk@a,0");
	assert_int_equal(boot_order_text(&o, "/rom@x", text), sizeof(want));
	assert_string_equal(text, want);
	assert_int_equal(boot_order_text(&o, NULL, text), sizeof(want) - sizeof("/rom@x\n") + 1);
	for (unsigned i = 0; i < 2 * BOOT_ORDER_MAX; i++)
		boot_order_add(&o, 1, "scsi", &disk[2], "a-very-long-name-of-what-is-behind-it@0/and-more@0,0");
	assert_int_equal(o.n, BOOT_ORDER_MAX);
	assert_true(boot_order_text(&o, "/rom@x", text) > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rom_adopt),
		cmocka_unit_test(test_rom_hostile),
		cmocka_unit_test(test_rom_file),
		cmocka_unit_test(test_common_parts),
		cmocka_unit_test(test_boot_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
