/* Accesses that user space serves: the log of an instruction, replay, exits, and the I/O bitmap. */
#include "fake.h"

#include "hypervisor/x86/mem.h"
#include "hypervisor/x86/system.h"

static jmp_buf unwound;
static int raised;
static u8 tss[8192 + 256];

__noreturn_ void vcpu_unwind(struct vcpu *v, enum unwind why)
{
	assert_int_equal(why, UNWIND_EXIT);
	longjmp(unwound, 1);
}

__noreturn_ void vcpu_raise(struct vcpu *v, u8 vector, u32 error)
{
	assert_int_equal(error, 0);
	raised = vector;
	longjmp(unwound, 2);
}

__noreturn_ void emulation_failed(struct vcpu *v)
{
	v->run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	v->run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
	vcpu_unwind(v, UNWIND_EXIT);
}

u64 sys_read(struct vcpu *v, u64 la, unsigned int size)
{
	assert_int_equal(size, 2);
	assert_in_range(la, 0x1000, 0x1000 + sizeof(tss) - 2);
	return tss[la - 0x1000] | tss[la - 0x1000 + 1] << 8;
}

/* ---- an instruction: runs until it needs user space ------------------------------------------ */

typedef void insn_body(struct vcpu *v);

/* 0: it retired; 1: an exit; 2: a fault. */
static int run(struct vcpu *v, insn_body *insn)
{
	int why = setjmp(unwound);

	if (why)
		return why;
	io_complete(v);
	insn(v);
	assert_int_equal(v->io.next, v->io.done);
	v->io.done = v->io.next = 0;
	v->boundary = false;
	return 0;
}

static u8 page[8192] __attribute__((aligned(4096)));

static int setup(void **state)
{
	machine_setup(state);
	((struct machine *)*state)->cpu[0]->run = (void *)page;
	memset(page, 0, sizeof(page));
	return 0;
}

static u32 pio_got;

static void insn_in(struct vcpu *v)
{
	pio_got = pio_read(v, 0x3f8, 1);
}

static void test_in(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];

	assert_int_equal(run(v, insn_in), 1);
	assert_int_equal(v->run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(v->run->io.direction, KVM_EXIT_IO_IN);
	assert_int_equal(v->run->io.port, 0x3f8);
	assert_int_equal(v->run->io.size, 1);
	assert_int_equal(v->run->io.count, 1);
	page[v->run->io.data_offset] = 0x5a;
	assert_int_equal(run(v, insn_in), 0);
	assert_int_equal(pio_got, 0x5a);
	assert_int_equal(run(v, insn_in), 1);	/* the next one asks again */
}

static void insn_out(struct vcpu *v)
{
	pio_write(v, 0xcf8, 4, 0x80001234);
}

static void test_out(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];
	u32 val;

	assert_int_equal(run(v, insn_out), 1);
	assert_int_equal(v->run->io.direction, KVM_EXIT_IO_OUT);
	memcpy(&val, page + v->run->io.data_offset, 4);
	assert_int_equal(val, 0x80001234);
	assert_int_equal(run(v, insn_out), 0);
}

static u64 mmio_got[2];

/* A read and a write of two devices, after one of an in-kernel chip that must happen once. */
static void insn_mixed(struct vcpu *v)
{
	u8 poll = 0;

	poll = (u8)pio_read(v, 0x20, 1);
	mmio_read(v, 0xd0000000, mmio_got, 16);
	mmio_write(v, 0xd0001000, &poll, 1);
}

static void test_mixed(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	out8(m, 0x21, 0);
	line(m, 5, 1);
	out8(m, 0x20, 0x0c);			/* poll mode: reading has an effect */
	assert_int_equal(run(v, insn_mixed), 1);
	assert_int_equal(v->run->exit_reason, KVM_EXIT_MMIO);
	assert_int_equal(v->run->mmio.phys_addr, 0xd0000000);
	assert_int_equal(v->run->mmio.len, 8);
	assert_false(v->run->mmio.is_write);
	memset(v->run->mmio.data, 0x11, 8);
	assert_int_equal(run(v, insn_mixed), 1);
	assert_int_equal(v->run->mmio.phys_addr, 0xd0000008);
	memset(v->run->mmio.data, 0x22, 8);
	assert_int_equal(run(v, insn_mixed), 1);
	assert_int_equal(v->run->mmio.phys_addr, 0xd0001000);
	assert_true(v->run->mmio.is_write);
	assert_int_equal(v->run->mmio.data[0], 0x85);	/* what the one poll gave */
	assert_int_equal(run(v, insn_mixed), 0);
	assert_true(mmio_got[0] == 0x1111111111111111ULL && mmio_got[1] == 0x2222222222222222ULL);
}

static void insn_local(struct vcpu *v)
{
	u32 val = 0x40;

	mmio_write(v, 0xfee00080, &val, 4);
	mmio_read(v, 0xfee00080, &mmio_got[0], 4);
	val = 1;
	mmio_write(v, 0xfec00000, &val, 4);
	mmio_read(v, 0xfec00010, &mmio_got[1], 4);
	assert_true(v->boundary);
}

static void test_in_kernel(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];

	mmio_got[0] = mmio_got[1] = 0;
	v->fpu_live = true;
	assert_int_equal(run(v, insn_local), 0);
	assert_true(v->fpu_live);	/* devices keep the vector registers: x86/io.c */
	v->fpu_live = false;
	assert_int_equal(mmio_got[0], 0x40);
	assert_int_equal(mmio_got[1], 0x170011);
}

static void insn_many(struct vcpu *v)
{
	u8 buf[832];

	mmio_read(v, 0xd0000000, buf, sizeof(buf));
}

/* More than the log holds: user space hears of it, and nothing is overrun. */
static void test_log_full(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];

	for (unsigned int i = 0; i < IO_FRAGMENTS; i++) {
		assert_int_equal(run(v, insn_many), 1);
		assert_int_equal(v->run->exit_reason, KVM_EXIT_MMIO);
		assert_int_equal(v->run->mmio.phys_addr, 0xd0000000 + 8 * i);
	}
	assert_int_equal(run(v, insn_many), 1);
	assert_int_equal(v->run->exit_reason, KVM_EXIT_INTERNAL_ERROR);
	assert_int_equal(v->run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
	assert_int_equal(v->io.done, 0);
	assert_false(v->io.waiting);
}

static u64 moving;

static void insn_moving(struct vcpu *v)
{
	mmio_read(v, moving, mmio_got, 4);
}

/* Another vCPU changed the address in between: the old answer is not used for it. */
static void test_changed_under_us(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];

	moving = 0xd0000000;
	assert_int_equal(run(v, insn_moving), 1);
	memset(v->run->mmio.data, 0x33, 8);
	moving = 0xd0002000;
	assert_int_equal(run(v, insn_moving), 1);
	assert_int_equal(v->run->mmio.phys_addr, 0xd0002000);
	memset(v->run->mmio.data, 0x44, 8);
	assert_int_equal(run(v, insn_moving), 0);
	assert_int_equal((u32)mmio_got[0], 0x44444444);
}

/* ---- permission ------------------------------------------------------------------------------ */

static u16 check_port;
static unsigned int check_size;

static void insn_check(struct vcpu *v)
{
	io_check(v, check_port, check_size);
}

static bool allowed(struct vcpu *v, u16 port, unsigned int size)
{
	int why;

	check_port = port;
	check_size = size;
	raised = -1;
	why = run(v, insn_check);
	assert_true(!why || (why == 2 && raised == VEC_GP));
	return !why;
}

static void test_permission(void **state)
{
	struct vcpu *v = ((struct machine *)*state)->cpu[0];
	struct segment *tr = &v->seg[SEG_TR];

	assert_true(allowed(v, 0x80, 1));	/* real mode */
	v->cr0 = CR0_PE;
	v->cpl = 3;
	*tr = (struct segment){ .base = 0x1000, .limit = 104 + 8192, .attr = SEG_P | 11 };
	memset(tss, 0, sizeof(tss));
	tss[102] = 104;
	tss[104 + 8192] = 0xff;
	assert_true(allowed(v, 0x80, 4));
	assert_true(allowed(v, 0xffff, 1));
	tss[104 + 0x80 / 8] = 0x08;		/* 0x83 */
	assert_true(allowed(v, 0x82, 1));
	assert_false(allowed(v, 0x82, 2));
	assert_false(allowed(v, 0x80, 4));
	assert_true(allowed(v, 0x84, 4));
	tss[104 + 0x88 / 8] = 0x01;		/* across a byte */
	assert_false(allowed(v, 0x87, 2));
	assert_true(allowed(v, 0x87, 1));
	v->rflags = 3 << RFLAGS_IOPL_SHIFT;
	assert_true(allowed(v, 0x83, 1));	/* IOPL gives it */
	v->rflags |= RFLAGS_VM;
	assert_false(allowed(v, 0x83, 1));	/* not in virtual-8086 mode */
	v->rflags = 0;
	v->cpl = 0;
	assert_true(allowed(v, 0x83, 1));
	v->cpl = 3;
	tr->limit = 104 + 0x10;			/* past the limit */
	assert_true(allowed(v, 0x78, 1));
	assert_false(allowed(v, 0x80, 1));
	tr->limit = 102;
	assert_false(allowed(v, 0, 1));
	tr->limit = 8192;
	tr->attr = SEG_P | 3;			/* a 16-bit TSS has no map */
	assert_false(allowed(v, 0, 1));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, machine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_in), T(test_out), T(test_mixed), T(test_in_kernel), T(test_log_full),
		T(test_changed_under_us), T(test_permission),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
