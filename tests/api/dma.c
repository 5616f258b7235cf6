/*
 * Code that user space, the host's kernel or another process writes over while it is translated: the
 * guest runs what is there now, as after a device's DMA. api.rst 4.35 (guest memory is user space's).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/api/api.h"

#define FN_AT		0x3000u
#define TABLES_AT	0x6000u	/* a page directory */
#define PORT		0x10
#define ROUNDS		40u

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

/* How the guest comes to look again, before it calls the function and says what it got. */
static const struct look {
	const char *name;
	bool paging;
	u8 n, code[8];
} looks[] = {
	{ "no paging", false, 0, { 0 } },
	{ "an exit", true, 0, { 0 } },
	{ "WBINVD", true, 2, { 0x0f, 0x09 } },
	{ "INVD", true, 2, { 0x0f, 0x08 } },
	{ "CPUID", true, 4, { 0x31, 0xc0, 0x0f, 0xa2 } },
	{ "CR3", true, 6, { 0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8 } },
	{ "INVLPG", true, 7, { 0x0f, 0x01, 0x3d, FN_AT & 0xff, FN_AT >> 8, 0, 0 } },
};

static void machine_page(struct machine *m)
{
	struct kvm_sregs s = get_sregs(m->vcpu);
	u32 entry = 0x83;	/* present, writable, 4 MiB */

	memset(m->ram + TABLES_AT, 0, 4096);
	memcpy(m->ram + TABLES_AT, &entry, sizeof(entry));
	s.cr3 = TABLES_AT;
	s.cr4 |= 0x10;
	s.cr0 |= 0x80000000;
	assert_int_equal(call(m->vcpu, KVM_SET_SREGS, &s), 0);
}

static void program(struct machine *m, const struct look *look)
{
	u8 *p = m->ram + CODE_AT;
	u32 call_at = CODE_AT + look->n;

	memcpy(p, look->code, look->n);
	p += look->n;
	*p++ = 0xe8;
	memcpy(p, &(u32){ FN_AT - (call_at + 5) }, 4);
	p += 4;
	*p++ = 0xe7;		/* out %eax, $PORT */
	*p++ = PORT;
	*p++ = 0xeb;
	*p++ = (u8)-(look->n + 9);
}

static u32 answer(struct machine *m)
{
	assert_int_equal(call_num(m->vcpu, KVM_RUN, 0), 0);
	assert_int_equal(m->run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(m->run->io.port, PORT);
	return *(u32 *)((u8 *)m->run + m->run->io.data_offset);
}

static void machine_start(struct machine *m, const struct look *look)
{
	struct kvm_regs r = { .rip = CODE_AT, .rsp = 0x8000, .rflags = 2 };

	machine_new(m, 0);
	flat_mode(m->vcpu);
	if (look->paging)
		machine_page(m);
	program(m, look);
	set_regs(m->vcpu, &r);
}

static void look_again(const struct look *look, struct writer *w, const struct way *way)
{
	struct machine m;
	u32 n, k;

	machine_start(&m, look);
	for (n = 1; n < ROUNDS; n++) {
		write_function(&m, w, way, n * 0x01010101);
		for (k = 0; k < 4; k++)
			if (answer(&m) != n * 0x01010101)
				fail_msg("%s, %s: round %u.%u", way->name, look->name, n, k);
	}
	machine_free(&m);
}

static void test_dma(void **state)
{
	struct writer w = { 0 };
	size_t n = writer_init(&w);

	for (size_t l = 0; l < ARRAY_SIZE(looks); l++)
		for (size_t k = 0; k < n; k++)
			look_again(&looks[l], &w, &ways[k]);
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
		cmocka_unit_test(test_dma),
		cmocka_unit_test(test_rom),
	};

	return cmocka_run_group_tests_name("dma", tests, NULL, NULL);
}
