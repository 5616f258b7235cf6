/* See still.h. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/boot/still.h"

#define COMMANDS 3

struct still {
	struct vmm vmm;
	void (*fn)(struct vmm *vmm);
};

static void stand(struct still *s)
{
	struct vmm *vmm = &s->vmm;

	pthread_mutex_lock(&vmm->lock);
	cpu_control_pause(&vmm->control, vmm->cpu, vmm->cpus);
	cpu_control_wait_parked(&vmm->control, vmm->cpus);
	s->fn(vmm);
	cpu_control_resume(&vmm->control);
	pthread_mutex_unlock(&vmm->lock);
}

static void *commands(void *arg)
{
	char byte;

	while (read(COMMANDS, &byte, 1) == 1 && byte != 'q')
		stand(arg);
	return NULL;
}

static int run(struct still *s, const struct vmm_config *config, struct error *err)
{
	pthread_t thread;
	int ret = vmm_create(&s->vmm, config, err);

	if (ret < 0)
		return ret;
	if (pthread_create(&thread, NULL, commands, s))
		return -1;
	ret = vmm_run(&s->vmm, err);
	pthread_join(thread, NULL);
	vmm_destroy(&s->vmm);
	return ret < 0 || s->vmm.outcome.end != VMM_POWERED_OFF ? -1 : 0;
}

int still_run(const char *name, const struct vmm_config *config, void (*still)(struct vmm *vmm))
{
	struct still *s = calloc(1, sizeof(*s));
	struct error err = ERROR_INIT;
	int ret;

	if (!s)
		return 2;
	s->fn = still;
	ret = run(s, config, &err);
	if (ret < 0)
		fprintf(stderr, "%s: %s\n", name, err.text);
	free(s);
	return ret < 0;
}

void still_reload(const struct device *dev)
{
	static u8 state[DEVICE_STATE_MAX + 4096];
	long n = device_save(dev, state, sizeof(state));

	if (n < 0 || device_load(dev, state, n) != n)
		abort();
}
