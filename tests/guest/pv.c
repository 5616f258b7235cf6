/*
 * KVM's paravirtual interfaces: hypercalls, steal time with its flags, EOI in memory, interrupts and kicks
 * by hypercall, async page faults' MSRs. Linux Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst
 */
#include "paging.h"
#include "smp.h"

#define CPUS 4

enum { MSR_ASYNC_PF_EN = 0x4b564d02, MSR_STEAL_TIME, MSR_PV_EOI, MSR_POLL_CONTROL, MSR_ASYNC_PF_INT,
       MSR_ASYNC_PF_ACK };
enum { F_ASYNC_PF = 4, F_STEAL_TIME, F_PV_EOI, F_PV_UNHALT, F_TLB_FLUSH = 9, F_SEND_IPI = 11,
       F_POLL_CONTROL, F_SCHED_YIELD, F_ASYNC_PF_INT };
enum { HC_POLL_IRQ = 1, HC_KICK = 5, HC_CLOCK_PAIRING = 9, HC_SEND_IPI, HC_SCHED_YIELD };
enum { E_PERM = -1, E_FAULT = -14, E_INVAL = -22, E_OPNOTSUPP = -95, E_NOSYS = -1000 };

#define VEC_A	0x61
#define VEC_B	0x91
#define VEC_APF	0xa1

/* ---- hypercalls ------------------------------------------------------------------------------------ */

static bool amd(void)
{
	return cpuid(0, 0).ebx == 0x68747541;
}

#define HYPERCALL(insn, nr, a0, a1, a2, a3) ({ \
	s64 ret_; \
	asm volatile(insn : "=a"(ret_) : "a"((ulong)(nr)), "b"((ulong)(a0)), "c"((ulong)(a1)), \
		     "d"((ulong)(a2)), "S"((ulong)(a3)) : "memory"); \
	ret_; })

static s64 hypercall(ulong nr, ulong a0, ulong a1, ulong a2, ulong a3)
{
	return amd() ? HYPERCALL("vmmcall", nr, a0, a1, a2, a3) : HYPERCALL("vmcall", nr, a0, a1, a2, a3);
}

USER_TEXT static ulong user_hypercall(ulong is_amd)
{
	return is_amd ? HYPERCALL("vmmcall", HC_POLL_IRQ, 0, 0, 0, 0) : HYPERCALL("vmcall", HC_POLL_IRQ, 0, 0, 0, 0);
}

static const u8 intel_insn[] = { 0x0f, 0x01, 0xc1, 0xc3 }, amd_insn[] = { 0x0f, 0x01, 0xd9, 0xc3 };

static s64 call_code(void *code)
{
	s64 ret;

	asm volatile("call *%1" : "=a"(ret) : "r"(code), "a"((ulong)HC_POLL_IRQ) : "memory", "rbx", "rcx", "rdx");
	return ret;
}

/* The other vendor's instruction works, and becomes this one's where it can be written. */
static void instructions(void)
{
	const u8 *native = amd() ? amd_insn : intel_insn, *other = amd() ? intel_insn : amd_insn;
	u8 *code = page_alloc();
	int i;

	group("hypercalls");
	expect("nothing to do", hypercall(HC_POLL_IRQ, 0, 0, 0, 0), 0);
	expect("an unknown one", hypercall(99, 0, 0, 0, 0), E_NOSYS);
	expect("at CPL 3", (user_call(user_hypercall, amd()), fault.f.ax), E_PERM);
	memcpy(code, other, 4);
	page_map(TEST_VA, (ulong)code, PTE_P);
	write_cr0(read_cr0() | CR0_WP);
	expect("the other instruction in a read-only page", call_code((void *)TEST_VA), 0);
	write_cr0(read_cr0() & ~CR0_WP);
	check(!memcmp(code, other, 4), "which stays as it is");
	for (i = 0; i < 3; i++)
		expect("the other instruction", call_code(code), 0);
	check(!memcmp(code, native, 4), "became the vendor's: %x", code[2]);
}

static void clock_pairing(void)
{
	static struct { s64 sec, nsec; u64 tsc; u32 flags, pad[9]; } pair __attribute__((aligned(64)));
	u64 before = rdtsc(), after;

	group("clock pairing");
	expect("done", hypercall(HC_CLOCK_PAIRING, (ulong)&pair, 0, 0, 0), 0);
	after = rdtsc();
	check(pair.tsc >= before && pair.tsc <= after, "the TSC of the call");
	check(pair.sec > 1700000000 && pair.nsec >= 0 && pair.nsec < 1000000000, "wall time: %u", (u32)pair.sec);
	expect("no flags", pair.flags, 0);
	expect("another clock", hypercall(HC_CLOCK_PAIRING, (ulong)&pair, 1, 0, 0), E_OPNOTSUPP);
	expect("where no memory is", hypercall(HC_CLOCK_PAIRING, 1ul << 40, 0, 0, 0), E_FAULT);
}

/* ---- steal time ------------------------------------------------------------------------------------ */

static struct steal {
	u64 steal;
	u32 version, flags;
	u8 preempted, pad[3];
	u32 pad2[11];
} __attribute__((aligned(64))) steal[CPUS];
#define PREEMPTED 1
#define FLUSH 2

static void steal_on(u32 cpu, ulong on)
{
	wrmsr(MSR_STEAL_TIME, on ? (ulong)&steal[cpu] | 1 : 0);
}

static void steal_time(void)
{
	u64 start = rdtsc(), was;
	u32 version;

	group("steal time");
	expect_fault("reserved bits", GP, 0, wrmsr(MSR_STEAL_TIME, (ulong)&steal[0] | 0x21));
	steal[0].version = 77;
	steal_on(0, 1);
	expect("the MSR reads back", rdmsr(MSR_STEAL_TIME), (ulong)&steal[0] | 1);
	check(steal[0].version > 77 && !(steal[0].version & 1), "an even version: %u", steal[0].version);
	version = LOAD(steal[0].version);
	was = LOAD(steal[0].steal);
	while (LOAD(steal[0].version) == version && rdtsc() - start < 2000000ull * tsc_per_us())
		;
	check(LOAD(steal[0].version) != version, "goes on");
	check(LOAD(steal[0].steal) >= was, "never falls");
	check((LOAD(steal[0].steal) - was) / 1000 * tsc_per_us() <= rdtsc() - start, "is no more than time went by");
	expect("running: not preempted", steal[0].preempted, 0);
	steal_on(0, 0);
}

/*
 * A CPU that waits is preempted at times; then a request in memory takes the place of an IPI: the
 * translation that was there must be gone when it runs on.
 */
static u32 phase;
static u64 seen;

static void phase_wait(u32 want)
{
	while (LOAD(phase) != want)
		pause_cpu();
}

static void waiter(u32 cpu, ulong rounds)
{
	u32 i;

	steal_on(cpu, 1);
	for (i = 0; i < rounds; i++) {
		seen = *(volatile u64 *)TEST_VA;
		STORE(phase, 4 * i + 1);
		phase_wait(4 * i + 2);
		seen = *(volatile u64 *)TEST_VA;
		STORE(phase, 4 * i + 3);
		phase_wait(4 * i + 4);
	}
	steal_on(cpu, 0);
}

static bool ask_flush(struct steal *s)
{
	u64 end = rdtsc() + 1000000ull * tsc_per_us();
	u8 is;

	do {
		is = PREEMPTED;
		if (__atomic_compare_exchange_n(&s->preempted, &is, PREEMPTED | FLUSH, false, __ATOMIC_SEQ_CST,
						__ATOMIC_SEQ_CST))
			return true;
	} while (rdtsc() < end);
	return false;
}

static void tlb_flush_flag(u32 rounds)
{
	u64 *frame[2] = { page_alloc(), page_alloc() };
	u32 i, asked = 0;

	*frame[0] = 100;
	*frame[1] = 101;
	page_map(TEST_VA, (ulong)frame[0], PTE_P | PTE_W);
	STORE(phase, 0);
	smp_call(1, waiter, rounds);
	sweep("a flush asked for in memory");
	for (i = 0; i < rounds; i++) {
		phase_wait(4 * i + 1);
		sweep_check(seen == 100 + (i & 1), "round %u: %u before", i, (u32)seen);
		*page_entry(TEST_VA, 1) = (ulong)frame[~i & 1] | PTE_P | PTE_W;
		asked += ask_flush(&steal[1]);
		STORE(phase, 4 * i + 2);
		phase_wait(4 * i + 3);
		sweep_check(seen == 100 + (~i & 1), "round %u: the old page is still seen", i);
		STORE(phase, 4 * i + 4);
	}
	sweep_end();
	smp_wait(1);
	expect("each round found it preempted", asked, rounds);
}

/* ---- EOI in memory --------------------------------------------------------------------------------- */

static u32 eoi_word __attribute__((aligned(4)));
static u32 by_memory, by_register, isr_seen, offer_after;

static bool eoi_taken(void)
{
	u8 was;

	asm volatile("btrl $0, %1; setc %0" : "=r"(was), "+m"(eoi_word) :: "memory");
	return was;
}

static void on_eoi(struct trap_frame *f)
{
	if (eoi_taken())
		by_memory++;
	else {
		by_register++;
		lapic_eoi();
	}
}

/* Looks at the APIC first: the offer is void then. */
static void on_looking(struct trap_frame *f)
{
	isr_seen = lapic_bit(LAPIC_ISR, (int)f->vector);
	offer_after = eoi_word;
	lapic_eoi();
}

static void ipi_self(u8 vector)
{
	lapic_write(LAPIC_ICR, ICR_SELF | ICR_ASSERT | vector);
}

static void pv_eoi(u32 rounds)
{
	u32 i;

	group("EOI in memory");
	expect_fault("an address that is not aligned", GP, 0, wrmsr(MSR_PV_EOI, (ulong)&eoi_word | 3));
	expect_fault("an address without memory", GP, 0, wrmsr(MSR_PV_EOI, 1ul << 45 | 1));
	wrmsr(MSR_PV_EOI, (ulong)&eoi_word | 1);
	expect("the MSR reads back", rdmsr(MSR_PV_EOI), (ulong)&eoi_word | 1);
	trap_handle(VEC_A, on_eoi);
	trap_handle(VEC_B, on_eoi);
	sti();
	for (i = 0; i < rounds; i++)
		ipi_self(VEC_A);
	cli();
	expect("all came", by_memory + by_register, rounds);
	expect("all ended in memory", by_memory, rounds);
	check(!lapic_bit(LAPIC_ISR, VEC_A), "none is in service any more");
	by_memory = by_register = 0;
	ipi_self(VEC_A);
	ipi_self(VEC_B);
	sti();
	cli();
	expect("another one waits: by register", by_register, 1);
	expect("the last one: in memory", by_memory, 1);
	check(!lapic_bit(LAPIC_ISR, VEC_A) && !lapic_bit(LAPIC_ISR, VEC_B), "both are over");
	trap_handle(VEC_A, on_looking);
	ipi_self(VEC_A);
	sti();
	cli();
	expect("in service until it is ended", isr_seen, 1);
	expect("a look at the APIC takes the offer back", offer_after, 0);
	check(!lapic_bit(LAPIC_ISR, VEC_A), "ended by register then");
	wrmsr(MSR_PV_EOI, 0);
	ipi_self(VEC_B);
	by_memory = by_register = 0;
	sti();
	cli();
	expect("switched off: by register", by_register, 1);
}

/* ---- interrupts and kicks -------------------------------------------------------------------------- */

static u32 ipis[CPUS], nmis;

static void on_ipi(struct trap_frame *f)
{
	__atomic_fetch_add(&ipis[smp_self()], 1, __ATOMIC_RELAXED);
	lapic_eoi();
}

static void on_nmi(struct trap_frame *f)
{
	__atomic_fetch_add(&nmis, 1, __ATOMIC_RELAXED);
}

static void until_ipis(u32 cpu, ulong n)
{
	cli();
	while (LOAD(ipis[cpu]) < n)
		sti_hlt_cli();
}

static void send_ipis(u32 rounds)
{
	u32 cpu, i;

	group("IPIs by hypercall");
	trap_handle(VEC_A, on_ipi);
	trap_handle(NMI, on_nmi);
	expect("to nobody", hypercall(HC_SEND_IPI, 0, 0, 0, VEC_A), 0);
	expect("to CPUs that are not there", hypercall(HC_SEND_IPI, ~15ul, ~0ul, 0, VEC_A), 0);
	expect("a shorthand is refused", hypercall(HC_SEND_IPI, 2, 0, 0, ICR_OTHERS | VEC_A), E_INVAL);
	expect("a logical destination is refused", hypercall(HC_SEND_IPI, 2, 0, 0, BIT(11) | VEC_A), E_INVAL);
	for (cpu = 1; cpu < CPUS; cpu++)
		smp_call(cpu, until_ipis, rounds);
	sweep("to all others");
	for (i = 1; i <= rounds; i++) {
		s64 n = hypercall(HC_SEND_IPI, 0xe, 0, 0, VEC_A);

		sweep_check(n == 3, "round %u: %d took it", i, (int)n);
		for (cpu = 1; cpu < CPUS; cpu++)
			while (LOAD(ipis[cpu]) < i)
				pause_cpu();
	}
	sweep_end();
	for (cpu = 1; cpu < CPUS; cpu++)
		smp_wait(cpu);
	expect("none to this one", ipis[0], 0);
	memset(ipis, 0, sizeof(ipis));
	smp_call(2, until_ipis, 1);
	expect("a set that begins at CPU 1", hypercall(HC_SEND_IPI, 2, 0, 1, VEC_A), 1);
	smp_wait(2);
	expect("reached CPU 2", ipis[2], 1);
	expect("none else", ipis[1] + ipis[3], 0);
	expect("an NMI", hypercall(HC_SEND_IPI, 1, 0, 0, ICR_NMI), 1);
	while (!LOAD(nmis))
		pause_cpu();
	expect("once", nmis, 1);
}

static u32 ready, awake;

/* Halts with interrupts off: only a kick, or an NMI, ends that. */
static void sleeper(u32 cpu, ulong rounds)
{
	u32 i;

	cli();
	for (i = 1; i <= rounds; i++) {
		STORE(ready, i);
		asm volatile("hlt" ::: "memory");
		STORE(awake, i);
	}
}

static void kicks(u32 rounds)
{
	u32 i;

	group("kicks");
	smp_call(1, sleeper, rounds);
	sweep("out of HLT with interrupts off");
	for (i = 1; i <= rounds; i++) {
		s64 ret;

		while (LOAD(ready) < i)
			pause_cpu();
		ret = hypercall(HC_KICK, 0, 1, 0, 0);
		sweep_check(!ret, "round %u: %d", i, (int)ret);
		while (LOAD(awake) < i)
			pause_cpu();
	}
	sweep_end();
	smp_wait(1);
	expect("a kick of nobody", hypercall(HC_KICK, 0, 99, 0, 0), 0);
	expect("a yield", hypercall(HC_SCHED_YIELD, 1, 0, 0, 0), 0);
	expect("to oneself", hypercall(HC_SCHED_YIELD, 0, 0, 0, 0), 0);
}

/* ---- the rest -------------------------------------------------------------------------------------- */

static struct { u32 flags, token, pad[14]; } apf __attribute__((aligned(64)));
static u32 apf_tokens, apf_token;

static void on_apf(struct trap_frame *f)
{
	apf_tokens++;
	apf_token = apf.token;
	apf.token = 0;
	wrmsr(MSR_ASYNC_PF_ACK, 1);
	lapic_eoi();
}

static void async_pf(void)
{
	group("async page faults");
	trap_handle(VEC_APF, on_apf);
	expect_fault("reserved bits", GP, 0, wrmsr(MSR_ASYNC_PF_EN, (ulong)&apf | 0x10));
	expect_fault("a vector of nine bits", GP, 0, wrmsr(MSR_ASYNC_PF_INT, 0x100));
	wrmsr(MSR_ASYNC_PF_INT, VEC_APF);
	wrmsr(MSR_ASYNC_PF_EN, (ulong)&apf | 9);
	expect("the MSR reads back", rdmsr(MSR_ASYNC_PF_EN), (ulong)&apf | 9);
	expect("so does the vector's", rdmsr(MSR_ASYNC_PF_INT), VEC_APF);
	sti();
	while (!LOAD(apf_tokens))
		pause_cpu();
	delay_us(1000);
	cli();
	expect("one event when it is enabled", apf_tokens, 1);
	expect("for all that wait", apf_token, 0xffffffff);
	expect("and nobody was told of a missing page", apf.flags, 0);
	/* A token that has not been taken: the next event waits for its end. */
	apf.token = 5;
	wrmsr(MSR_ASYNC_PF_EN, (ulong)&apf | 9);
	sti();
	delay_us(1000);
	expect("none while the last one is there", apf_tokens, 1);
	apf.token = 0;
	wrmsr(MSR_ASYNC_PF_ACK, 1);
	while (LOAD(apf_tokens) < 2)
		pause_cpu();
	cli();
	wrmsr(MSR_ASYNC_PF_EN, 0);
	check(true, "the next one after the acknowledgement");
	group("poll control");
	expect("on at first", rdmsr(MSR_POLL_CONTROL), 1);
	wrmsr(MSR_POLL_CONTROL, 0);
	expect("off", rdmsr(MSR_POLL_CONTROL), 0);
	expect_fault("reserved bits", GP, 0, wrmsr(MSR_POLL_CONTROL, 2));
}

void guest_main(void)
{
	u32 f;

	if (!(cpuid(1, 0).ecx & BIT(31)) || cpuid(0x40000000, 0).ebx != 0x4b4d564b) {
		skip("pv", "not on KVM");
		check(true, "nothing to test");
		return;
	}
	f = cpuid(0x40000001, 0).eax;
	instructions();
	clock_pairing();
	smp_start(CPUS);
	if (f & BIT(F_STEAL_TIME)) {
		steal_time();
		tlb_flush_flag(200);
	} else {
		skip("steal time", "the host does not count it");
	}
	check(f & BIT(F_PV_EOI) && f & BIT(F_PV_UNHALT) && f & BIT(F_TLB_FLUSH) && f & BIT(F_SEND_IPI) &&
	      f & BIT(F_POLL_CONTROL) && f & BIT(F_SCHED_YIELD) && f & BIT(F_ASYNC_PF) && f & BIT(F_ASYNC_PF_INT),
	      "CPUID shows the others: %x", f);
	pv_eoi(5000);
	send_ipis(1000);
	kicks(1000);
	async_pf();
}
