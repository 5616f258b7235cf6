/*
 * CPUID leaves: what KVM_GET_SUPPORTED_CPUID answers, the guest's own table, and the bits of it
 * that follow the guest's state. Feature bits come from cpuid_table.c; the rest (signatures, sizes,
 * caches, names) from the host, or from here. SDM 2A CPUID; APM 3 appendix E.
 *
 * Topology (leaf 1 EBX and HTT, 4, 0xB, 0x80000008 ECX, 0x8000001D, 0x8000001E) describes one CPU
 * with one thread: as with KVM, user space writes the machine's true shape and each vCPU's APIC id
 * there.
 */
#include "hypervisor/core/vm.h"
#include "hypervisor/x86/cpuid_table.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/hyperv.h"
#include "hypervisor/x86/msr_row.h"
#include "hypervisor/x86/system.h"

#include <linux/errno.h>

#define VENDOR_AMD_EBX		0x68747541u	/* "Auth" */
#define VENDOR_HYGON_EBX	0x6f677948u	/* "Hygo" */

#define MAX_BASIC		0xdu
#define KVM_BASE		0x40000000u
#define EXT_BASE		0x80000000u
#define MAX_EXT_INTEL		0x80000008u
#define MAX_EXT_AMD		0x80000021u

#define LEAF1_MONITOR		BIT(3)
#define LEAF1_APIC		BIT(9)
#define LEAF1_OSXSAVE		BIT(27)
#define LEAF1_CLFLUSH_64	(8u << 8)	/* EBX: CLFLUSH line in 8-byte units */
#define LEAF1_ONE_CPU		(1u << 16)
#define LEAF4_SHARING		MASK(31, 14)	/* EAX: threads sharing it, cores */
#define LEAF1D_SHARING		MASK(25, 14)

#define D1_XSAVEC		BIT(1)
#define D1_XSAVES		BIT(3)
#define APIC_BASE_ENABLE	BIT(11)
#define LINEAR_BITS		48u
#define E8_BTC_NO		BIT(29)
#define E21_SRSO_NO		BIT(29)

enum { EAX, EBX, ECX, EDX };

/* ---- the host's CPUID ---- */

/* Zeros past the host's last leaf, where Intel's would repeat it. */
static void host_cpuid(u32 leaf, u32 sub, u32 r[4])
{
	os_cpuid(leaf & 0xf0000000, 0, r);
	if (leaf > r[EAX])
		memset(r, 0, 4 * sizeof(u32));
	else
		os_cpuid(leaf, sub, r);
}

/* The host's feature registers. */
struct host {
	bool amd;
	u32 xcr0;	/* components that it has and we save */
	struct xsave_layout layout;	/* only where leaves are filled in */
	u32 reg[NR_CPUID_REGS];
};

bool cpuid_host_plain(void)
{
	const char *s = os_getenv("QUMRA_PLAIN_HOST");

	return s && *s == '1';
}

/* The bits that x86-64-v2 need not have: of leaf 1 PCLMUL, FMA, MOVBE, AES, XSAVE, AVX, F16C, RDRAND. */
static void host_make_plain(struct host *h)
{
	const u32 leaf1 = BIT(1) | BIT(12) | BIT(22) | MASK(30, 25);
	const u32 abm = BIT(5), xop = BIT(11) | BIT(16) | BIT(21);

	for (unsigned int i = 0; i < NR_CPUID_REGS; i++)
		if (cpuid_places[i].leaf == 7 || cpuid_places[i].leaf == 0xd)
			h->reg[i] = 0;
	h->reg[C_1_ECX] &= ~leaf1;
	h->reg[C_E1_ECX] &= ~(abm | xop);
	h->xcr0 &= XCR0_X87 | XCR0_SSE;
}

/* Instructions without state: an old or a cautious system has not turned it on. */
static void host_drop_avx512(struct host *h)
{
	const struct cpuid_bit *b;

	for (b = cpuid_bits; b < cpuid_bits + nr_cpuid_bits; b++)
		if (b->feature >= F_AVX512F && b->feature <= F_AVX512_BF16)
			h->reg[b->reg] &= (u32)~BIT(b->low);
}

static void host_read(struct host *h)
{
	unsigned int i;
	u32 r[4];

	host_cpuid(0, 0, r);
	h->amd = r[EBX] == VENDOR_AMD_EBX || r[EBX] == VENDOR_HYGON_EBX;
	h->xcr0 = fpu_host_xcr0() | XCR0_X87 | XCR0_SSE;
	for (i = 0; i < NR_CPUID_REGS; i++) {
		host_cpuid(cpuid_places[i].leaf, cpuid_places[i].sub, r);
		h->reg[i] = r[cpuid_places[i].out];
	}
	if (!(h->xcr0 & XCR0_AVX512))
		host_drop_avx512(h);
	if (unlikely(cpuid_host_plain()))
		host_make_plain(h);
}

/* ---- leaves that are not lists of bits ---- */

static void leaf_zero(const struct host *h, u32 r[4])
{
	memset(r, 0, 4 * sizeof(u32));
}

static void leaf_max_basic(const struct host *h, u32 r[4])
{
	r[EAX] = MAX_BASIC;
}

static void leaf_version(const struct host *h, u32 r[4])
{
	r[EBX] = LEAF1_CLFLUSH_64 | LEAF1_ONE_CPU;
}

static void leaf_cache_intel(const struct host *h, u32 r[4])
{
	r[EAX] &= (u32)~LEAF4_SHARING;
}

static void leaf_cache_amd(const struct host *h, u32 r[4])
{
	r[EAX] &= (u32)~LEAF1D_SHARING;
}

static void leaf_features7(const struct host *h, u32 r[4])
{
	r[EAX] = 1;	/* last subleaf */
}

static void leaf_xsave(const struct host *h, u32 r[4])
{
	r[EAX] = h->xcr0;
	r[EBX] = r[ECX] = xsave_size(&h->layout, r[EAX], false);
	r[EDX] = 0;
}

static void leaf_xsave_compact(const struct host *h, u32 r[4])
{
	if (!(h->reg[C_D1_EAX] & (D1_XSAVEC | D1_XSAVES)))
		r[EBX] = 0;
	else
		r[EBX] = xsave_size(&h->layout, h->xcr0, true);
	r[ECX] = r[EDX] = 0;	/* no XSS component */
}

/* Only there with its component. The host's offset: it is that of KVM_GET_XSAVE's image, too. */
static void leaf_xsave_component(const struct host *h, u32 r[4])
{
	r[EDX] = 0;
}

/*
 * Intel's performance counters, on any host: the guest's vendor says which kind it has. Cycles,
 * instructions, reference cycles and branches; caches and predictors are the host's.
 */
static void leaf_pmu(const struct host *h, u32 r[4])
{
	const u32 version = 2, events = 7, anythread_gone = BIT(15);

	r[EAX] = version | PMU_INTEL_GP << 8 | PMU_INTEL_WIDTH << 16 | events << 24;
	r[EBX] = BIT(3) | BIT(4) | BIT(6);
	r[ECX] = 0;
	r[EDX] = PMU_NR_FIXED | PMU_INTEL_WIDTH << 5 | anythread_gone;
}

static void leaf_kvm_signature(const struct host *h, u32 r[4])
{
	static const char signature[12] = "KVMKVMKVM\0\0";

	r[EAX] = KVM_BASE + 1;
	memcpy(&r[EBX], signature, sizeof(signature));
}

static void leaf_max_ext(const struct host *h, u32 r[4])
{
	r[EAX] = h->amd ? MAX_EXT_AMD : MAX_EXT_INTEL;
}

static void leaf_ext_features(const struct host *h, u32 r[4])
{
	if (!h->amd)
		r[EAX] = r[EBX] = 0;
}

static void leaf_addresses(const struct host *h, u32 r[4])
{
	u32 phys = r[EAX] ? MIN(r[EAX] & 0xff, 52) : 36;

	r[EAX] = phys | LINEAR_BITS << 8;
	r[ECX] = r[EDX] = 0;
}

static void leaf_pass(const struct host *h, u32 r[4])
{
}

enum leaf_vendor { ANY, INTEL, AMD };

/* In the order of the answer. Registers in cpuid_places are filled in after fill(). */
static const struct leaf {
	u32 function, index;
	bool indexed;
	u8 vendor;	/* enum leaf_vendor */
	void (*fill)(const struct host *h, u32 r[4]);	/* r in: the host's */
} leaves[] = {
	{ 0x0, 0, false, ANY, leaf_max_basic },
	{ 0x1, 0, false, ANY, leaf_version },
	{ 0x2, 0, false, INTEL, leaf_pass },
	{ 0x4, 0, true, INTEL, leaf_cache_intel },
	{ 0x4, 1, true, INTEL, leaf_cache_intel },
	{ 0x4, 2, true, INTEL, leaf_cache_intel },
	{ 0x4, 3, true, INTEL, leaf_cache_intel },
	{ 0x4, 4, true, INTEL, leaf_zero },
	{ 0x5, 0, false, ANY, leaf_zero },	/* MONITOR: left out */
	{ 0x6, 0, false, ANY, leaf_zero },
	{ 0x7, 0, true, ANY, leaf_features7 },
	{ 0x7, 1, true, ANY, leaf_zero },
	{ 0xa, 0, false, ANY, leaf_pmu },
	{ 0xb, 0, true, ANY, leaf_zero },
	{ 0xd, 0, true, ANY, leaf_xsave },
	{ 0xd, 1, true, ANY, leaf_xsave_compact },
	{ 0xd, XSTATE_AVX, true, ANY, leaf_xsave_component },
	{ 0xd, XSTATE_OPMASK, true, ANY, leaf_xsave_component },
	{ 0xd, XSTATE_ZMM_HI256, true, ANY, leaf_xsave_component },
	{ 0xd, XSTATE_HI16_ZMM, true, ANY, leaf_xsave_component },
	{ KVM_BASE, 0, false, ANY, leaf_kvm_signature },
	{ KVM_BASE + 1, 0, false, ANY, leaf_zero },
	{ EXT_BASE, 0, false, ANY, leaf_max_ext },
	{ 0x80000001, 0, false, ANY, leaf_ext_features },
	{ 0x80000002, 0, false, ANY, leaf_pass },	/* the name, three leaves */
	{ 0x80000003, 0, false, ANY, leaf_pass },
	{ 0x80000004, 0, false, ANY, leaf_pass },
	{ 0x80000005, 0, false, AMD, leaf_pass },	/* L1 caches and TLBs */
	{ 0x80000006, 0, false, ANY, leaf_pass },	/* L2, L3 */
	{ 0x80000007, 0, false, ANY, leaf_zero },
	{ 0x80000008, 0, false, ANY, leaf_addresses },
	{ 0x80000019, 0, false, AMD, leaf_pass },	/* TLBs of 1 GiB pages */
	{ 0x8000001a, 0, false, AMD, leaf_pass },	/* width of the vector units */
	{ 0x8000001d, 0, true, AMD, leaf_cache_amd },
	{ 0x8000001d, 1, true, AMD, leaf_cache_amd },
	{ 0x8000001d, 2, true, AMD, leaf_cache_amd },
	{ 0x8000001d, 3, true, AMD, leaf_cache_amd },
	{ 0x8000001d, 4, true, AMD, leaf_zero },
	{ 0x8000001e, 0, false, AMD, leaf_zero },
	{ 0x80000021, 0, false, AMD, leaf_zero },
};

/* ---- KVM_GET_SUPPORTED_CPUID ---- */

static u32 bit_mask(const struct cpuid_bit *b)
{
	return (u32)MASK(b->high, b->low);
}

static u32 bit_supported(const struct host *h, const struct cpuid_bit *b)
{
	switch (b->policy) {
	case CPUID_PASS: return h->reg[b->reg] & bit_mask(b);
	case CPUID_EMULATE:
	case CPUID_DYNAMIC_ON: return bit_mask(b);
	case CPUID_DYNAMIC_AMD:
	case CPUID_EMULATE_AMD: return h->amd ? bit_mask(b) : 0;
	case CPUID_EMULATE_INTEL: return h->amd ? 0 : bit_mask(b);
	case CPUID_EMULATE_SCHED: return os_delay_known() ? bit_mask(b) : 0;
	default: return 0;
	}
}

static u32 reg_supported(const struct host *h, enum cpuid_reg reg)
{
	const struct cpuid_bit *b;
	u32 val = 0;

	for (b = cpuid_bits; b < cpuid_bits + nr_cpuid_bits; b++)
		if (b->reg == reg)
			val |= bit_supported(h, b);
	return val;
}

static void leaf_fill(const struct host *h, const struct leaf *l, struct kvm_cpuid_entry2 *e)
{
	u32 r[4];
	unsigned int i;

	host_cpuid(l->function, l->index, r);
	l->fill(h, r);
	for (i = 0; i < NR_CPUID_REGS; i++)
		if (cpuid_places[i].leaf == l->function && cpuid_places[i].sub == l->index)
			r[cpuid_places[i].out] = reg_supported(h, i);
	*e = (struct kvm_cpuid_entry2) {
		.function = l->function, .index = l->index,
		.flags = l->indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
		.eax = r[EAX], .ebx = r[EBX], .ecx = r[ECX], .edx = r[EDX],
	};
}

static bool leaf_there(const struct host *h, const struct leaf *l)
{
	if (l->vendor != ANY && l->vendor != (h->amd ? AMD : INTEL))
		return false;
	return l->fill != leaf_xsave_component || h->xcr0 & BIT(l->index);
}

int cpuid_supported(struct kvm_cpuid_entry2 *out, int n)
{
	struct host h;
	int count = 0;
	unsigned int i;

	host_read(&h);
	xsave_layout_read(&h.layout, h.xcr0);
	for (i = 0; i < ARRAY_SIZE(leaves); i++) {
		if (!leaf_there(&h, &leaves[i]))
			continue;
		if (count < n)
			leaf_fill(&h, &leaves[i], &out[count]);
		count++;
	}
	return count;
}

/* ---- the guest's table ---- */

static struct kvm_cpuid_entry2 *entry_find(struct vcpu *v, u32 leaf, u32 sub)
{
	struct kvm_cpuid_entry2 *e;

	for (e = v->cpuid; e < v->cpuid + v->cpuid_n; e++)
		if (e->function == leaf &&
			(!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == sub))
			return e;
	return NULL;
}

static u32 entry_output(const struct kvm_cpuid_entry2 *e, enum cpuid_output out)
{
	switch (out) {
	case CPUID_EAX: return e->eax;
	case CPUID_EBX: return e->ebx;
	case CPUID_ECX: return e->ecx;
	default: return e->edx;
	}
}

/* Can we keep the promise that user space makes with this bit? */
static bool bit_possible(const struct host *h, const struct cpuid_bit *b)
{
	switch (b->policy) {
	case CPUID_LEFT_OUT:
	case CPUID_DYNAMIC:
	case CPUID_DYNAMIC_ON:
	case CPUID_DYNAMIC_AMD:
		return false;
	default:
		break;
	}
	return b->policy != CPUID_PASS || h->reg[b->reg] & bit_mask(b);
}

/*
 * Until user space gives a table, the guest runs on what the host can: as on a KVM without
 * KVM_SET_CPUID2.
 */
static bool bit_given(struct vcpu *v, const struct cpuid_bit *b)
{
	const struct kvm_cpuid_entry2 *e = entry_find(v, cpuid_places[b->reg].leaf,
		cpuid_places[b->reg].sub);

	return !v->cpuid_n || (e && entry_output(e, cpuid_places[b->reg].out) & bit_mask(b));
}

static void derive_features(struct vcpu *v)
{
	const struct cpuid_bit *b;
	struct host h;

	host_read(&h);
	memset(v->guest_features, 0, sizeof(v->guest_features));
	v->guest_features[0] = BIT(F_NONE);
	for (b = cpuid_bits; b < cpuid_bits + nr_cpuid_bits; b++) {
		if (b->feature != F_NONE && bit_possible(&h, b) && bit_given(v, b))
			v->guest_features[b->feature >> 6] |= BIT(b->feature & 63);
	}
}

void cpuid_host_features(u64 features[4])
{
	const struct cpuid_bit *b;
	struct host h;

	host_read(&h);
	memset(features, 0, 4 * sizeof(u64));
	features[0] = BIT(F_NONE);
	for (b = cpuid_bits; b < cpuid_bits + nr_cpuid_bits; b++)
		if (b->feature != F_NONE && h.reg[b->reg] & bit_mask(b))
			features[b->feature >> 6] |= BIT(b->feature & 63);
}

bool cpuid_host_returns_safe(void)
{
	struct host h;

	host_read(&h);
	return !h.amd || (h.reg[C_E8_EBX] & E8_BTC_NO && h.reg[C_E21_EAX] & E21_SRSO_NO);
}

static void derive_addresses(struct vcpu *v)
{
	const struct kvm_cpuid_entry2 *e = entry_find(v, 0x80000008, 0);
	u32 phys = e ? e->eax & 0xff : 0;

	v->maxphyaddr = phys ? MAX(MIN(phys, 52), 32) : 36;
	v->maxlinaddr = LINEAR_BITS;
	v->mmu.maxphyaddr_mask = v->maxphyaddr < 52 ? MASK(51, v->maxphyaddr) : 0;
}

int cpuid_set(struct vcpu *v, const struct kvm_cpuid_entry2 *in, unsigned int n)
{
	if (n > ARRAY_SIZE(v->cpuid))
		return -E2BIG;
	memcpy(v->cpuid, in, n * sizeof(*in));
	v->cpuid_n = n;
	derive_features(v);
	derive_addresses(v);
	cpuid_update(v);
	pmu_cpuid_changed(v);
	pv_cpuid_changed(v);
	return hv_cpuid_changed(v);
}

/* ---- bits that follow the guest's state ---- */

static u32 with_bit(u32 val, u32 mask, bool on)
{
	return on ? val | mask : val & ~mask;
}

/* IA32_MISC_ENABLE decides, where user space has disabled the quirk of its not doing so. SDM 4 */
static void update_monitor(struct vcpu *v, struct kvm_cpuid_entry2 *e)
{
	bool on = v->msr.misc_enable & MISC_ENABLE_MWAIT;
	u64 *features = &v->guest_features[F_MONITOR >> 6];

	if (!(v->vm->disabled_quirks & KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT))
		return;
	e->ecx = with_bit(e->ecx, LEAF1_MONITOR, on);
	*features = on ? *features | BIT(F_MONITOR & 63) : *features & ~BIT(F_MONITOR & 63);
}

void cpuid_update(struct vcpu *v)
{
	u64 apic_base = v->msr.apic_base;
	struct kvm_cpuid_entry2 *e = entry_find(v, 1, 0);

	if (e) {
		e->ecx = with_bit(e->ecx, LEAF1_OSXSAVE, v->cr4 & CR4_OSXSAVE);
		e->edx = with_bit(e->edx, LEAF1_APIC, apic_base & APIC_BASE_ENABLE);
		update_monitor(v, e);
	}
	e = entry_find(v, 0x80000001, 0);
	if (e && vcpu_amd(v))
		e->edx = with_bit(e->edx, LEAF1_APIC, apic_base & APIC_BASE_ENABLE);
	e = entry_find(v, 0xd, 0);
	if (e)
		e->ebx = xsave_size(&v->fpu->layout, v->xcr0, false);
	e = entry_find(v, 0xd, 1);
	if (e && (vcpu_has(v, F_XSAVEC) || vcpu_has(v, F_XSAVES)))
		e->ebx = xsave_size(&v->fpu->layout, v->xcr0 | v->xss, true);
}

/*
 * Past the last leaf, Intel's processors answer with the last basic one, AMD's with zeros.
 * SDM 2A CPUID, "INPUT EAX"
 */
static struct kvm_cpuid_entry2 *entry_out_of_range(struct vcpu *v, u32 leaf, u32 sub)
{
	u32 class = leaf & 0xf0000000;
	const struct kvm_cpuid_entry2 *max = entry_find(v, class, 0);

	if (vcpu_amd(v) || class == KVM_BASE || (max && leaf <= max->eax))
		return NULL;
	max = entry_find(v, 0, 0);
	return max ? entry_find(v, max->eax, sub) : NULL;
}

void cpuid_read(struct vcpu *v, u32 leaf, u32 sub, u32 out[4])
{
	const struct kvm_cpuid_entry2 *e = entry_find(v, leaf, sub);
	const struct kvm_cpuid_entry2 *first;

	if (!e)
		e = entry_out_of_range(v, leaf, sub);
	memset(out, 0, 4 * sizeof(u32));
	if (e) {
		out[EAX] = e->eax;
		out[EBX] = e->ebx;
		out[ECX] = e->ecx;
		out[EDX] = e->edx;
		return;
	}
	/* Levels past the last one still give the subleaf and the APIC id. SDM 2A CPUID */
	if (leaf == 0xb || leaf == 0x1f) {
		first = entry_find(v, leaf, 1);
		if (first) {
			out[ECX] = sub & 0xff;
			out[EDX] = first->edx;
		}
	}
}

/* As in KVM, what leaf 0xD says decides, not the features that use the state. */
u64 cpuid_xcr0(const struct vcpu *v)
{
	const struct kvm_cpuid_entry2 *e = entry_find((struct vcpu *)v, 0xd, 0);

	if (!e || !vcpu_has(v, F_XSAVE))
		return XCR0_X87;
	return (e->eax & v->fpu->host_xcr0) | XCR0_X87;
}

/* Neither AVX without SSE nor AVX-512 without AVX or in part. */
bool xcr0_valid(const struct vcpu *v, u64 val)
{
	if (!(val & XCR0_X87) || val & ~cpuid_xcr0(v))
		return false;
	if (val & XCR0_AVX && !(val & XCR0_SSE))
		return false;
	if (!(val & XCR0_AVX512))
		return true;
	return val & XCR0_AVX && (val & XCR0_AVX512) == XCR0_AVX512;
}
