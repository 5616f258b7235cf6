/*
 * Runs a test guest (tests/guest/lib) with just the devices it needs: COM1's transmitter, the exit
 * port, and a port of ours by which it asks for more attackers: another vCPU, a slot that comes and
 * goes, a device that writes into its memory.
 */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/api/qkvm.h"
#include "tests/hostile/guests/host.h"
#include "tests/hostile/hostile.h"

#define GUEST_RAM	(32UL << 20)
#define COM1		0x3f8
#define PORT_EXIT	0xf4
#define NOTE_PHYS32	18		/* XEN_ELFNOTE_PHYS32_ENTRY */
#define PASSED		33
#define CR0_BEGIN	(BIT(0) | BIT(4))	/* PE, ET */

static u64 deadline;

/* ---- loading ------------------------------------------------------------------------------- */

static u8 *file_read(const char *path, size_t *size)
{
	FILE *f = fopen(path, "rb");
	u8 *p = malloc(GUEST_RAM);

	if (!f || !p)
		fail("%s: %s", path, strerror(errno));
	*size = fread(p, 1, GUEST_RAM, f);
	fclose(f);
	return p;
}

static void segment_load(struct machine *m, const u8 *file, size_t size, u64 offset, u64 pa,
	u64 filesz)
{
	if (offset > size || filesz > size - offset || pa > GUEST_RAM || filesz > GUEST_RAM - pa)
		fail("the guest does not fit");
	memcpy(m->ram + pa, file + offset, filesz);
}

static u32 note_entry(const u8 *p, u64 size)
{
	const Elf32_Nhdr *n = (const void *)p;
	u32 entry;

	if (size < sizeof(*n) + 8 || n->n_type != NOTE_PHYS32)
		fail("the guest has no entry");
	memcpy(&entry, p + sizeof(*n) + ALIGN_UP(n->n_namesz, 4u), 4);
	return entry;
}

static u32 load64(struct machine *m, const u8 *file, size_t size)
{
	const Elf64_Ehdr *h = (const void *)file;
	const Elf64_Phdr *p = (const void *)(file + h->e_phoff);
	u32 entry = 0;

	for (int k = 0; k < h->e_phnum; k++) {
		if (p[k].p_type == PT_LOAD)
			segment_load(m, file, size, p[k].p_offset, p[k].p_paddr, p[k].p_filesz);
		if (p[k].p_type == PT_NOTE)
			entry = note_entry(file + p[k].p_offset, p[k].p_filesz);
	}
	return entry;
}

static u32 load32(struct machine *m, const u8 *file, size_t size)
{
	const Elf32_Ehdr *h = (const void *)file;
	const Elf32_Phdr *p = (const void *)(file + h->e_phoff);
	u32 entry = 0;

	for (int k = 0; k < h->e_phnum; k++) {
		if (p[k].p_type == PT_LOAD)
			segment_load(m, file, size, p[k].p_offset, p[k].p_paddr, p[k].p_filesz);
		if (p[k].p_type == PT_NOTE)
			entry = note_entry(file + p[k].p_offset, p[k].p_filesz);
	}
	return entry;
}

static u32 guest_load(struct machine *m, const char *path)
{
	size_t size;
	u8 *file = file_read(path, &size);
	u32 entry;

	if (size < sizeof(Elf64_Ehdr) || memcmp(file, ELFMAG, SELFMAG))
		fail("%s is no ELF file", path);
	entry = file[EI_CLASS] == ELFCLASS64 ? load64(m, file, size) : load32(m, file, size);
	free(file);
	return entry;
}

/* PVH: 32-bit protected mode, flat segments, no paging. */
static void cpu_start_pvh(struct hvcpu *c, u32 entry)
{
	struct kvm_segment flat = { .limit = 0xffffffff, .selector = 0x10, .type = 3, .present = 1,
		.db = 1, .s = 1, .g = 1 };
	struct kvm_regs r = { .rip = entry, .rflags = 2, .rbx = 0x1000 };
	struct kvm_sregs s;

	kvm_must(kvm_call(c->fd, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
	s.ds = s.es = s.ss = s.fs = s.gs = s.cs = flat;
	s.cs.type = 11;
	s.cs.selector = 8;
	s.cr0 = CR0_BEGIN;
	kvm_must(kvm_call(c->fd, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
	kvm_must(kvm_call(c->fd, KVM_SET_REGS, &r), "KVM_SET_REGS");
}

/* ---- what the guest asks for --------------------------------------------------------------- */

static void *cpu_thread(void *arg);

/* The next vCPU begins in the caller's mode and tables, at RBX with its stack at RCX. */
static void start_cpu(struct hvcpu *c, const struct kvm_regs *r)
{
	struct machine *m = c->m;
	struct hvcpu *next;
	struct kvm_regs regs = { .rip = r->rbx, .rsp = r->rcx, .rdi = r->rsi, .rflags = 2 };
	struct kvm_sregs s;
	unsigned int n;

	for (n = 0; n < m->n_cpus && m->cpu[n].started; n++)
		;
	if (n == m->n_cpus)
		return;
	next = &m->cpu[n];
	kvm_must(kvm_call(c->fd, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
	s.apic_base = 0xfee00800;
	memset(s.interrupt_bitmap, 0, sizeof(s.interrupt_bitmap));
	kvm_must(kvm_call(next->fd, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
	kvm_must(kvm_call(next->fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	next->started = true;
	if (pthread_create(&next->thread, NULL, cpu_thread, next))
		fail("pthread_create");
}

/* Random bytes into the guest's memory, as a device would. */
static void *dma_thread(void *arg)
{
	struct machine *m = arg;
	struct random r = { current_seed + 77 };

	while (m->dma) {
		u8 *p = m->ram + m->dma_gpa + rnd(&r) % m->dma_size;

		*(volatile u8 *)p = (u8)rnd(&r);
	}
	return NULL;
}

static void helpers_stop(struct machine *m)
{
	m->churn = m->dma = false;
	if (m->churning)
		pthread_join(m->churn_thread, NULL);
	if (m->dmaing)
		pthread_join(m->dma_thread, NULL);
	m->churning = m->dmaing = false;
}

static void churn_start(struct machine *m)
{
	m->churn = m->churning = true;
	if (pthread_create(&m->churn_thread, NULL, slot_churn, m))
		fail("pthread_create");
}

static void dma_start(struct machine *m, u64 gpa, u64 size)
{
	if (!size || gpa >= m->ram_size || size > m->ram_size - gpa)
		fail("the guest asks for writes outside of its memory");
	m->dma_gpa = gpa;
	m->dma_size = size;
	m->dma = m->dmaing = true;
	if (pthread_create(&m->dma_thread, NULL, dma_thread, m))
		fail("pthread_create");
}

static void host_command(struct hvcpu *c, u32 command)
{
	struct machine *m = c->m;
	struct kvm_regs r;

	kvm_must(kvm_call(c->fd, KVM_GET_REGS, &r), "KVM_GET_REGS");
	pthread_mutex_lock(&m->lock);
	switch (command) {
	case HOST_START_CPU:
		start_cpu(c, &r);
		break;
	case HOST_SLOT_DELETE:
		slot_set(m, SLOT_SPARE, SPARE_GPA, 0, NULL, 0);
		break;
	case HOST_SLOT_CREATE:
		slot_set(m, SLOT_SPARE, SPARE_GPA, SPARE_SIZE, m->spare[r.rbx & 1], 0);
		break;
	case HOST_CHURN:
		churn_start(m);
		break;
	case HOST_DMA:
		dma_start(m, r.rbx, r.rcx);
		break;
	case HOST_QUIET:
		helpers_stop(m);
		break;
	case HOST_CHECK:
		canary_check();
		break;
	}
	pthread_mutex_unlock(&m->lock);
}

/* ---- exits --------------------------------------------------------------------------------- */

static u32 port_read(struct hvcpu *c, u16 port)
{
	switch (port) {
	case COM1 + 5:
		return 0x60;		/* the transmitter is empty */
	case HOST_PORT:
		return now_ms() >= deadline;
	case HOST_PORT + 4:
		return (u32)options.seed;
	case HOST_PORT + 8:		/* what a host address looks like, in two halves */
		return (u32)(u64)c->m->ram;
	case HOST_PORT + 12:
		return (u32)((u64)c->m->ram >> 32);
	default:
		return 0xffffffff;
	}
}

static void port_write(struct hvcpu *c, u16 port, u32 val)
{
	switch (port) {
	case COM1:
		putchar((int)(val & 0xff));
		break;
	case PORT_EXIT:
		c->m->status = (int)((val & 0x7f) << 1 | 1);
		break;
	case HOST_PORT:
		host_command(c, val);
		break;
	}
}

static void exit_io(struct hvcpu *c)
{
	const struct kvm_run *run = c->run;
	u8 *p = (u8 *)run + run->io.data_offset;
	u32 val = 0;
	unsigned int n;

	for (n = 0; n < run->io.count; n++, p += run->io.size) {
		memcpy(&val, p, run->io.size);
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			port_write(c, run->io.port, val);
			continue;
		}
		val = port_read(c, run->io.port);
		memcpy(p, &val, run->io.size);
	}
}

static void exit_handle(struct hvcpu *c)
{
	switch (c->run->exit_reason) {
	case KVM_EXIT_IO:
		exit_io(c);
		return;
	case KVM_EXIT_MMIO:
		if (!c->run->mmio.is_write)
			memset(c->run->mmio.data, 0xff, 8);
		return;
	case KVM_EXIT_SHUTDOWN:
		c->m->status = 3;
		return;
	case KVM_EXIT_INTERNAL_ERROR:
		/* Code in a device, say: the guest hurt itself. */
		c->m->status = 4;
		return;
	case KVM_EXIT_INTR:
	case KVM_EXIT_HLT:
		return;
	default:
		fail("exit %u", c->run->exit_reason);
	}
}

static void cpu_loop(struct hvcpu *c)
{
	while (c->m->status < 0) {
		if (cpu_run(c) == 0)
			exit_handle(c);
		if (options.endless && now_ms() > deadline)
			c->m->status = PASSED;
		if (now_ms() > deadline + 60000)
			fail("the guest does not end");
	}
}

static void *cpu_thread(void *arg)
{
	struct hvcpu *c = arg;

	current_seed = options.seed;
	cpu_loop(c);
	return NULL;
}

int guest_run(const char *path, unsigned int cpus)
{
	struct machine m;
	unsigned int n;

	deadline = now_ms() + options.seconds * 1000;
	machine_new(&m, GUEST_RAM, cpus, true);
	cpu_start_pvh(&m.cpu[0], guest_load(&m, path));
	m.cpu[0].started = true;
	ticks_start(1000);
	cpu_loop(&m.cpu[0]);
	for (n = 1; n < cpus; n++)
		if (m.cpu[n].started)
			pthread_join(m.cpu[n].thread, NULL);
	helpers_stop(&m);
	fflush(stdout);
	canary_check();
	canary_search(m.ram, m.ram_size);
	maps_check();
	machine_free(&m);
	return m.status == PASSED ? 0 : m.status == PASSED + 2 ? 1 : m.status;
}
