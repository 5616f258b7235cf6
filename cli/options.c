/* The options of `qumra run`, as a table: see options.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/config.h"
#include "cli/devices.h"
#include "cli/machine.h"
#include "cli/options.h"
#include "lib/size.h"
#include "vmm/chardev/chardev.h"
#include "vmm/cpus/topology.h"
#include "vmm/firmware/firmware.h"

#define MEMORY_DEFAULT (512ULL << 20)

static int parse_accel(struct run_options *o, const char *value, struct error *err)
{
	if (accel_parse(value, &o->accel) == 0)
		return 0;
	return error_usage(err, "--accel: \"%s\" is none of auto, soft, kvm", value);
}

static int parse_engine(struct run_options *o, const char *value, struct error *err)
{
	o->engine = value;
	if (accel_engine_known(value))
		return 0;
	return error_usage(err, "--engine: \"%s\" is unknown; there are dbt and interp", value);
}

static int parse_code_cache(struct run_options *o, const char *value, struct error *err)
{
	if (size_parse(value, &o->code_cache) == 0 && o->code_cache >= 1 << 20 &&
		o->code_cache <= 1 << 30)
		return 0;
	return error_usage(err, "--code-cache: \"%s\" is not a size from 1M to 1G", value);
}

static int parse_cpus(struct run_options *o, const char *value, struct error *err)
{
	return topology_parse(&o->cpus, "--cpus", value, err);
}

static int parse_serial(struct run_options *o, const char *value, struct error *err)
{
	o->serial = value;
	return chardev_check("--serial", value, err);
}

static int parse_firmware_part(struct run_options *o, const char *part, struct error *err)
{
	if (strcmp(part, "log") == 0)
		o->firmware_log = true;
	else if (strncmp(part, "vars=", 5) == 0 && part[5])
		o->firmware_vars = part + 5;
	else
		return error_usage(
			err, "--firmware: \"%s\" is unknown; there are vars=FILE and log", part);
	return 0;
}

static int parse_firmware(struct run_options *o, const char *value, struct error *err)
{
	char *next = o->firmware_text;
	int ret = 0;

	if (strlen(value) >= sizeof(o->firmware_text))
		return error_usage(err, "--firmware: the value is too long");
	strcpy(o->firmware_text, value);
	o->firmware = strsep(&next, ",");
	while (next && ret == 0)
		ret = parse_firmware_part(o, strsep(&next, ","), err);
	return ret < 0 ? ret : firmware_check(o->firmware, err);
}

/* Read before all others: config_read(). */
static int parse_config(struct run_options *o, const char *value, struct error *err)
{
	return 0;
}

static const struct run_option {
	const char *name, *value, *help;
	size_t offset;		/* of the text or flag in struct run_options, without parse */
	int (*parse)(struct run_options *o, const char *value, struct error *err);
} run_options_table[] = {
	{"kernel", "FILE", "the kernel: a bzImage, or an ELF file with a PVH entry",
		offsetof(struct run_options, kernel), NULL},
	{"machine", "BOARD",
		"q35[,root-ports=N][,hpet=on] (default), or microvm[,rtc=on][,pcie=on], which starts\n"
		"                           fastest", 0,
		machine_parse},
	{"firmware", "NAME[,vars=FILE][,log]",
		"start with bios, uefi (variables kept in FILE) or the ROM in a file", 0,
		parse_firmware},
	{"initrd", "FILE", "the initial RAM disk", offsetof(struct run_options, initrd), NULL},
	{"append", "TEXT", "the kernel's command line", offsetof(struct run_options, append), NULL},
	{"memory", "SIZE[,...]",
		"RAM, such as 512M or 2G (default: 512M); hugepages[=2M|1G], share=on, file=PATH,\n"
		"                           prealloc=on", 0, memory_parse},
	{"cpus", "N[,SHAPE]",
		"number of CPUs, 1 to 64 (default: 1); shape: sockets=S,cores=C,threads=T", 0,
		parse_cpus},
	{"numa", "cpus=A[-B],memory=SIZE",
		"a NUMA node; once for each; distances=D:D... to all of them", 0, numa_parse},
	{"accel", "auto|soft|kvm", "what runs the guest (default: auto)", 0, parse_accel},
	{"engine", "dbt|interp",
		"CPU engine of the software hypervisor: the translator (default) or the interpreter", 0,
		parse_engine},
	{"code-cache", "SIZE",
		"the translator's code cache for each CPU, 1M to 1G (default: 40M)", 0,
		parse_code_cache},
	{"serial", "WHERE",
		"first serial port: stdio, none, file:PATH, pty, unix:PATH (default: stdio)", 0,
		parse_serial},
	{"disk", "FILE[,...]",
		"a disk: format=raw|qcow2, readonly, snapshot, bus=virtio|scsi, cache=MODE,\n"
		"                           aio=io_uring|threads, serial=TEXT, queues=N, root-port=N,\n"
		"                           bus=vhost-user (FILE is a back end's socket),\n"
		"                           internal-snapshot=NAME, bps=SIZE, iops=N (also -read, -write),\n"
		"                           bootindex=N: firmware starts from the lowest", 0,
		devices_parse_disk},
	{"cdrom", "FILE[,...]",
		"a CD-ROM drive with this image in it: format, bus=scsi, cache, aio, serial,\n"
		"                           bootindex", 0,
		devices_parse_cdrom},
	{"net", "user|tap=NAME|none",
		"a virtio network: user[,tftp=FOLDER,bootfile=FILE], passt, both [,forward=tcp:8080:80],\n"
		"                           tap=INTERFACE[,vhost=on|off|auto], socket=PATH,\n"
		"                           vhost-user=PATH, none; mac=ADDRESS, pcap=FILE, rom=FILE|off,\n"
		"                           bootindex=N, root-port=N (of --machine q35,root-ports=)", 0,
		devices_parse_net},
	{"share", "FOLDER:TAG[,...]",
		"a folder of the host (readonly); in Linux: mount -t 9p -o trans=virtio TAG /mnt;\n"
		"                           bus=fs: by virtiofsd; mount -t virtiofs TAG /mnt; root-port=N", 0,
		devices_parse_share},
	{"device", "KIND",
		"more: rng, vga, gpu[,width=N,height=N], keyboard, tablet,\n"
		"                           console=WHERE[,name=NAME] (WHERE as for --serial),\n"
		"                           balloon[,taken=SIZE,deflate-on-oom,reporting,stats=SECONDS],\n"
		"                           vsock=PATH[,cid=N], vhost-vsock,cid=N (host's AF_VSOCK),\n"
		"                           fs=PATH,tag=TAG (virtiofsd's socket), vmgenid[,guid=GUID]", 0,
		devices_parse_device},
	{"display", "vnc[=ADDRESS]|none",
		"a screen, keyboard and mouse over VNC (default: none); ADDRESS: PORT, :NUMBER, HOST:PORT,\n"
		"                           unix:PATH (default: 127.0.0.1, the first free port from 5900);\n"
		"                           password=FILE", 0, screen_parse_display},
	{"screenshot", "FILE[,every=SECONDS]",
		"the screen as a PNG at the end, at Ctrl-A s and at SIGUSR1, and every so often", 0,
		screen_parse_screenshot},
	{"control", "PATH",
		"a socket for `qumra control` and tools that speak QEMU's QMP",
		offsetof(struct run_options, control), NULL},
	{"virtio", "pci|mmio", "where virtio devices are (default: pci)", 0, devices_parse_virtio},
	{"no-reboot", NULL, "end when the guest reboots", offsetof(struct run_options, no_reboot),
		NULL},
	{"debug-exit", NULL, "a guest's write of N to port 0xF4 ends qumra with status 2N+1",
		offsetof(struct run_options, debug_exit), NULL},
	{"config", "FILE",
		"options from a file: one on each line, without the dashes; those given here go first", 0,
		parse_config},
	{"dry-run", NULL, "print the machine as such a file, and do not start it",
		offsetof(struct run_options, dry_run), NULL},
	{"stats", NULL, "print figures to standard error at the end",
		offsetof(struct run_options, stats), NULL},
	{"help", NULL, "show this help", offsetof(struct run_options, help), NULL},
};

_Static_assert(ARRAY_SIZE(run_options_table) <= 32, "one bit each in `seen`");

const char *run_option_help(unsigned index, char *buf, size_t size)
{
	const struct run_option *opt = &run_options_table[index];
	char left[40];

	if (index >= ARRAY_SIZE(run_options_table))
		return NULL;
	snprintf(left, sizeof(left), "--%s%s%s", opt->name, opt->value ? " " : "",
		opt->value ? opt->value : "");
	snprintf(buf, size, "  %-24s %s", left, opt->help);
	return buf;
}

const char *run_option_name(unsigned index)
{
	return index < ARRAY_SIZE(run_options_table) ? run_options_table[index].name : NULL;
}

/* ---- suggestions ----------------------------------------------------------------------------- */

/* Edits (insert, delete, replace, swap of neighbours) between two short words. */
static unsigned edit_distance(const char *a, const char *b)
{
	enum { MAX_LEN = 31 };
	unsigned d[MAX_LEN + 1][MAX_LEN + 1];
	size_t n = strnlen(a, MAX_LEN), m = strnlen(b, MAX_LEN);

	for (size_t i = 0; i <= n; i++) {
		for (size_t j = 0; j <= m; j++) {
			if (!i || !j) {
				d[i][j] = i + j;
				continue;
			}
			d[i][j] = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			d[i][j] = MIN(d[i][j], MIN(d[i - 1][j], d[i][j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d[i][j] = MIN(d[i][j], d[i - 2][j - 2] + 1);
		}
	}
	return d[n][m];
}

const char *nearest_name(const char *word, const char *const *names, size_t n)
{
	const char *best = NULL;
	unsigned best_distance = 3;

	for (size_t i = 0; i < n; i++) {
		unsigned d = edit_distance(word, names[i]);

		/* Half of a word must be right, or it is a guess. */
		if (d < best_distance && d * 2 <= strlen(names[i])) {
			best = names[i];
			best_distance = d;
		}
	}
	return best;
}

/* arg: as typed, dashes and value too; name: without them. */
static int unknown_option(const char *arg, const char *name, struct error *err)
{
	/* What users of QEMU try first. */
	static const struct { const char *other, *ours; } aliases[] = {
		{ "m", "memory" }, { "mem", "memory" }, { "smp", "cpus" }, { "cmdline", "append" },
		{ "command-line", "append" }, { "ramdisk", "initrd" }, { "nographic", "serial" },
	};
	const char *names[ARRAY_SIZE(run_options_table)], *best;

	for (size_t i = 0; i < ARRAY_SIZE(run_options_table); i++)
		names[i] = run_options_table[i].name;
	best = nearest_name(name, names, ARRAY_SIZE(names));
	for (size_t i = 0; i < ARRAY_SIZE(aliases); i++)
		if (strcmp(name, aliases[i].other) == 0)
			best = aliases[i].ours;
	if (best)
		return error_usage(err, "unknown option %s; did you mean --%s?", arg, best);
	return error_usage(err, "unknown option %s; see qumra run --help", arg);
}

/* ---- parsing --------------------------------------------------------------------------------- */

/* The row for the option in arg (without dashes); *value is behind its '=', or NULL. */
static const struct run_option *find_option(const char *arg, const char **value)
{
	size_t len = strcspn(arg, "=");

	*value = arg[len] ? arg + len + 1 : NULL;
	for (size_t i = 0; i < ARRAY_SIZE(run_options_table); i++) {
		const char *name = run_options_table[i].name;

		if (strlen(name) == len && memcmp(name, arg, len) == 0)
			return &run_options_table[i];
	}
	return NULL;
}

static int set_option(
	struct run_options *o, const struct run_option *opt, const char *value, struct error *err)
{
	if (opt->parse)
		return opt->parse(o, value, err);
	if (!opt->value) {
		*(bool *)((char *)o + opt->offset) = true;
		return 0;
	}
	if (!*value && strcmp(opt->name, "append") != 0)
		return error_usage(err, "--%s: the value is empty", opt->name);
	*(const char **)((char *)o + opt->offset) = value;
	return 0;
}

/* Those that add a device each. */
static bool repeats(const struct run_option *opt)
{
	return opt->parse == numa_parse || opt->parse == devices_parse_disk ||
	       opt->parse == devices_parse_net || opt->parse == devices_parse_cdrom ||
	       opt->parse == devices_parse_share ||
	       opt->parse == devices_parse_device;
}

/* A walk over options; "at" is the next. */
struct walk {
	int argc, at;
	char *const *argv;
	u32 seen;	/* a bit for each row of the table */
};

static u32 option_bit(const struct run_option *opt)
{
	return 1u << (opt - run_options_table);
}

/* With one dash, two, or none, as in a file. Fails where there is no such option. */
static int name_option(const char *arg, const struct run_option **opt, const char **value,
	struct error *err)
{
	size_t dashes = strspn(arg, "-");
	char name[64];

	/* One dash and two mean the same, as with QEMU. */
	*opt = dashes <= 2 ? find_option(arg + dashes, value) : NULL;
	if (*opt)
		return 0;
	snprintf(name, sizeof(name), "%.*s",
		(int)MIN(strcspn(arg + dashes, "="), sizeof(name) - 1), arg + dashes);
	return unknown_option(arg, name, err);
}

/* Takes the next argument and, where the option wants one, its value. *opt: NULL for -h. */
static int walk_one(struct walk *w, const struct run_option **opt, const char **value,
	struct error *err)
{
	const char *arg = w->argv[w->at++];
	int ret;

	*opt = NULL;
	if (*arg != '-')
		return error_usage(err, "unexpected argument \"%s\"%s", arg,
			w->seen & 1 ? "" : "; the kernel is given with --kernel");
	if (strcmp(arg, "-h") == 0)
		return 0;
	ret = name_option(arg, opt, value, err);
	if (ret < 0)
		return ret;
	if (w->seen & option_bit(*opt) && !repeats(*opt))
		return error_usage(err, "--%s is given twice", (*opt)->name);
	w->seen |= option_bit(*opt);
	if (!(*opt)->value && *value)
		return error_usage(err, "--%s takes no value", (*opt)->name);
	if ((*opt)->value && !*value) {
		if (w->at == w->argc)
			return error_usage(err, "--%s needs a value: %s", (*opt)->name, (*opt)->value);
		*value = w->argv[w->at++];
	}
	return 0;
}

static int take_option(
	struct run_options *o, const struct run_option *opt, const char *value, struct error *err)
{
	if (o->givens == RUN_GIVEN_MAX)
		return error_usage(err, "there are more than %d options", RUN_GIVEN_MAX);
	o->given[o->givens++] = (struct run_given){
		.option = (unsigned)(opt - run_options_table), .value = value };
	return set_option(o, opt, value, err);
}

/* One line of a file; arg: the options that the command line has, which go before. */
static int take_line(struct run_options *o, char *line, void *arg, struct error *err)
{
	struct walk *file = arg;
	const struct run_option *opt;
	char *text = line + strcspn(line, "= \t");
	const char *value, *said = config_value(text);
	bool has = *text;
	int ret;

	*text = '\0';
	ret = name_option(line, &opt, &value, err);
	if (ret < 0)
		return ret;
	value = said;
	if (opt->parse == parse_config || opt->offset == offsetof(struct run_options, help))
		return error_usage(err, "%s does not belong into a file", opt->name);
	if (!opt->value && *value)
		return error_usage(err, "%s takes no value", opt->name);
	if (opt->value && !has)
		return error_usage(err, "%s needs a value: %s", opt->name, opt->value);
	if (file->seen & option_bit(opt) && !repeats(opt))
		return 0;
	return take_option(o, opt, opt->value ? value : NULL, err);
}

/* What the command line names, and whether it asks for help; reads the file of --config. */
static int parse_first(struct run_options *o, int argc, char *const argv[], struct error *err)
{
	struct walk w = { .argc = argc, .argv = argv };
	const struct run_option *opt;
	const char *value, *file = NULL;
	int ret;

	while (w.at < argc) {
		ret = walk_one(&w, &opt, &value, err);
		if (ret < 0)
			return ret;
		if (!opt || opt->offset == offsetof(struct run_options, help)) {
			o->help = true;
			return 0;
		}
		if (opt->parse == parse_config)
			file = value;
	}
	return file ? config_read(o, file, take_line, &w, err) : 0;
}

static int check_together(struct run_options *o, struct error *err)
{
	if (!o->kernel && !o->firmware)
		return error_usage(err, "run needs --kernel FILE; see qumra run --help");
	if (!o->kernel && o->initrd)
		return error_usage(err, "--initrd needs --kernel");
	if (o->engine && o->accel == ACCEL_KVM)
		return error_usage(err, "--engine belongs to the software hypervisor; it cannot go "
					"with --accel kvm");
	if (machine_settle(o, err) < 0)
		return -EINVAL;
	return boot_settle(o, err);
}

int run_options_parse(struct run_options *o, int argc, char *const argv[], struct error *err)
{
	struct walk w = { .argc = argc, .argv = argv };
	const struct run_option *opt;
	const char *value;
	int ret;

	*o = (struct run_options){
		.append = "",
		.serial = "stdio",
		.accel = ACCEL_AUTO,
		.memory = MEMORY_DEFAULT,
		.cpus = { 1, 1, 1 },
	};
	ret = parse_first(o, argc, argv, err);
	while (ret == 0 && !o->help && w.at < argc) {
		ret = walk_one(&w, &opt, &value, err);
		if (ret == 0 && opt->parse != parse_config)
			ret = take_option(o, opt, opt->value ? value : NULL, err);
	}
	return ret < 0 || o->help ? ret : check_together(o, err);
}
