/* The CPU engines there are. */
#include "hypervisor/core/vm.h"

static const struct cpu_engine_ops *const engines[] = {
	&dbt_engine,
	&interp_engine,
};

static bool name_equal(const char *a, const char *b)
{
	for (; *a && *a == *b; a++, b++)
		;
	return *a == *b;
}

const struct cpu_engine_ops *engine_by_name(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(engines); i++)
		if (name_equal(engines[i]->name, name))
			return engines[i];
	return NULL;
}
