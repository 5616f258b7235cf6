/* Which virtio devices a machine has, in the words of the command line. Strings belong to the caller. */
#ifndef QUMRA_VMM_VIRTIO_OPTIONS_H
#define QUMRA_VMM_VIRTIO_OPTIONS_H

#include "lib/error.h"
#include "lib/types.h"
#include "vmm/block/throttle.h"

#define VIRTIO_RNGS_MAX		1
#define VIRTIO_DISKS_MAX	8
#define VIRTIO_NICS_MAX		4
#define VIRTIO_PORTS_MAX	8
#define VIRTIO_SHARES_MAX	4
#define SHARE_TAG_MAX		31
#define NET_FORWARDS_MAX	8
#define BOOT_INDEX_MAX		999

struct disk_options {
	const char *file, *format, *cache, *aio, *serial;
	const char *internal_snapshot;	/* of a qcow2: its id or name */
	struct block_throttle throttle;
	bool readonly, snapshot;
	bool scsi, cdrom;	/* a unit of the SCSI controller; a CD-ROM drive */
	u64 queues;		/* 0: as many as CPUs, at most 4 */
	u64 boot;		/* 1 more than its place in the boot order; 0: none */
	bool vhost;		/* file is the socket of a vhost-user back end */
	u64 root_port;		/* on PCI: behind which, from 1 on; 0: on the root bus */
};

enum net_kind { NET_USER, NET_TAP, NET_SOCKET, NET_PASST, NET_VHOST };

struct net_forward {
	bool udp;
	u16 host, guest;
};

struct nic_options {
	enum net_kind kind;
	const char *tap;	/* interface */
	const char *vhost;	/* of tap: the kernel serves the queues: on, off, auto; NULL: off */
	const char *socket;	/* path of a Unix socket to connect to; NET_VHOST: of a back end */
	const char *pcap;	/* capture to this file */
	const char *tftp, *bootfile;	/* user: a folder for TFTP, the name in it that DHCP tells */
	const char *rom;	/* option ROM on PCI: a file, "off", or NULL: iPXE where firmware runs it */
	u64 boot, root_port;	/* as a disk's */
	u8 mac[6];		/* all zero: virtio_nic_macs() */
	unsigned forwards;
	struct net_forward forward[NET_FORWARDS_MAX];
};

struct port_options {
	const char *where;	/* as chardev_open() takes it */
	const char *name;	/* NULL: none */
};

struct balloon_options {
	u64 taken;		/* bytes of guest memory to be taken at the start */
	bool deflate_on_oom;	/* the guest may take pages back when it runs out of memory */
	bool reporting;		/* unused pages go back to the host by themselves */
	u64 stats;		/* seconds between two askings for statistics; 0: none */
};

struct share_options {
	const char *folder, *tag;
	bool readonly;
	bool fs;		/* virtio-fs, by a virtiofsd; else 9P */
	const char *socket;	/* of one that runs; folder is NULL then */
	u64 root_port;		/* as a disk's */
};

struct vsock_options {
	const char *path;	/* of the Unix socket; NULL: the kernel's vhost_vsock */
	u64 cid;		/* the guest's */
};

struct gpu_options {
	u64 width, height;	/* what the driver is told to take; 0: the usual */
};

struct virtio_options {
	bool mmio;		/* the transport; else PCI */
	unsigned rngs, disks, nics, ports;
	struct disk_options disk[VIRTIO_DISKS_MAX];
	struct nic_options nic[VIRTIO_NICS_MAX];
	struct port_options port[VIRTIO_PORTS_MAX];	/* of one console device */
	unsigned shares;
	struct share_options share[VIRTIO_SHARES_MAX];
	unsigned vsocks;		/* 0 or 1 */
	struct vsock_options vsock;
	unsigned balloons;		/* 0 or 1 */
	struct balloon_options balloon;
	unsigned gpus, keyboards, tablets;	/* 0 or 1 */
	struct gpu_options gpu;
};

/* How many devices that makes, and how many of them are memory-mapped. */
unsigned virtio_options_count(const struct virtio_options *o);
unsigned virtio_options_windows(const struct virtio_options *o);
/* Do other programs serve some, which then need guest RAM? */
bool virtio_options_shared(const struct virtio_options *o);

#endif
