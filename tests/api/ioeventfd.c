/* KVM_IOEVENTFD: which writes it takes, how it is refused, and what becomes of its eventfd. */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/api/handlers.h"

#define PIO		KVM_IOEVENTFD_FLAG_PIO
#define MATCH		KVM_IOEVENTFD_FLAG_DATAMATCH
#define DEASSIGN	KVM_IOEVENTFD_FLAG_DEASSIGN

#define PORT		0x500
#define MMIO_AT		0x80000
#define DONE_PORT	0x97

static long ioeventfd(int vm, int fd, u64 addr, u32 len, u32 flags, u64 match)
{
	struct kvm_ioeventfd args = {
		.datamatch = match, .addr = addr, .len = len, .fd = fd, .flags = flags,
	};

	return call(vm, KVM_IOEVENTFD, &args);
}

/* ---- what it takes --------------------------------------------------------------------------- */

/* EAX (MM0: eight bytes) is written by these, ES:BX and DX lead there. */
static const struct writer {
	u32 len;
	u8 n, code[4];
} port_writers[] = {
	{ 1, 1, { 0xee } },			/* out dx, al */
	{ 2, 1, { 0xef } },			/* out dx, ax */
	{ 4, 2, { 0x66, 0xef } },		/* out dx, eax */
}, memory_writers[] = {
	{ 1, 3, { 0x26, 0x88, 0x07 } },		/* mov es:[bx], al */
	{ 2, 3, { 0x26, 0x89, 0x07 } },		/* mov es:[bx], ax */
	{ 4, 4, { 0x26, 0x66, 0x89, 0x07 } },	/* mov es:[bx], eax */
	{ 8, 4, { 0x26, 0x0f, 0x7f, 0x07 } },	/* movq es:[bx], mm0 */
};

/* Runs the write of val; true: it came to user space. */
static bool write_exits(struct machine *m, const struct writer *w, u64 val)
{
	static const u8 start[] = { 0xb8, 0x00, 0x80, 0x8e, 0xc0 };	/* mov ax, 0x8000; mov es, ax */
	/* mov dx, PORT; mov bx, 0; movq mm0, [0x600]; mov eax, [0x600] */
	static const u8 load[] = { 0xba, PORT & 255, PORT >> 8, 0xbb, 0, 0,
				   0x0f, 0x6f, 0x06, 0x00, 0x06, 0x66, 0xa1, 0x00, 0x06 };
	static const u8 end[] = { 0xe6, DONE_PORT };
	u8 code[64];
	size_t n = 0;

#define ADD(from, size) (memcpy(code + n, from, size), n += (size))
	ADD(start, sizeof(start));
	ADD(load, sizeof(load));
	ADD(w->code, w->n);
	ADD(end, sizeof(end));
#undef ADD
	*(u64 *)(m->ram + 0x600) = val;
	machine_code(m, code, n);
	assert_int_equal(call_num(m->vcpu, KVM_RUN, 0), 0);
	if (m->run->exit_reason == KVM_EXIT_IO && m->run->io.port == DONE_PORT)
		return false;
	if (m->run->exit_reason == KVM_EXIT_IO) {
		assert_int_equal(m->run->io.port, PORT);
		assert_int_equal(m->run->io.size, w->len);
	} else {
		assert_int_equal(m->run->exit_reason, KVM_EXIT_MMIO);
		assert_int_equal(m->run->mmio.phys_addr, MMIO_AT);
		assert_int_equal(m->run->mmio.len, w->len);
	}
	run_until(m, KVM_EXIT_IO);
	assert_int_equal(m->run->io.port, DONE_PORT);
	return true;
}

#define VALUE 0x8877665544332211ULL

static u64 low_bytes(u64 val, u32 len)
{
	return len == 8 ? val : val & (BIT(8 * len) - 1);
}

/* One ioeventfd against writes of each length, with and without the value it wants. */
static void try_all(struct machine *m, u64 addr, u32 flags, const struct writer *w, size_t n)
{
	static const u32 lengths[] = { 0, 1, 2, 4, 8 };
	int fd = new_eventfd();

	for (size_t l = 0; l < ARRAY_SIZE(lengths); l++) {
		u32 len = lengths[l];
		u64 match = low_bytes(VALUE, len);

		assert_int_equal(ioeventfd(m->vm, fd, addr, len, flags, 0), 0);
		for (size_t i = 0; i < n; i++) {
			bool takes = !len || w[i].len == len;

			assert_int_equal(write_exits(m, &w[i], VALUE), !takes);
			assert_int_equal(take_eventfd(fd), takes);
		}
		assert_int_equal(ioeventfd(m->vm, fd, addr, len, flags | DEASSIGN, 0), 0);
		if (!len)
			continue;
		assert_int_equal(ioeventfd(m->vm, fd, addr, len, flags | MATCH, match), 0);
		for (size_t i = 0; i < n; i++) {
			bool takes = w[i].len == len;

			assert_int_equal(write_exits(m, &w[i], VALUE), !takes);
			assert_int_equal(take_eventfd(fd), takes);
			assert_true(write_exits(m, &w[i], VALUE + 1));
			assert_int_equal(take_eventfd(fd), 0);
		}
		assert_int_equal(ioeventfd(m->vm, fd, addr, len, flags | MATCH | DEASSIGN, match), 0);
	}
	for (size_t i = 0; i < n; i++)
		assert_true(write_exits(m, &w[i], VALUE));
	assert_int_equal(take_eventfd(fd), 0);
	close(fd);
}

static void test_ports(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	try_all(&m, PORT, PIO, port_writers, ARRAY_SIZE(port_writers));
	machine_free(&m);
}

static void test_physical(void **state)
{
	struct machine m;
	size_t n = ARRAY_SIZE(memory_writers);

	machine_new(&m, PLAIN);
	try_all(&m, MMIO_AT, 0, memory_writers, n);
	machine_free(&m);
}

/* A value with more bits than the length is never written. */
static void test_wide_match(void **state)
{
	int fd = new_eventfd();
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_equal(ioeventfd(m.vm, fd, PORT, 1, PIO | MATCH, 0x111), 0);
	assert_true(write_exits(&m, &port_writers[0], 0x11));
	assert_int_equal(take_eventfd(fd), 0);
	machine_free(&m);
	close(fd);
}

/* Reads go to user space; REP OUTSB is one signal a byte. */
static void test_strings_and_reads(void **state)
{
	int fd = new_eventfd();
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_equal(ioeventfd(m.vm, fd, PORT, 1, PIO, 0), 0);
	/* mov dx, PORT; mov cx, 7; rep outsb; in al, dx */
	CODE(&m, 0xba, PORT & 255, PORT >> 8, 0xb9, 0x07, 0x00, 0xf3, 0x6e, 0xec);
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(m.run->io.direction, KVM_EXIT_IO_IN);
	assert_int_equal(m.run->io.port, PORT);
	assert_int_equal(take_eventfd(fd), 7);
	machine_free(&m);
	close(fd);
}

/* Of several elements, those of one value. */
static void test_string_match(void **state)
{
	int fd = new_eventfd();
	struct machine m;
	u32 exits = 0;

	machine_new(&m, PLAIN);
	assert_int_equal(ioeventfd(m.vm, fd, PORT, 1, PIO | MATCH, 7), 0);
	/* mov si, 0x100; mov dx, PORT; mov cx, 6; rep outsb; hlt */
	CODE(&m, 0xbe, 0x00, 0x01, 0xba, PORT & 255, PORT >> 8, 0xb9, 0x06, 0x00, 0xf3, 0x6e, 0xf4);
	memcpy(m.ram + 0x100, (u8[]){ 1, 2, 7, 3, 7, 4 }, 6);
	while (!call_num(m.vcpu, KVM_RUN, 0) && m.run->exit_reason == KVM_EXIT_IO)
		exits += m.run->io.count;
	assert_int_equal(m.run->exit_reason, KVM_EXIT_HLT);
	assert_int_equal(take_eventfd(fd), 2);
	assert_int_equal(exits, 4);
	machine_free(&m);
	close(fd);
}

/* One instruction with an access that leaves to user space and one that an ioeventfd takes: it is
 * executed again for the answer, and signals once. */
static void test_once(void **state)
{
	int fd = new_eventfd();
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_equal(ioeventfd(m.vm, fd, PORT, 1, PIO, 0), 0);
	/* mov ax, 0x8000; mov ds, ax; xor si, si; mov cx, 3; mov dx, PORT; rep outsb (from MMIO);
	 * out DONE_PORT, al */
	CODE(&m, 0xb8, 0x00, 0x80, 0x8e, 0xd8, 0x31, 0xf6, 0xb9, 0x03, 0x00, 0xba, PORT & 255,
	     PORT >> 8, 0xf3, 0x6e, 0xe6, DONE_PORT);
	for (u32 i = 0; i < 3; i++) {
		run_until(&m, KVM_EXIT_MMIO);
		assert_false(m.run->mmio.is_write);
		assert_int_equal(m.run->mmio.phys_addr, MMIO_AT + i);
		m.run->mmio.data[0] = i;
	}
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(m.run->io.port, DONE_PORT);
	assert_int_equal(take_eventfd(fd), 3);
	machine_free(&m);
	close(fd);
}

/* Of a write in two parts, each may be taken, and the instruction begins again for the other. */
static void test_halves(void **state)
{
	int fd = new_eventfd();
	struct kvm_sregs s;
	struct machine m;

	machine_new(&m, PLAIN);
	/* KVM asks nobody but user space about the rest once a part has gone there. */
	for (u32 half = 0; half < (api_is_host() ? 1 : 2); half++) {
		assert_int_equal(ioeventfd(m.vm, fd, MMIO_AT + 8 * half, 8, 0, 0), 0);
		/* mov ax, 0x8000; mov es, ax; movdqu es:[0], xmm0; out DONE_PORT, al */
		CODE(&m, 0xb8, 0x00, 0x80, 0x8e, 0xc0, 0x26, 0xf3, 0x0f, 0x7f, 0x06, 0, 0,
		     0xe6, DONE_PORT);
		s = get_sregs(m.vcpu);
		s.cr4 |= 0x200;		/* OSFXSR */
		assert_int_equal(call(m.vcpu, KVM_SET_SREGS, &s), 0);
		run_until(&m, KVM_EXIT_MMIO);
		assert_int_equal(m.run->mmio.phys_addr, MMIO_AT + 8 * !half);
		assert_int_equal(m.run->mmio.len, 8);
		run_until(&m, KVM_EXIT_IO);
		assert_int_equal(m.run->io.port, DONE_PORT);
		assert_int_equal(take_eventfd(fd), 1);
		assert_int_equal(ioeventfd(m.vm, fd, MMIO_AT + 8 * half, 8, DEASSIGN, 0), 0);
	}
	machine_free(&m);
	close(fd);
}

/* ---- how it is refused ----------------------------------------------------------------------- */

static void test_refusals(void **state)
{
	int fd = new_eventfd(), closed = dup(fd), pipes[2];
	struct machine m;

	assert_int_equal(pipe(pipes), 0);
	machine_new(&m, PLAIN);
	close(closed);
	for (u32 len = 0; len < 20; len++) {
		bool fine = len == 0 || len == 1 || len == 2 || len == 4 || len == 8;

		assert_int_equal(ioeventfd(m.vm, fd, 0x1000 + len * 16, len, PIO, 0),
				 fine ? 0 : -EINVAL);
	}
	assert_int_equal(ioeventfd(m.vm, fd, ~0ULL, 2, 0, 0), -EINVAL);
	assert_int_equal(ioeventfd(m.vm, fd, PORT, 1, PIO | BIT(7), 0), -EINVAL);
	assert_int_equal(ioeventfd(m.vm, fd, PORT, 0, PIO | MATCH, 0), -EINVAL);
	assert_int_equal(ioeventfd(m.vm, closed, PORT, 1, PIO, 0), -EBADF);
	assert_int_equal(ioeventfd(m.vm, -1, PORT, 1, PIO, 0), -EBADF);
	assert_int_equal(ioeventfd(m.vm, pipes[1], PORT, 1, PIO, 0), -EINVAL);
	assert_int_equal(ioeventfd(m.vm, m.vm, PORT, 1, PIO, 0), -EINVAL);
	assert_int_equal(ioeventfd(m.vm, closed, PORT, 3, PIO, 0), -EINVAL);
	/* Deassigning looks at nothing but whether it is there. */
	assert_int_equal(ioeventfd(m.vm, fd, PORT, 1, PIO | DEASSIGN, 0), -ENOENT);
	assert_int_equal(ioeventfd(m.vm, fd, PORT, 3, PIO | DEASSIGN | BIT(7), 0), -ENOENT);
	assert_int_equal(ioeventfd(m.vm, closed, PORT, 1, PIO | DEASSIGN, 0), -EBADF);
	assert_int_equal(ioeventfd(m.vm, pipes[0], PORT, 1, PIO | DEASSIGN, 0), -EINVAL);
	assert_int_equal(call(m.vm, KVM_IOEVENTFD, NULL), -EFAULT);
	machine_free(&m);
	close(fd);
	close(pipes[0]);
	close(pipes[1]);
}

/* With that of the row in place, which of these may join it? */
static const struct rule {
	u32 flags, len;
	u64 match;
} rules[] = {
	{ PIO, 0, 0 }, { PIO, 1, 0 }, { PIO, 2, 0 }, { PIO | MATCH, 1, 5 }, { PIO | MATCH, 1, 6 },
	{ PIO | MATCH, 2, 5 }, { 0, 0, 0 }, { 0, 4, 0 }, { MATCH, 4, 5 }, { MATCH, 8, 5 },
};

static bool together(const struct rule *a, const struct rule *b)
{
	if ((a->flags ^ b->flags) & PIO)
		return true;
	if (!a->len || !b->len)
		return false;
	if (a->len != b->len)
		return true;
	return a->flags & b->flags & MATCH && a->match != b->match;
}

static void test_neighbours(void **state)
{
	int a = new_eventfd(), b = new_eventfd();
	struct machine m;

	machine_new(&m, PLAIN);
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		const struct rule *r = &rules[i];

		assert_int_equal(ioeventfd(m.vm, a, PORT, r->len, r->flags, r->match), 0);
		for (size_t j = 0; j < ARRAY_SIZE(rules); j++) {
			const struct rule *s = &rules[j];
			bool fine = together(r, s);

			assert_int_equal(ioeventfd(m.vm, b, PORT, s->len, s->flags, s->match),
					 fine ? 0 : -EEXIST);
			assert_int_equal(ioeventfd(m.vm, b, PORT, s->len, s->flags | DEASSIGN,
						   s->match), fine ? 0 : -ENOENT);
			/* Somewhere else there is always room. */
			assert_int_equal(ioeventfd(m.vm, b, PORT + 8, s->len, s->flags, s->match), 0);
			assert_int_equal(ioeventfd(m.vm, b, PORT + 8, s->len, s->flags | DEASSIGN,
						   s->match), 0);
		}
		/* Another eventfd's, or with another value, is another one. */
		assert_int_equal(ioeventfd(m.vm, b, PORT, r->len, r->flags | DEASSIGN, r->match),
				 -ENOENT);
		assert_int_equal(ioeventfd(m.vm, a, PORT, r->len, (r->flags ^ MATCH) | DEASSIGN,
					   r->match), -ENOENT);
		assert_int_equal(ioeventfd(m.vm, a, PORT, r->len, r->flags | DEASSIGN, r->match), 0);
	}
	machine_free(&m);
	close(a);
	close(b);
}

/* ---- the eventfd ----------------------------------------------------------------------------- */

/* Its number may be closed, or become anything; all descriptors of it are the same. */
static void test_descriptor(void **state)
{
	int fd = new_eventfd(), other = dup(fd), pipes[2];
	struct machine m;
	char byte;

	machine_new(&m, PLAIN);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(ioeventfd(m.vm, fd, PORT, 1, PIO, 0), 0);
	assert_int_equal(dup2(pipes[1], fd), fd);
	assert_false(write_exits(&m, &port_writers[0], 1));
	assert_int_equal(take_eventfd(other), 1);
	close(fd);
	close(pipes[1]);
	assert_int_equal(read(pipes[0], &byte, 1), 0);
	close(pipes[0]);
	assert_int_equal(ioeventfd(m.vm, other, PORT, 1, PIO | DEASSIGN, 0), 0);
	assert_true(write_exits(&m, &port_writers[0], 1));
	/* Nobody is left to hear it: still no exit. */
	assert_int_equal(ioeventfd(m.vm, other, PORT, 1, PIO, 0), 0);
	close(other);
	assert_false(write_exits(&m, &port_writers[0], 1));
	machine_free(&m);
}

/* All numbers that the limit leaves are the program's, and all go to eventfds. */
#define MANY 1000

static void test_many(void **state)
{
	static int fd[MANY];
	struct rlimit old, few;
	struct machine m;
	u32 i, n;

	machine_new(&m, PLAIN);
	getrlimit(RLIMIT_NOFILE, &old);
	few = old;
	few.rlim_cur = MANY;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	for (n = 0; n < MANY; n++) {
		fd[n] = dup(0);
		if (fd[n] < 0)
			break;
		close(fd[n]);
		fd[n] = new_eventfd();
		assert_int_equal(ioeventfd(m.vm, fd[n], n * 4, 4, n & 1 ? PIO : PIO | MATCH, n), 0);
	}
	assert_true(n > MANY - 100);
	/* mov edx, 0; mov ecx, n; again: mov eax, edx; shr eax, 2; out dx, eax; add dx, 4; loop;
	 * out DONE_PORT, al */
	CODE(&m, 0x66, 0xba, 0, 0, 0, 0, 0xb9, MANY & 255, MANY >> 8, 0x66, 0x89, 0xd0, 0x66, 0xc1,
	     0xe8, 0x02, 0x66, 0xef, 0x83, 0xc2, 0x04, 0xe2, 0xf2, 0xe7, DONE_PORT);
	m.ram[CODE_AT + 7] = (u8)n;
	m.ram[CODE_AT + 8] = n >> 8;
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(m.run->io.port, DONE_PORT);
	for (i = 0; i < n; i++)
		assert_int_equal(take_eventfd(fd[i]), 1);
	for (i = 0; i < n; i += 2)
		assert_int_equal(ioeventfd(m.vm, fd[i], i * 4, 4, PIO | MATCH | DEASSIGN, i), 0);
	machine_code(&m, (u8[]){ 0xba, 8, 0, 0x66, 0xef }, 5);
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(m.run->io.port, 8);
	for (i = 0; i < n; i++)
		close(fd[i]);
	setrlimit(RLIMIT_NOFILE, &old);
	machine_free(&m);
}

int test_ioeventfd(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ports),
		cmocka_unit_test(test_physical),
		cmocka_unit_test(test_wide_match),
		cmocka_unit_test(test_strings_and_reads),
		cmocka_unit_test(test_string_match),
		cmocka_unit_test(test_once),
		cmocka_unit_test(test_halves),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_neighbours),
		cmocka_unit_test(test_descriptor),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests_name("ioeventfd", tests, NULL, NULL);
}
