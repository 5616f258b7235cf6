/* KVM_GET_PIT and KVM_SET_PIT: the PIT's channels without KVM_GET_PIT2's flags. Linux arch/x86/kvm/x86.c */
#include <errno.h>
#include <string.h>

#include "tests/api/api.h"

static void test_channels(void **state)
{
	struct kvm_pit_config config = { 0 };
	struct kvm_pit_state s;
	struct kvm_pit_state2 s2;
	struct machine m;

	machine_new(&m, WITH_IRQCHIP);
	assert_int_equal(call(m.vm, KVM_GET_PIT, &s), -ENXIO);
	assert_int_equal(call(m.vm, KVM_SET_PIT, &s), -ENXIO);
	assert_int_equal(call(m.vm, KVM_CREATE_PIT2, &config), 0);
	assert_int_equal(call(m.vm, KVM_GET_PIT2, &s2), 0);
	s2.flags = KVM_PIT_FLAGS_HPET_LEGACY;
	s2.channels[2].count = 1234;
	s2.channels[2].mode = 3;
	assert_int_equal(call(m.vm, KVM_SET_PIT2, &s2), 0);
	memset(&s, 0xff, sizeof(s));
	assert_int_equal(call(m.vm, KVM_GET_PIT, &s), 0);
	assert_int_equal(s.channels[2].count, 1234);
	assert_int_equal(s.channels[2].mode, 3);
	s.channels[2].count = 4321;
	s.channels[1].mode = 2;
	assert_int_equal(call(m.vm, KVM_SET_PIT, &s), 0);
	assert_int_equal(call(m.vm, KVM_GET_PIT2, &s2), 0);
	assert_int_equal(s2.channels[2].count, 4321);
	assert_int_equal(s2.channels[1].mode, 2);
	assert_int_equal(s2.flags, KVM_PIT_FLAGS_HPET_LEGACY);
	machine_free(&m);
}

/* Made by the older call it is the same PIT; there is one. Whether ticks are made up for is asked of it. */
static void test_creation(void **state)
{
	struct kvm_reinject_control control = { .pit_reinject = 1 };
	struct kvm_pit_config config = { 0 };
	struct kvm_pit_state2 s2;
	struct machine m;

	machine_new(&m, WITH_IRQCHIP);
	assert_int_equal(call(m.vm, KVM_REINJECT_CONTROL, &control), -ENXIO);
	assert_int_equal(call_num(m.vm, KVM_CREATE_PIT, 0), 0);
	assert_int_equal(call_num(m.vm, KVM_CREATE_PIT, 0), -EEXIST);
	assert_int_equal(call(m.vm, KVM_CREATE_PIT2, &config), -EEXIST);
	assert_int_equal(call(m.vm, KVM_GET_PIT2, &s2), 0);
	assert_int_equal(call(m.vm, KVM_REINJECT_CONTROL, &control), 0);
	control.pit_reinject = 0;
	assert_int_equal(call(m.vm, KVM_REINJECT_CONTROL, &control), 0);
	assert_int_equal(call(m.vm, KVM_REINJECT_CONTROL, NULL), -EFAULT);
	machine_free(&m);
}

int test_old_pit(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_channels),
		cmocka_unit_test(test_creation),
	};

	return cmocka_run_group_tests_name("old_pit", tests, NULL, NULL);
}
