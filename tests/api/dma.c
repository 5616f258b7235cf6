/*
 * Code that user space, the host's kernel or another process writes over while it is translated: the
 * guest runs what is there now, as after a device's DMA. api.rst 4.35 (guest memory is user space's).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/api/handlers.h"

#define FN_AT		0x3000u
#define TABLES_AT	0x6000u	/* a page directory */
#define PORT		0x10
#define ROUNDS		40u
#define MANY		40000u

/* ---- who writes ---- */

struct writer {
	int file, ring;
	struct io_uring_params params;
	u8 *sq, *cq;
	struct io_uring_sqe *sqe;
};

static void by_store(struct writer *w, u8 *to, const u8 *from, size_t n)
{
	memcpy(to, from, n);
}

static void file_fill(struct writer *w, const u8 *from, size_t n)
{
	assert_int_equal(pwrite(w->file, from, n, 0), n);
}

static void by_read(struct writer *w, u8 *to, const u8 *from, size_t n)
{
	file_fill(w, from, n);
	assert_int_equal(pread(w->file, to, n, 0), n);
}

static void by_process(struct writer *w, u8 *to, const u8 *from, size_t n)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		memcpy(to, from, n);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static u32 *ring_word(u8 *ring, u32 off)
{
	return (u32 *)(void *)(ring + off);
}

static void by_uring(struct writer *w, u8 *to, const u8 *from, size_t n)
{
	const struct io_uring_params *p = &w->params;
	u32 tail = *ring_word(w->sq, p->sq_off.tail), head = *ring_word(w->cq, p->cq_off.head);

	file_fill(w, from, n);
	*w->sqe = (struct io_uring_sqe) { .opcode = IORING_OP_READ, .fd = w->file,
		.addr = (u64)(uintptr_t)to, .len = (u32)n };
	*ring_word(w->sq, p->sq_off.array) = 0;
	__atomic_store_n(ring_word(w->sq, p->sq_off.tail), tail + 1, __ATOMIC_RELEASE);
	assert_int_equal(syscall(SYS_io_uring_enter, w->ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0), 1);
	assert_int_not_equal(__atomic_load_n(ring_word(w->cq, p->cq_off.tail), __ATOMIC_ACQUIRE), head);
	__atomic_store_n(ring_word(w->cq, p->cq_off.head), head + 1, __ATOMIC_RELEASE);
}

static u8 *ring_map(int ring, off_t what)
{
	u8 *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, what);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static const struct way {
	const char *name;
	void (*write)(struct writer *w, u8 *to, const u8 *from, size_t n);
} ways[] = {
	{ "stores", by_store },
	{ "read(2)", by_read },
	{ "another process", by_process },
	{ "io_uring", by_uring },
};

/* A host may forbid io_uring. */
static size_t writer_init(struct writer *w)
{
	w->file = memfd_create("dma", MFD_CLOEXEC);
	assert_true(w->file >= 0);
	w->ring = (int)syscall(SYS_io_uring_setup, 1, &w->params);
	if (w->ring < 0) {
		print_message("no io_uring: %s\n", strerror(errno));
		return ARRAY_SIZE(ways) - 1;
	}
	w->sq = ring_map(w->ring, IORING_OFF_SQ_RING);
	w->cq = ring_map(w->ring, IORING_OFF_CQ_RING);
	w->sqe = (void *)ring_map(w->ring, (off_t)IORING_OFF_SQES);
	return ARRAY_SIZE(ways);
}

static void writer_free(struct writer *w)
{
	close(w->file);
	if (w->ring < 0)
		return;
	munmap(w->sq, 4096);
	munmap(w->cq, 4096);
	munmap(w->sqe, 4096);
	close(w->ring);
}

/* ---- what runs ---- */

/* mov $n, %eax; ret */
static void write_function(struct machine *m, struct writer *w, const struct way *way, u32 n)
{
	u8 code[6] = { 0xb8, (u8)n, (u8)(n >> 8), (u8)(n >> 16), (u8)(n >> 24), 0xc3 };

	way->write(w, m->ram + FN_AT, code, sizeof(code));
}

#define PDE	0x83u	/* present, writable, 4 MiB */
#define APIC	0xfee00000u

static void machine_page(struct machine *m)
{
	struct kvm_sregs s = get_sregs(m->vcpu);
	u32 *tables = (u32 *)(void *)(m->ram + TABLES_AT);

	memset(tables, 0, 4096);
	tables[0] = PDE;
	tables[APIC >> 22] = (APIC & 0xffc00000) | PDE;
	s.cr3 = TABLES_AT;
	s.cr4 |= 0x10;
	s.cr0 |= 0x80000000;
	assert_int_equal(call(m->vcpu, KVM_SET_SREGS, &s), 0);
}

/* Protected mode, with paging or without it. */
static void machine_start(struct machine *m, bool paging, int irqchip)
{
	struct kvm_regs r = { .rip = CODE_AT, .rsp = 0x8000, .rflags = 2 };

	machine_new(m, irqchip);
	flat_mode(m->vcpu);
	if (paging)
		machine_page(m);
	set_regs(m->vcpu, &r);
}

static u8 *put(u8 *p, const void *code, size_t n)
{
	memcpy(p, code, n);
	return p + n;
}

/* The instruction ends with a displacement, or an absolute address. */
static u8 *put_to(u8 *p, const void *code, size_t n, u32 to)
{
	return put(put(p, code, n), &to, 4);
}

static u8 *put_call(struct machine *m, u8 *p)
{
	return put_to(p, "\xe8", 1, FN_AT - ((u32)(p - m->ram) + 5));
}

/* out %eax, $PORT; jmp to */
static void put_out(u8 *p, const u8 *to)
{
	p = put(p, (u8[]){ 0xe7, PORT, 0xeb }, 3);
	*p = (u8)(to - (p + 1));
}

/* ---- while the vCPU is out ---- */

static time_t seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

/* Calls the function and says what it got, again and again. */
static void outside_program(struct machine *m)
{
	u8 *start = m->ram + CODE_AT;

	put_out(put_call(m, start), start);
}

static u32 answer(struct machine *m)
{
	assert_int_equal(call_num(m->vcpu, KVM_RUN, 0), 0);
	assert_int_equal(m->run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(m->run->io.port, PORT);
	return *(u32 *)io_data(m->run);
}

static void look_outside(bool paging, struct writer *w, const struct way *way)
{
	struct machine m;
	u32 n, k;

	machine_start(&m, paging, PLAIN);
	outside_program(&m);
	for (n = 1; n < ROUNDS; n++) {
		write_function(&m, w, way, n * 0x01010101);
		for (k = 0; k < 4; k++)
			if (answer(&m) != n * 0x01010101)
				fail_msg("%s, paging %d: round %u.%u", way->name, paging, n, k);
	}
	machine_free(&m);
}

static void test_dma_outside(void **state)
{
	struct writer w = { 0 };
	size_t n = writer_init(&w);

	for (size_t k = 0; k < n; k++) {
		look_outside(false, &w, &ways[k]);
		look_outside(true, &w, &ways[k]);
	}
	writer_free(&w);
}

#define WIDE_AT		0x4000u	/* calls functions in many pages before it does the same */
#define WIDE_PAGES	12u
#define WIDE_PAGE	0x9000u
#define RET		0xc3

static void wide_program(struct machine *m)
{
	u8 *start = m->ram + WIDE_AT, *p = start;

	for (u32 n = 0; n < WIDE_PAGES; n++) {
		u32 at = WIDE_PAGE + 0x1000 * n;

		m->ram[at] = RET;
		p = put_to(p, "\xe8", 1, at - ((u32)(p - m->ram) + 5));
	}
	put_out(put_call(m, p), start);
}

/* A look that was made for nothing may not be paid for later, by a larger program: a second is enough. */
static bool wide_sees(struct machine *m, u32 want)
{
	time_t end = seconds() + 2;

	while (seconds() < end)
		if (answer(m) == want)
			return true;
	return false;
}

static void look_after_many(struct writer *w, const struct way *way, bool wide)
{
	struct kvm_regs r = { .rip = WIDE_AT, .rsp = 0x8000, .rflags = 2 };
	struct machine m;

	machine_start(&m, true, PLAIN);
	outside_program(&m);
	wide_program(&m);
	write_function(&m, w, way, 1);
	for (u32 i = 0; i < MANY; i++)
		assert_int_equal(answer(&m), 1);
	if (wide)
		set_regs(m.vcpu, &r);
	for (u32 i = 0; i < 100; i++)
		assert_int_equal(answer(&m), 1);
	write_function(&m, w, way, 2);
	if (wide ? !wide_sees(&m, 2) : answer(&m) != 2)
		fail_msg("%s, in many pages %d", way->name, wide);
	machine_free(&m);
}

/* More exits than looks are paid for in advance: those of a small loop are made all the same. */
static void test_dma_after_many(void **state)
{
	struct writer w = { 0 };
	size_t n = writer_init(&w);

	for (size_t k = 0; k < n; k++)
		look_after_many(&w, &ways[k], k % 2);
	writer_free(&w);
}

/* A function in each of n pages; each call's answer is told. What is written between two of them is seen by the next. */
static void pages_program(struct machine *m, u32 n)
{
	u8 *start = m->ram + CODE_AT, *p = start;

	for (u32 k = 0; k < n; k++) {
		u32 at = WIDE_PAGE + 0x1000 * k;

		memcpy(m->ram + at, (u8[]){ 0xb8, 0, 0, 0, 0, RET }, 6);
		p = put_to(p, "\xe8", 1, at - ((u32)(p - m->ram) + 5));
		p = put(p, (u8[]){ 0xe7, PORT }, 2);
	}
	put_to(p, "\xe9", 1, CODE_AT - ((u32)(p - m->ram) + 5));
}

static void look_in_pages(u32 n)
{
	struct machine m;
	u32 want[WIDE_PAGES] = { 0 };

	machine_start(&m, true, PLAIN);
	pages_program(&m, n);
	for (u32 turn = 0; turn < 3 * n + 3; turn++) {
		for (u32 k = 0; k < n; k++)
			if (answer(&m) != want[k])
				fail_msg("%u of %u pages, turn %u: not the new function", k, n, turn);
		m.ram[WIDE_PAGE + 0x1000 * (turn % n) + 1] = (u8)++want[turn % n];
	}
	machine_free(&m);
}

/* Few pages are compared, with more all that leads to them is dropped (core/run.c): no page is forgotten. */
static void test_dma_pages(void **state)
{
	for (u32 n = 1; n <= WIDE_PAGES; n++)
		look_in_pages(n);
}

/*
 * Two places with one entry in the translator's table of indirect jumps (dbt.h: jump_index()): each jump is looked
 * up anew, without user space having to do with it. That uses up no budget, as few pages are compared in any case.
 */
#define PING_AT	0x3100u
#define PONG_AT	0xa0f1u
#define JUMPS	16

static u8 *put_jump(u8 *p, u32 to)
{
	return put(put_to(p, "\xb8", 1, to), "\xff\xe0", 2);	/* mov eax, to; jmp eax */
}

/* The answer: the byte behind the MOV's opcode. */
static u8 *jumping_program(struct machine *m)
{
	u8 *p = m->ram + PONG_AT, *answer;

	put_jump(put_to(m->ram + CODE_AT, "\xb9", 1, JUMPS), PING_AT);	/* mov ecx, JUMPS */
	put_jump(m->ram + PING_AT, PONG_AT);
	p = put_jump(put(p, "\x49\x74\x07", 3), PING_AT);		/* dec ecx; jz answer */
	answer = p + 1;
	p = put(put_to(p, "\xb8", 1, 0), (u8[]){ 0xe7, PORT }, 2);	/* answer: mov eax, 0; out */
	put_jump(put_to(p, "\xb9", 1, JUMPS), PING_AT);
	return answer;
}

static void test_dma_jumps(void **state)
{
	struct machine m;
	u64 fills;
	u8 *byte;
	int stats;

	machine_start(&m, true, PLAIN);
	stats = call_num(m.vcpu, KVM_GET_STATS_FD, 0);
	byte = jumping_program(&m);
	for (u32 turn = 0; turn < 20; turn++) {
		*byte = (u8)turn;
		for (u32 k = 0; k < 1000; k++)
			if (answer(&m) != turn)
				fail_msg("write %u, exit %u: the old code ran", turn, k);
	}
	fills = stat_of(stats, "jump_fills");
	if (fills && fills < 20000 * JUMPS)
		fail_msg("only %llu look-ups: the places have an entry each", (unsigned long long)fills);
	close(stats);
	machine_free(&m);
}

/* ---- while it is inside ---- */

#define READY_AT	0x9000u	/* how often the guest has called the old function, */
#define FLAG_AT		0x9040u	/* and been told that there is a new one */
#define TURNS		10u
#define LIMIT_S		60	/* for one turn */

/* By what a kernel makes the CPU look again; no exit is near, which would do that, too. */
static const struct look {
	const char *name;
	u8 n, code[8];
} looks[] = {
	{ "WBINVD", 2, { 0x0f, 0x09 } },
	{ "INVD", 2, { 0x0f, 0x08 } },
	{ "CPUID", 4, { 0x31, 0xc0, 0x0f, 0xa2 } },
	{ "CR3", 6, { 0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8 } },
	{ "INVLPG", 7, { 0x0f, 0x01, 0x3d, FN_AT & 0xff, FN_AT >> 8, 0, 0 } },
};

/* call; inc [READY]; wait: cmp [FLAG], esi; je wait; mov esi, [FLAG]; the look; call; out; again */
static void inside_program(struct machine *m, const struct look *look)
{
	u8 *start = m->ram + CODE_AT, *p = put_call(m, start);

	p = put_to(p, "\xff\x05", 2, READY_AT);
	p = put_to(p, "\x39\x35", 2, FLAG_AT);
	p = put(p, "\x74\xf8", 2);
	p = put_to(p, "\x8b\x35", 2, FLAG_AT);
	p = put(p, look->code, look->n);
	put_out(put_call(m, p), start);
}

struct inside {
	struct machine m;
	struct machine peer;	/* the same with another vCPU */
	pthread_t thread;
	int event;
	void (*tell)(struct inside *s, u32 n);	/* so that FLAG becomes n */
	u32 answer;	/* of the last turn */
	u32 turns;	/* done; atomic, as is: */
	bool over;
};

static u32 *guest_word(struct inside *s, u32 at)
{
	return (u32 *)(void *)(s->m.ram + at);
}

static void *inside_main(void *arg)
{
	struct inside *s = arg;

	for (u32 n = 1; n < TURNS && call_num(s->m.vcpu, KVM_RUN, 0) == 0; n++) {
		if (s->m.run->exit_reason != KVM_EXIT_IO)
			break;
		s->answer = *(u32 *)io_data(s->m.run);
		store_release(&s->turns, n);
	}
	store_release(&s->over, true);
	return NULL;
}

static void kick_handler(int sig)
{
}

/* In the midst of its turns, if one went wrong. */
static void inside_end(struct inside *s, bool kick)
{
	struct sigaction sa = { .sa_handler = kick_handler }, old;

	sigaction(SIGUSR1, &sa, &old);
	if (kick) {
		s->m.run->immediate_exit = 1;
		pthread_kill(s->thread, SIGUSR1);
	}
	pthread_join(s->thread, NULL);
	sigaction(SIGUSR1, &old, NULL);
	machine_free(&s->m);
}

static bool wait_for(struct inside *s, u32 *word, u32 n)
{
	time_t end = seconds() + LIMIT_S;

	while (load_acquire(word) != n && !load_acquire(&s->over) && seconds() < end)
		sched_yield();
	return load_acquire(word) == n;
}

static void tell_by_memory(struct inside *s, u32 n)
{
	store_release(guest_word(s, FLAG_AT), n);
}

/* The guest has called what was there, and waits inside: only then it is written over. */
static bool inside_turn(struct inside *s, struct writer *w, const struct way *way, u32 n)
{
	if (!wait_for(s, guest_word(s, READY_AT), n))
		return false;
	write_function(&s->m, w, way, n * 0x01010101);
	s->tell(s, n);
	return wait_for(s, &s->turns, n) && s->answer == n * 0x01010101;
}

static void inside_turns(struct inside *s, const char *how, struct writer *w, const struct way *way)
{
	u32 n = 1;

	write_function(&s->m, w, way, 0);
	assert_int_equal(pthread_create(&s->thread, NULL, inside_main, s), 0);
	while (n < TURNS && inside_turn(s, w, way, n))
		n++;
	inside_end(s, n < TURNS);
	if (n < TURNS)
		fail_msg("%s, %s: turn %u, got %#x", way->name, how, n, s->answer);
}

static void look_inside(const struct look *look, struct writer *w, const struct way *way)
{
	struct inside s = { .tell = tell_by_memory };

	machine_start(&s.m, true, PLAIN);
	inside_program(&s.m, look);
	inside_turns(&s, look->name, w, way);
}

/* Each of these serializes, or ends translations. SDM 3A 8.1.3, 8.3, 4.10.4.1 */
static void test_dma_inside(void **state)
{
	struct writer w = { 0 };
	size_t n = writer_init(&w);

	for (size_t l = 0; l < ARRAY_SIZE(looks); l++)
		for (size_t k = 0; k < n; k++)
			look_inside(&looks[l], &w, &ways[k]);
	writer_free(&w);
}

/* ---- and is told by an interrupt ---- */

#define IDT_AT		0xa000u
#define GDT_AT		0xb000u
#define HANDLER_AT	0xc000u
#define PEER_AT		0xd000u
#define VECTOR		0x61
#define GSI		40

static void tell_by_irqfd(struct inside *s, u32 n)
{
	signal_eventfd(s->event);
}

static void tell_by_line(struct inside *s, u32 n)
{
	struct kvm_irq_level line = { .irq = GSI, .level = 1 };

	assert_int_equal(call(s->m.vm, KVM_IRQ_LINE, &line), 0);
}

static void tell_by_msi(struct inside *s, u32 n)
{
	struct kvm_msi msi = { .address_lo = MSI_ADDRESS, .data = VECTOR };

	assert_int_equal(call(s->m.vm, KVM_SIGNAL_MSI, &msi), 1);
}

/* It comes out and in again, and sends an IPI. */
static void tell_by_peer(struct inside *s, u32 n)
{
	run_until(&s->peer, KVM_EXIT_IO);
}

static const struct teller {
	const char *name;
	void (*tell)(struct inside *s, u32 n);
} tellers[] = {
	{ "irqfd", tell_by_irqfd },
	{ "KVM_IRQ_LINE", tell_by_line },
	{ "KVM_SIGNAL_MSI", tell_by_msi },
	{ "another vCPU", tell_by_peer },
};

/* inc [FLAG]; EOI; iret */
static void handler_install(struct machine *m)
{
	const u8 gate[8] = { HANDLER_AT & 0xff, HANDLER_AT >> 8, 8, 0, 0, 0x8e };
	const u8 segment[8] = { 0xff, 0xff, 0, 0, 0, 0x9b, 0xcf };
	struct kvm_sregs s = get_sregs(m->vcpu);
	u8 *p = m->ram + HANDLER_AT;

	p = put_to(p, "\xff\x05", 2, FLAG_AT);
	p = put_to(put_to(p, "\xc7\x05", 2, APIC + 0xb0), "", 0, 0);
	*p = 0xcf;
	memcpy(m->ram + IDT_AT + VECTOR * 8, gate, sizeof(gate));
	memcpy(m->ram + GDT_AT + 8, segment, sizeof(segment));
	s.idt = (struct kvm_dtable){ .base = IDT_AT, .limit = 0x7ff };
	s.gdt = (struct kvm_dtable){ .base = GDT_AT, .limit = 0xf };
	s.cs.selector = 8;
	assert_int_equal(call(m->vcpu, KVM_SET_SREGS, &s), 0);
}

/* out; IPI to the first; again. It waits before its first IPI. */
static void peer_start(struct inside *s)
{
	struct kvm_mp_state runs = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_regs r = { .rip = PEER_AT, .rsp = 0x7000, .rflags = 2 };
	u8 *p = s->m.ram + PEER_AT;

	p = put(p, (u8[]){ 0xe7, PORT }, 2);
	p = put_to(put_to(p, "\xc7\x05", 2, APIC + 0x310), "", 0, 0);
	p = put_to(put_to(p, "\xc7\x05", 2, APIC + 0x300), "", 0, 0x4000 | VECTOR);
	p = put(p, (u8[]){ 0xeb, (u8)(s->m.ram + PEER_AT - (p + 2)) }, 2);
	s->peer = s->m;
	s->peer.vcpu = vcpu_new(s->m.vm, 1, &s->peer.run);
	assert_int_equal(call(s->peer.vcpu, KVM_SET_MP_STATE, &runs), 0);
	flat_mode(s->peer.vcpu);
	machine_page(&s->peer);
	apic_on(&s->peer, LINT0_MASKED);
	set_regs(s->peer.vcpu, &r);
	run_until(&s->peer, KVM_EXIT_IO);
}

static void irq_start(struct inside *s)
{
	static const struct look none = { "", 0, { 0 } };
	struct kvm_irqfd irqfd = { .gsi = GSI };
	struct kvm_regs r;

	machine_start(&s->m, true, WITH_IRQCHIP);
	apic_on(&s->m, LINT0_MASKED);
	handler_install(&s->m);
	inside_program(&s->m, &none);
	r = get_regs(s->m.vcpu);
	r.rflags |= 0x200;
	set_regs(s->m.vcpu, &r);
	route_msi(&s->m, GSI, VECTOR);
	s->event = new_eventfd();
	irqfd.fd = (u32)s->event;
	assert_int_equal(call(s->m.vm, KVM_IRQFD, &irqfd), 0);
	peer_start(s);
}

static void look_at_irq(const struct teller *t, struct writer *w, const struct way *way)
{
	struct inside s = { .tell = t->tell };
	struct kvm_run *run;
	int peer;

	irq_start(&s);
	run = s.peer.run;
	peer = s.peer.vcpu;
	inside_turns(&s, t->name, w, way);
	munmap(run, RUN_SIZE);
	api->close(peer);
	close(s.event);
}

/* Paging stays, and the vCPU does not come out. */
static void test_dma_irq(void **state)
{
	struct writer w = { 0 };
	size_t n = writer_init(&w);

	for (size_t t = 0; t < ARRAY_SIZE(tellers); t++)
		for (size_t k = 0; k < n; k++)
			look_at_irq(&tellers[t], &w, &ways[k]);
	writer_free(&w);
}

/* ---- code in ROM ---- */

#define ROM_AT	0x40000u

static u8 *rom_make(struct machine *m)
{
	u8 *rom = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region slot = { .slot = 1, .flags = KVM_MEM_READONLY,
		.guest_phys_addr = ROM_AT, .memory_size = 4096, .userspace_addr = (u64)(uintptr_t)rom };

	assert_ptr_not_equal(rom, MAP_FAILED);
	assert_int_equal(call(m->vm, KVM_SET_USER_MEMORY_REGION, &slot), 0);
	return rom;
}

/* In ROM, which user space may write: mov $n, %eax; movb $0x90, its own first byte; out; jmp back. */
static void rom_program(u8 *rom, u32 n)
{
	const u8 code[] = { 0xb8, (u8)n, (u8)(n >> 8), (u8)(n >> 16), (u8)(n >> 24),
		0xc6, 0x05, ROM_AT & 0xff, ROM_AT >> 8 & 0xff, ROM_AT >> 16, 0, 0x90,
		0xe7, PORT, 0xeb, 0xf0 };

	memcpy(rom, code, sizeof(code));
}

static void rom_turn(struct machine *m, u32 n)
{
	assert_int_equal(call_num(m->vcpu, KVM_RUN, 0), 0);
	assert_int_equal(m->run->exit_reason, KVM_EXIT_MMIO);
	assert_int_equal(m->run->mmio.phys_addr, ROM_AT);
	assert_int_equal(m->run->mmio.is_write, 1);
	assert_int_equal(m->run->mmio.data[0], 0x90);
	assert_int_equal(answer(m), n);
}

/* api.rst 4.35: a write to a read-only slot is an MMIO exit; the code that runs there stays. */
static void test_rom(void **state)
{
	struct kvm_regs r = { .rip = ROM_AT, .rsp = 0x8000, .rflags = 2 };
	struct machine m;
	u8 *rom;
	u32 n, k;

	machine_new(&m, 0);
	flat_mode(m.vcpu);
	rom = rom_make(&m);
	set_regs(m.vcpu, &r);
	for (n = 1; n < ROUNDS; n++) {
		rom_program(rom, n * 0x01010101);
		for (k = 0; k < 4; k++)
			rom_turn(&m, n * 0x01010101);
		assert_int_equal(rom[0], 0xb8);
	}
	machine_free(&m);
	munmap(rom, 4096);
}

int test_user_writes(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dma_outside),
		cmocka_unit_test(test_dma_after_many),
		cmocka_unit_test(test_dma_pages),
		cmocka_unit_test(test_dma_jumps),
		cmocka_unit_test(test_dma_inside),
		cmocka_unit_test(test_dma_irq),
		cmocka_unit_test(test_rom),
	};

	return cmocka_run_group_tests_name("dma", tests, NULL, NULL);
}
