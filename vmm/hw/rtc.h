/* MC146818 real-time clock and CMOS memory. */
#ifndef QUMRA_VMM_HW_RTC_H
#define QUMRA_VMM_HW_RTC_H

#include "vmm/loop/timer.h"
#include "vmm/machine/io_map.h"
#include "vmm/machine/irq_line.h"
#include "vmm/migration/state.h"

#define RTC_CMOS_SIZE 128

struct rtc {
	struct irq_line irq;
	struct timer timer;
	u64 (*wall_ns)(void *arg);	/* the host's time of day, UTC, ns since the Unix epoch */
	void *wall_arg;

	u8 index;
	u8 cmos[RTC_CMOS_SIZE]; /* registers A to D and the alarm too; the time only while SET */
	s64 offset;			/* guest seconds = host seconds + offset */
	u64 last_second;		/* guest second up to which UF and AF are accounted for */
	u64 last_period;		/* guest time of the last periodic tick accounted for, ns */
};

struct rtc_state {
	u8 index;
	u8 cmos[RTC_CMOS_SIZE];
	s64 offset;
	u64 last_second;
};

extern const struct io_ops rtc_io_ops;
extern const struct device_ops rtc_device_ops;

/* wall_ns == NULL: the host's CLOCK_REALTIME. */
void rtc_init(struct rtc *rtc, struct timer_queue *timers, const struct irq_line *irq,
	      u64 (*wall_ns)(void *arg), void *wall_arg);
/* What firmware would have left in CMOS about RAM below and above 4 GiB, and the rest of a PC. */
void rtc_set_memory(struct rtc *rtc, u64 low, u64 high);

#endif
