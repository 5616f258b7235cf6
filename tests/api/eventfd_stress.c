/*
 * Eventfds under load: signals against assignment, removal, changed routes, closed descriptors and
 * the VM's end, and I/O against ioeventfds and zones that come and go. What must hold is counted:
 * no signal of an assigned irqfd and no write of the guest is lost, and none is there twice.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "hypervisor/api/qkvm.h"
#include "tests/api/child.h"
#include "tests/api/handlers.h"

static const struct api soft = { "soft", qkvm_open, qkvm_ioctl, qkvm_mmap, qkvm_close };
const struct api *api = &soft;

bool api_is_host(void)
{
	return false;
}

/* ---- a guest that counts its interrupts ------------------------------------------------------ */

#define FIRST_VECTOR	0x30
#define VECTORS		16
#define COUNTERS_AT	0x600
#define HANDLERS_AT	0x2000

/* inc dword [COUNTERS_AT + 4 * n]; mov dword [0xfee000b0], 0; iret */
static const u8 handler[] = {
	0x66, 0xff, 0x06, 0, 0, 0x66, 0x67, 0xc7, 0x05, 0xb0, 0x00, 0xe0, 0xfe, 0, 0, 0, 0, 0xcf,
};

static void counting_new(struct machine *m)
{
	struct kvm_sregs s;

	machine_new(m, WITH_IRQCHIP);
	apic_on(m, LINT0_MASKED);
	for (u32 n = 0; n < VECTORS; n++) {
		u8 *h = m->ram + HANDLERS_AT + 32 * n;

		memcpy(h, handler, sizeof(handler));
		h[3] = (u8)(COUNTERS_AT + 4 * n);
		h[4] = (COUNTERS_AT + 4 * n) >> 8;
		*(u32 *)(m->ram + 4 * (FIRST_VECTOR + n)) = HANDLERS_AT + 32 * n;
	}
	CODE(m, 0xfb, 0xf4, 0xeb, 0xfd);	/* sti; again: hlt; jmp again */
	s = get_sregs(m->vcpu);
	s.ds.limit = 0xffffffff;
	CHECK(call(m->vcpu, KVM_SET_SREGS, &s) == 0);
}

static u32 counted(const struct machine *m, u32 n)
{
	return *(volatile u32 *)(m->ram + COUNTERS_AT + 4 * n);
}

#define GSI 40

/* GSI + n leads to vector FIRST_VECTOR + n; with some more routes, for a table of another size. */
static void routes_set(struct machine *m, u32 more)
{
	struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry e[VECTORS + 64]; } r;

	memset(&r, 0, sizeof(r));
	r.head.nr = VECTORS + more;
	for (u32 n = 0; n < r.head.nr; n++) {
		r.e[n].gsi = GSI + n;
		r.e[n].type = KVM_IRQ_ROUTING_MSI;
		r.e[n].u.msi.address_lo = MSI_ADDRESS;
		r.e[n].u.msi.data = FIRST_VECTOR + n % VECTORS;
	}
	CHECK(call(m->vm, KVM_SET_GSI_ROUTING, &r) == 0);
}

static long irqfd(const struct machine *m, int fd, u32 n, u32 flags)
{
	struct kvm_irqfd args = { .fd = fd, .gsi = GSI + n, .flags = flags };

	return call(m->vm, KVM_IRQFD, &args);
}

struct cpu {
	struct machine *m;
	pthread_t thread;
	bool stop;
};

static void *cpu_main(void *arg)
{
	struct cpu *c = arg;

	while (!load_acquire(&c->stop)) {
		long ret = call_num(c->m->vcpu, KVM_RUN, 0);

		CHECK(ret == -EINTR || ret == 0);
	}
	return NULL;
}

static void on_signal(int sig)
{
}

static void cpu_start(struct cpu *c, struct machine *m)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &sa, NULL);
	c->m = m;
	c->stop = false;
	CHECK(pthread_create(&c->thread, NULL, cpu_main, c) == 0);
}

static void cpu_stop(struct cpu *c)
{
	store_release(&c->stop, true);
	c->m->run->immediate_exit = 1;
	pthread_kill(c->thread, SIGUSR1);
	pthread_join(c->thread, NULL);
	c->m->run->immediate_exit = 0;
}

/* ---- irqfd ----------------------------------------------------------------------------------- */

#define SIGNALLERS	3
#define ROUNDS		1500
#define CHURN		VECTORS - 1	/* the vector of those that come and go */

struct signaller {
	struct machine *m;
	pthread_t thread;
	u32 n;
};

static void signal_and_wait(const struct machine *m, int fd, u32 n)
{
	u32 before = counted(m, n);

	signal_eventfd(fd);
	while (counted(m, n) == before)
		sched_yield();
}

/* One interrupt for each signal, whatever goes on beside it. */
static void *signaller_main(void *arg)
{
	struct signaller *s = arg;
	int fd = new_eventfd();

	CHECK(irqfd(s->m, fd, s->n, 0) == 0);
	for (u32 i = 0; i < ROUNDS; i++) {
		CHECK(counted(s->m, s->n) == i);
		signal_and_wait(s->m, fd, s->n);
	}
	CHECK(take_eventfd(fd) == 0);
	close(fd);
	return NULL;
}

/* Signals them all the time, whoever they are just now. */
static int churned[8];
static bool churn_over;

static void *pester_main(void *arg)
{
	u64 one = 1;
	u32 i;

	for (i = 0; !load_acquire(&churn_over); i++) {
		int fd = READ_ONCE(churned[i % 8]);

		if (fd >= 0 && write(fd, &one, sizeof(one)) < 0)
			CHECK(errno == EBADF || errno == EAGAIN);
		if (i % 64 == 0)
			sched_yield();
	}
	return NULL;
}

static void churn(struct machine *m, u32 round)
{
	u32 k = round % 8;
	int fd = churned[k];

	if (fd < 0) {
		fd = new_eventfd();
		CHECK(irqfd(m, fd, CHURN, 0) == 0);
		CHECK(irqfd(m, fd, CHURN, 0) == -EBUSY);
		signal_and_wait(m, fd, CHURN);
		WRITE_ONCE(churned[k], fd);
	} else {
		WRITE_ONCE(churned[k], -1);
		/* Both while it is being signalled. */
		if (round & 8)
			CHECK(irqfd(m, fd, CHURN, KVM_IRQFD_FLAG_DEASSIGN) == 0);
		close(fd);
	}
	if (round % 4 == 0)
		routes_set(m, round % 64);
}

static void irqfds_under_load(void)
{
	struct signaller s[SIGNALLERS];
	struct machine m;
	struct cpu cpu;
	pthread_t pester;

	counting_new(&m);
	routes_set(&m, 0);
	cpu_start(&cpu, &m);
	memset(churned, 0xff, sizeof(churned));
	for (u32 n = 0; n < SIGNALLERS; n++) {
		s[n] = (struct signaller){ .m = &m, .n = n };
		CHECK(pthread_create(&s[n].thread, NULL, signaller_main, &s[n]) == 0);
	}
	CHECK(pthread_create(&pester, NULL, pester_main, NULL) == 0);
	for (u32 round = 0; round < 600; round++)
		churn(&m, round);
	store_release(&churn_over, true);
	pthread_join(pester, NULL);
	for (u32 n = 0; n < SIGNALLERS; n++)
		pthread_join(s[n].thread, NULL);
	cpu_stop(&cpu);
	machine_free(&m);
}

static void test_irqfds(void **state)
{
	EXPECT_FINE(irqfds_under_load);
}

/* VMs end while their irqfds are signalled: by the descriptor's end, and by that of the VM. */
static void ends_under_load(void)
{
	pthread_t pester;

	for (u32 n = 0; n < 8; n++)
		churned[n] = new_eventfd();
	churn_over = false;
	CHECK(pthread_create(&pester, NULL, pester_main, NULL) == 0);
	for (u32 round = 0; round < 60; round++) {
		struct machine m;
		struct cpu cpu;

		counting_new(&m);
		routes_set(&m, 0);
		cpu_start(&cpu, &m);
		for (u32 n = 0; n < 8; n++)
			CHECK(irqfd(&m, churned[n], n, 0) == 0);
		while (counted(&m, round % 8) == 0)
			sched_yield();
		if (round & 1)
			cpu_stop(&cpu);
		CHECK(api->close(m.vm) == 0);
		if (!(round & 1))
			cpu_stop(&cpu);
		munmap(m.run, RUN_SIZE);
		CHECK(api->close(m.vcpu) == 0 && api->close(m.sys) == 0);
		munmap(m.ram, RAM_SIZE);
	}
	store_release(&churn_over, true);
	pthread_join(pester, NULL);
}

static void test_ends(void **state)
{
	EXPECT_FINE(ends_under_load);
}

/* ---- writes ---------------------------------------------------------------------------------- */

#define PORT	0x500
#define WRITES	400000u

struct writer {
	struct machine m;
	pthread_t thread;
	bool done;
	bool ordered;		/* each write comes to us, here or by the ring */
	u32 exits, in_order;
};

static struct kvm_coalesced_mmio_ring *ring_of(struct writer *w)
{
	return (void *)((char *)w->m.run + 2 * 4096);
}

/* Takes the ring's entries, which are the next values. */
static void ring_empty(struct writer *w)
{
	struct kvm_coalesced_mmio_ring *r = ring_of(w);

	while (r->first != load_acquire(&r->last)) {
		u32 val;

		memcpy(&val, r->coalesced_mmio[r->first].data, sizeof(val));
		CHECK(val == w->in_order);
		w->in_order++;
		store_release(&r->first, (r->first + 1) % 170);
	}
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;

	for (;;) {
		CHECK(call_num(w->m.vcpu, KVM_RUN, 0) == 0);
		if (w->m.run->exit_reason == KVM_EXIT_HLT)
			break;
		CHECK(w->m.run->exit_reason == KVM_EXIT_IO && w->m.run->io.port == PORT);
		w->exits++;
		if (w->ordered) {
			ring_empty(w);
			CHECK(*(u32 *)io_data(w->m.run) == w->in_order);
			w->in_order++;
		}
	}
	store_release(&w->done, true);
	return NULL;
}

static void writer_start(struct writer *w, bool ordered)
{
	memset(w, 0, sizeof(*w));
	w->ordered = ordered;
	machine_new(&w->m, PLAIN);
	/* mov dx, PORT; xor eax, eax; again: out dx, eax; inc eax; cmp eax, WRITES; jne again; hlt */
	CODE(&w->m, 0xba, PORT & 255, PORT >> 8, 0x66, 0x31, 0xc0, 0x66, 0xef, 0x66, 0x40,
	     0x66, 0x3d, WRITES & 255, WRITES >> 8 & 255, WRITES >> 16, 0, 0x75, 0xf4, 0xf4);
	CHECK(pthread_create(&w->thread, NULL, writer_main, w) == 0);
}

static void writer_end(struct writer *w)
{
	pthread_join(w->thread, NULL);
	machine_free(&w->m);
}

/* Each write is an exit or a signal, of one eventfd or of another. */
static void writes_under_change(void)
{
	int fd[2] = { new_eventfd(), new_eventfd() };
	u64 signals = 0;
	struct writer w;
	u32 i;

	writer_start(&w, false);
	for (i = 0; !load_acquire(&w.done); i++) {
		struct kvm_ioeventfd args = {
			.addr = PORT, .len = i & 4 ? 0 : 4, .fd = fd[i & 1],
			.flags = KVM_IOEVENTFD_FLAG_PIO,
		};

		CHECK(call(w.m.vm, KVM_IOEVENTFD, &args) == 0);
		/* Another entry moves it in the table. */
		args.addr = i & 2 ? PORT - 8 : PORT + 8;
		CHECK(call(w.m.vm, KVM_IOEVENTFD, &args) == 0);
		args.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
		CHECK(call(w.m.vm, KVM_IOEVENTFD, &args) == 0);
		args.addr = PORT;
		CHECK(call(w.m.vm, KVM_IOEVENTFD, &args) == 0);
		signals += take_eventfd(fd[i & 1]);
	}
	writer_end(&w);
	CHECK(take_eventfd(fd[0]) == 0 && take_eventfd(fd[1]) == 0);
	CHECK(signals + w.exits == WRITES);
	CHECK(i > 10 && signals);
	close(fd[0]);
	close(fd[1]);
}

static void test_ioeventfds(void **state)
{
	EXPECT_FINE(writes_under_change);
}

/* Each write is in the ring or an exit, in order, while zones come and go. */
static void zones_under_change(void)
{
	struct kvm_coalesced_mmio_zone zone = { .addr = PORT, .size = 8, .pio = 1 };
	struct kvm_coalesced_mmio_zone beside = { .addr = PORT - 16, .size = 8, .pio = 1 };
	struct writer w;

	writer_start(&w, true);
	while (!load_acquire(&w.done)) {
		CHECK(call(w.m.vm, KVM_REGISTER_COALESCED_MMIO, &zone) == 0);
		CHECK(call(w.m.vm, KVM_REGISTER_COALESCED_MMIO, &beside) == 0);
		CHECK(call(w.m.vm, KVM_UNREGISTER_COALESCED_MMIO, &beside) == 0);
		CHECK(call(w.m.vm, KVM_UNREGISTER_COALESCED_MMIO, &zone) == 0);
	}
	pthread_join(w.thread, NULL);
	ring_empty(&w);
	CHECK(w.in_order == WRITES && w.exits && w.exits < WRITES);
	machine_free(&w.m);
}

static void test_zones(void **state)
{
	EXPECT_FINE(zones_under_change);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_irqfds),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_ioeventfds),
		cmocka_unit_test(test_zones),
	};

	return cmocka_run_group_tests_name("eventfds", tests, NULL, NULL) != 0;
}
