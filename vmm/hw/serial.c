/*
 * 16550A UART, after the PC16550D data sheet (June 1995).
 *
 * Characters take no time on the wire: the transmitter is empty again as soon as the host takes the
 * byte. When the host's buffer is full, the transmit FIFO fills up and LSR.THRE stays clear, so a
 * guest that honours it loses nothing. The receiver reads on from the host only while its FIFO has
 * room, and bytes that a reset or a cleared FIFO would throw away go back to the host, to arrive a
 * little later: what is piped into a booting guest survives its drivers' initialization.
 */
#include <errno.h>
#include <string.h>

#include "vmm/hw/serial.h"

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

/* PC16550D table II: register bits. */
#define IER_RDI		0x01	/* received data available, timeout */
#define IER_THRI	0x02	/* transmitter holding register empty */
#define IER_RLSI	0x04	/* receiver line status */
#define IER_MSI		0x08	/* modem status */

#define IIR_NONE	0x01
#define IIR_MSI		0x00
#define IIR_THRI	0x02
#define IIR_RDI		0x04
#define IIR_RLSI	0x06
#define IIR_TIMEOUT	0x0C
#define IIR_FIFO	0xC0

#define FCR_ENABLE	0x01
#define FCR_CLEAR_RX	0x02
#define FCR_CLEAR_TX	0x04
#define FCR_KEPT	0xC9	/* enable, DMA mode, trigger */

#define LCR_DLAB	0x80

#define MCR_DTR		0x01
#define MCR_RTS		0x02
#define MCR_OUT1	0x04
#define MCR_OUT2	0x08	/* on a PC: gates the interrupt */
#define MCR_LOOP	0x10

#define LSR_DR		0x01
#define LSR_OE		0x02
#define LSR_BI		0x10
#define LSR_THRE	0x20
#define LSR_TEMT	0x40
#define LSR_ERRORS	0x1E

#define MSR_DCTS	0x01
#define MSR_DDSR	0x02
#define MSR_TERI	0x04
#define MSR_DDCD	0x08
#define MSR_CTS		0x10
#define MSR_DSR		0x20
#define MSR_RI		0x40
#define MSR_DCD		0x80
#define MSR_DELTA	0x0F
/* A modem that is always there. */
#define MSR_CONNECTED	(MSR_CTS | MSR_DSR | MSR_DCD)

#define UART_CLOCK	1843200
#define CHAR_BITS	10

/* ---- FIFOs ----------------------------------------------------------------------------------- */

static void fifo_push(struct serial_fifo *f, u8 byte)
{
	f->data[(f->head + f->len++) % SERIAL_FIFO] = byte;
}

static u8 fifo_pop(struct serial_fifo *f)
{
	u8 byte = f->data[f->head];

	f->head = (f->head + 1) % SERIAL_FIFO;
	f->len--;
	return byte;
}

/* Oldest first; returns how many. */
static u8 fifo_save(const struct serial_fifo *f, u8 *data)
{
	for (unsigned i = 0; i < f->len; i++)
		data[i] = f->data[(f->head + i) % SERIAL_FIFO];
	return f->len;
}

static unsigned serial_depth(const struct serial *s)
{
	return s->fcr & FCR_ENABLE ? SERIAL_FIFO : 1;
}

static unsigned serial_trigger(const struct serial *s)
{
	static const u8 levels[] = { 1, 4, 8, 14 };

	return s->fcr & FCR_ENABLE ? levels[s->fcr >> 6] : 1;
}

/* ---- interrupts ------------------------------------------------------------------------------ */

/* PC16550D table IV: the highest pending source. */
static u8 serial_iir(const struct serial *s)
{
	if (s->ier & IER_RLSI && s->lsr & LSR_ERRORS)
		return IIR_RLSI;
	if (s->ier & IER_RDI && s->rx.len >= serial_trigger(s))
		return IIR_RDI;
	if (s->ier & IER_RDI && s->timeout_pending)
		return IIR_TIMEOUT;
	if (s->ier & IER_THRI && s->thr_pending)
		return IIR_THRI;
	if (s->ier & IER_MSI && s->msr & MSR_DELTA)
		return IIR_MSI;
	return IIR_NONE;
}

static void serial_update_irq(struct serial *s)
{
	/* In loopback OUT2 is inactive (PC16550D 8.6), and with it the PC's interrupt gate. */
	bool gate = s->mcr & MCR_OUT2 && !(s->mcr & MCR_LOOP);

	irq_line_set(&s->irq, gate && serial_iir(s) != IIR_NONE);
}

/* ---- receiver -------------------------------------------------------------------------------- */

static u64 serial_char_ns(const struct serial *s)
{
	return 1000000000ULL * CHAR_BITS * 16 * (s->divisor ? s->divisor : 1) / UART_CLOCK;
}

/* Four character times without a read or a new byte: PC16550D 8.4.1 (FIFO timeout). */
static void serial_arm_timeout(struct serial *s)
{
	s->timeout_pending = false;
	if (s->rx.len && s->fcr & FCR_ENABLE)
		timer_arm(&s->rx_timeout,
			timer_queue_now(s->rx_timeout.queue) + 4 * serial_char_ns(s));
	else
		timer_cancel(&s->rx_timeout);
}

static void serial_timeout(void *arg)
{
	struct serial *s = arg;

	s->timeout_pending = s->rx.len > 0;
	serial_update_irq(s);
}

static void serial_receive_byte(struct serial *s, u8 byte)
{
	if (s->rx.len >= serial_depth(s)) {
		/* Without FIFOs the new byte replaces the old one; with them it is lost. */
		s->lsr |= LSR_OE;
		if (serial_depth(s) == 1)
			s->rx.data[s->rx.head] = byte;
		return;
	}
	fifo_push(&s->rx, byte);
	s->lsr |= LSR_DR;
}

static size_t serial_room(void *arg)
{
	const struct serial *s = arg;

	if (s->mcr & MCR_LOOP || s->rx_quiet.deadline != TIMER_NEVER)
		return 0;
	return serial_depth(s) - MIN(serial_depth(s), s->rx.len);
}

/* Linux reads the data register after clearing the FIFOs, to drop what may be left: it must be
 * empty. */
#define RX_QUIET_NS 1000000

static void serial_clear_rx(struct serial *s)
{
	if (s->chr && s->rx.len && !(s->mcr & MCR_LOOP)) {
		u8 data[SERIAL_FIFO];

		chardev_unread(s->chr, data, fifo_save(&s->rx, data));
	}
	s->rx = (struct serial_fifo){ 0 };
	s->lsr &= ~(LSR_DR | LSR_BI);
	timer_arm(&s->rx_quiet, timer_queue_now(s->rx_quiet.queue) + RX_QUIET_NS);
}

static void serial_quiet_over(void *arg)
{
	struct serial *s = arg;

	if (s->chr)
		chardev_accept_input(s->chr);
}

static void serial_receive(void *arg, const u8 *data, size_t n)
{
	struct serial *s = arg;

	for (size_t i = 0; i < n; i++)
		serial_receive_byte(s, data[i]);
	serial_arm_timeout(s);
	serial_update_irq(s);
}

static void serial_break(void *arg)
{
	struct serial *s = arg;

	if (s->mcr & MCR_LOOP)
		return;
	serial_receive_byte(s, 0);
	s->lsr |= LSR_BI;
	serial_arm_timeout(s);
	serial_update_irq(s);
}

static u8 serial_read_data(struct serial *s)
{
	u8 byte = 0;

	if (s->rx.len)
		byte = fifo_pop(&s->rx);
	if (!s->rx.len)
		s->lsr &= ~LSR_DR;
	serial_arm_timeout(s);
	serial_update_irq(s);
	if (s->chr && !s->rx.len)
		chardev_accept_input(s->chr);
	return byte;
}

/* ---- transmitter ----------------------------------------------------------------------------- */

static void serial_transmit(struct serial *s)
{
	while (s->tx.len) {
		u8 byte = s->tx.data[s->tx.head];

		if (s->chr && !chardev_write(s->chr, &byte, 1))
			return;
		fifo_pop(&s->tx);
	}
	if (!(s->lsr & LSR_THRE))
		s->thr_pending = true;
	s->lsr |= LSR_THRE | LSR_TEMT;
}

static void serial_drained(void *arg)
{
	struct serial *s = arg;

	serial_transmit(s);
	serial_update_irq(s);
}

static void serial_write_data(struct serial *s, u8 byte)
{
	s->thr_pending = false;
	if (s->mcr & MCR_LOOP) {
		serial_receive_byte(s, byte);
		serial_arm_timeout(s);
		s->thr_pending = true;
		return;
	}
	if (s->tx.len == serial_depth(s)) {
		/* The guest did not wait for THRE: the holding register is overwritten, a FIFO
		 * stays. */
		if (serial_depth(s) == 1)
			s->tx.data[s->tx.head] = byte;
		return;
	}
	fifo_push(&s->tx, byte);
	s->lsr &= ~(LSR_THRE | LSR_TEMT);
	serial_transmit(s);
}

/* ---- control registers ----------------------------------------------------------------------- */

static void serial_write_ier(struct serial *s, u8 value)
{
	u8 risen = value & ~s->ier;

	s->ier = value & 0x0F;
	/* Enabling the interrupt with an empty transmitter raises it (PC16550D 8.7). */
	if (risen & IER_THRI && s->lsr & LSR_THRE)
		s->thr_pending = true;
}

static void serial_write_fcr(struct serial *s, u8 value)
{
	bool toggled = (value ^ s->fcr) & FCR_ENABLE;

	/* Other bits count only with the enable bit, and changing that clears both FIFOs. */
	if (!(value & FCR_ENABLE))
		value = 0;
	if (toggled || value & FCR_CLEAR_RX)
		serial_clear_rx(s);
	if (toggled || value & FCR_CLEAR_TX) {
		s->tx = (struct serial_fifo){ 0 };
		if (!(s->lsr & LSR_THRE))
			s->thr_pending = true;
		s->lsr |= LSR_THRE | LSR_TEMT;
	}
	s->fcr = value & FCR_KEPT;
	serial_arm_timeout(s);
}

/* PC16550D 8.6: in loopback the modem's outputs come back as its inputs. */
static u8 serial_modem_inputs(const struct serial *s)
{
	if (!(s->mcr & MCR_LOOP))
		return MSR_CONNECTED;
	return (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
	       (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void serial_update_msr(struct serial *s)
{
	u8 inputs = serial_modem_inputs(s);
	u8 changed = inputs ^ s->msr;

	if (changed & MSR_CTS)
		s->msr |= MSR_DCTS;
	if (changed & MSR_DSR)
		s->msr |= MSR_DDSR;
	if (changed & MSR_RI && !(inputs & MSR_RI))
		s->msr |= MSR_TERI;
	if (changed & MSR_DCD)
		s->msr |= MSR_DDCD;
	s->msr = (s->msr & MSR_DELTA) | inputs;
}

static void serial_write(void *dev, u64 offset, u64 data, unsigned size)
{
	struct serial *s = dev;
	u8 value = data;
	bool dlab = s->lcr & LCR_DLAB;

	(void)size;
	switch (offset) {
	case REG_DATA:
		if (dlab)
			s->divisor = (s->divisor & 0xFF00) | value;
		else
			serial_write_data(s, value);
		break;
	case REG_IER:
		if (dlab)
			s->divisor = (s->divisor & 0x00FF) | value << 8;
		else
			serial_write_ier(s, value);
		break;
	case REG_IIR_FCR:
		serial_write_fcr(s, value);
		break;
	case REG_LCR:
		s->lcr = value;
		break;
	case REG_MCR:
		s->mcr = value & 0x1F;
		serial_update_msr(s);
		break;
	case REG_SCR:
		s->scr = value;
		break;
	}
	serial_update_irq(s);
	/* Leaving loopback makes room. */
	if (s->chr && offset == REG_MCR)
		chardev_accept_input(s->chr);
}

static u8 serial_read_iir(struct serial *s)
{
	u8 iir = serial_iir(s);

	if (iir == IIR_THRI)
		s->thr_pending = false;
	return iir | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static u8 serial_read_lsr(struct serial *s)
{
	u8 lsr = s->lsr;

	s->lsr &= ~LSR_ERRORS;
	return lsr;
}

static u8 serial_read_msr(struct serial *s)
{
	u8 msr = s->msr;

	s->msr &= ~MSR_DELTA;
	return msr;
}

static u64 serial_read(void *dev, u64 offset, unsigned size)
{
	struct serial *s = dev;
	bool dlab = s->lcr & LCR_DLAB;
	u8 value = 0xFF;

	(void)size;
	switch (offset) {
	case REG_DATA:
		value = dlab ? s->divisor & 0xFF : serial_read_data(s);
		break;
	case REG_IER:
		value = dlab ? s->divisor >> 8 : s->ier;
		break;
	case REG_IIR_FCR:
		value = serial_read_iir(s);
		break;
	case REG_LCR:
		value = s->lcr;
		break;
	case REG_MCR:
		value = s->mcr;
		break;
	case REG_LSR:
		value = serial_read_lsr(s);
		break;
	case REG_MSR:
		value = serial_read_msr(s);
		break;
	case REG_SCR:
		value = s->scr;
		break;
	}
	serial_update_irq(s);
	return value;
}

const struct io_ops serial_io_ops = { .read = serial_read, .write = serial_write, .width = 1 };

/* ---- device ---------------------------------------------------------------------------------- */

static void serial_reset(void *dev)
{
	struct serial *s = dev;

	serial_clear_rx(s);
	s->ier = s->fcr = s->lcr = s->mcr = s->scr = 0;
	s->lsr = LSR_THRE | LSR_TEMT;
	s->msr = MSR_CONNECTED;
	s->divisor = 0x0C;	/* 9600 baud, as firmware leaves it */
	s->thr_pending = s->timeout_pending = false;
	s->tx = (struct serial_fifo){ 0 };
	timer_cancel(&s->rx_timeout);
	serial_update_irq(s);
}

static void serial_nop(void *dev)
{
	(void)dev;
}

static void serial_resume(void *dev)
{
	struct serial *s = dev;

	serial_transmit(s);
	serial_update_irq(s);
	if (s->chr)
		chardev_accept_input(s->chr);
}

static const struct state_field serial_fields[] = {
	STATE_FIELD(struct serial_state, ier, 1),
	STATE_FIELD(struct serial_state, fcr, 1),
	STATE_FIELD(struct serial_state, lcr, 1),
	STATE_FIELD(struct serial_state, mcr, 1),
	STATE_FIELD(struct serial_state, lsr, 1),
	STATE_FIELD(struct serial_state, msr, 1),
	STATE_FIELD(struct serial_state, scr, 1),
	STATE_FIELD(struct serial_state, thr_pending, 1),
	STATE_FIELD(struct serial_state, timeout_pending, 1),
	STATE_FIELD(struct serial_state, divisor, 1),
	STATE_FIELD(struct serial_state, rx_len, 1),
	STATE_FIELD(struct serial_state, tx_len, 1),
	STATE_FIELD(struct serial_state, rx, 1),
	STATE_FIELD(struct serial_state, tx, 1),
};

static const struct state_table serial_table =
	STATE_TABLE("serial", struct serial_state, 1, serial_fields);

static void fifo_load(struct serial_fifo *f, const u8 *data, u8 len)
{
	*f = (struct serial_fifo){ .len = len };
	memcpy(f->data, data, SERIAL_FIFO);
}

static void serial_save(void *dev, void *state)
{
	const struct serial *s = dev;
	struct serial_state *st = state;

	*st = (struct serial_state){
		.ier = s->ier,
		.fcr = s->fcr,
		.lcr = s->lcr,
		.mcr = s->mcr,
		.lsr = s->lsr,
		.msr = s->msr,
		.scr = s->scr,
		.thr_pending = s->thr_pending,
		.timeout_pending = s->timeout_pending,
		.divisor = s->divisor,
	};
	st->rx_len = fifo_save(&s->rx, st->rx);
	st->tx_len = fifo_save(&s->tx, st->tx);
}

static int serial_load(void *dev, const void *state)
{
	struct serial *s = dev;
	const struct serial_state *st = state;

	if (st->rx_len > SERIAL_FIFO || st->tx_len > SERIAL_FIFO || st->ier & 0xF0 ||
		st->mcr & 0xE0 || st->fcr & ~FCR_KEPT || st->thr_pending > 1 ||
		st->timeout_pending > 1)
		return -EINVAL;
	s->ier = st->ier;
	s->fcr = st->fcr;
	s->lcr = st->lcr;
	s->mcr = st->mcr;
	s->lsr = st->lsr;
	s->msr = st->msr;
	s->scr = st->scr;
	s->divisor = st->divisor;
	s->thr_pending = st->thr_pending;
	timer_cancel(&s->rx_quiet);
	fifo_load(&s->rx, st->rx, st->rx_len);
	fifo_load(&s->tx, st->tx, st->tx_len);
	serial_arm_timeout(s);
	s->timeout_pending = st->timeout_pending;
	serial_update_irq(s);
	return 0;
}

const struct device_ops serial_device_ops = {
	.table = &serial_table, .reset = serial_reset, .pause = serial_nop, .resume = serial_resume,
	.save = serial_save, .load = serial_load,
};

void serial_init(struct serial *s, struct chardev *chr, struct timer_queue *timers,
	const struct irq_line *irq)
{
	const struct chardev_front front = {
		.room = serial_room, .receive = serial_receive, .drained = serial_drained,
		.line_break = serial_break, .arg = s,
	};

	*s = (struct serial){ .chr = chr, .irq = *irq };
	timer_init(&s->rx_timeout, timers, serial_timeout, s);
	timer_init(&s->rx_quiet, timers, serial_quiet_over, s);
	serial_reset(s);
	if (chr)
		chardev_attach(chr, &front);
}
