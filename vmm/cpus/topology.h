/*
 * The shape of the machine's CPUs: sockets, cores in each, threads in each core. A CPU's APIC id
 * has a field of bits for each of the three, thread lowest, so ids have gaps where a number is no
 * power of two. SDM 3A 8.9.1
 */
#ifndef QUMRA_VMM_CPUS_TOPOLOGY_H
#define QUMRA_VMM_CPUS_TOPOLOGY_H

#include "lib/error.h"

/* What APIC ids of 8 bits can tell apart in any shape, and what the hypervisor takes. */
#define CPUS_MAX 64

struct cpu_topology {
	unsigned sockets, cores, threads;	/* none is zero; the product is at most CPUS_MAX */
};

/* Where one CPU is. */
struct cpu_place {
	unsigned socket, core, thread;		/* core in its socket, thread in its core */
};

/*
 * Takes N[,sockets=S][,cores=C][,threads=T]. What is not given: one thread a core, one socket. A
 * usage error is one line that begins with what, the option's name.
 */
int topology_parse(struct cpu_topology *t, const char *what, const char *text, struct error *err);

unsigned topology_cpus(const struct cpu_topology *t);
struct cpu_place topology_place(const struct cpu_topology *t, unsigned index);
unsigned topology_apic_id(const struct cpu_topology *t, unsigned index);
/* Bits of an APIC id below the core's field, and below the socket's. */
unsigned topology_thread_bits(const struct cpu_topology *t);
unsigned topology_socket_shift(const struct cpu_topology *t);

#endif
