/* Between the files that make ACPI tables (ACPI 6.4, chapter 5). */
#ifndef QUMRA_VMM_MACHINE_ACPI_TABLES_H
#define QUMRA_VMM_MACHINE_ACPI_TABLES_H

#include "vmm/machine/acpi.h"

#define PACKED __attribute__((packed))

struct acpi_header {
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem[6], oem_table[8];
	u32 oem_revision;
	char creator[4];
	u32 creator_revision;
} PACKED;
_Static_assert(sizeof(struct acpi_header) == 36, "ACPI 6.4 table 5.4");

struct acpi_address {
	u8 space, bits, offset, access;
	u64 address;
} PACKED;
_Static_assert(sizeof(struct acpi_address) == 12, "ACPI 6.4 table 5.1");

enum { SPACE_IO = 1, ACCESS_BYTE = 1, ACCESS_WORD = 2, ACCESS_DWORD = 3 };

static inline struct acpi_address io_address(u16 port, u8 bits, u8 access)
{
	return (struct acpi_address){
		.space = SPACE_IO, .bits = bits, .access = access, .address = port};
}

struct acpi_fadt {
	struct acpi_header h;
	u32 facs, dsdt;
	u8 reserved0, pm_profile;
	u16 sci_int;
	u32 smi_cmd;
	u8 acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
	u32 pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	u8 pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base,
		cst_cnt;
	u16 lvl2_lat, lvl3_lat, flush_size, flush_stride;
	u8 duty_offset, duty_width, day_alarm, month_alarm, century;
	u16 boot_arch;
	u8 reserved1;
	u32 flags;
	struct acpi_address reset_reg;
	u8 reset_value;
	u16 arm_boot_arch;
	u8 minor_version;
	u64 x_facs, x_dsdt;
	struct acpi_address x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr,
		x_gpe0, x_gpe1;
	struct acpi_address sleep_control, sleep_status;
} PACKED;
_Static_assert(sizeof(struct acpi_fadt) == 268, "ACPI 5.0 table 5-34");

/* ACPI 6.4 tables 5.10 and 5.11. */
#define FADT_WBINVD		BIT(0)
#define FADT_PROC_C1		BIT(2)
#define FADT_PWR_BUTTON		BIT(4)	/* no fixed power button */
#define FADT_SLP_BUTTON		BIT(5)	/* no fixed sleep button */
#define FADT_FIX_RTC		BIT(6)	/* no fixed RTC wake status */
#define FADT_TMR_VAL_EXT	BIT(8)
#define FADT_RESET_REG_SUP	BIT(10)
#define FADT_HW_REDUCED		BIT(20)
#define BOOT_LEGACY_DEVICES	BIT(0)
#define BOOT_8042		BIT(1)
#define BOOT_NO_VGA		BIT(2)
#define BOOT_NO_ASPM		BIT(4)
#define BOOT_NO_CMOS_RTC	BIT(5)

/* What differs from board to board: each board has one of these beside its DSDT. */
struct acpi_board {
	/* All of it but header and pointers. */
	void (*fadt)(struct acpi_fadt *f, const struct acpi_config *c);
	void (*dsdt)(struct aml *a, const struct acpi_config *c);
	u16 reset_port;		/* reset_value written to it resets the machine */
	u8 reset_value;
	bool fixed_hardware;	/* there are FACS and SCI */
};

extern const struct acpi_board acpi_board_pc, acpi_board_microvm;

/* Tables in files of their own. 0 or -ENOMEM. */
int acpi_write_hpet(struct acpi_tables *t);
int acpi_write_numa(struct acpi_tables *t, const struct acpi_config *c);

/* size zeroed bytes, or NULL when there is no room. */
void *table_alloc(struct acpi_tables *t, u32 size, u32 align);
/* The header, when size is known and the rest is written; its checksum is made later. */
void table_finish(
	struct acpi_tables *t, struct acpi_header *h, const char *signature, u8 revision, u32 length);
/* Into RSDT and XSDT. */
void table_list(struct acpi_tables *t, const void *table);

#endif
