/* NUMA nodes: which CPUs and how much memory each has, and how far they are from one another. */
#ifndef QUMRA_VMM_MACHINE_NUMA_H
#define QUMRA_VMM_MACHINE_NUMA_H

#include "lib/error.h"
#include "vmm/cpus/topology.h"

#define NUMA_NODES_MAX	8
#define NUMA_LOCAL	10	/* ACPI 6.4, 5.2.17: a node's distance to itself */
#define NUMA_REMOTE	20

struct numa_node {
	u64 cpus;		/* a bit each */
	u64 memory;
	unsigned distances;	/* given; 0: as usual */
	u8 distance[NUMA_NODES_MAX];
};
_Static_assert(CPUS_MAX <= 64, "a bit each");

struct numa {
	unsigned nodes;		/* 0: the machine is one piece */
	struct numa_node node[NUMA_NODES_MAX];
};

/* Does every CPU, and all memory, belong to one node? A usage error says what does not. */
int numa_check(const struct numa *n, const struct cpu_topology *cpus, u64 memory, struct error *err);
u8 numa_distance(const struct numa *n, unsigned from, unsigned to);

#endif
