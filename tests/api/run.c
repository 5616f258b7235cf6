/* KVM_RUN: each exit and its completion. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "tests/api/api.h"

static void expect_io(struct machine *m, int direction, u16 port, u8 size, u32 count)
{
	run_until(m, KVM_EXIT_IO);
	assert_int_equal(m->run->io.direction, direction);
	assert_int_equal(m->run->io.port, port);
	assert_int_equal(m->run->io.size, size);
	assert_int_equal(m->run->io.count, count);
}

static void test_halt(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	CODE(&m, 0xf4, 0x90, 0xf4);	/* hlt; nop; hlt */
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 1);
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 3);
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 1), -EINVAL);
	machine_free(&m);
}

static void test_out(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	/* mov al, 'Q'; out 0x80, al; mov dx, 0x3f8; mov eax, 0x12345678; out dx, ax; out dx, eax;
	 * hlt */
	CODE(&m, 0xb0, 'Q', 0xe6, 0x80, 0xba, 0xf8, 0x03, 0x66, 0xb8, 0x78, 0x56, 0x34, 0x12, 0xef,
		0x66, 0xef, 0xf4);
	expect_io(&m, KVM_EXIT_IO_OUT, 0x80, 1, 1);
	assert_int_equal(*(u8 *)io_data(m.run), 'Q');
	expect_io(&m, KVM_EXIT_IO_OUT, 0x3f8, 2, 1);
	assert_int_equal(*(u16 *)io_data(m.run), 0x5678);
	expect_io(&m, KVM_EXIT_IO_OUT, 0x3f8, 4, 1);
	assert_int_equal(*(u32 *)io_data(m.run), 0x12345678);
	run_to_halt(&m);
	machine_free(&m);
}

static void test_in(void **state)
{
	struct kvm_regs r;
	struct machine m;

	machine_new(&m, PLAIN);
	/* mov eax, -1; in al, 0x60; mov ebx, eax; in eax, 0x61; hlt */
	CODE(&m, 0x66, 0xb8, 0xff, 0xff, 0xff, 0xff, 0xe4, 0x60, 0x66, 0x89, 0xc3, 0x66, 0xe5, 0x61,
		0xf4);
	expect_io(&m, KVM_EXIT_IO_IN, 0x60, 1, 1);
	*(u8 *)io_data(m.run) = 0x5a;
	expect_io(&m, KVM_EXIT_IO_IN, 0x61, 4, 1);
	*(u32 *)io_data(m.run) = 0xcafef00d;
	run_to_halt(&m);
	r = get_regs(m.vcpu);
	assert_int_equal(r.rbx, 0xffffff5a);
	assert_int_equal(r.rax, 0xcafef00d);
	machine_free(&m);
}

/* REP OUTSB and INSB: user space may be given one element or several at a time. */
static void test_string_io(void **state)
{
	u32 done = 0;
	struct machine m;

	machine_new(&m, PLAIN);
	/* cld; mov si, 0x100; mov cx, 5; mov dx, 0x10; rep outsb; mov di, 0x200; mov cx, 5; rep
	 * insb; hlt */
	CODE(&m, 0xfc, 0xbe, 0x00, 0x01, 0xb9, 0x05, 0x00, 0xba, 0x10, 0x00, 0xf3, 0x6e,
	     0xbf, 0x00, 0x02, 0xb9, 0x05, 0x00, 0xf3, 0x6c, 0xf4);
	memcpy(m.ram + 0x100, "Qumra", 5);
	while (done < 5) {
		run_until(&m, KVM_EXIT_IO);
		assert_int_equal(m.run->io.direction, KVM_EXIT_IO_OUT);
		assert_memory_equal(io_data(m.run), "Qumra" + done, m.run->io.count);
		done += m.run->io.count;
	}
	assert_int_equal(done, 5);
	for (done = 0; done < 5; done += m.run->io.count) {
		run_until(&m, KVM_EXIT_IO);
		assert_int_equal(m.run->io.direction, KVM_EXIT_IO_IN);
		memcpy(io_data(m.run), "guest" + done, m.run->io.count);
	}
	run_to_halt(&m);
	assert_memory_equal(m.ram + 0x200, "guest", 5);
	machine_free(&m);
}

#define WORDS	700

/* Serves string I/O of WORDS words at most; what user space does meanwhile (registers set to what they are, a slot
 * that comes) must not lose any. Returns how many exits it took. */
static u32 serve_words(struct machine *m, int direction, u16 *words)
{
	struct kvm_userspace_memory_region mem = { .slot = 1, .guest_phys_addr = 0x200000, .memory_size = 4096,
		.userspace_addr = (u64)m->ram };
	u32 done = 0, exits = 0;

	for (; done < WORDS; done += m->run->io.count, exits++) {
		struct kvm_sregs s;
		size_t size;

		run_until(m, KVM_EXIT_IO);
		assert_int_equal(m->run->io.direction, direction);
		assert_int_equal(m->run->io.size, 2);
		assert_true(m->run->io.count <= WORDS - done);
		size = m->run->io.count * 2;
		if (direction == KVM_EXIT_IO_IN)
			memcpy(io_data(m->run), words + done, size);
		else
			memcpy(words + done, io_data(m->run), size);
		s = get_sregs(m->vcpu);
		assert_int_equal(call(m->vcpu, KVM_SET_SREGS, &s), 0);
		if (exits == 0)
			assert_int_equal(call(m->vm, KVM_SET_USER_MEMORY_REGION, &mem), 0);
	}
	return exits;
}

/* From and to addresses that cross pages, one of them with the code that is running. */
static void test_string_io_long(void **state)
{
	u16 words[WORDS], got[WORDS];
	struct machine m;
	u32 i, exits;

	for (i = 0; i < WORDS; i++)
		words[i] = (u16)(i * 31 + 7);
	machine_new(&m, PLAIN);
	/* cld; mov di, 0xd81; mov cx, 700; mov dx, 0x10; ... at 0x1400: rep insw; mov si, 0xd81; mov cx, 700; rep
	 * outsw; hlt */
	CODE(&m, 0xfc, 0xbf, 0x81, 0x0d, 0xb9, 0xbc, 0x02, 0xba, 0x10, 0x00, 0xe9, 0xf3, 0x03);
	memcpy(m.ram + 0x1400, (const u8[]){ 0xf3, 0x6d, 0xbe, 0x81, 0x0d, 0xb9, 0xbc, 0x02, 0xf3, 0x6f, 0xf4 }, 11);
	exits = serve_words(&m, KVM_EXIT_IO_IN, words);
	exits += serve_words(&m, KVM_EXIT_IO_OUT, got);
	run_to_halt(&m);
	assert_memory_equal(m.ram + 0xd81, words, sizeof(words));
	assert_memory_equal(got, words, sizeof(words));
	if (!api_is_host())
		assert_true(exits < 20);
	machine_free(&m);
}

/* 1024 bytes wait for their answer when their instruction becomes one of four bytes each: what waited says
 * nothing about it, and no exit moves more than there is room for. */
static void replaced(u8 opcode)
{
	u32 after = 0;
	struct machine m;

	machine_new(&m, PLAIN);
	/* cld; mov si, 0x4000; mov di, si; mov cx, 0x800; mov dx, 0x10; ds rep outsb (insb); hlt */
	CODE(&m, 0xfc, 0xbe, 0x00, 0x40, 0x89, 0xf7, 0xb9, 0x00, 0x08, 0xba, 0x10, 0x00, 0x3e, 0xf3, 0x6e, 0xf4);
	m.ram[CODE_AT + 14] = opcode;
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(m.run->io.size, 1);
	m.ram[CODE_AT + 12] = 0x66;
	m.ram[CODE_AT + 14] = opcode + 1;
	while (!call_num(m.vcpu, KVM_RUN, 0) && m.run->exit_reason == KVM_EXIT_IO) {
		assert_int_equal(m.run->io.size, 4);
		assert_in_range(m.run->io.count, 1, 1024 / 4);
		after += m.run->io.count;
	}
	assert_int_equal(m.run->exit_reason, KVM_EXIT_HLT);
	assert_in_range(after, 0x800 - 1024, 0x800);
	machine_free(&m);
}

static void test_string_io_replaced(void **state)
{
	replaced(0x6e);
	replaced(0x6c);
}

/* Downwards, and to a device: element by element. */
static void test_string_io_down(void **state)
{
	static const u8 in[] = { 1, 2, 3, 4 };
	struct machine m;
	u32 i;

	machine_new(&m, PLAIN);
	/* std; mov di, 0x203; mov cx, 4; mov dx, 0x10; rep insb; hlt */
	CODE(&m, 0xfd, 0xbf, 0x03, 0x02, 0xb9, 0x04, 0x00, 0xba, 0x10, 0x00, 0xf3, 0x6c, 0xf4);
	for (i = 0; i < 4; i += m.run->io.count) {
		run_until(&m, KVM_EXIT_IO);
		memcpy(io_data(m.run), in + i, m.run->io.count);
	}
	run_to_halt(&m);
	assert_memory_equal(m.ram + 0x200, ((const u8[]){ 4, 3, 2, 1 }), 4);
	machine_free(&m);
}

static void expect_mmio(struct machine *m, u64 addr, u32 len, bool write)
{
	run_until(m, KVM_EXIT_MMIO);
	assert_int_equal(m->run->mmio.phys_addr, addr);
	assert_int_equal(m->run->mmio.len, len);
	assert_int_equal(m->run->mmio.is_write, write);
}

static void test_mmio(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	/* mov ax, 0xd000; mov ds, ax; mov eax, [8]; inc eax; mov [0x10], ax; add byte [0x20], 3;
	 * hlt */
	CODE(&m, 0xb8, 0x00, 0xd0, 0x8e, 0xd8, 0x66, 0xa1, 0x08, 0x00, 0x66, 0x40, 0xa3, 0x10, 0x00,
	     0x80, 0x06, 0x20, 0x00, 0x03, 0xf4);
	expect_mmio(&m, 0xd0008, 4, false);
	memcpy(m.run->mmio.data, "\x77\x66\x55\x44", 4);
	expect_mmio(&m, 0xd0010, 2, true);
	assert_memory_equal(m.run->mmio.data, "\x78\x66", 2);
	expect_mmio(&m, 0xd0020, 1, false);
	m.run->mmio.data[0] = 40;
	expect_mmio(&m, 0xd0020, 1, true);
	assert_int_equal(m.run->mmio.data[0], 43);
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rax, 0x44556678);
	machine_free(&m);
}

/* An instruction whose two operands are both user space's: MOVSW from one device to another. */
static void test_mmio_to_mmio(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	/* mov ax, 0xd000; mov ds, ax; mov es, ax; mov si, 0x10; mov di, 0x20; cld; movsw; hlt */
	CODE(&m, 0xb8, 0x00, 0xd0, 0x8e, 0xd8, 0x8e, 0xc0, 0xbe, 0x10, 0x00, 0xbf, 0x20, 0x00, 0xfc,
		0xa5, 0xf4);
	expect_mmio(&m, 0xd0010, 2, false);
	memcpy(m.run->mmio.data, "\xcd\xab", 2);
	expect_mmio(&m, 0xd0020, 2, true);
	assert_memory_equal(m.run->mmio.data, "\xcd\xab", 2);
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rsi, 0x12);
	assert_int_equal(get_regs(m.vcpu).rdi, 0x22);
	machine_free(&m);
}

static void test_triple_fault(void **state)
{
	struct kvm_sregs s;
	struct machine m;

	skip_on_emulated_host("ignores the limit of the real-mode IDT");
	machine_new(&m, PLAIN);
	CODE(&m, 0x0f, 0x0b);	/* ud2, without any vector */
	s = get_sregs(m.vcpu);
	s.idt.limit = 0;
	assert_int_equal(call(m.vcpu, KVM_SET_SREGS, &s), 0);
	run_until(&m, KVM_EXIT_SHUTDOWN);
	machine_free(&m);
}

static void test_real_mode_exception(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	/* Vector 6 leads to 0:0x1800. */
	*(u32 *)(m.ram + 6 * 4) = 0x1800;
	m.ram[0x1800] = 0xf4;
	CODE(&m, 0x0f, 0x0b);
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rip, 0x1801);
	assert_int_equal(*(u16 *)(m.ram + 0x7ffa), CODE_AT);
	machine_free(&m);
}

static void test_immediate_exit(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	CODE(&m, 0x40, 0xeb, 0xfd);	/* again: inc ax; jmp again */
	m.run->immediate_exit = 1;
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EINTR);
	assert_int_equal(get_regs(m.vcpu).rax, 0);
	machine_free(&m);
}

/* The answer of user space is taken even when the vCPU is not to run on. */
static void test_immediate_exit_after_io(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	CODE(&m, 0xe4, 0x60, 0xf4);	/* in al, 0x60; hlt */
	expect_io(&m, KVM_EXIT_IO_IN, 0x60, 1, 1);
	*(u8 *)io_data(m.run) = 0x42;
	m.run->immediate_exit = 1;
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EINTR);
	assert_int_equal(get_regs(m.vcpu).rax & 0xff, 0x42);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 2);
	m.run->immediate_exit = 0;
	*(u8 *)io_data(m.run) = 0;
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rax & 0xff, 0x42);
	machine_free(&m);
}

static void test_sync_regs(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	CODE(&m, 0x40, 0xf4, 0x40, 0xf4);	/* inc ax; hlt; inc ax; hlt */
	m.run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	run_to_halt(&m);
	assert_int_equal(m.run->s.regs.regs.rax, 1);
	assert_int_equal(m.run->s.regs.sregs.cs.base, 0);
	m.run->s.regs.regs.rax = 0x41;
	m.run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	run_to_halt(&m);
	assert_int_equal(m.run->s.regs.regs.rax, 0x42);
	m.run->kvm_valid_regs = BIT(40);
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EINVAL);
	m.run->kvm_valid_regs = 0;
	m.run->kvm_dirty_regs = BIT(40);
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EINVAL);
	m.run->kvm_dirty_regs = 0;
	machine_free(&m);
}

/* Two machines in one process do not see each other. */
static void test_two_machines(void **state)
{
	struct machine a, b;

	machine_new(&a, PLAIN);
	machine_new(&b, PLAIN);
	CODE(&a, 0xb8, 0x01, 0x00, 0xa3, 0x00, 0x05, 0xf4); /* mov ax, 1; mov [0x500], ax; hlt */
	CODE(&b, 0xb8, 0x02, 0x00, 0xa3, 0x00, 0x05, 0xf4);
	run_to_halt(&a);
	run_to_halt(&b);
	assert_int_equal(a.ram[0x500], 1);
	assert_int_equal(b.ram[0x500], 2);
	machine_free(&a);
	CODE(&b, 0xf4);
	run_to_halt(&b);
	machine_free(&b);
}

static void test_vcpu_ids(void **state)
{
	struct machine m;
	int second;

	machine_new(&m, PLAIN);
	assert_int_equal(call_num(m.vm, KVM_CREATE_VCPU, 0), -EEXIST);
	assert_int_equal(call_num(m.vm, KVM_CREATE_VCPU,
				 call_num(m.sys, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPU_ID)),
		-EINVAL);
	assert_int_equal(call_num(m.vm, KVM_CREATE_VCPU, ~0UL), -EINVAL);
	assert_int_equal(call_num(m.vm, KVM_SET_BOOT_CPU_ID, 1), -EBUSY);
	second = call_num(m.vm, KVM_CREATE_VCPU, 7);
	assert_true(second >= 0);
	api->close(second);
	/* Closed, but there. */
	assert_int_equal(call_num(m.vm, KVM_CREATE_VCPU, 7), -EEXIST);
	machine_free(&m);
}

/* ---- counters ------------------------------------------------------------------------------ */

#define STATS_MAX 200

struct stats {
	struct kvm_stats_header header;
	u32 n;
	struct {
		struct kvm_stats_desc desc;
		char name[48];
	} desc[STATS_MAX];
};

static int stats_open(struct stats *s, int vcpu)
{
	int fd = call_num(vcpu, KVM_GET_STATS_FD, 0);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &s->header, sizeof(s->header), 0), sizeof(s->header));
	assert_int_equal(s->header.name_size, 48);
	s->n = s->header.num_desc;
	assert_in_range(s->n, 1, STATS_MAX);
	assert_int_equal(pread(fd, s->desc, s->n * 64, s->header.desc_offset), s->n * 64);
	return fd;
}

static u64 stats_value(const struct stats *s, int fd, const char *name)
{
	u64 value;

	for (u32 i = 0; i < s->n; i++) {
		if (strncmp(s->desc[i].name, name, 48))
			continue;
		assert_int_equal(s->desc[i].desc.size, 1);
		assert_int_equal(pread(fd, &value, 8, s->header.data_offset +
			s->desc[i].desc.offset), 8);
		return value;
	}
	return ~0ULL;
}

static void test_stats(void **state)
{
	struct stats *s = test_malloc(sizeof(*s));
	char id[48];
	struct machine m;
	int fd;

	machine_new(&m, PLAIN);
	CODE(&m, 0xe6, 0x80, 0xe6, 0x80, 0xf4);		/* out 0x80, al; twice; hlt */
	run_until(&m, KVM_EXIT_IO);
	run_until(&m, KVM_EXIT_IO);
	run_to_halt(&m);
	fd = stats_open(s, m.vcpu);
	/* Each has a name, once, and terminated. */
	for (u32 i = 0; i < s->n; i++) {
		assert_int_not_equal(s->desc[i].name[0], 0);
		assert_non_null(memchr(s->desc[i].name, 0, 48));
		for (u32 k = 0; k < i; k++)
			assert_int_not_equal(strcmp(s->desc[i].name, s->desc[k].name), 0);
	}
	assert_int_equal(pread(fd, id, 48, s->header.id_offset), 48);
	assert_non_null(memchr(id, 0, 48));
	assert_int_not_equal(id[0], 0);
	assert_int_equal(stats_value(s, fd, "exits"), 3);
	if (!api_is_host()) {
		assert_int_equal(stats_value(s, fd, "pio"), 2);
		assert_string_equal(id, "kvm-qumra/vcpu-0");
		assert_int_equal(stats_value(s, fd, "no such"), ~0ULL);
	}
	assert_int_equal(close(fd), 0);
	machine_free(&m);
	test_free(s);
}

int test_run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_halt),
		cmocka_unit_test(test_out),
		cmocka_unit_test(test_in),
		cmocka_unit_test(test_string_io),
		cmocka_unit_test(test_string_io_long),
		cmocka_unit_test(test_string_io_replaced),
		cmocka_unit_test(test_string_io_down),
		cmocka_unit_test(test_mmio),
		cmocka_unit_test(test_mmio_to_mmio),
		cmocka_unit_test(test_triple_fault),
		cmocka_unit_test(test_real_mode_exception),
		cmocka_unit_test(test_immediate_exit),
		cmocka_unit_test(test_immediate_exit_after_io),
		cmocka_unit_test(test_sync_regs),
		cmocka_unit_test(test_two_machines),
		cmocka_unit_test(test_vcpu_ids),
		cmocka_unit_test(test_stats),
	};

	return cmocka_run_group_tests_name("run", tests, NULL, NULL);
}
