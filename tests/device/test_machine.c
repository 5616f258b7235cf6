/* The machine's glue: I/O map, saved state, choice of accelerator, firmware tables, timers. */
#include <stdlib.h>

#include "tests/device/fixture.h"
#include "vmm/kvm/accel.h"
#include "vmm/machine/acpi_tables.h"
#include "vmm/machine/aml.h"
#include "vmm/machine/io_map.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/microvm.h"

/* ---- I/O map --------------------------------------------------------------------------------- */

struct seen {
	u64 offset, value;
	unsigned size, count;
};

static u64 seen_read(void *dev, u64 offset, unsigned size)
{
	struct seen *s = dev;

	s->offset = offset;
	s->size = size;
	s->count++;
	return 0x8877665544332211ULL >> 8 * offset;
}

static void seen_write(void *dev, u64 offset, u64 value, unsigned size)
{
	*(struct seen *)dev = (struct seen){ offset, value, size, ((struct seen *)dev)->count + 1 };
}

static const struct io_ops bytes_ops = { .read = seen_read, .write = seen_write, .width = 1 };
static const struct io_ops words_ops = { .read = seen_read, .write = seen_write, .width = 4 };

static void test_io_map(void **state)
{
	struct io_map map = { 0 };
	struct seen a = { 0 }, b = { 0 };
	u64 value = 0;

	(void)state;
	assert_int_equal(io_map_add(&map, &(struct io_range){ 0x100, 8, &bytes_ops, &a, "a" }), 0);
	assert_int_equal(io_map_add(&map, &(struct io_range){ 0x10, 8, &words_ops, &b, "b" }), 0);
	assert_int_equal(
		io_map_add(&map, &(struct io_range){0x107, 1, &bytes_ops, &a, "c"}), -EEXIST);
	assert_int_equal(
		io_map_add(&map, &(struct io_range){0xFF, 2, &bytes_ops, &a, "c"}), -EEXIST);
	assert_int_equal(
		io_map_add(&map, &(struct io_range){0, 0x1000, &bytes_ops, &a, "c"}), -EEXIST);
	assert_int_equal(
		io_map_add(&map, &(struct io_range){0x50, 0, &bytes_ops, &a, "c"}), -EINVAL);
	assert_int_equal(
		io_map_add(&map, &(struct io_range){~0ULL, 2, &bytes_ops, &a, "c"}), -EINVAL);
	assert_int_equal(io_map_add(&map, &(struct io_range){ ~0ULL, 1, &bytes_ops, &a, "c" }), 0);
	assert_null(io_map_find(&map, 0xF));
	assert_string_equal(io_map_find(&map, 0x17)->name, "b");
	assert_null(io_map_find(&map, 0x18));
	assert_string_equal(io_map_find(&map, 0x107)->name, "a");
	/* A wide access to a byte-wide device comes in bytes, lowest first. */
	io_map_read(&map, 0x100, &value, 4);
	assert_int_equal(value, 0x44332211);
	assert_int_equal(a.count, 4);
	value = 0xAABBCCDD;
	io_map_write(&map, 0x104, &value, 4);
	assert_int_equal(a.value, 0xAA);
	assert_int_equal(a.offset, 7);
	io_map_write(&map, 0x10, &value, 4);
	assert_int_equal(b.count, 1);
	assert_int_equal(b.value, 0xAABBCCDD);
	/* Over the end: the rest is nobody's. */
	value = 0;
	io_map_read(&map, 0x16, &value, 4);
	assert_int_equal(value, 0xFFFF8877);
	value = 0;
	io_map_read(&map, 0x5000, &value, 8);
	assert_true(value == ~0ULL);
}

/* ---- saved state ----------------------------------------------------------------------------- */

struct thing {
	u32 a;
	u8 b[3];
	u64 c;
};

static const struct state_field thing_fields_1[] = {
	STATE_FIELD(struct thing, a, 1), STATE_FIELD(struct thing, b, 1),
};
static const struct state_field thing_fields_2[] = {
	STATE_FIELD(struct thing, a, 1),
	STATE_FIELD(struct thing, b, 1),
	STATE_FIELD(struct thing, c, 2),
};
static const struct state_table thing_1 = STATE_TABLE("thing", struct thing, 1, thing_fields_1);
static const struct state_table thing_2 = STATE_TABLE("thing", struct thing, 2, thing_fields_2);
static const struct state_table thing_new =
	STATE_TABLE_FROM("thing", struct thing, 2, 2, thing_fields_2);
static const struct state_table other = STATE_TABLE("other", struct thing, 1, thing_fields_1);

static void test_state_versions(void **state)
{
	const struct thing in = { 0x12345678, { 1, 2, 3 }, 99 };
	struct thing out;
	u8 buf[256];
	long n = state_write(&thing_1, &in, buf, sizeof(buf));

	(void)state;
	assert_true(n > 0);
	/* A newer program reads the older state; what it did not know is zero. */
	memset(&out, 0xFF, sizeof(out));
	assert_int_equal(state_read(&thing_2, &out, buf, n), n);
	assert_int_equal(out.a, in.a);
	assert_memory_equal(out.b, in.b, 3);
	assert_int_equal(out.c, 0);
	assert_int_equal(state_read(&other, &out, buf, n), -EINVAL);
	assert_int_equal(state_read(&thing_new, &out, buf, n), -ENOTSUP);
	n = state_write(&thing_2, &in, buf, sizeof(buf));
	assert_int_equal(state_read(&thing_1, &out, buf, n), -ENOTSUP);
	assert_int_equal(state_read(&thing_2, &out, buf, n), n);
	assert_int_equal(out.c, 99);
	assert_int_equal(state_read(&thing_new, &out, buf, n), n);
	assert_int_equal(state_write(&thing_2, &in, buf, n - 1), -ENOSPC);
	for (long i = 0; i < n; i++)
		assert_int_equal(state_read(&thing_2, &out, buf, i), -EINVAL);
}

/* ---- accelerator ----------------------------------------------------------------------------- */

static struct { int open, version, missing; } host;

static int host_open(void)
{
	return host.open;
}

static long host_ioctl(int fd, unsigned long request, unsigned long arg)
{
	assert_int_equal(fd, 77);
	if (request == KVM_GET_API_VERSION)
		return host.version;
	assert_int_equal(request, KVM_CHECK_EXTENSION);
	return (int)arg != host.missing;
}

static int host_close(int fd)
{
	assert_int_equal(fd, 77);
	return 0;
}

static const struct kvm_backend host_backend = {
	.name = "test", .open = host_open, .ioctl = host_ioctl, .close = host_close};

static void check_reason(int open, int version, int missing, bool virt, const char *expect)
{
	char detail[200] = "";
	enum accel_reason reason;

	host.open = open;
	host.version = version;
	host.missing = missing;
	reason = accel_probe(&host_backend, virt, detail, sizeof(detail));
	assert_string_equal(accel_reason_name(reason), expect);
	assert_true(detail[0] != 0);
}

static void test_accel_reasons(void **state)
{
	struct accel_choice choice;
	struct error err = ERROR_INIT;
	enum accel accel;

	(void)state;
	check_reason(77, 12, -1, true, "kvm-ok");
	check_reason(77, 12, -1, false, "kvm-no-vmx-svm");
	check_reason(77, 12, KVM_CAP_PIT2, true, "kvm-missing-cap");
	check_reason(77, 12, KVM_CAP_IMMEDIATE_EXIT, false, "kvm-missing-cap");
	check_reason(77, 11, -1, true, "kvm-api-version");
	check_reason(-EACCES, 12, -1, true, "kvm-permission");
	check_reason(-ENOENT, 12, -1, true, "kvm-absent");
	check_reason(-ENODEV, 12, -1, true, "kvm-absent");
	assert_int_equal(accel_choose(ACCEL_SOFT, &choice, &err), 0);
	assert_string_equal(accel_reason_name(choice.reason), "forced");
	assert_ptr_equal(choice.backend, &kvm_backend_soft);
	assert_int_equal(accel_parse("kvm", &accel), 0);
	assert_int_equal(accel, ACCEL_KVM);
	assert_int_equal(accel_parse("KVM", &accel), -EINVAL);
}

/* ---- firmware tables ------------------------------------------------------------------------- */

static u32 load_u32(const u8 *p)
{
	u32 v;

	memcpy(&v, p, 4);
	return v;
}

static const u8 *check_table(const u8 *ram, u32 gpa, const char *signature)
{
	const u8 *t = ram + gpa;

	assert_in_range(gpa, ACPI_AREA, ACPI_AREA + ACPI_AREA_SIZE - 36);
	assert_memory_equal(t, signature, 4);
	assert_int_equal(firmware_checksum(t, load_u32(t + 4)), 0);
	return t;
}

static void test_acpi(void **state)
{
	struct guest_memory mem = { .size = 16 << 20 };
	u8 *ram = calloc(1, mem.size);
	const u8 *rsdp = ram + ACPI_AREA, *rsdt, *xsdt, *fadt, *madt;
	const struct cpu_topology one = { 1, 1, 1 };
	const struct acpi_config config = {
		.board = &acpi_board_pc, .cpus = &one, .ecam = 0xB0000000, .ecam_size = 1 << 28 };

	(void)state;
	guest_memory_layout(&mem, ram);
	assert_int_equal(acpi_write_tables(&mem, &config), 0);
	assert_memory_equal(rsdp, "RSD PTR ", 8);
	assert_int_equal(firmware_checksum(rsdp, 20), 0);
	assert_int_equal(firmware_checksum(rsdp, 36), 0);
	rsdt = check_table(ram, load_u32(rsdp + 16), "RSDT");
	xsdt = check_table(ram, load_u32(rsdp + 24), "XSDT");
	assert_int_equal(load_u32(rsdt + 36), load_u32(xsdt + 36));
	fadt = check_table(ram, load_u32(rsdt + 36), "FACP");
	madt = check_table(ram, load_u32(rsdt + 40), "APIC");
	check_table(ram, load_u32(fadt + 40), "DSDT");
	assert_memory_equal(ram + load_u32(fadt + 36), "FACS", 4);
	assert_int_equal(load_u32(fadt + 36) % 64, 0);
	assert_int_equal(load_u32(fadt + 56), 0x600);
	assert_int_equal(load_u32(fadt + 76), 0x608);
	assert_int_equal(load_u32(madt + 36), 0xFEE00000);
	/* The MP table. */
	assert_int_equal(mp_write_table(&mem, &one), 0);
	assert_memory_equal(ram + MP_AREA, "_MP_", 4);
	assert_int_equal(firmware_checksum(ram + MP_AREA, 16), 0);
	assert_memory_equal(ram + load_u32(ram + MP_AREA + 4), "PCMP", 4);
	assert_int_equal(
		firmware_checksum(ram + MP_AREA + 16, ram[MP_AREA + 20] | ram[MP_AREA + 21] << 8),
		0);
	mem.size = 512 << 10;
	guest_memory_layout(&mem, ram);
	assert_int_equal(acpi_write_tables(&mem, &config), -ENOMEM);
	free(ram);
}

/* Every CPU is in both tables, by its APIC id. */
static void test_cpu_tables(void **state)
{
	static const struct cpu_topology shapes[] = { { 1, 2, 1 }, { 2, 3, 2 }, { 64, 1, 1 } };
	struct guest_memory mem = { .size = 16 << 20 };
	u8 *ram = calloc(1, mem.size);

	(void)state;
	guest_memory_layout(&mem, ram);
	for (size_t s = 0; s < ARRAY_SIZE(shapes); s++) {
		unsigned n = topology_cpus(&shapes[s]), id;
		const u8 *rsdt, *madt, *mp;

		assert_int_equal(acpi_write_tables(&mem, &(struct acpi_config){
			.board = &acpi_board_pc, .cpus = &shapes[s] }), 0);
		assert_int_equal(mp_write_table(&mem, &shapes[s]), 0);
		rsdt = check_table(ram, load_u32(ram + ACPI_AREA + 16), "RSDT");
		madt = check_table(ram, load_u32(rsdt + 40), "APIC");
		mp = ram + load_u32(ram + MP_AREA + 4);
		assert_int_equal(firmware_checksum(mp, mp[4] | mp[5] << 8), 0);
		for (unsigned i = 0; i < n; i++) {
			const u8 *lapic = madt + 44 + i * 8, *cpu = mp + 44 + i * 20;

			id = topology_apic_id(&shapes[s], i);
			assert_int_equal(lapic[0] << 8 | lapic[1], 8);
			assert_int_equal(lapic[2], i);
			assert_int_equal(lapic[3], id);
			assert_int_equal(load_u32(lapic + 4), 1);
			assert_int_equal(cpu[0], 0);
			assert_int_equal(cpu[1], id);
			assert_int_equal(cpu[3], i == 0 ? 3 : 1);
		}
		assert_int_equal(madt[44 + n * 8], 1);	/* then the IOAPIC */
		assert_int_equal(mp[44 + n * 20], 1);	/* then the bus */
	}
	free(ram);
}

/* Is word among the table's bytes? */
static bool table_has(const u8 *table, const char *word)
{
	return memmem(table, load_u32(table + 4), word, strlen(word)) != NULL;
}

/* Hardware-reduced, and what is not asked for is not in it. */
static void test_microvm_tables(void **state)
{
	const struct cpu_topology four = { 1, 4, 1 };
	struct guest_memory mem = { .size = 16 << 20 };
	u8 *ram = calloc(1, mem.size);
	struct error err = ERROR_INIT;

	(void)state;
	guest_memory_layout(&mem, ram);
	for (unsigned more = 0; more < 2; more++) {
		const struct machine_options o = {
			.kind = MACHINE_MICROVM, .rtc = more, .pcie = more };
		const struct acpi_fadt *fadt;
		const u8 *rsdt, *dsdt;

		assert_int_equal(machine_write_tables(&o, &mem, &four, &err), 0);
		rsdt = check_table(ram, load_u32(ram + ACPI_AREA + 16), "RSDT");
		assert_int_equal(load_u32(rsdt + 4), 36 + 4 * (2 + more));
		fadt = (const void *)check_table(ram, load_u32(rsdt + 36), "FACP");
		assert_true(fadt->flags & FADT_HW_REDUCED && fadt->flags & FADT_RESET_REG_SUP);
		assert_int_equal(fadt->facs, 0);
		assert_int_equal(fadt->pm1a_evt | fadt->pm1a_cnt | fadt->pm_tmr, 0);
		assert_int_equal(fadt->sleep_control.address, PORT_GED + GED_SLEEP_CONTROL);
		assert_int_equal(fadt->reset_reg.address, PORT_GED + GED_RESET);
		assert_int_equal(!(fadt->boot_arch & BOOT_NO_CMOS_RTC), more);
		assert_int_equal(fadt->boot_arch & BOOT_8042, 0);
		dsdt = check_table(ram, fadt->dsdt, "DSDT");
		assert_true(table_has(dsdt, "ACPI0013") && table_has(dsdt, "COM1"));
		assert_int_equal(table_has(dsdt, "PCI0"), more);
		assert_int_equal(table_has(dsdt, "RTC_"), more);
		/* Code at the reset vector. */
		assert_memory_equal(ram + 0xFFFF0, "\xBA\x06\x06\xB0\x42\xEE\xF4\xEB\xFD", 9);
		if (more)
			check_table(ram, load_u32(rsdt + 44), "MCFG");
	}
	free(ram);
}

/* Two nodes on either side of the hole, and one without memory; the largest shape fits. */
static void test_numa_tables(void **state)
{
	struct machine_options o = { .numa = { .nodes = 3 } };
	const struct cpu_topology cpus = { 2, 3, 1 };
	struct guest_memory mem = { .size = 16 << 20 };
	struct acpi_config c;
	u8 *ram = calloc(1, mem.size);
	const u8 *rsdt, *srat, *slit;

	(void)state;
	guest_memory_layout(&mem, ram);
	o.numa.node[0] = (struct numa_node){ .cpus = 7, .memory = 10 << 20 };
	o.numa.node[1] = (struct numa_node){
		.cpus = 0x18, .memory = 30 << 20, .distances = 3, .distance = { 21, 10, 31 } };
	o.numa.node[2] = (struct numa_node){ .cpus = 0x20 };
	c = (struct acpi_config){
		.board = &acpi_board_pc, .options = &o, .cpus = &cpus, .ram_low = 16 << 20 };
	assert_int_equal(acpi_write_tables(&mem, &c), 0);
	rsdt = check_table(ram, load_u32(ram + ACPI_AREA + 16), "RSDT");
	srat = check_table(ram, load_u32(rsdt + 44), "SRAT");
	slit = check_table(ram, load_u32(rsdt + 48), "SLIT");
	assert_int_equal(load_u32(srat + 4), 48 + 6 * 16 + 3 * 40);
	/* CPU 3 is the second socket's first: APIC id 4. */
	assert_int_equal(srat[48 + 2 * 16 + 3], 2);
	assert_int_equal(load_u32(srat + 48 + 3 * 16 + 2), 0);
	assert_int_equal(load_u32(srat + 48 + 3 * 16 + 8), 0);
	assert_int_equal(load_u32(srat + 48 + 3 * 16 + 16), 10 << 20);
	srat += 48 + 3 * 16 + 40;
	assert_int_equal(srat[0] << 8 | srat[1], 16);
	assert_int_equal(srat[2], 1);
	assert_int_equal(srat[3], 4);
	srat += 2 * 16;
	assert_int_equal(load_u32(srat + 2), 1);
	assert_int_equal(load_u32(srat + 8), 10 << 20);
	assert_int_equal(load_u32(srat + 16), 6 << 20);
	assert_int_equal(load_u32(srat + 28), 1);
	assert_int_equal(load_u32(srat + 40 + 8), 0);
	assert_int_equal(load_u32(srat + 40 + 12), 1);
	assert_int_equal(load_u32(srat + 40 + 16), 24 << 20);
	assert_int_equal(load_u32(slit + 36), 3);
	assert_memory_equal(slit + 44, "\x0a\x14\x14\x15\x0a\x1f\x14\x14\x0a", 9);
	free(ram);
}

static void test_aml(void **state)
{
	u8 buf[64];
	struct aml a = { .buf = buf, .size = sizeof(buf) };
	static const u8 expect[] = {
		0x5B,
		0x82,
		0x49,
		0x01,
		'D',
		'E',
		'V',
		'_', /* Device (DEV_), 25 bytes from the length on */
		0x08,
		'_',
		'H',
		'I',
		'D',
		0x0C,
		0x41,
		0xD0,
		0x05,
		0x01, /* EisaId ("PNP0501") */
		0x08,
		'_',
		'U',
		'I',
		'D',
		0x0B,
		0x34,
		0x12,
	};
	size_t mark;

	(void)state;
	mark = aml_device(&a, "DEV_");
	aml_name_eisaid(&a, "_HID", "PNP0501");
	aml_name_int(&a, "_UID", 0x1234);
	aml_end(&a, mark);
	assert_false(a.overrun);
	assert_int_equal(a.len, sizeof(expect));
	buf[2] = expect[2];
	assert_memory_equal(buf + 4, expect + 4, sizeof(expect) - 4);
	/* The length, decoded. */
	assert_int_equal(0x40 | ((a.len - 2) & 15), 0x48 | ((a.len - 2) & 7));
	a.size = a.len;
	aml_name_int(&a, "_ADR", 0);
	assert_true(a.overrun);
}

/* ---- timers ---------------------------------------------------------------------------------- */

static unsigned order[8], fired;

static void fire(void *arg)
{
	order[fired++] = (uintptr_t)arg;
}

static void test_timers(void **state)
{
	struct fixture f;
	struct timer t[3];

	(void)state;
	fired = 0;
	fixture_init(&f);
	for (uintptr_t i = 0; i < 3; i++)
		timer_init(&t[i], &f.timers, fire, (void *)i);
	timer_arm(&t[0], f.now + 300);
	timer_arm(&t[1], f.now + 100);
	timer_arm(&t[2], f.now + 200);
	assert_int_equal(f.wake, f.now + 100);
	timer_cancel(&t[1]);
	assert_int_equal(f.wake, f.now + 200);
	timer_arm(&t[0], f.now + 150);
	fixture_advance(&f, 1000);
	assert_int_equal(fired, 2);
	assert_int_equal(order[0], 0);
	assert_int_equal(order[1], 2);
	assert_true(f.wake == TIMER_NEVER);
	/* Pausing keeps the distance. */
	timer_arm(&t[0], timer_queue_now(&f.timers) + 100);
	timer_queue_pause(&f.timers);
	assert_true(f.wake == TIMER_NEVER);
	fixture_advance(&f, 5000);
	timer_queue_resume(&f.timers);
	fixture_advance(&f, 99);
	assert_int_equal(fired, 2);
	fixture_advance(&f, 1);
	assert_int_equal(fired, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_io_map),
		cmocka_unit_test(test_state_versions),
		cmocka_unit_test(test_accel_reasons),
		cmocka_unit_test(test_acpi),
		cmocka_unit_test(test_cpu_tables),
		cmocka_unit_test(test_microvm_tables),
		cmocka_unit_test(test_numa_tables),
		cmocka_unit_test(test_aml),
		cmocka_unit_test(test_timers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
