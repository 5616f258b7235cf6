/* `qumra run`: one virtual machine from options to exit status. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/config.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/run.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "vmm/kvm/stats.h"
#include "vmm/vmm.h"

static int run_choose(const struct run_options *o, struct accel_choice *choice, struct error *err)
{
	int ret = o->engine ? accel_set_engine(o->engine) : 0;

	if (ret == 0 && o->code_cache)
		ret = accel_set_code_cache(o->code_cache);
	if (ret < 0)
		return error_set(err, -ret, "cannot select the engine %s", o->engine);
	/* Naming an engine of the software hypervisor is choosing that hypervisor. */
	return accel_choose(o->engine ? ACCEL_SOFT : o->accel, choice, err);
}

static void stat_line(const char *key, u64 value)
{
	fprintf(stderr, "%s %" PRIu64 "\n", key, value);
}

/* Taken while the VM still exists, printed when the terminal is back. */
struct run_stats {
	u64 wall_us, first_run_us, max_rss_kib, guest_rss_kib;
	bool has_balloon;
	struct balloon_figures balloon;
	unsigned cpus;
	struct run_cpu_stats {
		u64 cpu_us;
		u64 exits[CPU_EXITS_MAX];
		struct kvm_stats hypervisor;	/* its own counters */
	} cpu[CPUS_MAX], all;
};

/* The most that was resident. Not getrusage()'s, which remembers the program that forked this one. */
static u64 peak_rss_kib(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[128];
	u64 kib = 0;

	while (f && fgets(line, sizeof(line), f) && sscanf(line, "VmHWM: %" SCNu64, &kib) != 1)
		;
	if (f)
		fclose(f);
	return kib;
}

static void run_stats_take(struct run_stats *s, const struct vmm *vmm, u64 start_ns)
{
	*s = (struct run_stats){
		.wall_us = (clock_monotonic_ns() - start_ns) / 1000,
		.max_rss_kib = peak_rss_kib(),
		.guest_rss_kib = guest_memory_resident(&vmm->memory) >> 10,
	};
	if (vmm->cpu[0].first_run_ns)
		s->first_run_us = (vmm->cpu[0].first_run_ns - start_ns) / 1000;
	s->has_balloon = virtio_board_balloon(vmm->virtio, &s->balloon);
	s->cpus = vmm->cpus;
	for (unsigned i = 0; i < vmm->cpus; i++) {
		s->cpu[i].cpu_us = vmm->cpu[i].cpu_ns / 1000;
		s->all.cpu_us += s->cpu[i].cpu_us;
		for (unsigned e = 0; e < CPU_EXITS_MAX; e++) {
			s->cpu[i].exits[e] = vmm->cpu[i].exits[e];
			s->all.exits[e] += s->cpu[i].exits[e];
		}
		kvm_stats_read(&vmm->kvm, vmm->cpu[i].fd, &s->cpu[i].hypervisor);
		kvm_stats_add(&s->all.hypervisor, &s->cpu[i].hypervisor);
	}
}

/* prefix: empty for all CPUs together, or such as "cpu0_". */
static void run_cpu_stats_print(const struct run_cpu_stats *s, const char *prefix)
{
	fprintf(stderr, "%scpu_us %" PRIu64 "\n", prefix, s->cpu_us);
	for (unsigned e = 0; e < CPU_EXITS_MAX; e++) {
		const char *name = guest_cpu_exit_name(e);

		if (!s->exits[e])
			continue;
		if (name)
			fprintf(stderr, "%sexits_%s %" PRIu64 "\n", prefix, name, s->exits[e]);
		else
			fprintf(stderr, "%sexits_%u %" PRIu64 "\n", prefix, e, s->exits[e]);
	}
	for (unsigned i = 0; i < s->hypervisor.n; i++)
		fprintf(stderr, "%s%s %" PRIu64 "\n", prefix, s->hypervisor.stat[i].name,
			s->hypervisor.stat[i].value);
}

static void run_stats_free(struct run_stats *s)
{
	for (unsigned i = 0; i < s->cpus; i++)
		kvm_stats_free(&s->cpu[i].hypervisor);
	kvm_stats_free(&s->all.hypervisor);
}

static void run_balloon_print(const struct balloon_figures *f)
{
	stat_line("balloon_taken_kib", f->taken >> 10);
	stat_line("balloon_reported_kib", f->reported >> 10);
	for (unsigned i = 0; i < BALLOON_STATS; i++)
		if (f->stat[i] != BALLOON_UNKNOWN)
			fprintf(stderr, "balloon_guest_%s %" PRIu64 "\n", virtio_balloon_stat_name(i),
				f->stat[i]);
}

static void run_stats_print(const struct run_stats *s)
{
	stat_line("wall_us", s->wall_us);
	stat_line("start_to_first_run_us", s->first_run_us);
	stat_line("max_rss_kib", s->max_rss_kib);
	stat_line("guest_rss_kib", s->guest_rss_kib);
	if (s->has_balloon)
		run_balloon_print(&s->balloon);
	run_cpu_stats_print(&s->all, "");
	for (unsigned i = 0; i < s->cpus && s->cpus > 1; i++) {
		char prefix[16];

		snprintf(prefix, sizeof(prefix), "cpu%u_", i);
		run_cpu_stats_print(&s->cpu[i], prefix);
	}
}

static int run_status(const struct vmm_outcome *out, int *signal)
{
	switch (out->end) {
	case VMM_POWERED_OFF:
	case VMM_REBOOTED:
	case VMM_QUIT:
		return STATUS_OK;
	case VMM_CRASHED:
		return STATUS_CRASHED;
	case VMM_EXITED:
		return out->status;
	case VMM_SIGNAL:
		*signal = out->status;
		return STATUS_FAILURE;
	case VMM_FAILED:
		break;
	}
	return STATUS_FAILURE;
}

static int run_vm(const struct run_options *o, const struct accel_choice *choice, u64 start_ns,
	int *signal, struct error *err)
{
	const struct vmm_config config = {
		.backend = choice->backend,
		.firmware = o->firmware,
		.firmware_vars = o->firmware_vars,
		.firmware_log = o->firmware_log,
		.kernel = o->kernel,
		.initrd = o->initrd,
		.cmdline = o->append,
		.serial = o->serial,
		.memory = o->memory,
		.backing = &o->backing,
		.machine = o->machine,
		.topology = o->cpus,
		.no_reboot = o->no_reboot,
		.debug_exit = o->debug_exit,
		.virtio = o->virtio,
		.screen = o->screen,
		.control = o->control,
	};
	struct vmm *vmm = calloc(1, sizeof(*vmm));
	struct vmm_outcome outcome = { 0 };
	struct run_stats stats = { 0 };
	bool gone = true;
	int ret;

	if (!vmm) {
		error_set(err, ENOMEM, "out of memory");
		return STATUS_FAILURE;
	}
	ret = vmm_create(vmm, &config, err);
	if (ret == 0) {
		/* Only now: what fails before says one line, the reason. */
		log_line("accelerator %s (%s: %s)", choice->backend->name,
			 accel_reason_name(choice->reason), choice->detail);
		ret = vmm_run(vmm, err);
		outcome = vmm->outcome;
		if (o->stats)
			run_stats_take(&stats, vmm, start_ns);
		gone = vmm_destroy(vmm);
	}
	if (gone)
		free(vmm);
	if (ret >= 0 && outcome.text[0])
		log_line("%s", outcome.text);
	if (ret >= 0 && o->stats)
		run_stats_print(&stats);
	run_stats_free(&stats);
	if (ret < 0)
		return err->kind == ERROR_USAGE ? STATUS_USAGE : STATUS_FAILURE;
	return run_status(&outcome, signal);
}

int run_command(
	int argc, char *const argv[], unsigned long long start_ns, int *signal, struct error *err)
{
	struct run_options o;
	struct accel_choice choice;
	int status;

	if (run_options_parse(&o, argc, argv, err) < 0) {
		status = STATUS_USAGE;
	} else if (o.help) {
		help_run(stdout);
		status = STATUS_OK;
	} else if (run_choose(&o, &choice, err) < 0) {
		status = STATUS_FAILURE;
	} else if (o.dry_run) {
		status = config_print(&o, &choice, err) < 0 ? STATUS_USAGE : STATUS_OK;
	} else {
		status = run_vm(&o, &choice, start_ns, signal, err);
	}
	run_options_free(&o);
	return status;
}
