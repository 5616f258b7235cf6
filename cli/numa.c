/* --numa cpus=A[-B],memory=SIZE[,distances=D:D…]: one node each. See machine.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/machine.h"
#include "cli/suboptions.h"
#include "lib/size.h"

static bool number(const char **text, unsigned max, unsigned *n)
{
	char *end;
	unsigned long v = strtoul(*text, &end, 10);

	if (end == *text || **text < '0' || **text > '9' || v > max)
		return false;
	*text = end;
	*n = v;
	return true;
}

static int numa_cpus(void *out, const char *value, struct error *err)
{
	struct numa_node *node = out;
	const char *at = value;
	unsigned first, last;
	bool good = number(&at, CPUS_MAX - 1, &first);

	last = first;
	if (good && *at == '-') {
		at++;
		good = number(&at, CPUS_MAX - 1, &last);
	}
	if (!good || *at || last < first)
		return error_usage(err, "--numa: cpus: \"%s\" is not like 0-3, 0 to %d", value,
			CPUS_MAX - 1);
	node->cpus |= MASK(last, first);
	return 0;
}

static int numa_memory(void *out, const char *value, struct error *err)
{
	struct numa_node *node = out;

	if (size_parse(value, &node->memory) < 0 || node->memory & 4095 || node->memory >> 50)
		return error_usage(err, "--numa: memory: \"%s\" is not a size in whole pages", value);
	return 0;
}

static int numa_distances(void *out, const char *value, struct error *err)
{
	struct numa_node *node = out;
	const char *at = value;
	unsigned d;

	node->distances = 0;
	for (;; at++) {
		/* ACPI 6.4 table 5.62: below 10 is reserved, 255 is unreachable. */
		if (!number(&at, 255, &d) || d < NUMA_LOCAL || node->distances == NUMA_NODES_MAX)
			return error_usage(err, "--numa: distances: \"%s\" is not like 10:20, one for "
				"each node", value);
		node->distance[node->distances++] = d;
		if (*at != ':')
			break;
	}
	return *at ? error_usage(err, "--numa: distances: \"%s\" is not like 10:20", value) : 0;
}

static const struct suboption numa_suboptions[] = {
	{ "cpus", SUB_CALL, 0, NULL, numa_cpus, 0, 0 },
	{ "memory", SUB_CALL, 0, NULL, numa_memory, 0, 0 },
	{ "distances", SUB_CALL, 0, NULL, numa_distances, 0, 0 },
};

int numa_parse(struct run_options *o, const char *value, struct error *err)
{
	struct numa *n = &o->machine.numa;
	char *text;
	int ret;

	if (n->nodes == NUMA_NODES_MAX)
		return error_usage(err, "--numa: there are more than %d nodes", NUMA_NODES_MAX);
	text = strdup(value);
	if (!text)
		return error_set(err, ENOMEM, "out of memory");
	ret = suboptions_parse("--numa", text, numa_suboptions, ARRAY_SIZE(numa_suboptions),
		&n->node[n->nodes++], err);
	free(text);
	return ret;
}
