/*
 * State components: what CPUID leaf 0xD says of them, XCR0, and AVX-512's registers from KVM_SET_XSAVE through the
 * guest and the host's own registers to KVM_GET_XSAVE. SDM 1 chapter 13.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/api/api.h"
#include "tests/api/flat.h"

#define X87		BIT(0)
#define SSE		BIT(1)
#define AVX		BIT(2)
#define OPMASK		BIT(5)
#define ZMM_HI256	BIT(6)
#define HI16_ZMM	BIT(7)
#define AVX512		(OPMASK | ZMM_HI256 | HI16_ZMM)
#define LEGACY		(X87 | SSE | AVX)
#define ALL		(LEGACY | AVX512)

#define CR4_OSFXSR	BIT(9)
#define CR4_OSXSAVE	BIT(18)

#define AREA_AT		0x4000		/* of the guest's XSAVE */
#define HEADER		512
#define MXCSR		24
#define COMPACT		BIT(63)

/* XRSTOR loads what it finds; MOVAPS brings everything into the host's registers, where it is not yet. */
#define TOUCH		0x0f, 0x28, 0xc0
#define XGETBV_1	0xb9, 1, 0, 0, 0, 0x0f, 0x01, 0xd0
#define OUT		0xe6, 0x10

/* The host's offset and size of each. */
static u32 offset[8], size[8];

static bool host_has(void)
{
	u32 a, b, c, d;

	__cpuid_count(7, 0, a, b, c, d);
	if (!(b & BIT(16)) || !(b & BIT(30)))
		return false;
	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	if ((a & ALL) != ALL)
		return false;
	for (unsigned int k = 2; k < 8; k++)
		__cpuid_count(0xd, k, size[k], offset[k], c, d);
	offset[1] = 160;
	size[1] = 256;
	return true;
}

static void need_host(void)
{
	if (!host_has())
		skip();
}

/* ---- the guest's CPUID ---- */

struct table {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 e[256];
};

static struct kvm_cpuid_entry2 *entry(struct table *t, u32 function, u32 index)
{
	for (u32 k = 0; k < t->head.nent; k++)
		if (t->e[k].function == function && t->e[k].index == index)
			return &t->e[k];
	return NULL;
}

/* What is supported, and these components. */
static void give_components(struct machine *m, u64 components)
{
	static struct table t;

	t.head.nent = 256;
	assert_int_equal(call(m->sys, KVM_GET_SUPPORTED_CPUID, &t), 0);
	entry(&t, 0xd, 0)->eax = (u32)components;
	entry(&t, 7, 0)->ebx |= components & AVX512 ? BIT(16) | BIT(30) : 0;
	assert_int_equal(call(m->vcpu, KVM_SET_CPUID2, &t), 0);
}

static long set_xcr0(struct machine *m, u64 val)
{
	struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs = { { .value = val } } };

	return call(m->vcpu, KVM_SET_XCRS, &x);
}

static void enable(struct machine *m)
{
	struct kvm_sregs s = get_sregs(m->vcpu);

	s.cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
	assert_int_equal(call(m->vcpu, KVM_SET_SREGS, &s), 0);
}

/* In 64-bit mode, with AVX-512 in CPUID and XCR0. */
static void machine_new_xstate(struct machine *m)
{
	machine_new(m, PLAIN);
	give_components(m, ALL);
	paged_mode(m);
	enable(m);
	assert_int_equal(set_xcr0(m, ALL), 0);
}

/* ---- code ---- */

/* RDI: the area; EDX:EAX: a mask; RCX: 0. */
static struct kvm_regs run_code(struct machine *m, const u8 *code, size_t n, u64 mask)
{
	struct kvm_regs r = { .rip = CODE_AT, .rsp = 0x8000, .rflags = 2, .rdi = AREA_AT, .rax = (u32)mask,
		.rdx = mask >> 32 };

	memcpy(m->ram + CODE_AT, code, n);
	set_regs(m->vcpu, &r);
	run_until(m, KVM_EXIT_IO);
	return get_regs(m->vcpu);
}

#define RUN(m, mask, ...) run_code(m, (const u8[]){ __VA_ARGS__, OUT }, sizeof((const u8[]){ __VA_ARGS__, OUT }), \
	mask)

/* ---- images ---- */

static struct kvm_xsave image;

static u8 *component(struct kvm_xsave *x, unsigned int k)
{
	return (u8 *)x->region + offset[k];
}

static u64 *header(struct kvm_xsave *x)
{
	return (u64 *)((u8 *)x->region + HEADER);
}

/* Every byte differs from its neighbours, and from those of another seed. */
static void fill(u8 *p, unsigned int n, u8 seed)
{
	for (unsigned int k = 0; k < n; k++)
		p[k] = (u8)(seed + k * 7 + k / 64 * 3) | 1;
}

/* These components in use; x87, if so, by an FCW of its own. */
static void image_make(struct kvm_xsave *x, u64 components, u8 seed)
{
	memset(x, 0, sizeof(*x));
	*(u16 *)x->region = components & X87 ? 0x27f : 0x37f;
	*(u32 *)((u8 *)x->region + MXCSR) = 0x1f80;
	for (unsigned int k = 1; k < 8; k++)
		if (components & BIT(k))
			fill(component(x, k), size[k], (u8)(seed + k * 31));
	header(x)[0] = components;
}

static void image_set(struct machine *m, struct kvm_xsave *x)
{
	assert_int_equal(call(m->vcpu, KVM_SET_XSAVE, x), 0);
}

/* The vCPU holds exactly this; what is not in use may be said to be, as zeros. */
static void image_expect(struct machine *m, struct kvm_xsave *want, u64 components)
{
	static struct kvm_xsave x;

	assert_int_equal(call(m->vcpu, KVM_GET_XSAVE, &x), 0);
	assert_int_equal(header(&x)[0] & header(want)[0], header(want)[0]);
	assert_int_equal(*(u16 *)x.region, *(u16 *)want->region);
	for (unsigned int k = 1; k < 8; k++)
		if (components & BIT(k) && memcmp(component(&x, k), component(want, k), size[k]))
			fail_msg("component %u is not what it should be", k);
}

/* What the C library, or another guest, may have left in this thread's registers. */
static void host_dirty(void)
{
	__asm__ volatile(".irp n, 1, 15, 16, 17, 30, 31\n\t"
			 "vpternlogd $255, %%zmm\\n, %%zmm\\n, %%zmm\\n\n\t"
			 ".endr\n\t"
			 ".irp n, 0, 1, 2, 3, 4, 5, 6, 7\n\t"
			 "kxnorq %%k\\n, %%k\\n, %%k\\n\n\t"
			 ".endr" ::: "memory");
}

/* ---- CPUID and XCR0 ---- */

static u32 cpuid_of(struct machine *m, u32 leaf, u32 sub, bool ecx)
{
	struct kvm_regs r = { .rax = leaf, .rcx = sub };

	assert_int_equal(flat_insn(m, (const u8[]){ 0x0f, 0xa2 }, 2, &r), KVM_EXIT_IO);
	return ecx ? (u32)r.rcx : (u32)r.rbx;
}

static u32 end_of(unsigned int k)
{
	return offset[k] + size[k];
}

static void test_sizes(void **state)
{
	struct machine m;

	need_host();
	machine_new(&m, PLAIN);
	give_components(&m, ALL);
	assert_int_equal(cpuid_of(&m, 0xd, 0, false), 576);
	assert_int_equal(set_xcr0(&m, LEGACY), 0);
	assert_int_equal(cpuid_of(&m, 0xd, 0, false), end_of(2));
	assert_int_equal(cpuid_of(&m, 0xd, 1, false), end_of(2));
	assert_int_equal(set_xcr0(&m, ALL), 0);
	assert_int_equal(cpuid_of(&m, 0xd, 0, false), end_of(7));
	assert_int_equal(cpuid_of(&m, 0xd, 1, false), 576 + size[2] + size[5] + size[6] + size[7]);
	machine_free(&m);
}

/* By user space and by the guest alike. SDM 1 13.3 */
static void xcr0_try(struct machine *m, u64 val, bool good)
{
	struct kvm_regs r = { .rax = (u32)val, .rdx = val >> 32 };

	assert_int_equal(set_xcr0(m, val), good ? 0 : -EINVAL);
	flat_mode(m->vcpu);
	enable(m);
	assert_int_equal(flat_insn(m, (const u8[]){ 0x0f, 0x01, 0xd1 }, 3, &r),
		good ? KVM_EXIT_IO : KVM_EXIT_SHUTDOWN);
}

static void test_xcr0(void **state)
{
	static const u64 good[] = { 1, 3, LEGACY, ALL };
	static const u64 bad[] = { 0, 2, 5, ALL & ~X87, ALL & ~SSE, ALL & ~AVX, ALL & ~OPMASK, ALL & ~ZMM_HI256,
		ALL & ~HI16_ZMM, X87 | OPMASK, LEGACY | OPMASK, LEGACY | HI16_ZMM, ALL | BIT(9), ALL | BIT(63) };
	struct machine m;

	need_host();
	machine_new(&m, PLAIN);
	give_components(&m, ALL);
	for (size_t k = 0; k < ARRAY_SIZE(good); k++)
		xcr0_try(&m, good[k], true);
	for (size_t k = 0; k < ARRAY_SIZE(bad); k++)
		xcr0_try(&m, bad[k], false);
	machine_free(&m);
	machine_new(&m, PLAIN);
	give_components(&m, LEGACY);
	xcr0_try(&m, LEGACY, true);
	xcr0_try(&m, ALL, false);
	machine_free(&m);
}

static void test_image_checks(void **state)
{
	struct machine m;

	need_host();
	machine_new_xstate(&m);
	image_make(&image, ALL, 1);
	header(&image)[0] |= BIT(9);
	assert_int_equal(call(m.vcpu, KVM_SET_XSAVE, &image), -EINVAL);
	header(&image)[0] = ALL;
	header(&image)[1] = COMPACT | ALL;
	assert_int_equal(call(m.vcpu, KVM_SET_XSAVE, &image), -EINVAL);
	header(&image)[1] = 0;
	header(&image)[7] = 1;
	assert_int_equal(call(m.vcpu, KVM_SET_XSAVE, &image), -EINVAL);
	header(&image)[7] = 0;
	image_set(&m, &image);
	machine_free(&m);
	/* A guest that cannot have them: they are taken, but not given. */
	machine_new(&m, PLAIN);
	give_components(&m, LEGACY);
	image_set(&m, &image);
	assert_int_equal(call(m.vcpu, KVM_GET_XSAVE, &image), 0);
	assert_int_equal(header(&image)[0], LEGACY);
	for (unsigned int c = 5; c < 8; c++)
		for (unsigned int k = 0; k < size[c]; k++)
			assert_int_equal(component(&image, c)[k], 0);
	image_make(&image, LEGACY, 1);
	image_expect(&m, &image, LEGACY);
	machine_free(&m);
}

/* ---- through the host's registers ---- */

/* Whatever is in use, and whatever lies in the registers before: the guest's own comes back. */
static void test_there_and_back(void **state)
{
	static const u64 parts[] = { X87, AVX, OPMASK, ZMM_HI256, HI16_ZMM };
	struct machine m;

	need_host();
	machine_new_xstate(&m);
	for (unsigned int n = 0; n < 64; n++) {
		u64 components = n & 32 ? 0 : SSE;

		for (unsigned int k = 0; k < ARRAY_SIZE(parts); k++)
			components |= n >> k & 1 ? parts[k] : 0;
		image_make(&image, components, (u8)n);
		image_set(&m, &image);
		host_dirty();
		RUN(&m, 0, TOUCH);
		image_expect(&m, &image, ALL);
	}
	machine_free(&m);
}

/* XINUSE. Only what is in use must be said to be; what else is, is zero (image_expect()). */
static void test_in_use(void **state)
{
	struct machine m;
	u64 in_use;

	need_host();
	machine_new_xstate(&m);
	for (unsigned int k = 5; k < 8; k++) {
		image_make(&image, SSE | BIT(k), (u8)k);
		image_set(&m, &image);
		host_dirty();
		in_use = RUN(&m, 0, TOUCH, XGETBV_1).rax;
		assert_int_equal(in_use & BIT(k), BIT(k));
		assert_int_equal(in_use & ~ALL, 0);
		image_expect(&m, &image, ALL);
	}
	machine_free(&m);
}

/* A guest turns AVX-512 on while its other state is in the registers; and off, and on again. */
static void test_turned_on(void **state)
{
	static const u8 code[] = { TOUCH, 0x0f, 0x01, 0xd1, TOUCH, OUT };	/* xsetbv between */
	struct machine m;

	need_host();
	machine_new_xstate(&m);
	image_make(&image, ALL & ~X87, 9);
	image_set(&m, &image);
	assert_int_equal(set_xcr0(&m, LEGACY), 0);
	host_dirty();
	run_code(&m, code, sizeof(code), ALL);
	image_expect(&m, &image, ALL);
	host_dirty();
	run_code(&m, code, sizeof(code), LEGACY);
	image_expect(&m, &image, ALL);
	host_dirty();
	RUN(&m, 0, TOUCH);
	image_expect(&m, &image, ALL);
	host_dirty();
	run_code(&m, code, sizeof(code), ALL);
	image_expect(&m, &image, ALL);
	machine_free(&m);
}

/* The same, seen by instructions: nobody looks at v->fpu between. */
static void test_seen_after_turning_on(void **state)
{
	/* TOUCH; xsetbv; vmovdqu64 [rdi], zmm17; kmovq [rdi + 64], k5; vmovdqu64 [rdi + 128], zmm3 */
	static const u8 code[] = { TOUCH, 0x0f, 0x01, 0xd1, 0x62, 0xe1, 0xfe, 0x48, 0x7f, 0x0f,
		0xc4, 0xe1, 0xf8, 0x91, 0x6f, 0x40, 0x62, 0xf1, 0xfe, 0x48, 0x7f, 0x5f, 0x02, OUT };
	struct machine m;
	u8 *seen;

	need_host();
	for (unsigned int x87 = 0; x87 < 2; x87++) {
		machine_new_xstate(&m);
		seen = m.ram + AREA_AT;
		image_make(&image, x87 ? ALL : ALL & ~X87, 90);
		image_set(&m, &image);
		assert_int_equal(set_xcr0(&m, LEGACY), 0);
		host_dirty();
		run_code(&m, code, sizeof(code), ALL);
		assert_memory_equal(seen, component(&image, 7) + 64, 64);
		assert_memory_equal(seen + 64, component(&image, 5) + 5 * 8, 8);
		assert_memory_equal(seen + 128, component(&image, 1) + 3 * 16, 16);
		assert_memory_equal(seen + 128 + 16, component(&image, 2) + 3 * 16, 16);
		assert_memory_equal(seen + 128 + 32, component(&image, 6) + 3 * 32, 32);
		machine_free(&m);
	}
}

/* Registers from first to last: what is above these bytes becomes zero. */
static void image_clear(struct kvm_xsave *x, unsigned int first, unsigned int last, unsigned int keep)
{
	for (unsigned int n = first; n <= last; n++) {
		if (keep < 16)
			memset(component(x, 1) + n * 16, 0, 16);
		memset(component(x, 2) + n * 16, 0, 16);
		memset(component(x, 6) + n * 32, 0, 32);
	}
}

/* Instructions of AVX clear up to the end of the ZMM register, whoever executes them. SDM 1 14.1.2 */
static void test_avx_clears(void **state)
{
	struct machine m;

	need_host();
	machine_new_xstate(&m);
	image_make(&image, ALL & ~X87, 70);
	image_set(&m, &image);
	RUN(&m, 0, 0xc5, 0xe0, 0x57, 0xdb);			/* vxorps xmm3, xmm3, xmm3 */
	image_clear(&image, 3, 3, 0);
	image_expect(&m, &image, ALL);
	RUN(&m, 0, 0xc4, 0xe2, 0x61, 0x2c, 0x2f);		/* vmaskmovps xmm5, xmm3, [rdi] */
	image_clear(&image, 5, 5, 0);
	image_expect(&m, &image, ALL);
	RUN(&m, 0, 0xc5, 0xf8, 0x77);				/* vzeroupper */
	image_clear(&image, 0, 15, 16);
	header(&image)[0] = SSE | OPMASK | HI16_ZMM;
	image_expect(&m, &image, ALL);
	image_make(&image, ALL & ~X87, 71);
	image_set(&m, &image);
	RUN(&m, 0, 0xc5, 0xfc, 0x77);				/* vzeroall */
	image_clear(&image, 0, 15, 0);
	header(&image)[0] = OPMASK | HI16_ZMM;
	image_expect(&m, &image, ALL);
	machine_free(&m);
}

/* Every register's value, as moves to and from memory at RDI have it: 32 vectors, 8 masks. */
#define MASKS_AT	(32 * 64)

static size_t moves_make(u8 *code, bool store)
{
	u8 *p = code;

	for (unsigned int n = 0; n < 32; n++) {		/* vmovdqu64 [rdi + n * 64], zmm(n), or back */
		const u8 move[] = { 0x62, (u8)(0x61 | !(n & 8) << 7 | !(n & 16) << 4), 0xfe, 0x48,
			store ? 0x7f : 0x6f, (u8)(0x47 | (n & 7) << 3), (u8)n };

		p = (u8 *)memcpy(p, move, sizeof(move)) + sizeof(move);
	}
	for (unsigned int n = 0; n < 8; n++) {		/* kmovq [rdi + MASKS_AT + n * 8], k(n), or back */
		const u8 move[] = { 0xc4, 0xe1, 0xf8, store ? 0x91 : 0x90, (u8)(0x87 | n << 3), (u8)(n * 8),
			MASKS_AT >> 8, 0, 0 };

		p = (u8 *)memcpy(p, move, sizeof(move)) + sizeof(move);
	}
	memcpy(p, (const u8[]){ OUT }, 2);
	return (size_t)(p - code) + 2;
}

static void registers_of(struct kvm_xsave *x, u8 *out)
{
	for (unsigned int n = 0; n < 16; n++) {
		memcpy(out + n * 64, component(x, 1) + n * 16, 16);
		memcpy(out + n * 64 + 16, component(x, 2) + n * 16, 16);
		memcpy(out + n * 64 + 32, component(x, 6) + n * 32, 32);
	}
	memcpy(out + 16 * 64, component(x, 7), size[7]);
	memcpy(out + MASKS_AT, component(x, 5), 64);
}

static void test_each_register(void **state)
{
	static u8 code[512], want[MASKS_AT + 64];
	struct machine m;

	need_host();
	for (unsigned int x87 = 0; x87 < 2; x87++) {
		machine_new_xstate(&m);
		image_make(&image, x87 ? ALL : ALL & ~X87, 40);
		registers_of(&image, want);
		image_set(&m, &image);
		host_dirty();
		run_code(&m, code, moves_make(code, true), 0);
		assert_memory_equal(m.ram + AREA_AT, want, sizeof(want));
		image_make(&image, x87 ? ALL : ALL & ~X87, 77);
		registers_of(&image, m.ram + AREA_AT);
		host_dirty();
		run_code(&m, code, moves_make(code, false), 0);
		host_dirty();
		image_expect(&m, &image, ALL);
		machine_free(&m);
	}
}

/* Each second byte of a device, by a mask: as many accesses of a byte, and no more. */
static void test_masked_mmio(void **state)
{
	/* vmovdqu8 zmm1{k1}, [rdi]; vmovdqu8 [rdi]{k1}, zmm1 */
	static const u8 code[] = { 0x62, 0xf1, 0x7f, 0x49, 0x6f, 0x0f, 0x62, 0xf1, 0x7f, 0x49, 0x7f, 0x0f, OUT };
	const u64 device = 0x100000, mask = 0x5555555555555555;
	struct kvm_regs r = { .rip = CODE_AT, .rflags = 2, .rdi = device };
	struct machine m;

	need_host();
	machine_new_xstate(&m);
	image_make(&image, ALL & ~X87, 5);
	memcpy(component(&image, 5) + 8, &mask, 8);
	image_set(&m, &image);
	memcpy(m.ram + CODE_AT, code, sizeof(code));
	set_regs(m.vcpu, &r);
	for (unsigned int k = 0; k < 64; k++) {
		run_until(&m, KVM_EXIT_MMIO);
		assert_int_equal(m.run->mmio.phys_addr, device + 2 * (k % 32));
		assert_int_equal(m.run->mmio.len, 1);
		assert_int_equal(m.run->mmio.is_write, k >= 32);
		if (k >= 32)
			assert_int_equal(m.run->mmio.data[0], k - 32);
		else
			m.run->mmio.data[0] = (u8)k;
	}
	run_until(&m, KVM_EXIT_IO);
	machine_free(&m);
}

/* ---- the guest's XSAVE and its kind ---- */

static u64 *guest_header(struct machine *m)
{
	return (u64 *)(m->ram + AREA_AT + HEADER);
}

static void area_clear(struct machine *m)
{
	memset(m->ram + AREA_AT, 0xee, 4096);
	memset(guest_header(m), 0, 64);
}

/* The component lies at this place of the guest's area. */
static void area_expect(struct machine *m, struct kvm_xsave *want, unsigned int k, u32 at)
{
	if (memcmp(m->ram + AREA_AT + at, component(want, k), size[k]))
		fail_msg("component %u is not at %u of the area", k, at);
}

static void area_untouched(struct machine *m, u32 from, u32 to)
{
	for (; from < to; from++)
		assert_int_equal(m->ram[AREA_AT + from], 0xee);
}

static void test_standard_form(void **state)
{
	struct machine m;

	need_host();
	machine_new_xstate(&m);
	image_make(&image, ALL, 20);
	image_set(&m, &image);
	area_clear(&m);
	RUN(&m, ALL, TOUCH, 0x48, 0x0f, 0xae, 0x27);		/* xsave64 [rdi] */
	assert_int_equal(guest_header(&m)[0], ALL);
	assert_int_equal(guest_header(&m)[1], 0);
	for (unsigned int k = 1; k < 8; k++)
		if (ALL & BIT(k))
			area_expect(&m, &image, k, offset[k]);
	area_untouched(&m, end_of(2), offset[5]);
	area_untouched(&m, end_of(7), 4096);
	/* One of them alone. */
	area_clear(&m);
	RUN(&m, ZMM_HI256, 0x48, 0x0f, 0xae, 0x27);
	assert_int_equal(guest_header(&m)[0], ZMM_HI256);
	area_untouched(&m, 0, HEADER);
	area_untouched(&m, HEADER + 64, offset[6]);
	area_expect(&m, &image, 6, offset[6]);
	area_untouched(&m, end_of(6), 4096);
	/* Back, with one left out and one initialized. */
	area_clear(&m);
	RUN(&m, ALL, 0x48, 0x0f, 0xae, 0x27);
	image_make(&image, ALL, 40);
	image_set(&m, &image);
	memcpy(component(&image, 5), m.ram + AREA_AT + offset[5], size[5]);
	memset(component(&image, 7), 0, size[7]);
	guest_header(&m)[0] = ALL & ~HI16_ZMM;
	RUN(&m, OPMASK | HI16_ZMM, 0x48, 0x0f, 0xae, 0x2f, TOUCH);	/* xrstor64 [rdi] */
	header(&image)[0] &= ~HI16_ZMM;
	image_expect(&m, &image, ALL);
	machine_free(&m);
}

/* SDM 1 13.4.3: components follow each other. */
static void test_compact_form(void **state)
{
	static const u64 masks[] = { ALL, OPMASK, ZMM_HI256, HI16_ZMM, AVX | HI16_ZMM, SSE | OPMASK | ZMM_HI256 };
	struct machine m;

	need_host();
	machine_new_xstate(&m);
	for (size_t n = 0; n < ARRAY_SIZE(masks); n++) {
		u32 at = 576;

		image_make(&image, ALL & ~X87, (u8)(n * 11));
		image_set(&m, &image);
		area_clear(&m);
		RUN(&m, masks[n], TOUCH, 0x48, 0x0f, 0xc7, 0x27);	/* xsavec64 [rdi] */
		assert_int_equal(guest_header(&m)[0], masks[n] & ~X87);
		assert_int_equal(guest_header(&m)[1], masks[n] | COMPACT);
		for (unsigned int k = 2; k < 8; at += masks[n] & BIT(k) ? size[k] : 0, k++)
			if (masks[n] & BIT(k))
				area_expect(&m, &image, k, at);
		area_untouched(&m, at, 4096);
		/* And back over another state. */
		image_make(&image, ALL & ~X87, 99);
		image_set(&m, &image);
		RUN(&m, ALL, 0x48, 0x0f, 0xae, 0x2f, TOUCH);
		image_make(&image, masks[n] & ~X87, (u8)(n * 11));
		image_expect(&m, &image, ALL);
	}
	machine_free(&m);
}

/* What is in its initial state is left out, but counts for where the others lie. */
static void test_init_optimization(void **state)
{
	struct machine m;

	need_host();
	machine_new_xstate(&m);
	image_make(&image, SSE | HI16_ZMM, 50);
	image_set(&m, &image);
	area_clear(&m);
	RUN(&m, ALL, 0x48, 0x0f, 0xae, 0x37);			/* xsaveopt64 [rdi] */
	assert_int_equal(guest_header(&m)[0], SSE | HI16_ZMM);
	area_untouched(&m, 576, offset[7]);
	area_expect(&m, &image, 7, offset[7]);
	area_clear(&m);
	RUN(&m, ALL, 0x48, 0x0f, 0xc7, 0x27);			/* xsavec64 [rdi] */
	assert_int_equal(guest_header(&m)[0], SSE | HI16_ZMM);
	area_untouched(&m, 576, 576 + size[2] + size[5] + size[6]);
	area_expect(&m, &image, 7, 576 + size[2] + size[5] + size[6]);
	machine_free(&m);
}

/* Masks move whole; of the vectors, the registers that there are. SDM 1 13.13; Zen 4 */
static void test_outside_64_bit_mode(void **state)
{
	struct kvm_regs r = { .rdi = AREA_AT, .rax = AVX512 };
	struct kvm_xsave want;
	struct machine m;

	need_host();
	machine_new(&m, PLAIN);
	give_components(&m, ALL);
	flat_mode(m.vcpu);
	enable(&m);
	assert_int_equal(set_xcr0(&m, ALL), 0);
	image_make(&image, ALL, 60);
	image_set(&m, &image);
	area_clear(&m);
	assert_int_equal(flat_insn(&m, (const u8[]){ 0x0f, 0xae, 0x27 }, 3, &r), KVM_EXIT_IO);
	area_expect(&m, &image, 5, offset[5]);
	assert_memory_equal(m.ram + AREA_AT + offset[6], component(&image, 6), size[6] / 2);
	area_untouched(&m, offset[6] + size[6] / 2, 4096);
	/* Initializes what it saved. */
	guest_header(&m)[0] = 0;
	assert_int_equal(flat_insn(&m, (const u8[]){ 0x0f, 0xae, 0x2f }, 3, &r), KVM_EXIT_IO);
	want = image;
	memset(component(&want, 5), 0, size[5]);
	memset(component(&want, 6), 0, size[6] / 2);
	header(&want)[0] = ALL & ~OPMASK;
	image_expect(&m, &want, ALL);
	machine_free(&m);
}

/* ---- refused ---- */

static u32 restore(struct machine *m, bool supervisor)
{
	struct kvm_regs r = { .rdi = AREA_AT, .rax = (u32)ALL };

	if (supervisor)		/* xrstors [rdi] */
		return flat_insn(m, (const u8[]){ 0x0f, 0xc7, 0x1f }, 3, &r);
	return flat_insn(m, (const u8[]){ 0x0f, 0xae, 0x2f }, 3, &r);
}

static void test_bad_headers(void **state)
{
	static const struct { u64 bv, comp; bool s, good; } cases[] = {
		{ ALL, 0, false, true }, { ALL, 0, true, false }, { ALL, COMPACT | ALL, true, true },
		{ ALL, COMPACT | LEGACY, false, false }, { LEGACY, COMPACT | ALL, false, true },
		{ ALL | BIT(9), 0, false, false }, { 0, COMPACT | BIT(9), false, false },
		{ ALL, ALL, false, false }, { BIT(3), 0, false, false }, { BIT(4), COMPACT | BIT(4), true, false },
	};
	struct machine m;

	need_host();
	machine_new(&m, PLAIN);
	give_components(&m, ALL);
	for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
		flat_mode(m.vcpu);
		enable(&m);
		assert_int_equal(set_xcr0(&m, ALL), 0);
		memset(m.ram + AREA_AT, 0, 4096);
		guest_header(&m)[0] = cases[k].bv;
		guest_header(&m)[1] = cases[k].comp;
		if (restore(&m, cases[k].s) != (cases[k].good ? KVM_EXIT_IO : KVM_EXIT_SHUTDOWN))
			fail_msg("XSTATE_BV %lx XCOMP_BV %lx", (unsigned long)cases[k].bv,
				(unsigned long)cases[k].comp);
	}
	/* Beyond a smaller XCR0. */
	flat_mode(m.vcpu);
	enable(&m);
	assert_int_equal(set_xcr0(&m, LEGACY), 0);
	memset(m.ram + AREA_AT, 0, 4096);
	guest_header(&m)[0] = HI16_ZMM;
	assert_int_equal(restore(&m, false), KVM_EXIT_SHUTDOWN);
	machine_free(&m);
}

int test_xstate(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_xcr0),
		cmocka_unit_test(test_image_checks),
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_in_use),
		cmocka_unit_test(test_turned_on),
		cmocka_unit_test(test_seen_after_turning_on),
		cmocka_unit_test(test_avx_clears),
		cmocka_unit_test(test_each_register),
		cmocka_unit_test(test_masked_mmio),
		cmocka_unit_test(test_standard_form),
		cmocka_unit_test(test_compact_form),
		cmocka_unit_test(test_init_optimization),
		cmocka_unit_test(test_outside_64_bit_mode),
		cmocka_unit_test(test_bad_headers),
	};

	return cmocka_run_group_tests_name("xstate", tests, NULL, NULL);
}
