/*
 * Stubs of native instructions reach exactly the memory that the opcode table says: no byte more, which
 * is what keeps a guest inside its operand, and not a byte less. Each row with a memory operand runs at the
 * end of a page behind which there is none.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "hypervisor/insn/native.h"
#include "hypervisor/insn/opcode.h"
#include "hypervisor/x86/regs.h"

#define PAGE 4096

static u8 *page;		/* followed by nothing */
static struct vcpu *vcpu;
static unsigned int rows_seen;

static unsigned int encode_vex(const struct opcode_where *at, u8 *p, bool w, bool l, u8 modrm)
{
	static const u8 pp[] = { [OPC_NP] = 0, [OPC_66] = 1, [OPC_F3] = 2, [OPC_F2] = 3 };
	p[0] = 0xc4;
	p[1] = 0xe0 | (at->map - MAP_VEX1 + 1);
	p[2] = (u8)(w << 7 | 15 << 3 | l << 2 | pp[at->pfx]);
	p[3] = at->opcode;
	p[4] = modrm;
	return 5;
}

static unsigned int encode_legacy(const struct opcode_where *at, u8 *p, bool w, u8 modrm)
{
	static const u8 prefix[] = { [OPC_66] = 0x66, [OPC_F3] = 0xf3, [OPC_F2] = 0xf2 };
	unsigned int n = 0;

	if (at->pfx != OPC_NP)
		p[n++] = prefix[at->pfx];
	if (w)
		p[n++] = 0x48;
	if (at->map != MAP_1)
		p[n++] = 0x0f;
	if (at->map == MAP_0F38)
		p[n++] = 0x38;
	if (at->map == MAP_0F3A)
		p[n++] = 0x3a;
	p[n++] = at->opcode;
	p[n++] = modrm;
	return n;
}

/* The row's memory form with [rsi], if it has one. */
static bool make(u32 row, bool w, bool l, struct insn *i)
{
	struct opcode_where at;
	u8 bytes[16] = { 0 }, modrm;

	if (!opcode_where(row, &at) || at.mod == 3)
		return false;
	modrm = (u8)((at.ext >= 0 ? at.ext : 1) << 3 | 6);
	if (at.map >= MAP_VEX1 && at.map <= MAP_VEX3)
		encode_vex(&at, bytes, w, l, modrm);
	else
		encode_legacy(&at, bytes, w, modrm);
	if (insn_decode(bytes, sizeof(bytes), 8, i) != DECODE_OK) {
		bytes[2] &= 0x87;	/* VEX.vvvv is an operand: register 2 */
		bytes[2] |= 13 << 3;
		if (insn_decode(bytes, sizeof(bytes), 8, i) != DECODE_OK)
			return false;
	}
	return i->row == row && (i->flags & (I_NATIVE | I_MEM)) == (I_NATIVE | I_MEM);
}

/* Called without anything in the vector registers; the result is 0 or 1 + vector. */
static u64 run(const struct native_stub *s, u8 *p)
{
	u64 ret = s->run(p, vcpu->r);

	__asm__ volatile("fninit");
	return ret;
}

static void check_row(u32 row, const struct insn *i)
{
	const struct opcode *r = opcode_row(row);
	const struct native_stub *s = native_stub(vcpu, i);
	u8 *end = page + PAGE, *fits = end - s->size;
	u64 at_end = run(s, fits), beyond = run(s, fits + 1), readonly;

	if (at_end == 1 + VEC_UD)
		return;			/* this CPU does not have it */
	mprotect(page, PAGE, PROT_READ);
	readonly = run(s, fits);
	mprotect(page, PAGE, PROT_READ | PROT_WRITE);
	rows_seen++;
	if (!s->size || s->size > 64 || at_end ||
	    (beyond != 1 + VEC_PF && beyond != 1 + VEC_GP) ||
	    readonly != (s->access & OPC_MEM_WRITE ? 1 + VEC_PF : 0))
		fail_msg("row %x %s: size %u access %u: at the end %d, beyond %d, read-only %d", row, r->name,
			s->size, s->access, (int)at_end - 1, (int)beyond - 1, (int)readonly - 1);
}

static void operand_size(void)
{
	struct insn i;

	for (u32 row = 0; row < opcode_rows(); row++) {
		if (!opcode_row(row) || !(opcode_row(row)->attr & ATTR_NATIVE))
			continue;
		for (unsigned int form = 0; form < 4; form++) {
			if (!make(row, form & 1, form & 2, &i))
				continue;
			assert_int_equal(native_prepare(vcpu, &i), 0);
			check_row(row, &i);
		}
	}
	assert_true(rows_seen > 900);
}

/* Equal instructions share a stub; a full area says so and works again after a reset. */
static void area(void)
{
	struct insn a, b;
	u8 bytes[16] = { 0x66, 0x0f, 0x70, 0xc1, 0 };	/* pshufd xmm0, xmm1, imm8 */
	unsigned int n = 0;
	int ret = 0;

	native_reset(vcpu);
	assert_int_equal(insn_decode(bytes, sizeof(bytes), 8, &a), DECODE_OK);
	b = a;
	assert_int_equal(native_prepare(vcpu, &a), 0);
	assert_int_equal(native_prepare(vcpu, &b), 0);
	assert_int_equal(a.aux, b.aux);
	for (u32 k = 0; k < 256 * 512 && !ret; k++, n++) {
		bytes[3] = 0xc0 | (k >> 8 & 63);
		bytes[2] = k >> 14 ? 0xc6 : 0x70;	/* then shufpd */
		bytes[4] = (u8)k;
		assert_int_equal(insn_decode(bytes, sizeof(bytes), 8, &b), DECODE_OK);
		ret = native_prepare(vcpu, &b);
	}
	assert_int_equal(ret, -ENOSPC);
	assert_true(n > 8000);
	native_reset(vcpu);
	assert_int_equal(native_prepare(vcpu, &b), 0);
	assert_int_equal(native_stub(vcpu, &b)->run(NULL, vcpu->r), 0);
}

static void test_native(void **state)
{
	page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(page != MAP_FAILED);
	assert_int_equal(mprotect(page + PAGE, PAGE, PROT_NONE), 0);
	vcpu = calloc(1, sizeof(*vcpu));
	assert_non_null(vcpu);
	vcpu->code_bytes = 8;
	/* Here, not in a set-up function: cmocka sets its own signal handlers before each test. */
	assert_int_equal(native_create(vcpu), 0);
	operand_size();
	area();
	native_destroy(vcpu);
	free(vcpu);
	munmap(page, 2 * PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_native) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
