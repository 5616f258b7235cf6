/* The shape of the machine's CPUs: see topology.h. */
#include <string.h>

#include "lib/types.h"
#include "vmm/cpus/topology.h"

/* A number up to the next comma or the end; 0 when it is none, or above any limit of ours. */
static unsigned parse_number(const char **text)
{
	const char *p = *text;
	unsigned n = 0;

	for (; *p >= '0' && *p <= '9'; p++)
		n = MIN(n * 10 + (*p - '0'), 100000u);
	if (p == *text || (*p && *p != ','))
		return 0;
	*text = p;
	return n;
}

/* One ",name=number". False: it is not one. */
static bool parse_part(struct cpu_topology *t, const char **text)
{
	static const struct { const char *name; size_t offset; } parts[] = {
		{ ",sockets=", offsetof(struct cpu_topology, sockets) },
		{ ",cores=", offsetof(struct cpu_topology, cores) },
		{ ",threads=", offsetof(struct cpu_topology, threads) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		unsigned *n = (unsigned *)((char *)t + parts[i].offset);
		size_t len = strlen(parts[i].name);

		if (strncmp(*text, parts[i].name, len) != 0 || *n)
			continue;
		*text += len;
		*n = parse_number(text);
		return *n != 0;
	}
	return false;
}

/* Fills in what was left open. */
static void topology_complete(struct cpu_topology *t, unsigned cpus)
{
	if (!t->threads)
		t->threads = 1;
	if (!t->sockets)
		t->sockets = t->cores ? MAX(cpus / (t->cores * t->threads), 1u) : 1;
	if (!t->cores)
		t->cores = MAX(cpus / (t->sockets * t->threads), 1u);
}

int topology_parse(struct cpu_topology *t, const char *what, const char *text, struct error *err)
{
	const char *at = text;
	unsigned cpus = parse_number(&at);

	*t = (struct cpu_topology){ 0 };
	if (at == text)
		return error_usage(err, "%s: \"%s\" is not a number of CPUs", what, text);
	if (cpus < 1 || cpus > CPUS_MAX)
		return error_usage(err, "%s: \"%s\" is not possible; 1 to %d CPUs are", what, text,
			CPUS_MAX);
	while (*at)
		if (!parse_part(t, &at))
			return error_usage(err,
				"%s: \"%s\" is not understood; write N[,sockets=S][,cores=C]"
				"[,threads=T]",
				what, text);
	if (t->sockets > cpus || t->cores > cpus || t->threads > cpus)
		t->sockets = CPUS_MAX + 1;	/* wrong, whatever the others are */
	topology_complete(t, cpus);
	if (t->sockets > cpus || topology_cpus(t) != cpus)
		return error_usage(err, "%s: \"%s\" does not add up; sockets times cores times "
				   "threads must be %u", what, text, cpus);
	return 0;
}

unsigned topology_cpus(const struct cpu_topology *t)
{
	return t->sockets * t->cores * t->threads;
}

struct cpu_place topology_place(const struct cpu_topology *t, unsigned index)
{
	return (struct cpu_place){
		.thread = index % t->threads,
		.core = index / t->threads % t->cores,
		.socket = index / t->threads / t->cores,
	};
}

/* Bits that numbers below n need. */
static unsigned bits_for(unsigned n)
{
	unsigned bits = 0;

	while (1u << bits < n)
		bits++;
	return bits;
}

unsigned topology_thread_bits(const struct cpu_topology *t)
{
	return bits_for(t->threads);
}

unsigned topology_socket_shift(const struct cpu_topology *t)
{
	return bits_for(t->threads) + bits_for(t->cores);
}

unsigned topology_apic_id(const struct cpu_topology *t, unsigned index)
{
	struct cpu_place p = topology_place(t, index);

	return p.socket << topology_socket_shift(t) | p.core << topology_thread_bits(t) | p.thread;
}
