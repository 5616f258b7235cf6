/* Coalesced MMIO and PIO: the ring, where it is full, zones that come and go. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/api/api.h"

#define RING_PAGE	2
#define RING_MAX	((4096 - sizeof(struct kvm_coalesced_mmio_ring)) / \
			 sizeof(struct kvm_coalesced_mmio))
#define MMIO_AT		0x80000
#define PORT		0x500

static struct kvm_coalesced_mmio_ring *ring_of(struct kvm_run *run)
{
	return (void *)((char *)run + RING_PAGE * 4096);
}

static long zone(int vm, unsigned long request, u64 addr, u32 size, u32 pio)
{
	struct kvm_coalesced_mmio_zone z = { .addr = addr, .size = size, .pio = pio };

	return call(vm, request, &z);
}

#define ADD	KVM_REGISTER_COALESCED_MMIO
#define REMOVE	KVM_UNREGISTER_COALESCED_MMIO

/* Takes the oldest entry. */
static struct kvm_coalesced_mmio take(struct kvm_coalesced_mmio_ring *r)
{
	struct kvm_coalesced_mmio e = r->coalesced_mmio[r->first];

	assert_true(r->first < RING_MAX);
	assert_int_not_equal(r->first, r->last);
	r->first = (r->first + 1) % RING_MAX;
	return e;
}

static void expect_entry(struct kvm_coalesced_mmio_ring *r, u64 addr, u32 len, u32 pio, u64 data)
{
	struct kvm_coalesced_mmio e = take(r);

	assert_int_equal(e.phys_addr, addr);
	assert_int_equal(e.len, len);
	assert_int_equal(e.pio, pio);
	assert_memory_equal(e.data, &data, len);
}

/* Writes of each size; what is not wholly in the zone, and reads, leave. */
static void test_coalesced_ring(void **state)
{
	struct kvm_coalesced_mmio_ring *r;
	struct machine m;

	machine_new(&m, PLAIN);
	r = ring_of(m.run);
	assert_int_equal(call_num(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO), RING_PAGE);
	assert_int_equal(call_num(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_PIO), 1);
	assert_int_equal(zone(m.vm, ADD, MMIO_AT, 16, 0), 0);
	assert_int_equal(zone(m.vm, ADD, PORT, 4, 1), 0);
	/*
	 * mov ax, 0x8000; mov es, ax; mov byte es:[1], 0x11; mov word es:[2], 0x2222;
	 * mov dword es:[12], 0x33333333; mov dx, PORT; mov eax, 0x44445555; out dx, al; out dx, ax;
	 * out dx, eax; mov byte es:[15], 0x66; mov word es:[15], 0x7777; mov al, es:[0];
	 * mov dx, PORT + 3; out dx, ax
	 */
	CODE(&m, 0xb8, 0x00, 0x80, 0x8e, 0xc0, 0x26, 0xc6, 0x06, 0x01, 0x00, 0x11,
	     0x26, 0xc7, 0x06, 0x02, 0x00, 0x22, 0x22,
	     0x26, 0x66, 0xc7, 0x06, 0x0c, 0x00, 0x33, 0x33, 0x33, 0x33,
	     0xba, PORT & 255, PORT >> 8, 0x66, 0xb8, 0x55, 0x55, 0x44, 0x44, 0xee, 0xef, 0x66, 0xef,
	     0x26, 0xc6, 0x06, 0x0f, 0x00, 0x66, 0x26, 0xc7, 0x06, 0x0f, 0x00, 0x77, 0x77,
	     0x26, 0xa0, 0x00, 0x00, 0xba, (PORT + 3) & 255, PORT >> 8, 0xef);
	run_until(&m, KVM_EXIT_MMIO);
	assert_true(m.run->mmio.is_write);
	assert_int_equal(m.run->mmio.phys_addr, MMIO_AT + 15);
	assert_int_equal(m.run->mmio.len, 2);
	expect_entry(r, MMIO_AT + 1, 1, 0, 0x11);
	expect_entry(r, MMIO_AT + 2, 2, 0, 0x2222);
	expect_entry(r, MMIO_AT + 12, 4, 0, 0x33333333);
	expect_entry(r, PORT, 1, 1, 0x55);
	expect_entry(r, PORT, 2, 1, 0x5555);
	expect_entry(r, PORT, 4, 1, 0x44445555);
	expect_entry(r, MMIO_AT + 15, 1, 0, 0x66);
	assert_int_equal(r->first, r->last);
	run_until(&m, KVM_EXIT_MMIO);
	assert_false(m.run->mmio.is_write);
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(m.run->io.port, PORT + 3);
	machine_free(&m);
}

/* A full ring loses nothing: the next write leaves. */
static void test_full(void **state)
{
	struct kvm_coalesced_mmio_ring *r;
	struct machine m;
	u32 seen = 0, exits = 0, before;

	machine_new(&m, PLAIN);
	r = ring_of(m.run);
	assert_int_equal(zone(m.vm, ADD, PORT, 2, 1), 0);
	/* mov dx, PORT; xor ax, ax; again: out dx, ax; inc ax; cmp ax, 1000; jne again; hlt */
	CODE(&m, 0xba, PORT & 255, PORT >> 8, 0x31, 0xc0, 0xef, 0x40, 0x3d, 0xe8, 0x03, 0x75, 0xf9,
	     0xf4);
	for (;;) {
		assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), 0);
		before = seen;
		for (; r->first != r->last; seen++)
			expect_entry(r, PORT, 2, 1, seen);
		/* Older kernels take a ring of half its size for full. */
		assert_true(seen - before < RING_MAX);
		if (!api_is_host() && m.run->exit_reason != KVM_EXIT_HLT)
			assert_int_equal(seen - before, RING_MAX - 1);
		if (m.run->exit_reason == KVM_EXIT_HLT)
			break;
		assert_int_equal(m.run->exit_reason, KVM_EXIT_IO);
		assert_int_equal(*(u16 *)((char *)m.run + m.run->io.data_offset), seen);
		seen++;
		exits++;
	}
	assert_int_equal(seen, 1000);
	assert_true(exits > 1000 / RING_MAX - 1);
	/* Whatever user space writes there, it harms itself only. */
	for (u32 i = 0; i < 64; i++) {
		r->last = i & 1 ? RING_MAX + i : 1u << (i / 2);
		r->first = i & 2 ? ~0u : i;
		real_mode(m.vcpu, CODE_AT);
		assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), 0);
	}
	machine_free(&m);
}

/* One ring for the VM, in each vCPU's mapping. */
static void test_shared(void **state)
{
	struct machine m;
	struct kvm_run *run, *again;
	void *p;
	int vcpu;

	machine_new(&m, PLAIN);
	vcpu = vcpu_new(m.vm, 1, &run);
	assert_int_equal(api->mmap(m.vcpu, RUN_SIZE, &p), 0);
	again = p;
	ring_of(run)->first = 17;
	ring_of(m.run)->last = 17;
	assert_int_equal(ring_of(m.run)->first, 17);
	assert_int_equal(ring_of(again)->first, 17);
	assert_int_equal(zone(m.vm, ADD, PORT, 1, 1), 0);
	CODE(&m, 0xe7, 0x10, 0xba, PORT & 255, PORT >> 8, 0xee, 0xf4);	/* out 0x10; ...; hlt */
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(m.run->io.port, 0x10);
	run_until(&m, KVM_EXIT_HLT);
	assert_int_equal(ring_of(run)->last, 18);
	/* The rest of the mapping is each vCPU's own. */
	again->request_interrupt_window = 5;
	assert_int_equal(m.run->request_interrupt_window, 5);
	assert_int_equal(run->request_interrupt_window, 0);
	munmap(again, RUN_SIZE);
	munmap(run, RUN_SIZE);
	api->close(vcpu);
	machine_free(&m);
}

/* True: the byte written there is in the ring. */
static bool waits(struct machine *m, u16 port)
{
	struct kvm_coalesced_mmio_ring *r = ring_of(m->run);

	CODE(m, 0xba, 0, 0, 0xee, 0xf4);	/* mov dx, port; out dx, al; hlt */
	m->ram[CODE_AT + 1] = (u8)port;
	m->ram[CODE_AT + 2] = port >> 8;
	assert_int_equal(call_num(m->vcpu, KVM_RUN, 0), 0);
	if (m->run->exit_reason == KVM_EXIT_IO) {
		run_until(m, KVM_EXIT_HLT);
		return false;
	}
	assert_int_equal(m->run->exit_reason, KVM_EXIT_HLT);
	take(r);
	return true;
}

static void test_zones(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_equal(zone(m.vm, ADD, PORT, 4, 2), -EINVAL);
	assert_int_equal(zone(m.vm, REMOVE, PORT, 4, 2), -EINVAL);
	assert_int_equal(zone(m.vm, REMOVE, PORT, 4, 1), 0);
	assert_int_equal(call(m.vm, ADD, NULL), -EFAULT);
	/* Zones may overlap, and be there twice. */
	assert_int_equal(zone(m.vm, ADD, PORT, 16, 1), 0);
	assert_int_equal(zone(m.vm, ADD, PORT + 8, 16, 1), 0);
	assert_int_equal(zone(m.vm, ADD, PORT + 8, 16, 1), 0);
	assert_int_equal(zone(m.vm, ADD, PORT, 4, 0), 0);
	assert_true(waits(&m, PORT + 9) && waits(&m, PORT + 23) && !waits(&m, PORT + 24));
	/* The other bus's, and what does not hold all of it, stay. */
	assert_int_equal(zone(m.vm, REMOVE, PORT, 24, 1), 0);
	assert_int_equal(zone(m.vm, REMOVE, PORT, 4, 0), 0);
	assert_true(waits(&m, PORT) && waits(&m, PORT + 23));
	/* One that begins later and ends earlier hides nothing. (KVM's search may miss it then.) */
	if (!api_is_host()) {
		assert_int_equal(zone(m.vm, ADD, PORT + 4, 2, 1), 0);
		assert_true(waits(&m, PORT + 3) && waits(&m, PORT + 5) && waits(&m, PORT + 7));
	}
	/* Each that holds this goes. */
	assert_int_equal(zone(m.vm, REMOVE, PORT + 20, 1, 1), 0);
	assert_true(waits(&m, PORT + 15) && !waits(&m, PORT + 16));
	assert_int_equal(zone(m.vm, REMOVE, PORT, 16, 1), 0);
	assert_false(waits(&m, PORT));
	machine_free(&m);
}

/* As many as a bus takes. */
static void test_many(void **state)
{
	struct machine m;
	u32 n;
	long ret = 0;

	machine_new(&m, PLAIN);
	for (n = 0; n < 2000 && !ret; n++)
		ret = zone(m.vm, ADD, 0x1000 + n * 8, 8, 1);
	assert_int_equal(ret, -ENOSPC);
	assert_int_equal(n, 1001);
	assert_int_equal(zone(m.vm, ADD, 0x1000, 8, 0), 0);
	for (u32 i = 0; i < 1000; i += 37)
		assert_true(waits(&m, 0x1000 + i * 8 + 7));
	assert_int_equal(zone(m.vm, REMOVE, 0x1000 + 8 * 100, 8, 1), 0);
	assert_false(waits(&m, 0x1000 + 8 * 100));
	assert_true(waits(&m, 0x1000 + 8 * 101));
	assert_int_equal(zone(m.vm, ADD, 0x800, 8, 1), 0);
	assert_true(waits(&m, 0x800));
	machine_free(&m);
}

int test_coalesced(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_coalesced_ring),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_shared),
		cmocka_unit_test(test_zones),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests_name("coalesced", tests, NULL, NULL);
}
