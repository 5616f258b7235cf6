/*
 * ACPI fixed hardware (ACPI 6.4, 4.8): the PM1 registers with the power button and S5, the general-purpose
 * events (4.8.4.1) and the power management timer. There is no SMI command port: ACPI mode is always on.
 */
#include <errno.h>

#include "vmm/hw/acpi_pm.h"

/* ACPI 6.4 tables 4.13 to 4.16. */
#define PM1_TMR		BIT(0)
#define PM1_GBL		BIT(5)
#define PM1_PWRBTN	BIT(8)
#define PM1_RTC		BIT(10)
#define PM1_WAK		BIT(15)
#define PM1_STATUS	(PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_RTC | PM1_WAK)
#define PM1_ENABLE	(PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_RTC)

#define CNT_SCI_EN	BIT(0)
#define CNT_SLP_TYP(c)	((c) >> 10 & 7)
#define CNT_SLP_EN	BIT(13)
#define CNT_KEPT	0x1C02	/* BM_RLD, SLP_TYP */

#define PM_TIMER_HZ	3579545
#define PM_TIMER_TOP	31	/* TMR_STS is set when this bit changes: a 32-bit timer */

static u64 pm_timer_count(const struct acpi_pm *pm)
{
	return (u128)timer_queue_now(pm->overflow.queue) * PM_TIMER_HZ / 1000000000;
}

static void pm_update(struct acpi_pm *pm)
{
	u64 count = pm_timer_count(pm), next;

	if ((count ^ pm->timer_seen) >> PM_TIMER_TOP)
		pm->status |= PM1_TMR;
	pm->timer_seen = count;
	irq_line_set(&pm->sci, (pm->status & pm->enable & PM1_ENABLE) ||
		     (pm->gpe_status & pm->gpe_enable));
	if (!(pm->enable & PM1_TMR) || pm->status & PM1_TMR) {
		timer_cancel(&pm->overflow);
		return;
	}
	next = ((count >> PM_TIMER_TOP) + 1) << PM_TIMER_TOP;
	timer_arm(&pm->overflow, (u128)next * 1000000000 / PM_TIMER_HZ + 1);
}

static void pm_overflow(void *arg)
{
	pm_update(arg);
}

static void pm_write_control(struct acpi_pm *pm, u16 value)
{
	unsigned type = CNT_SLP_TYP(value);

	pm->control = value & CNT_KEPT;
	if (value & CNT_SLP_EN && (type == ACPI_SLP_TYP_S5 || type == ACPI_SLP_TYP_OFF))
		pm->power_off(pm->arg);
}

static u16 pm_read_word(struct acpi_pm *pm, u64 reg)
{
	switch (reg) {
	case ACPI_PM1_EVT:
		pm_update(pm);
		return pm->status;
	case ACPI_PM1_EVT + 2:
		return pm->enable;
	case ACPI_PM1_CNT:
		return pm->control | CNT_SCI_EN;
	case ACPI_PM_TMR:
		return pm_timer_count(pm);
	case ACPI_PM_TMR + 2:
		return pm_timer_count(pm) >> 16;
	default:
		return 0;
	}
}

/* ---- general-purpose events ------------------------------------------------------------------ */

enum { GPE_ENABLE = 8 };	/* bytes behind the status */

static u8 gpe_read(const struct acpi_pm *pm, unsigned at)
{
	return at < GPE_ENABLE ? pm->gpe_status >> 8 * at : pm->gpe_enable >> 8 * (at - GPE_ENABLE);
}

/* Writing ones clears status. */
static void gpe_write(struct acpi_pm *pm, unsigned at, u8 value)
{
	unsigned shift = 8 * (at % GPE_ENABLE);

	if (at < GPE_ENABLE)
		pm->gpe_status &= ~((u64)value << shift);
	else
		pm->gpe_enable = (pm->gpe_enable & ~(0xFFULL << shift)) | (u64)value << shift;
}

void acpi_pm_gpe(struct acpi_pm *pm, unsigned event)
{
	pm->gpe_status |= BIT(event);
	pm_update(pm);
}

/* ---- the block ------------------------------------------------------------------------------- */

static u64 gpe_block_read(const struct acpi_pm *pm, u64 offset, unsigned size)
{
	u64 value = 0;

	for (unsigned i = 0; i < size && offset + i < ACPI_GPE0_SIZE; i++)
		value |= (u64)gpe_read(pm, offset + i) << 8 * i;
	return value;
}

static void gpe_block_write(struct acpi_pm *pm, u64 offset, u64 value, unsigned size)
{
	for (unsigned i = 0; i < size && offset + i < ACPI_GPE0_SIZE; i++)
		gpe_write(pm, offset + i, value >> 8 * i);
	pm_update(pm);
}

static u64 pm_read(void *dev, u64 offset, unsigned size)
{
	struct acpi_pm *pm = dev;

	if (offset >= ACPI_GPE0)
		return gpe_block_read(pm, offset - ACPI_GPE0, size);
	if (size == 4 && offset == ACPI_PM_TMR)
		return (u32)pm_timer_count(pm);
	if (size == 4)
		return pm_read_word(pm, offset) | (u32)pm_read_word(pm, offset + 2) << 16;
	return pm_read_word(pm, offset & ~1ULL) >> (offset & 1 ? 8 : 0);
}

static void pm_write_word(struct acpi_pm *pm, u64 reg, u16 value)
{
	switch (reg) {
	case ACPI_PM1_EVT:
		pm_update(pm);
		pm->status &= ~(value & PM1_STATUS);	/* writing a one clears */
		break;
	case ACPI_PM1_EVT + 2:
		pm->enable = value & PM1_ENABLE;
		break;
	case ACPI_PM1_CNT:
		pm_write_control(pm, value);
		break;
	}
	pm_update(pm);
}

/* A byte leaves the word's other half as it was: for the status that means writing zeros there. */
static void pm_write_byte(struct acpi_pm *pm, u64 offset, u8 value)
{
	u64 reg = offset & ~1ULL;
	unsigned shift = offset & 1 ? 8 : 0;
	u16 word = reg == ACPI_PM1_EVT ? 0 : pm_read_word(pm, reg);

	pm_write_word(pm, reg, (word & ~(0xFF << shift)) | value << shift);
}

static void pm_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct acpi_pm *pm = dev;

	if (offset >= ACPI_GPE0) {
		gpe_block_write(pm, offset - ACPI_GPE0, value, size);
		return;
	}
	if (size == 1) {
		pm_write_byte(pm, offset, value);
		return;
	}
	pm_write_word(pm, offset, value);
	if (size == 4)
		pm_write_word(pm, offset + 2, value >> 16);
}

const struct io_ops acpi_pm_io_ops = { .read = pm_read, .write = pm_write, .width = 4 };

void acpi_pm_power_button(struct acpi_pm *pm)
{
	pm->status |= PM1_PWRBTN;
	pm_update(pm);
}

/* ---- device ---------------------------------------------------------------------------------- */

static void pm_reset(void *dev)
{
	struct acpi_pm *pm = dev;

	pm->status = pm->enable = pm->control = 0;
	pm->gpe_status = pm->gpe_enable = 0;
	pm->timer_seen = pm_timer_count(pm);
	pm_update(pm);
}

static void pm_pause(void *dev)
{
	(void)dev;
}

static void pm_resume(void *dev)
{
	pm_update(dev);
}

static const struct state_field pm_fields[] = {
	STATE_FIELD(struct acpi_pm_state, status, 1),
	STATE_FIELD(struct acpi_pm_state, enable, 1),
	STATE_FIELD(struct acpi_pm_state, control, 1),
	STATE_FIELD(struct acpi_pm_state, gpe_status, 2),
	STATE_FIELD(struct acpi_pm_state, gpe_enable, 2),
};

static const struct state_table pm_table =
	STATE_TABLE("acpi-pm", struct acpi_pm_state, 2, pm_fields);

static void pm_save(void *dev, void *state)
{
	struct acpi_pm *pm = dev;

	pm_update(pm);
	*(struct acpi_pm_state *)state = (struct acpi_pm_state){
		.status = pm->status, .enable = pm->enable, .control = pm->control,
		.gpe_status = pm->gpe_status, .gpe_enable = pm->gpe_enable,
	};
}

/* The timer itself is guest time, which belongs to the VM. */
static int pm_load(void *dev, const void *state)
{
	struct acpi_pm *pm = dev;
	const struct acpi_pm_state *st = state;

	if (st->status & ~PM1_STATUS || st->enable & ~PM1_ENABLE || st->control & ~CNT_KEPT)
		return -EINVAL;
	pm->status = st->status;
	pm->enable = st->enable;
	pm->control = st->control;
	pm->gpe_status = st->gpe_status;
	pm->gpe_enable = st->gpe_enable;
	pm->timer_seen = pm_timer_count(pm);
	pm_update(pm);
	return 0;
}

const struct device_ops acpi_pm_device_ops = {
	.table = &pm_table, .reset = pm_reset, .pause = pm_pause, .resume = pm_resume,
	.save = pm_save, .load = pm_load,
};

void acpi_pm_init(struct acpi_pm *pm, struct timer_queue *timers, const struct irq_line *sci,
		  void (*power_off)(void *arg), void *arg)
{
	*pm = (struct acpi_pm){ .sci = *sci, .power_off = power_off, .arg = arg };
	timer_init(&pm->overflow, timers, pm_overflow, pm);
	pm_reset(pm);
}
