/* 16550A UART. */
#ifndef QUMRA_VMM_HW_SERIAL_H
#define QUMRA_VMM_HW_SERIAL_H

#include "vmm/chardev/chardev.h"
#include "vmm/loop/timer.h"
#include "vmm/machine/io_map.h"
#include "vmm/machine/irq_line.h"
#include "vmm/migration/state.h"

#define SERIAL_FIFO 16

struct serial_fifo {
	u8 data[SERIAL_FIFO];
	u8 head, len;
};

struct serial {
	struct chardev *chr;	/* NULL: nothing plugged in */
	struct irq_line irq;
	struct timer rx_timeout;
	struct timer rx_quiet;	/* armed: nothing arrives yet */

	u8 ier, fcr, lcr, mcr, lsr, msr, scr;
	u16 divisor;
	bool thr_pending;	/* the transmitter-empty interrupt is due until read or served */
	bool timeout_pending;	/* characters below the trigger level have waited long enough */
	struct serial_fifo rx, tx;
};

struct serial_state {
	u8 ier, fcr, lcr, mcr, lsr, msr, scr;
	u8 thr_pending, timeout_pending;
	u16 divisor;
	u8 rx_len, tx_len;
	u8 rx[SERIAL_FIFO], tx[SERIAL_FIFO];	/* oldest first */
};

extern const struct io_ops serial_io_ops;
extern const struct device_ops serial_device_ops;

/* irq is copied. Sets itself up as chr's front end. */
void serial_init(struct serial *s, struct chardev *chr, struct timer_queue *timers,
	const struct irq_line *irq);

#endif
