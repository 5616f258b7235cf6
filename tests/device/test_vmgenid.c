/* The VM generation ID: its verbs, and the events that tell of it. */
#include <stdlib.h>

#include "tests/device/fixture.h"
#include "vmm/hw/acpi_pm.h"
#include "vmm/hw/ged.h"
#include "vmm/hw/vmgenid.h"

#define MEMORY (8ULL << 20)
#define PAGE 0x200000

struct bench {
	struct fixture f;
	struct guest_memory mem;
	u8 *ram;
	struct vmgenid v;
	unsigned notified;
};

static const struct vmgenid_options random_id = { .there = true };
static const struct vmgenid_options fixed_id = { .there = true, .fixed = true, .guid = "0123456789abcde" };

static void on_notify(void *arg)
{
	((struct bench *)arg)->notified++;
}

static int setup(void **state)
{
	static struct bench b;

	memset(&b, 0, sizeof(b));
	fixture_init(&b.f);
	b.mem.size = MEMORY;
	b.ram = calloc(1, MEMORY);
	guest_memory_layout(&b.mem, b.ram);
	*state = &b;
	return 0;
}

static int teardown(void **state)
{
	free(((struct bench *)*state)->ram);
	return 0;
}

static const u8 *guest_id(const struct bench *b)
{
	return b->ram + PAGE + VMGENID_OFFSET;
}

/* A copy of the machine: another number, told once, when memory is there. */
static void test_copy(void **state)
{
	struct bench *b = *state;
	struct device dev = { &vmgenid_device_ops, &b->v };
	u8 saved[256], first[VMGENID_SIZE], second[VMGENID_SIZE];
	long n;

	assert_int_equal(vmgenid_init(&b->v, &random_id, &b->mem, on_notify, b), 0);
	assert_memory_equal(b->v.page + VMGENID_OFFSET, b->v.guid, VMGENID_SIZE);
	vmgenid_place(&b->v, PAGE);
	memcpy(first, guest_id(b), VMGENID_SIZE);
	assert_memory_equal(first, b->v.guid, VMGENID_SIZE);
	assert_int_equal(first[7] >> 4, 4);
	vmgenid_device_ops.pause(&b->v);
	n = device_save(&dev, saved, sizeof(saved));
	vmgenid_device_ops.resume(&b->v);
	assert_int_equal(b->notified, 0);
	assert_int_equal(vmgenid_init(&b->v, &random_id, &b->mem, on_notify, b), 0);
	assert_int_equal(device_load(&dev, saved, n), n);
	assert_int_equal(b->notified, 0);
	assert_memory_equal(guest_id(b), first, VMGENID_SIZE);
	vmgenid_device_ops.resume(&b->v);
	assert_int_equal(b->notified, 1);
	memcpy(second, guest_id(b), VMGENID_SIZE);
	assert_memory_not_equal(first, second, VMGENID_SIZE);
	vmgenid_device_ops.resume(&b->v);
	assert_int_equal(b->notified, 1);
	/* Loaded twice before it goes on, or saved in between: told all the same. */
	assert_int_equal(device_load(&dev, saved, n), n);
	n = device_save(&dev, saved, sizeof(saved));
	assert_int_equal(device_load(&dev, saved, n), n);
	vmgenid_device_ops.resume(&b->v);
	assert_int_equal(b->notified, 2);
	assert_memory_not_equal(guest_id(b), second, VMGENID_SIZE);
	saved[n - 1] = 2;	/* the last field: changed */
	assert_int_equal(device_load(&dev, saved, n), -EINVAL);
	vmgenid_device_ops.reset(&b->v);
	assert_int_equal(b->v.address, 0);
}

/* A number that was given is the copy's, too; another one that was given is news. */
static void test_fixed(void **state)
{
	struct bench *b = *state;
	struct device dev = { &vmgenid_device_ops, &b->v };
	u8 saved[256];
	long n;

	assert_int_equal(vmgenid_init(&b->v, &fixed_id, &b->mem, on_notify, b), 0);
	vmgenid_place(&b->v, PAGE);
	assert_memory_equal(guest_id(b), "0123456789abcde", VMGENID_SIZE);
	check_round_trip(&vmgenid_device_ops, &b->v);
	n = device_save(&dev, saved, sizeof(saved));
	assert_int_equal(device_load(&dev, saved, n), n);
	vmgenid_device_ops.resume(&b->v);
	assert_int_equal(b->notified, 0);
	b->v.guid[0] = 'X';
	assert_int_equal(device_load(&dev, saved, n), n);
	vmgenid_device_ops.resume(&b->v);
	assert_int_equal(b->notified, 1);
	assert_memory_equal(guest_id(b), "X123456789abcde", VMGENID_SIZE);
}

/* Whatever firmware says of its place: nothing outside of memory is written. */
static void test_places(void **state)
{
	static const u64 places[] = { 0, MEMORY, MEMORY - VMGENID_OFFSET - 8, ~0ULL, ~0ULL - 4096, 0xA0000,
		0x100000000ULL, BIT(63) };
	struct bench *b = *state;

	assert_int_equal(vmgenid_init(&b->v, &fixed_id, &b->mem, on_notify, b), 0);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		vmgenid_place(&b->v, places[i]);
	for (u64 at = 0; at < MEMORY; at++)
		if (b->ram[at])
			fail_msg("something at %#llx", (unsigned long long)at);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void no_power_off(void *arg)
{
	(void)arg;
}

static void test_gpe(void **state)
{
	struct bench *b = *state;
	struct acpi_pm pm;
	struct irq_line sci = fixture_irq(&b->f, 9);

	acpi_pm_init(&pm, &b->f.timers, &sci, no_power_off, b);
	acpi_pm_gpe(&pm, GPE_VMGENID);
	assert_false(b->f.level[9]);
	assert_int_equal(acpi_pm_io_ops.read(&pm, ACPI_GPE0, 1), 1 << GPE_VMGENID);
	acpi_pm_io_ops.write(&pm, ACPI_GPE0 + 8, 1 << GPE_VMGENID, 1);
	assert_true(b->f.level[9]);
	assert_int_equal(acpi_pm_io_ops.read(&pm, ACPI_GPE0 + 8, 4), 1 << GPE_VMGENID);
	check_round_trip(&acpi_pm_device_ops, &pm);
	assert_true(b->f.level[9]);
	acpi_pm_io_ops.write(&pm, ACPI_GPE0, 0xDF, 1);
	assert_true(b->f.level[9]);
	acpi_pm_io_ops.write(&pm, ACPI_GPE0, 1 << GPE_VMGENID, 1);
	assert_false(b->f.level[9]);
	assert_int_equal(acpi_pm_io_ops.read(&pm, ACPI_GPE0, 4), 0);
	/* The highest of them, and a write over two registers. */
	acpi_pm_gpe(&pm, 63);
	acpi_pm_io_ops.write(&pm, ACPI_GPE0 + 12, 0x80000000, 4);
	assert_true(b->f.level[9]);
	assert_int_equal(acpi_pm_io_ops.read(&pm, ACPI_GPE0 + 7, 1), 0x80);
	acpi_pm_device_ops.reset(&pm);
	assert_false(b->f.level[9]);
	assert_int_equal(acpi_pm_io_ops.read(&pm, ACPI_GPE0 + 12, 4), 0);
}

static void test_event_device(void **state)
{
	struct bench *b = *state;
	struct irq_line irq = fixture_irq(&b->f, 9);
	struct machine_events none = { 0 };
	struct ged g;

	ged_init(&g, &irq, &none);
	ged_vmgenid(&g);
	ged_power_button(&g);
	assert_int_equal(b->f.edges[9], 1);
	check_round_trip(&ged_device_ops, &g);
	assert_int_equal(ged_io_ops.read(&g, GED_EVENTS, 4), GED_EVENT_VMGENID | GED_EVENT_POWER_BUTTON);
	assert_false(b->f.level[9]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fixed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_places, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gpe, setup, teardown),
		cmocka_unit_test_setup_teardown(test_event_device, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
