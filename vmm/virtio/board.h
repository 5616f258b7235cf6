/*
 * The virtio devices of a machine: made from what the command line says, each with an I/O thread and a
 * transport, and taken apart in the right order.
 */
#ifndef QUMRA_VMM_VIRTIO_BOARD_H
#define QUMRA_VMM_VIRTIO_BOARD_H

#include "vmm/display/display.h"
#include "vmm/display/input.h"
#include "vmm/firmware/boot_order.h"
#include "vmm/machine/machine.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/mmio.h"
#include "vmm/virtio/options.h"

struct virtio_board;

/* What the devices stand on. */
struct virtio_env {
	const struct kvm *kvm;
	const struct guest_memory *mem;
	const struct machine *machine;
	struct loop *loop;	/* the machine's */
	unsigned cpus;
	bool firmware;		/* something runs option ROMs */
};

/* NULL in *out when there are no devices; every function here takes that. */
int virtio_board_create(struct virtio_board **out, const struct virtio_options *o,
			const struct virtio_env *env, struct error *err);
/* Stops the I/O threads and frees everything. */
void virtio_board_destroy(struct virtio_board *board);
/* What has the five verbs, in the order of loading: i from 0; false: there are no more. dev->ops may be
 * NULL: nothing at that place. */
bool virtio_board_device(struct virtio_board *board, unsigned i, struct device *dev);
void virtio_board_reset(struct virtio_board *board);

/* What of it firmware is to start from. */
void virtio_board_boot_order(const struct virtio_board *board, struct boot_order *order);

/*
 * The graphics adapter shows on display, keyboard and tablet take from input. Under the machine's lock;
 * nobody may use either when the board is destroyed.
 */
void virtio_board_attach_screen(struct virtio_board *board, struct display *display,
				struct input *input);

/*
 * Makes a disk larger and tells the guest. Disks are called disk0, disk1 ..., drives cdrom0, cdrom1 ..., each
 * kind in the order of the options. Blocks as long as the image's file does.
 */
int virtio_board_resize(struct virtio_board *board, const char *disk, u64 size, struct error *err);

/*
 * What is in a CD-ROM drive is taken out, and the tray stays open; or the image in file (format: NULL is
 * probed) takes its place, and the tray is closed. A tray that the guest has locked is left as it is, unless
 * force; the guest is told of the wish.
 */
int virtio_board_eject(struct virtio_board *board, const char *drive, bool force, struct error *err);
int virtio_board_change(struct virtio_board *board, const char *drive, const char *file, const char *format,
			bool force, struct error *err);

/* Looks whether images have another size now, and tells the guest of those. */
void virtio_board_measure(struct virtio_board *board);

struct balloon_figures {
	u64 now, taken, reported;	/* bytes: taken now, at most, and given back in all */
	u64 stat[BALLOON_STATS];	/* by tag; BALLOON_UNKNOWN */
};

/* False: there is no balloon. */
bool virtio_board_balloon(struct virtio_board *board, struct balloon_figures *f);
/* Asks for so many bytes of guest memory; nothing without a balloon. */
void virtio_board_set_balloon(struct virtio_board *board, u64 bytes);

/*
 * The name of device number i, in the order of their slots; NULL: there are no more. *port: the root port
 * that it is behind, or 0.
 */
const char *virtio_options_name(const struct virtio_options *o, unsigned i, unsigned *port);

/*
 * The command line for a kernel, allocated: with the windows of virtio-mmio appended where ACPI, which
 * tells of them too, is off. NULL: no memory.
 */
char *virtio_kernel_cmdline(const struct virtio_options *o, const char *cmdline);
/* The part of firmware's tables. 0 or -errno. */
int virtio_write_tables(const struct virtio_options *o, const struct guest_memory *mem);

#endif
