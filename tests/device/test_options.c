/* The options of `qumra run`: both spellings, every mistake one line of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "cli/options.h"
#include "lib/size.h"

static struct run_options o;
static struct error err;

static int parse_list(int argc, const char *const *argv)
{
	run_options_free(&o);	/* those of the last time */
	err = (struct error)ERROR_INIT;
	return run_options_parse(&o, argc, (char *const *)argv, &err);
}

#define parse(...) \
	parse_list(ARRAY_SIZE(((const char *[]){__VA_ARGS__})), (const char *[]){__VA_ARGS__})

#define refuse(reason, ...) do { \
		assert_true(parse(__VA_ARGS__) < 0); \
		assert_int_equal(err.kind, ERROR_USAGE); \
		if (!strstr(err.text, reason)) \
			fail_msg("\"%s\" does not say \"%s\"", err.text, reason); \
	} while (0)

static void test_defaults(void **state)
{
	(void)state;
	assert_int_equal(parse("--kernel", "k"), 0);
	assert_string_equal(o.kernel, "k");
	assert_null(o.initrd);
	assert_string_equal(o.append, "");
	assert_string_equal(o.serial, "stdio");
	assert_int_equal(o.memory, 512 << 20);
	assert_int_equal(topology_cpus(&o.cpus), 1);
	assert_int_equal(o.accel, ACCEL_AUTO);
	assert_false(o.no_reboot || o.debug_exit || o.stats || o.help);
}

static void test_all(void **state)
{
	(void)state;
	assert_int_equal(parse("--kernel=k", "--initrd", "i", "--append", "a=b c", "--memory=64M",
				 "--cpus", "1", "--accel", "soft", "--engine=interp", "--serial",
				 "file:x", "--no-reboot", "--debug-exit", "--stats"),
		0);
	assert_string_equal(o.kernel, "k");
	assert_string_equal(o.initrd, "i");
	assert_string_equal(o.append, "a=b c");
	assert_int_equal(o.memory, 64 << 20);
	assert_int_equal(o.accel, ACCEL_SOFT);
	assert_string_equal(o.engine, "interp");
	assert_string_equal(o.serial, "file:x");
	assert_true(o.no_reboot && o.debug_exit && o.stats);
	assert_int_equal(parse("--kernel", "k", "--append=x=y=z"), 0);
	assert_string_equal(o.append, "x=y=z");
	assert_int_equal(parse("--kernel", "k", "--append", "--looks-like-an-option"), 0);
	assert_string_equal(o.append, "--looks-like-an-option");
	assert_int_equal(parse("--firmware", "/dev/null,log,vars=v"), 0);
	assert_string_equal(o.firmware, "/dev/null");
	assert_string_equal(o.firmware_vars, "v");
	assert_true(o.firmware_log);
	assert_null(o.kernel);
	assert_int_equal(parse("--help", "--whatever"), 0);
	assert_true(o.help);
}

static void check_cpus(const char *text, unsigned sockets, unsigned cores, unsigned threads)
{
	assert_int_equal(parse("--kernel", "k", "--cpus", text), 0);
	assert_int_equal(o.cpus.sockets, sockets);
	assert_int_equal(o.cpus.cores, cores);
	assert_int_equal(o.cpus.threads, threads);
}

static void test_cpus(void **state)
{
	(void)state;
	check_cpus("1", 1, 1, 1);
	check_cpus("64", 1, 64, 1);
	check_cpus("8,threads=2", 1, 4, 2);
	check_cpus("8,sockets=4", 4, 2, 1);
	check_cpus("8,cores=2,threads=2", 2, 2, 2);
	check_cpus("12,threads=2,sockets=2,cores=3", 2, 3, 2);
	/* Fields of APIC ids: one bit of thread, two of core, then the socket. */
	assert_int_equal(topology_apic_id(&o.cpus, 0), 0);
	assert_int_equal(topology_apic_id(&o.cpus, 1), 1);
	assert_int_equal(topology_apic_id(&o.cpus, 5), 5);
	assert_int_equal(topology_apic_id(&o.cpus, 6), 8);
	assert_int_equal(topology_apic_id(&o.cpus, 11), 13);
	/* Whatever the shape, the ids fit 8 bits and the broadcast is none of them. */
	for (unsigned s = 1; s <= CPUS_MAX; s++)
		for (unsigned c = 1; s * c <= CPUS_MAX; c++)
			for (unsigned t = 1; s * c * t <= CPUS_MAX; t++) {
				const struct cpu_topology shape = { s, c, t };

				assert_in_range(topology_apic_id(&shape, s * c * t - 1),
					s * c * t - 1, 254);
			}
}

static void test_mistakes(void **state)
{
	(void)state;
	assert_int_equal(parse("--kernel", "k", "--machine", "q35,root-ports=15"), 0);
	assert_int_equal(o.machine.root_ports, 15);
	assert_int_equal(parse("--kernel", "k", "--cpus", "4", "--memory", "96M", "--numa",
		"cpus=0-1,cpus=3,memory=64M,distances=10:30", "--numa", "cpus=2,memory=32M"), 0);
	assert_int_equal(o.machine.numa.nodes, 2);
	assert_int_equal(o.machine.numa.node[0].cpus, 0xB);
	assert_int_equal(o.machine.numa.node[1].memory, 32 << 20);
	assert_int_equal(numa_distance(&o.machine.numa, 0, 1), 30);
	assert_int_equal(numa_distance(&o.machine.numa, 1, 0), 20);
	refuse("is in no node", "--kernel", "k", "--cpus", "2", "--numa", "cpus=0,memory=512M");
	refuse("is in two nodes", "--kernel", "k", "--numa", "cpus=0,memory=512M", "--numa", "cpus=0");
	refuse("there is no CPU 1", "--kernel", "k", "--numa", "cpus=0-1,memory=512M");
	refuse("together", "--kernel", "k", "--numa", "cpus=0,memory=256M");
	refuse("not like 0-3", "--kernel", "k", "--numa", "cpus=3-1,memory=512M");
	refuse("not like 0-3", "--kernel", "k", "--numa", "cpus=-1,memory=512M");
	refuse("not a size", "--kernel", "k", "--numa", "cpus=0,memory=x");
	refuse("not like 10:20", "--kernel", "k", "--numa", "cpus=0,memory=512M,distances=10:");
	refuse("to itself", "--kernel", "k", "--numa", "cpus=0,memory=512M,distances=20");
	refuse("has 2 distances", "--kernel", "k", "--numa", "cpus=0,memory=512M,distances=10:20");
	refuse("is unknown", "--kernel", "k", "--machine", "pc");
	assert_int_equal(parse("--kernel", "k", "--machine", "q35,hpet=on,root-ports=2"), 0);
	assert_true(o.machine.hpet && o.machine.root_ports == 2);
	assert_int_equal(parse("--kernel", "k", "--machine", "microvm,rtc=on"), 0);
	assert_int_equal(o.machine.kind, MACHINE_MICROVM);
	assert_true(o.machine.rtc && !o.machine.pcie && o.virtio.mmio);
	assert_int_equal(parse("--machine", "microvm,pcie=on", "--kernel", "k", "--virtio", "pci"), 0);
	assert_true(o.machine.pcie && !o.virtio.mmio);
	refuse("pcie=on", "--kernel", "k", "--machine", "microvm", "--virtio", "pci");
	refuse("has none", "--firmware", "bios", "--machine", "microvm");
	refuse("is unknown", "--kernel", "k", "--machine", "microvm,root-ports=1");
	refuse("neither on nor off", "--kernel", "k", "--machine", "microvm,rtc=yes");
	refuse("not 0 to 15", "--kernel", "k", "--machine", "q35,root-ports=16");
	assert_int_equal(parse("--kernel", "k", "--machine", "q35,root-ports=3", "--disk", "d,root-port=3",
		"--net", "user,root-port=1", "--share", "/:t,root-port=2"), 0);
	assert_int_equal(o.virtio.disk[0].root_port, 3);
	assert_int_equal(o.virtio.nic[0].root_port, 1);
	assert_int_equal(o.virtio.share[0].root_port, 2);
	refuse("root-port: 4 is not there", "--kernel", "k", "--machine", "q35,root-ports=3", "--disk",
		"d,root-port=4");
	refuse("root-port: 1 is not there", "--kernel", "k", "--net", "user,root-port=1");
	refuse("two devices behind 2", "--kernel", "k", "--machine", "q35,root-ports=3", "--disk",
		"d,root-port=2", "--net", "user,root-port=2");
	refuse("belongs to bus=virtio", "--kernel", "k", "--machine", "q35,root-ports=3", "--disk",
		"d,bus=scsi,root-port=2");
	refuse("root-port: is for", "--kernel", "k", "--machine", "q35,root-ports=3", "--virtio", "mmio",
		"--disk", "d,root-port=2");
	refuse("root-port", "--kernel", "k", "--disk", "d,root-port=16");
	refuse("root-port", "--kernel", "k", "--disk", "d,root-port=0");
	refuse("root-port: 1 is not there", "--kernel", "k", "--machine", "microvm,pcie=on", "--virtio", "pci",
		"--disk", "d,root-port=1");
	refuse("not 0 to 15", "--kernel", "k", "--machine", "q35,root-ports=");
	refuse("not 0 to 15", "--kernel", "k", "--machine", "q35,root-ports=-1");
	refuse("there are vars=FILE", "--firmware", "/dev/null,code=x");
	refuse("there are vars=FILE", "--firmware", "/dev/null,vars=");
	refuse("value is empty", "--firmware", "");
	refuse("--initrd needs --kernel", "--firmware", "/dev/null", "--initrd", "i");
	refuse("--kernel FILE", "--stats");
	refuse("needs a value", "--kernel");
	refuse("empty", "--kernel=");
	refuse("given twice", "--kernel", "a", "--kernel", "a");
	refuse("given twice", "--kernel", "a", "--stats", "--stats");
	refuse("did you mean --kernel", "--kernal", "a");
	refuse("did you mean --memory", "--mem", "1G");
	refuse("did you mean --cpus", "-smp", "2");
	refuse("unknown option --frobnicate; see", "--frobnicate");
	refuse("unexpected argument \"vmlinuz\"", "vmlinuz");
	refuse("takes no value", "--kernel", "k", "--no-reboot=yes");
	refuse("none of auto, soft, kvm", "--kernel", "k", "--accel", "tcg");
	refuse("is unknown", "--kernel", "k", "--engine", "dbt9000");
	refuse("cannot go with", "--kernel", "k", "--engine", "interp", "--accel", "kvm");
	refuse("none of stdio", "--kernel", "k", "--serial", "file:");
	refuse("none of stdio", "--kernel", "k", "--serial", "unix");
	refuse("none of stdio", "--kernel", "k", "--serial", "");
	refuse("1 to 64", "--kernel", "k", "--cpus", "65");
	refuse("1 to 64", "--kernel", "k", "--cpus", "0");
	refuse("1 to 64", "--kernel", "k", "--cpus", "4294967297");
	refuse("not a number", "--kernel", "k", "--cpus", "1K");
	refuse("not a number", "--kernel", "k", "--cpus", "-1");
	refuse("not understood", "--kernel", "k", "--cpus", "2,");
	refuse("not understood", "--kernel", "k", "--cpus", "2,dies=2");
	refuse("not understood", "--kernel", "k", "--cpus", "2,cores=x");
	refuse("not understood", "--kernel", "k", "--cpus", "2,cores=0");
	refuse("not understood", "--kernel", "k", "--cpus", "2,cores=1,cores=2");
	refuse("does not add up", "--kernel", "k", "--cpus", "4,cores=3");
	refuse("does not add up", "--kernel", "k", "--cpus", "4,cores=4294967295,threads=99999");
	refuse("does not add up", "--kernel", "k", "--cpus", "4,sockets=2,cores=2,threads=2");
	refuse("not a number", "--kernel", "k", "--cpus", "");
}

static void test_memory(void **state)
{
	(void)state;
	refuse("too little", "--memory", "0");
	refuse("3 MiB is too little", "--memory", "3M");
	refuse("1 TiB does not fit", "--memory", "1T");
	refuse("not a size", "--memory", "12Q");
	refuse("not a size", "--memory", "");
	refuse("not a size", "--memory", "-5M");
	refuse("not a size", "--memory", "99999999999999999999");
	refuse("not a size", "--memory", "99999999999G");
	refuse("multiple", "--memory", "5000001");
	assert_int_equal(parse("--kernel", "k", "--memory", "4M"), 0);
	assert_int_equal(parse("--kernel", "k", "--memory", "8192KiB"), 0);
	assert_int_equal(o.memory, 8 << 20);
	assert_int_equal(parse("--kernel", "k", "--memory", "64M,file=a,,b,share=on,prealloc=on"), 0);
	assert_int_equal(o.memory, 64 << 20);
	assert_string_equal(o.backing.file, "a,b");
	assert_true(o.backing.share && o.backing.prealloc && !o.backing.huge);
	assert_int_equal(parse("--kernel", "k", "--memory", "64M,hugepages,share=off"), 0);
	assert_int_equal(o.backing.huge, 2 << 20);
	assert_false(o.backing.share);
	assert_int_equal(parse("--kernel", "k", "--memory", "1G,hugepages=1G"), 0);
	assert_int_equal(o.backing.huge, 1 << 30);
	refuse("none of 2M, 1G", "--kernel", "k", "--memory", "64M,hugepages=4K");
	refuse("multiple of huge pages of 2 MiB", "--kernel", "k", "--memory", "63M,hugepages");
	refuse("multiple of huge pages of 1 GiB", "--kernel", "k", "--memory", "512M,hugepages=1G");
	refuse("does not go with file", "--kernel", "k", "--memory", "64M,hugepages,file=f");
	refuse("neither on nor off", "--kernel", "k", "--memory", "64M,share=yes");
	refuse("did you mean prealloc", "--kernel", "k", "--memory", "64M,preallok=on");
	refuse("share needs a value", "--kernel", "k", "--memory", "64M,share");
}

static void test_sizes(void **state)
{
	char buf[SIZE_TEXT_MAX];
	u64 n;

	(void)state;
	assert_int_equal(size_parse("16777215T", &n), 0);
	assert_int_equal(n, 16777215ULL << 40);
	assert_int_equal(size_parse("16777216T", &n), -ERANGE);
	assert_int_equal(size_parse("18446744073709551615", &n), 0);
	assert_int_equal(size_parse("18446744073709551616", &n), -ERANGE);
	assert_int_equal(size_parse("1k", &n), 0);
	assert_int_equal(n, 1024);
	assert_int_equal(size_parse("1KK", &n), -EINVAL);
	assert_string_equal(size_format(512 << 20, buf), "512 MiB");
	assert_string_equal(size_format(4097, buf), "4097 bytes");
	assert_string_equal(size_format(5ULL << 40, buf), "5 TiB");
	assert_string_equal(size_format(0, buf), "0 bytes");
}

static void test_suggestions(void **state)
{
	static const char *const names[] = { "run", "help", "version" };

	(void)state;
	assert_string_equal(nearest_name("rum", names, 3), "run");
	assert_string_equal(nearest_name("hlep", names, 3), "help");
	assert_string_equal(nearest_name("verison", names, 3), "version");
	assert_null(nearest_name("", names, 3));
	assert_null(nearest_name("xyz", names, 3));
	assert_null(nearest_name("a-very-long-word-that-is-longer-than-any-buffer-here", names, 3));
}

/* What a hostile file name holds does not break the one-line rule. */
static void test_errors_are_one_line(void **state)
{
	(void)state;
	assert_true(parse("--a\nb\033[2J") < 0);
	assert_null(strchr(err.text, '\n'));
	assert_null(strchr(err.text, '\033'));
	/* The first error stays. */
	error_set(&err, ENOMEM, "later");
	assert_null(strstr(err.text, "later"));
}

static void test_disks(void **state)
{
	const struct disk_options *d = o.virtio.disk;

	(void)state;
	assert_int_equal(parse("--kernel", "k", "--disk", "a.img,format=raw,readonly,serial=x1",
				 "--disk=b,,c.qcow2,snapshot,cache=unsafe,queues=3,bus=virtio"), 0);
	assert_int_equal(o.virtio.disks, 2);
	assert_string_equal(d[0].file, "a.img");
	assert_string_equal(d[0].format, "raw");
	assert_string_equal(d[0].serial, "x1");
	assert_true(d[0].readonly && !d[0].snapshot);
	assert_string_equal(d[1].file, "b,c.qcow2");
	assert_null(d[1].format);
	assert_true(d[1].snapshot && !d[1].readonly);
	assert_int_equal(d[1].queues, 3);
	refuse("did you mean readonly?", "--kernel", "k", "--disk", "a,readonyl");
	refuse("takes no value", "--kernel", "k", "--disk", "a,snapshot=1");
	refuse("needs a value", "--kernel", "k", "--disk", "a,format");
	refuse("none of raw|qcow2", "--kernel", "k", "--disk", "a,format=vmdk");
	refuse("number from 1 to 16", "--kernel", "k", "--disk", "a,queues=0");
	refuse("only queues", "--kernel", "k", "--disk", "a,bus=vhost-user,iops=5");
	refuse("size such as", "--kernel", "k", "--disk", "a,bps=fast");
	refuse("size such as", "--kernel", "k", "--disk", "a,bps-read=0");
	refuse("number from 1 to", "--kernel", "k", "--disk", "a,iops=1K");
	refuse("which file?", "--kernel", "k", "--disk", ",readonly");
	refuse("there are format, readonly", "--kernel", "k", "--disk", "a,xyzzy=2");
	refuse("not a size", "--kernel", "k", "--device", "balloon,taken=x");
	refuse("one already", "--kernel", "k", "--device", "balloon", "--device=balloon");
	assert_int_equal(parse("--kernel", "k", "--device", "balloon,taken=2M,reporting,stats=3"), 0);
	assert_int_equal(o.virtio.balloon.taken, 2 << 20);
	assert_true(o.virtio.balloon.reporting && !o.virtio.balloon.deflate_on_oom);
	assert_int_equal(o.virtio.balloon.stats, 3);
	assert_int_equal(virtio_options_count(&o.virtio), 1);
	refuse("FOLDER:TAG", "--kernel", "k", "--share", "/tmp");
	refuse("FOLDER:TAG", "--kernel", "k", "--share", ":tag");
	refuse("two with the tag", "--kernel", "k", "--share", "a:t", "--share", "b:t");
	refuse("readonly?", "--kernel", "k", "--share", "a:t,readonl");
	assert_int_equal(parse("--kernel", "k", "--share", "/a:b,,c:t,readonly", "--share=d:e"), 0);
	assert_int_equal(o.virtio.shares, 2);
	assert_string_equal(o.virtio.share[0].folder, "/a:b,c");
	assert_string_equal(o.virtio.share[0].tag, "t");
	assert_true(o.virtio.share[0].readonly && !o.virtio.share[1].readonly);
	refuse("number from 3", "--kernel", "k", "--device", "vsock=v,cid=2");
	refuse("which socket?", "--kernel", "k", "--device", "vsock=");
	assert_int_equal(parse("--kernel", "k", "--device", "vsock=/x,cid=42"), 0);
	assert_string_equal(o.virtio.vsock.path, "/x");
	assert_int_equal(o.virtio.vsock.cid, 42);
	refuse("which address", "--kernel", "k", "--device", "vhost-vsock");
	refuse("from 3", "--kernel", "k", "--device", "vhost-vsock,cid=2");
	refuse("cid", "--kernel", "k", "--device", "vhost-vsock,cid=4294967295");
	refuse("one already", "--kernel", "k", "--device", "vhost-vsock,cid=4", "--device",
		"vsock=/x");
	assert_int_equal(parse("--kernel", "k", "--device", "vhost-vsock,cid=43"), 0);
	assert_null(o.virtio.vsock.path);
	assert_int_equal(o.virtio.vsock.cid, 43);
	refuse("bus:", "--kernel", "k", "--disk", "a,bus=ide");
	refuse("bus=virtio", "--kernel", "k", "--disk", "a,bus=scsi,queues=2");
	refuse("there is scsi", "--kernel", "k", "--cdrom", "a,bus=virtio");
	refuse("which file?", "--kernel", "k", "--cdrom", "");
	refuse("unknown", "--kernel", "k", "--cdrom", "a,readonly");
	assert_int_equal(parse("--firmware", "/dev/null", "--disk", "a,bus=scsi", "--disk", "b", "--cdrom",
				 "c,,d.iso,serial=7", "--cdrom=e"), 0);
	assert_int_equal(o.virtio.disks, 4);
	assert_true(d[0].scsi && !d[0].cdrom && !d[0].readonly && !d[1].scsi);
	assert_true(d[2].scsi && d[2].cdrom && d[2].readonly && d[3].cdrom);
	assert_string_equal(d[2].file, "c,d.iso");
	assert_int_equal(virtio_options_count(&o.virtio), 2);
}

static void test_nets(void **state)
{
	const struct nic_options *n = o.virtio.nic;

	(void)state;
	assert_int_equal(parse("--kernel", "k", "--net", "user,forward=tcp:2222:22,forward=udp:53:5353",
				 "--net", "tap=tap0,mac=52:54:00:0a:0b:0c,pcap=x.pcap", "--net", "none",
				 "--net", "socket=/run/s"), 0);
	assert_int_equal(o.virtio.nics, 3);
	assert_int_equal(n[0].kind, NET_USER);
	assert_int_equal(n[0].forwards, 2);
	assert_true(!n[0].forward[0].udp && n[0].forward[1].udp);
	assert_int_equal(n[0].forward[0].host, 2222);
	assert_int_equal(n[0].forward[1].guest, 5353);
	assert_string_equal(n[1].tap, "tap0");
	assert_int_equal(n[1].mac[5], 0x0C);
	assert_string_equal(n[1].pcap, "x.pcap");
	assert_string_equal(n[2].socket, "/run/s");
	assert_int_equal(parse("--kernel", "k", "--net", "user,tftp=/,bootfile=a,,b,rom=off", "--net", "socket=s,rom=r"), 0);
	assert_string_equal(n[0].tftp, "/");
	assert_string_equal(n[0].bootfile, "a,b");
	assert_string_equal(n[0].rom, "off");
	assert_string_equal(n[1].rom, "r");
	refuse("tftp belongs to user", "--kernel", "k", "--net", "tap=t,tftp=/");
	refuse("no folder /nonexistent", "--kernel", "k", "--net", "user,tftp=/nonexistent");
	refuse("bootfile: the value is empty", "--kernel", "k", "--net", "user,bootfile=");
	refuse("rom belongs to --virtio pci", "--kernel", "k", "--net", "user,rom=r", "--virtio", "mmio");
	assert_int_equal(parse("--firmware", "/dev/null", "--net", "user,bootindex=0", "--disk",
				 "d,bootindex=999", "--cdrom", "c,bootindex=5", "--disk", "e"), 0);
	assert_int_equal(n[0].boot, 1);
	assert_int_equal(o.virtio.disk[0].boot, 1000);
	assert_int_equal(o.virtio.disk[1].boot, 6);
	assert_int_equal(o.virtio.disk[2].boot, 0);
	refuse("there are two of 5", "--firmware", "/dev/null", "--net", "user,bootindex=5", "--cdrom",
		"c,bootindex=5");
	refuse("is for firmware", "--kernel", "k", "--net", "user,bootindex=5");
	refuse("is for firmware", "--firmware", "/dev/null", "--disk", "d,bootindex=1", "--virtio", "mmio");
	refuse("--cdrom: bootindex: \"x\"", "--kernel", "k", "--cdrom", "c,bootindex=x");
	refuse("number from 0 to 999", "--kernel", "k", "--disk", "c,bootindex=1000");
	refuse("number from 0 to 999", "--kernel", "k", "--net", "user,bootindex=-1");
	refuse("none of user", "--kernel", "k", "--net", "bridge");
	refuse("like tcp:8080:80", "--kernel", "k", "--net", "user,forward=tcp:80");
	refuse("like tcp:8080:80", "--kernel", "k", "--net", "user,forward=tcp:80:99999");
	refuse("belongs to user", "--kernel", "k", "--net", "tap=t,forward=tcp:1:1");
	refuse("is not like", "--kernel", "k", "--net", "user,mac=1:2:3");
	refuse("group", "--kernel", "k", "--net", "user,mac=01:00:00:00:00:01");
}

static void test_screen(void **state)
{
	(void)state;
	assert_int_equal(parse("--kernel", "k"), 0);
	assert_false(screen_wanted(&o.screen));
	assert_int_equal(parse("--kernel", "k", "--display", "none"), 0);
	assert_false(screen_wanted(&o.screen));
	assert_int_equal(parse("--kernel", "k", "--device", "vga"), 0);
	assert_true(screen_wanted(&o.screen));
	assert_false(o.screen.vnc);
	assert_int_equal(parse("--kernel", "k", "--display", "vnc"), 0);
	assert_true(o.screen.vnc && screen_wanted(&o.screen));
	assert_null(o.screen.vnc_address);
	assert_int_equal(parse("--kernel", "k", "--display", "vnc=[::]:5901,password=f,,g"), 0);
	assert_string_equal(o.screen.vnc_address, "[::]:5901");
	assert_string_equal(o.screen.vnc_password, "f,g");
	assert_int_equal(parse("--kernel", "k", "--screenshot", "a,,b.png,every=5"), 0);
	assert_true(screen_wanted(&o.screen));
	assert_string_equal(o.screen.screenshot, "a,b.png");
	assert_int_equal(o.screen.screenshot_every, 5);
	refuse("none of none, vnc", "--kernel", "k", "--display", "gtk");
	refuse("none of PORT", "--kernel", "k", "--display", "vnc=x");
	refuse("needs password", "--kernel", "k", "--display", "vnc=0.0.0.0:5900");
	refuse("did you mean password", "--kernel", "k", "--display", "vnc,passwd=x");
	refuse("which file", "--kernel", "k", "--screenshot", ",every=1");
	refuse("1 to 86400", "--kernel", "k", "--screenshot", "f,every=0");
	refuse("none of rng, vga", "--kernel", "k", "--device", "cirrus");
}

/* A virtio-gpu takes the VGA's place, unless both are asked for. */
static void test_gpu(void **state)
{
	(void)state;
	assert_int_equal(parse("--kernel", "k", "--display", "vnc"), 0);
	assert_true(screen_has_vga(&o.screen));
	assert_int_equal(parse("--kernel", "k", "--device", "keyboard", "--device", "tablet"), 0);
	assert_false(screen_wanted(&o.screen) || screen_has_vga(&o.screen));
	assert_int_equal(virtio_options_count(&o.virtio), 2);
	assert_int_equal(parse("--kernel", "k", "--device", "gpu,width=800,height=4095", "--display", "vnc"), 0);
	assert_true(screen_wanted(&o.screen) && !screen_has_vga(&o.screen));
	assert_int_equal(o.virtio.gpus, 1);
	assert_int_equal(o.virtio.gpu.width, 800);
	assert_int_equal(o.virtio.gpu.height, 4095);
	assert_int_equal(parse("--kernel", "k", "--device", "gpu", "--device", "vga"), 0);
	assert_true(screen_has_vga(&o.screen));
	/* A microvm has no VGA, but it can have the other one. */
	assert_int_equal(parse("--kernel", "k", "--machine", "microvm", "--device", "gpu", "--display", "vnc"), 0);
	refuse("has no VGA", "--kernel", "k", "--machine", "microvm", "--display", "vnc");
	refuse("has no VGA", "--kernel", "k", "--machine", "microvm", "--device", "gpu", "--device", "vga");
	refuse("one already", "--kernel", "k", "--device", "gpu", "--device", "gpu");
	refuse("is not a number from 64 to 4095", "--kernel", "k", "--device", "gpu,width=63");
	refuse("is not a number from 64 to 4095", "--kernel", "k", "--device", "gpu,height=4096");
	refuse("is not a number from 64 to 4095", "--kernel", "k", "--device", "gpu,width=80x");
	refuse("did you mean width", "--kernel", "k", "--device", "gpu,with=80");
	refuse("takes nothing", "--kernel", "k", "--device", "tablet,x");
}

static void test_devices(void **state)
{
	(void)state;
	assert_int_equal(parse("--kernel", "k", "--device", "rng", "--device",
				 "console=unix:/run/c,name=org.x.0", "--device", "console=pty"), 0);
	assert_int_equal(o.virtio.rngs, 1);
	assert_int_equal(o.virtio.ports, 2);
	assert_string_equal(o.virtio.port[0].where, "unix:/run/c");
	assert_string_equal(o.virtio.port[0].name, "org.x.0");
	assert_null(o.virtio.port[1].name);
	assert_int_equal(parse("--kernel", "k", "--device", "vmgenid"), 0);
	assert_true(o.machine.vmgenid.there && !o.machine.vmgenid.fixed);
	assert_int_equal(parse("--kernel", "k", "--device", "vmgenid,guid=00112233-4455-6677-8899-aAbBcCdDeEfF"), 0);
	assert_true(o.machine.vmgenid.fixed);
	assert_memory_equal(o.machine.vmgenid.guid,
		"\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xAA\xBB\xCC\xDD\xEE\xFF", 16);
	refuse("is not like 324e6eaf", "--kernel", "k", "--device", "vmgenid,guid=0011223-34455-6677-8899-aabbccddeeff");
	refuse("is not like 324e6eaf", "--kernel", "k", "--device", "vmgenid,guid=auto");
	refuse("one already", "--kernel", "k", "--device", "vmgenid", "--device", "vmgenid");
	refuse("none of rng", "--kernel", "k", "--device", "floppy");
	refuse("belongs to --serial", "--kernel", "k", "--device", "console=stdio");
	refuse("takes nothing", "--kernel", "k", "--device", "rng,fast");
	refuse("more than", "--kernel", "k", "--disk", "1", "--disk", "2", "--disk", "3", "--disk",
		"4", "--disk", "5", "--disk", "6", "--disk", "7", "--disk", "8", "--disk", "9");
}

/* Devices that other programs serve. */
static void test_programs(void **state)
{
	refuse("there is 9p, fs", "--kernel", "k", "--share", "a:t,bus=nfs");
	refuse("belongs to bus=9p", "--kernel", "k", "--share", "a:t,bus=fs,readonly");
	refuse("which tag", "--kernel", "k", "--device", "fs=/s");
	refuse("which socket", "--kernel", "k", "--device", "fs=,tag=t");
	refuse("two with the tag", "--kernel", "k", "--share", "a:t", "--device", "fs=/s,tag=t");
	assert_int_equal(parse("--kernel", "k", "--share", "/a:b,bus=fs", "--device", "fs=/s,tag=u"), 0);
	assert_true(o.virtio.share[0].fs && !o.virtio.share[0].socket);
	assert_string_equal(o.virtio.share[1].socket, "/s");
	assert_string_equal(o.virtio.share[1].tag, "u");
	assert_true(o.virtio.share[1].fs && virtio_options_shared(&o.virtio));
	refuse("pcap", "--kernel", "k", "--net", "vhost-user=/s,pcap=x");
	refuse("pcap", "--kernel", "k", "--net", "tap=t,vhost=on,pcap=x");
	refuse("belongs to tap", "--kernel", "k", "--net", "user,vhost=auto");
	refuse("on|off|auto", "--kernel", "k", "--net", "tap=t,vhost=yes");
	assert_int_equal(parse("--kernel", "k", "--net", "tap=t,vhost=auto,pcap=x"), 0);
	assert_string_equal(o.virtio.nic[0].vhost, "auto");
	assert_false(virtio_options_shared(&o.virtio));
	refuse("only queues", "--kernel", "k", "--disk", "/s,bus=vhost-user,readonly");
	assert_int_equal(parse("--kernel", "k", "--net", "passt,forward=tcp:2222:22"), 0);
	assert_int_equal(o.virtio.nic[0].kind, NET_PASST);
	assert_int_equal(o.virtio.nic[0].forwards, 1);
	assert_false(virtio_options_shared(&o.virtio));
	assert_int_equal(parse("--kernel", "k", "--net", "vhost-user=/s", "--disk", "/d,bus=vhost-user,queues=2"), 0);
	assert_string_equal(o.virtio.nic[0].socket, "/s");
	assert_true(o.virtio.disk[0].vhost && virtio_options_shared(&o.virtio));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_programs),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_all),
		cmocka_unit_test(test_cpus),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_suggestions),
		cmocka_unit_test(test_errors_are_one_line),
		cmocka_unit_test(test_disks),
		cmocka_unit_test(test_nets),
		cmocka_unit_test(test_screen),
		cmocka_unit_test(test_gpu),
		cmocka_unit_test(test_devices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
