/*
 * The fuzzer. A round is one machine's memory (image.c) and, on each vCPU, some entries into it
 * with hostile registers; with more than one vCPU they share the memory, and a device writes random
 * bytes into the code and a slot comes and goes meanwhile. What must hold is in hostile.h: the
 * canaries, the thread's own state, and a way out.
 */
#include <errno.h>
#include <string.h>

#include "hypervisor/api/qkvm.h"
#include "tests/hostile/image.h"

#define ENTRIES		24		/* of each vCPU in a round */
#define EXITS_MAX	40		/* of one entry */
#define TICK_US		250
#define ROUNDS_PER_VM	16

struct seat {
	struct hvcpu *c;
	struct random r;
	struct image image;
	u64 seed;
};

static u64 exits_seen[64], entries_made;

static void set_xcr0(struct hvcpu *c)
{
	/* With AVX-512, with AVX, without. */
	static const u64 tried[] = { 0xe7, 7, 3 };
	struct kvm_xcrs x = { .nr_xcrs = 1 };

	for (size_t k = 0; k < ARRAY_SIZE(tried); k++) {
		x.xcrs[0].value = tried[k];
		if (!kvm_call(c->fd, KVM_SET_XCRS, &x))
			return;
	}
}

static void set_debug(struct seat *s)
{
	struct kvm_guest_debug d;

	memset(&d, 0, sizeof(d));
	if (chance(&s->r, 5))
		d.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
	else if (chance(&s->r, 5))
		d.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
	d.arch.debugreg[0] = CODE_AT + below(&s->r, CODE_SIZE);
	d.arch.debugreg[1] = DATA_AT + below(&s->r, DATA_SIZE);
	d.arch.debugreg[7] = 0x400 | 0xa | 3 << 20;
	kvm_must(kvm_call(s->c->fd, KVM_SET_GUEST_DEBUG, &d), "KVM_SET_GUEST_DEBUG");
}

static void set_state(struct seat *s, bool whole)
{
	struct kvm_vcpu_events e;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct kvm_fpu fpu;

	if (whole) {
		memset(&e, 0, sizeof(e));
		kvm_must(kvm_call(s->c->fd, KVM_SET_VCPU_EVENTS, &e), "KVM_SET_VCPU_EVENTS");
		kvm_must(kvm_call(s->c->fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
		image_sregs(&s->image, &sregs);
		kvm_must(kvm_call(s->c->fd, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
		set_debug(s);
	}
	image_regs(&s->image, &regs);
	kvm_must(kvm_call(s->c->fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	if (chance(&s->r, 40)) {
		image_fpu(&s->image, &fpu);
		kvm_must(kvm_call(s->c->fd, KVM_SET_FPU, &fpu), "KVM_SET_FPU");
	}
}

/* Did the guest get hold of host memory? */
static void check_registers(struct seat *s)
{
	struct kvm_regs regs;
	struct kvm_fpu fpu;
	const u64 *r = (const u64 *)&regs;
	unsigned int k;

	kvm_must(kvm_call(s->c->fd, KVM_GET_REGS, &regs), "KVM_GET_REGS");
	for (k = 0; k < 16; k++)
		if (canary_value(r[k]))
			fail("a register holds a canary: host memory was read");
	kvm_must(kvm_call(s->c->fd, KVM_GET_FPU, &fpu), "KVM_GET_FPU");
	canary_search(&fpu, sizeof(fpu));
}

/* True: the guest can go on. */
static bool answer(struct seat *s)
{
	struct kvm_run *run = s->c->run;

	if (run->exit_reason < ARRAY_SIZE(exits_seen))
		__atomic_fetch_add(&exits_seen[run->exit_reason], 1, __ATOMIC_RELAXED);
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		return true;
	case KVM_EXIT_MMIO:
		if (!run->mmio.is_write)
			memset(run->mmio.data, (int)rnd(&s->r), 8);
		return true;
	case KVM_EXIT_DEBUG:
		return true;
	case KVM_EXIT_HLT:
	case KVM_EXIT_SHUTDOWN:
	case KVM_EXIT_INTERNAL_ERROR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return false;
	default:
		fail("exit %u", run->exit_reason);
	}
}

static void inject(struct seat *s)
{
	struct kvm_interrupt irq = { .irq = below(&s->r, 256) };

	kvm_call(s->c->fd, chance(&s->r, 50) ? KVM_NMI : KVM_INTERRUPT, &irq);
}

static void entry(struct seat *s, bool whole)
{
	unsigned int n;

	set_state(s, whole);
	__atomic_fetch_add(&entries_made, 1, __ATOMIC_RELAXED);
	for (n = 0; n < EXITS_MAX; n++) {
		if (chance(&s->r, 3))
			inject(s);
		if (cpu_run(s->c) || !answer(s))
			break;
	}
	check_registers(s);
}

static void *seat_round(void *arg)
{
	struct seat *s = arg;
	unsigned int n;

	current_seed = s->seed;
	for (n = 0; n < ENTRIES; n++)
		entry(s, n == 0 || chance(&s->r, 40));
	return NULL;
}

/* ---- the other attackers ------------------------------------------------------------------- */

static void *dma(void *arg)
{
	struct machine *m = arg;
	struct random r = { m->dma_seed };

	while (m->dma) {
		u32 at = chance(&r, 80) ? CODE_AT + below(&r, CODE_SIZE) : below(&r, IMAGE_RAM);
		/* Not the tables all the time: nothing would run. */
		*(volatile u8 *)(m->ram + at) = (u8)rnd(&r);
		for (volatile unsigned int k = 0; k < 400; k++)
			;
	}
	return NULL;
}

static void helpers_start(struct machine *m, struct random *r)
{
	m->dma = m->dmaing = chance(r, 60);
	m->dma_seed = rnd(r);
	m->churn = m->churning = chance(r, 15);
	if (m->dmaing && pthread_create(&m->dma_thread, NULL, dma, m))
		fail("pthread_create");
	if (m->churning && pthread_create(&m->churn_thread, NULL, slot_churn, m))
		fail("pthread_create");
}

static void helpers_stop(struct machine *m)
{
	m->dma = m->churn = false;
	if (m->dmaing)
		pthread_join(m->dma_thread, NULL);
	if (m->churning)
		pthread_join(m->churn_thread, NULL);
}

/* ---- rounds -------------------------------------------------------------------------------- */

static void fill_data(struct machine *m, struct random *r)
{
	u64 *p = (u64 *)(m->ram + DATA_AT);
	unsigned int k;

	for (k = 0; k < DATA_SIZE / 8; k++)
		p[k] = chance(r, 60) ? rnd(r) : CODE_AT + below(r, CODE_SIZE);
}

static enum mode random_mode(struct random *r)
{
	return chance(r, 60) ? LONG64 : below(r, NR_MODES);
}

static void round_run(struct machine *m, u64 seed)
{
	struct random r = { seed };
	struct seat seats[VCPUS_MAX];
	unsigned int n;

	current_seed = seed;
	memset(seats, 0, sizeof(seats));
	seats[0].image = (struct image) { .ram = m->ram, .r = &r, .mode = random_mode(&r) };
	fill_data(m, &r);
	image_make(&seats[0].image);
	for (n = 0; n < m->n_cpus; n++) {
		seats[n].c = &m->cpu[n];
		seats[n].r.s = rnd(&r);
		seats[n].seed = seed;
		seats[n].image = seats[0].image;
		seats[n].image.r = &seats[n].r;
	}
	if (m->n_cpus > 1)
		helpers_start(m, &r);
	for (n = 1; n < m->n_cpus; n++)
		if (pthread_create(&m->cpu[n].thread, NULL, seat_round, &seats[n]))
			fail("pthread_create");
	seat_round(&seats[0]);
	for (n = 1; n < m->n_cpus; n++)
		pthread_join(m->cpu[n].thread, NULL);
	if (m->n_cpus > 1)
		helpers_stop(m);
	canary_check();
	canary_search(m->ram, m->ram_size);
}

static void machine_rounds(u64 seed, unsigned int cpus)
{
	struct machine m;
	unsigned int n;

	machine_new(&m, IMAGE_RAM, cpus, false);
	host_addresses_read();
	for (n = 0; n < cpus; n++)
		set_xcr0(&m.cpu[n]);
	for (n = 0; n < ROUNDS_PER_VM; n++)
		round_run(&m, seed + n);
	maps_check();
	machine_free(&m);
}

int fuzz_run(unsigned int cpus)
{
	u64 end = now_ms() + options.seconds * 1000, seed = options.seed;
	unsigned int k;

	gen_setup();
	ticks_start(TICK_US);
	do {
		machine_rounds(seed, cpus);
		if (!options.repeat)
			seed += ROUNDS_PER_VM;
	} while (now_ms() < end);
	printf("seeds %llu to %llu, %llu entries; exits:", (unsigned long long)options.seed,
		(unsigned long long)current_seed, (unsigned long long)entries_made);
	for (k = 0; k < ARRAY_SIZE(exits_seen); k++)
		if (exits_seen[k])
			printf(" %u:%llu", k, (unsigned long long)exits_seen[k]);
	printf("\n");
	return 0;
}
