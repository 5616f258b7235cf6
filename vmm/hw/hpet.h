/* High precision event timers: a counter and three comparators. */
#ifndef QUMRA_VMM_HW_HPET_H
#define QUMRA_VMM_HW_HPET_H

#include "vmm/loop/timer.h"
#include "vmm/machine/io_map.h"
#include "vmm/machine/irq_line.h"
#include "vmm/migration/state.h"

#define HPET_BASE	0xFED00000ULL	/* what chipsets have it at first, and ACPI says */
#define HPET_SIZE	0x400
#define HPET_ID		0x8086A201U	/* the lower half of GCAP_ID: legacy routes, 64 bits, 3 timers */
#define HPET_MIN_TICK	100		/* the shortest period that no tick is lost of: 1 us, for ACPI */
#define HPET_TIMERS	3
#define HPET_LINES	24

struct hpet_timer {
	struct hpet *hpet;
	struct timer timer;
	u64 config;	/* what the guest may write of it */
	u64 compare;
	u64 period;	/* last value written */
	u64 due;	/* counter, all 64 bits, at which it fires next; HPET_NEVER */
};

#define HPET_NEVER (~0ULL)

struct hpet {
	struct irq_line line[HPET_LINES];	/* those that a timer can have are wired */
	/* Legacy replacement: the i8254 and the RTC have their lines no more. */
	void (*set_legacy)(void *arg, bool on);
	void *arg;

	u64 config, status;
	u64 counter;	/* while it stands still; else what to add to guest time in ticks */
	struct hpet_timer t[HPET_TIMERS];
};

struct hpet_state {
	u64 config, status, counter;
	u64 timer_config[HPET_TIMERS], compare[HPET_TIMERS], period[HPET_TIMERS], due[HPET_TIMERS];
};

extern const struct io_ops hpet_io_ops;
extern const struct device_ops hpet_device_ops;

/* line: a template whose gsi is filled in. set_legacy may be NULL. */
void hpet_init(struct hpet *h, struct timer_queue *timers, const struct irq_line *line,
	       void (*set_legacy)(void *arg, bool on), void *arg);
bool hpet_is_legacy(const struct hpet *h);

#endif
