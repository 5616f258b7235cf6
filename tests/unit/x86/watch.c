/*
 * The watch, by which a vCPU finds out that it is to come out (immediate_exit): it ends when no vCPU runs guest
 * code, and one that had all others stopped and goes on in the engine must have it again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "hypervisor/core/vm.h"

#define LIMIT_NS 20000000000ULL

/* Waits for it. */
static bool becomes(const volatile u32 *word, u32 wanted)
{
	u64 start = os_clock_ns();

	while (load_acquire(word) != wanted && os_clock_ns() - start < LIMIT_NS)
		os_yield();
	return load_acquire(word) == wanted;
}

static struct vcpu *cpu_new(struct vm *vm)
{
	struct kvm_run *run = mmap(NULL, vcpu_mmap_bytes(vm), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vcpu *v;

	assert_ptr_not_equal(run, MAP_FAILED);
	assert_int_equal(vcpu_create(vm, 0, run, &v), 0);
	vcpu_publish(v);
	return v;
}

static void test_exclusive(void **state)
{
	struct vcpu *v;
	struct vm *vm;

	assert_int_equal(vm_create(&vm), 0);
	v = cpu_new(vm);
	v->requests = 0;	/* as the run loop leaves it */
	vcpu_enter(v);
	vm_watch(vm);
	assert_int_equal(load_acquire(&vm->watching), 1);
	vcpu_exclusive_begin(v);
	assert_true(becomes(&vm->watching, 0));
	vcpu_exclusive_end(v);
	assert_int_equal(load_acquire(&vm->watching), 1);
	/* It sees what is asked, and kicks. */
	v->kick = 0;
	v->run->immediate_exit = 1;
	assert_true(becomes(&v->kick, 1));
	vcpu_leave(v);
	assert_true(becomes(&vm->watching, 0));
	vm_put(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exclusive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
