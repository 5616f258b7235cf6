/* NUMA nodes and what ACPI says of them: SRAT and SLIT (ACPI 6.4, 5.2.16 and 5.2.17). */
#include <errno.h>

#include "lib/size.h"
#include "vmm/machine/acpi_tables.h"
#include "vmm/machine/numa.h"
#include "vmm/memory/guest_memory.h"

int numa_check(const struct numa *n, const struct cpu_topology *cpus, u64 memory, struct error *err)
{
	u64 all = MASK(topology_cpus(cpus) - 1, 0), seen = 0, sum = 0;
	char have[SIZE_TEXT_MAX], want[SIZE_TEXT_MAX];

	if (!n->nodes)
		return 0;
	for (unsigned i = 0; i < n->nodes; i++) {
		const struct numa_node *node = &n->node[i];

		if (node->cpus & seen)
			return error_usage(err, "--numa: CPU %d is in two nodes",
				__builtin_ctzll(node->cpus & seen));
		if (node->cpus & ~all)
			return error_usage(err, "--numa: there is no CPU %d",
				__builtin_ctzll(node->cpus & ~all));
		if (node->distances && node->distances != n->nodes)
			return error_usage(err, "--numa: node %u has %u distances; there are %u nodes", i,
				node->distances, n->nodes);
		if (node->distances && node->distance[i] != NUMA_LOCAL)
			return error_usage(err, "--numa: node %u: the distance to itself is %d", i,
				NUMA_LOCAL);
		seen |= node->cpus;
		sum += node->memory;
	}
	if (seen != all)
		return error_usage(err, "--numa: CPU %d is in no node", __builtin_ctzll(all & ~seen));
	if (sum != memory)
		return error_usage(err, "--numa: the nodes have %s together, the machine %s",
			size_format(sum, have), size_format(memory, want));
	return 0;
}

u8 numa_distance(const struct numa *n, unsigned from, unsigned to)
{
	if (n->node[from].distances)
		return n->node[from].distance[to];
	return from == to ? NUMA_LOCAL : NUMA_REMOTE;
}

struct acpi_srat {
	struct acpi_header h;
	u32 one;
	u64 reserved;
} PACKED;
struct srat_cpu {
	u8 type, length, node, apic_id;
	u32 flags;
	u8 eid, node_high[3];
	u32 clock;
} PACKED;
struct srat_memory {
	u8 type, length;
	u32 node;
	u16 reserved;
	u64 base, size;
	u32 reserved2, flags;
	u64 reserved3;
} PACKED;
struct acpi_slit {
	struct acpi_header h;
	u64 nodes;
	u8 distance[];
} PACKED;
_Static_assert(sizeof(struct acpi_srat) == 48 && sizeof(struct srat_cpu) == 16 &&
		       sizeof(struct srat_memory) == 40 && sizeof(struct acpi_slit) == 44,
	"ACPI 6.4, 5.2.16 and 5.2.17");

#define SRAT_ENABLED	BIT(0)

static int add_cpu(struct acpi_tables *t, unsigned node, u8 apic_id)
{
	struct srat_cpu *c = table_alloc(t, sizeof(*c), 1);

	if (!c)
		return -ENOMEM;
	*c = (struct srat_cpu){ .type = 0, .length = sizeof(*c), .node = node, .apic_id = apic_id,
				.flags = SRAT_ENABLED };
	return 0;
}

static int add_memory(struct acpi_tables *t, unsigned node, u64 base, u64 size)
{
	struct srat_memory *m = size ? table_alloc(t, sizeof(*m), 1) : NULL;

	if (!m)
		return size ? -ENOMEM : 0;
	*m = (struct srat_memory){ .type = 1, .length = sizeof(*m), .node = node, .base = base,
				   .size = size, .flags = SRAT_ENABLED };
	return 0;
}

/* Nodes follow one another in RAM; one may have a part on either side of the devices. */
static int add_node(struct acpi_tables *t, const struct acpi_config *c, unsigned i, u64 start)
{
	const struct numa_node *node = &c->options->numa.node[i];
	u64 end = start + node->memory, low = MIN(end, c->ram_low), high = MAX(start, c->ram_low);
	int ret = 0;

	for (unsigned cpu = 0; cpu < topology_cpus(c->cpus) && ret == 0; cpu++)
		if (node->cpus >> cpu & 1)
			ret = add_cpu(t, i, topology_apic_id(c->cpus, cpu));
	if (ret == 0 && low > start)
		ret = add_memory(t, i, start, low - start);
	if (ret == 0 && end > high)
		ret = add_memory(t, i, GUEST_HOLE_END + (high - c->ram_low), end - high);
	return ret;
}

static int write_srat(struct acpi_tables *t, const struct acpi_config *c)
{
	struct acpi_srat *s = table_alloc(t, sizeof(*s), 16);
	u64 start = 0;

	if (!s)
		return -ENOMEM;
	s->one = 1;
	for (unsigned i = 0; i < c->options->numa.nodes; i++) {
		if (add_node(t, c, i, start) < 0)
			return -ENOMEM;
		start += c->options->numa.node[i].memory;
	}
	table_finish(t, &s->h, "SRAT", 3, t->base + t->used - (u8 *)s);
	table_list(t, s);
	return 0;
}

int acpi_write_numa(struct acpi_tables *t, const struct acpi_config *c)
{
	const struct numa *n = &c->options->numa;
	u32 size = sizeof(struct acpi_slit) + n->nodes * n->nodes;
	struct acpi_slit *s;

	if (write_srat(t, c) < 0)
		return -ENOMEM;
	s = table_alloc(t, size, 16);
	if (!s)
		return -ENOMEM;
	s->nodes = n->nodes;
	for (unsigned i = 0; i < n->nodes * n->nodes; i++)
		s->distance[i] = numa_distance(n, i / n->nodes, i % n->nodes);
	table_finish(t, &s->h, "SLIT", 1, size);
	table_list(t, s);
	return 0;
}
