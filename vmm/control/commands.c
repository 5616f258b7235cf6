/* The control socket's commands, a row each: see commands.h. Words and shapes are those of QEMU's schema. */
#include "vmm/control/commands.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- questions ------------------------------------------------------------------------------- */

json_t *command_version(void)
{
	int major = 0, minor = 0, micro = 0;

	sscanf(QUMRA_VERSION, "%d.%d.%d", &major, &minor, &micro);
	return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "major", major, "minor", minor, "micro", micro,
		"package", "Qumra " QUMRA_VERSION);
}

static json_t *query_version(struct vmm *vmm, json_t *args, struct error *err)
{
	return command_version();
}

static json_t *query_status(struct vmm *vmm, json_t *args, struct error *err)
{
	return json_pack("{s:s, s:b}", "status", vmm_state_name(vmm), "running",
		!vmm->stopped && !vmm->ended);
}

/* "enabled": whether KVM's API runs the guest, which is always so. */
static json_t *query_kvm(struct vmm *vmm, json_t *args, struct error *err)
{
	return json_pack("{s:b, s:b}", "enabled", 1, "present", 1);
}

static json_t *query_cpus(struct vmm *vmm, json_t *args, struct error *err)
{
	json_t *all = json_array();

	for (unsigned i = 0; i < vmm->cpus; i++) {
		unsigned apic = topology_apic_id(&vmm->config.topology, i);
		char path[32];

		snprintf(path, sizeof(path), "/machine/cpu[%u]", i);
		json_array_append_new(all, json_pack("{s:i, s:s, s:s, s:i, s:{s:i}}", "cpu-index", i,
			"target", "x86_64", "qom-path", path, "thread-id", vmm->cpu[i].thread_id,
			"props", "apic-id", apic));
	}
	return all;
}

static bool balloon_now(struct vmm *vmm, u64 *now, struct error *err)
{
	struct balloon_figures f;

	if (!virtio_board_balloon(vmm->virtio, &f)) {
		error_set(err, ENODEV, "there is no balloon: start qumra with --device balloon");
		return false;
	}
	/* What is taken is the guest's word. */
	*now = vmm->config.memory - MIN(f.now, vmm->config.memory);
	return true;
}

static json_t *query_balloon(struct vmm *vmm, json_t *args, struct error *err)
{
	u64 now;

	return balloon_now(vmm, &now, err) ? json_pack("{s:I}", "actual", (json_int_t)now) : NULL;
}

/* ---- orders ---------------------------------------------------------------------------------- */

static json_t *qmp_capabilities(struct vmm *vmm, json_t *args, struct error *err)
{
	return error_usage(err, "capabilities were negotiated already"), NULL;
}

static json_t *stop(struct vmm *vmm, json_t *args, struct error *err)
{
	vmm_stop(vmm);
	return json_object();
}

static json_t *cont(struct vmm *vmm, json_t *args, struct error *err)
{
	vmm_cont(vmm);
	return json_object();
}

static json_t *system_powerdown(struct vmm *vmm, json_t *args, struct error *err)
{
	vmm_press_power(vmm);
	return json_object();
}

static json_t *system_reset(struct vmm *vmm, json_t *args, struct error *err)
{
	vmm_request_reset(vmm, "host-qmp-system-reset");
	return json_object();
}

static json_t *inject_nmi(struct vmm *vmm, json_t *args, struct error *err)
{
	vmm_inject_nmi(vmm);
	return json_object();
}

static json_t *quit(struct vmm *vmm, json_t *args, struct error *err)
{
	vmm_quit(vmm);
	return json_object();
}

static int unpack(json_t *args, struct error *err, const char *format, const char *name, void *value)
{
	json_error_t why;

	if (json_unpack_ex(args, &why, JSON_STRICT, format, name, value) == 0)
		return 0;
	return error_set(err, EINVAL, "arguments: %s", why.text);
}

static json_t *balloon(struct vmm *vmm, json_t *args, struct error *err)
{
	json_int_t value;
	u64 now;

	if (unpack(args, err, "{s:I}", "value", &value) < 0 || !balloon_now(vmm, &now, err))
		return NULL;
	if (value <= 0)
		return error_set(err, EINVAL, "value: a size is more than 0"), NULL;
	virtio_board_set_balloon(vmm->virtio,
		vmm->config.memory - MIN((u64)value, vmm->config.memory));
	return json_object();
}

static json_t *screendump(struct vmm *vmm, json_t *args, struct error *err)
{
	const char *file;

	if (unpack(args, err, "{s:s}", "filename", &file) < 0 || screen_dump(vmm->screen, file, err) < 0)
		return NULL;
	return json_object();
}

/* What is wrong with an image is no unknown command. */
static json_t *result(int ret, const struct error *why, struct error *err)
{
	if (ret < 0)
		return error_set(err, -ret, "%s", why->text), NULL;
	return json_object();
}

/* One of the two names of a disk, which may be NULL. */
static const char *one_name(const char *a, const char *b, const char *what, struct error *err)
{
	if (!a == !b)
		error_set(err, EINVAL, "arguments: one of %s", what);
	return !a == !b ? NULL : a ? a : b;
}

static json_t *block_resize_disk(struct vmm *vmm, json_t *args, struct error *err)
{
	const char *device = NULL, *node = NULL, *name;
	struct error why = ERROR_INIT;
	json_error_t wrong;
	json_int_t size;

	if (json_unpack_ex(args, &wrong, JSON_STRICT, "{s?s, s?s, s:I}", "device", &device,
		    "node-name", &node, "size", &size) < 0)
		return error_set(err, EINVAL, "arguments: %s", wrong.text), NULL;
	if (size < 0)
		return error_set(err, EINVAL, "size: a size is not less than 0"), NULL;
	name = one_name(device, node, "device and node-name", err);
	return name ? result(virtio_board_resize(vmm->virtio, name, size, &why), &why, err) : NULL;
}

static json_t *eject(struct vmm *vmm, json_t *args, struct error *err)
{
	const char *device = NULL, *id = NULL, *name;
	struct error why = ERROR_INIT;
	json_error_t wrong;
	int force = 0;

	if (json_unpack_ex(args, &wrong, JSON_STRICT, "{s?s, s?s, s?b}", "device", &device, "id", &id,
		    "force", &force) < 0)
		return error_set(err, EINVAL, "arguments: %s", wrong.text), NULL;
	name = one_name(device, id, "device and id", err);
	return name ? result(virtio_board_eject(vmm->virtio, name, force, &why), &why, err) : NULL;
}

/* A CD is only read, whatever is asked for. */
static json_t *change_medium(struct vmm *vmm, json_t *args, struct error *err)
{
	const char *device = NULL, *id = NULL, *name, *file, *format = NULL, *mode = "retain";
	struct error why = ERROR_INIT;
	json_error_t wrong;
	int force = 0;

	if (json_unpack_ex(args, &wrong, JSON_STRICT, "{s?s, s?s, s:s, s?s, s?b, s?s}", "device", &device,
		    "id", &id, "filename", &file, "format", &format, "force", &force,
		    "read-only-mode", &mode) < 0)
		return error_set(err, EINVAL, "arguments: %s", wrong.text), NULL;
	name = one_name(device, id, "device and id", err);
	if (name && strcmp(mode, "retain") && strcmp(mode, "read-only"))
		return error_set(err, EINVAL, "read-only-mode: a CD is only read"), NULL;
	if (!name)
		return NULL;
	return result(virtio_board_change(vmm->virtio, name, file, format, force, &why), &why, err);
}

/* As after SIGUSR2: for images that were made larger. */
static json_t *block_measure_all(struct vmm *vmm, json_t *args, struct error *err)
{
	virtio_board_measure(vmm->virtio);
	return json_object();
}

/* ---- the table ------------------------------------------------------------------------------- */

static json_t *query_commands(struct vmm *vmm, json_t *args, struct error *err);

static const struct command {
	const char *name;
	bool arguments;		/* takes some */
	json_t *(*run)(struct vmm *vmm, json_t *args, struct error *err);
} commands[] = {
	{ "balloon", true, balloon },
	{ "block_resize", true, block_resize_disk },
	{ "blockdev-change-medium", true, change_medium },
	{ "cont", false, cont },
	{ "eject", true, eject },
	{ "inject-nmi", false, inject_nmi },
	{ "qmp_capabilities", true, qmp_capabilities },
	{ "query-balloon", false, query_balloon },
	{ "query-commands", false, query_commands },
	{ "query-cpus-fast", false, query_cpus },
	{ "query-kvm", false, query_kvm },
	{ "query-status", false, query_status },
	{ "query-version", false, query_version },
	{ "quit", false, quit },
	{ "screendump", true, screendump },
	{ "stop", false, stop },
	{ "system_powerdown", false, system_powerdown },
	{ "system_reset", false, system_reset },
	{ "x-qumra-measure-disks", false, block_measure_all },
};

static json_t *query_commands(struct vmm *vmm, json_t *args, struct error *err)
{
	json_t *all = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		json_array_append_new(all, json_pack("{s:s}", "name", commands[i].name));
	return all;
}

json_t *command_run(struct vmm *vmm, const char *name, json_t *arguments, struct error *err)
{
	json_t *reply;

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(commands[i].name, name) != 0)
			continue;
		if (!commands[i].arguments && json_object_size(arguments))
			return error_set(err, EINVAL, "%s takes no arguments", name), NULL;
		reply = commands[i].run(vmm, arguments, err);
		if (!reply)
			error_set(err, ENOMEM, "out of memory");
		return reply;
	}
	error_usage(err, "The command %s has not been found", name);
	return NULL;
}
