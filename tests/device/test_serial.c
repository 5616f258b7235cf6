/* 16550A: registers, FIFOs, interrupts, loopback, flow control. The host side is played by this
 * file. */
#include "tests/device/fixture.h"
#include "vmm/hw/serial.h"

#define COM1_IRQ 4

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };
#define FCR IIR

static struct host {
	u8 out[256];
	size_t len, limit;
	struct chardev_front front;
	unsigned accepts;
	u8 back[64];
	size_t back_len;
} host;

void chardev_attach(struct chardev *cd, const struct chardev_front *front)
{
	(void)cd;
	host.front = *front;
}

size_t chardev_write(struct chardev *cd, const u8 *data, size_t n)
{
	size_t taken = MIN(n, host.limit - host.len);

	(void)cd;
	memcpy(host.out + host.len, data, taken);
	host.len += taken;
	return taken;
}

void chardev_accept_input(struct chardev *cd)
{
	(void)cd;
	host.accepts++;
}

void chardev_unread(struct chardev *cd, const u8 *data, size_t n)
{
	(void)cd;
	memcpy(host.back + host.back_len, data, n);
	host.back_len += n;
}

#define QUIET 1000000

struct uart {
	struct fixture f;
	struct chardev chr;
	struct serial s;
};

static u8 in(struct uart *u, unsigned reg)
{
	return serial_io_ops.read(&u->s, reg, 1);
}

static void out(struct uart *u, unsigned reg, u8 value)
{
	serial_io_ops.write(&u->s, reg, value, 1);
}

static void type(struct uart *u, const char *text)
{
	for (; *text; text++) {
		if (host.front.room(host.front.arg) == 0)
			return;
		host.front.receive(host.front.arg, (const u8 *)text, 1);
	}
}

static int setup(void **state)
{
	static struct uart u;
	struct irq_line irq;

	memset(&u, 0, sizeof(u));
	memset(&host, 0, sizeof(host));
	host.limit = sizeof(host.out);
	fixture_init(&u.f);
	irq = fixture_irq(&u.f, COM1_IRQ);
	serial_init(&u.s, &u.chr, &u.f.timers, &irq);
	fixture_advance(&u.f, QUIET);
	host.accepts = 0;
	*state = &u;
	return 0;
}

static void test_reset_values(void **state)
{
	struct uart *u = *state;

	assert_int_equal(in(u, IER), 0);
	assert_int_equal(in(u, IIR), 0x01);
	assert_int_equal(in(u, LCR), 0);
	assert_int_equal(in(u, MCR), 0);
	assert_int_equal(in(u, LSR), 0x60);
	assert_int_equal(in(u, MSR), 0xB0);
}

static void test_divisor_and_scratch(void **state)
{
	struct uart *u = *state;

	out(u, SCR, 0xA5);
	out(u, LCR, 0x83);
	out(u, DATA, 0x34);
	out(u, IER, 0x12);
	assert_int_equal(in(u, DATA), 0x34);
	assert_int_equal(in(u, IER), 0x12);
	out(u, LCR, 0x03);
	assert_int_equal(in(u, IER), 0);
	assert_int_equal(in(u, SCR), 0xA5);
	assert_int_equal(host.len, 0);
}

static void test_ier_keeps_four_bits(void **state)
{
	struct uart *u = *state;

	out(u, IER, 0xFF);
	assert_int_equal(in(u, IER), 0x0F);
	out(u, MCR, 0xFF);
	assert_int_equal(in(u, MCR), 0x1F);
}

static void test_transmit(void **state)
{
	struct uart *u = *state;

	out(u, DATA, 'h');
	out(u, DATA, 'i');
	assert_memory_equal(host.out, "hi", 2);
	assert_int_equal(in(u, LSR), 0x60);
}

static void test_transmit_interrupt(void **state)
{
	struct uart *u = *state;

	out(u, MCR, 0x08);
	out(u, IER, 0x02);
	assert_true(u->f.level[COM1_IRQ]);
	/* Reading the source clears it. */
	assert_int_equal(in(u, IIR), 0x02);
	assert_int_equal(in(u, IIR), 0x01);
	assert_false(u->f.level[COM1_IRQ]);
	/* A write makes the transmitter busy and empty again: a new edge. */
	out(u, DATA, 'x');
	assert_true(u->f.level[COM1_IRQ]);
	assert_int_equal(u->f.edges[COM1_IRQ], 2);
	/* Enabling anew with an empty transmitter raises it, which Linux tests for. */
	in(u, IIR);
	out(u, IER, 0x00);
	out(u, IER, 0x02);
	assert_int_equal(in(u, IIR), 0x02);
}

static void test_out2_gates_interrupt(void **state)
{
	struct uart *u = *state;

	out(u, IER, 0x02);
	assert_false(u->f.level[COM1_IRQ]);
	out(u, MCR, 0x08);
	assert_true(u->f.level[COM1_IRQ]);
	out(u, MCR, 0x18);
	assert_false(u->f.level[COM1_IRQ]);
}

static void test_slow_host_holds_thre(void **state)
{
	struct uart *u = *state;

	host.limit = 2;
	out(u, FCR, 0x01);
	out(u, MCR, 0x08);
	for (int i = 0; i < 2 + 16; i++)
		out(u, DATA, 'a' + i);
	assert_int_equal(in(u, LSR) & 0x60, 0);
	assert_int_equal(host.len, 2);
	/* The guest that ignores THRE loses its byte, not an earlier one. */
	out(u, DATA, 'Z');
	out(u, IER, 0x02);
	assert_false(u->f.level[COM1_IRQ]);
	host.limit = sizeof(host.out);
	host.front.drained(host.front.arg);
	assert_int_equal(host.len, 18);
	assert_memory_equal(host.out, "abcdefghijklmnopqr", 18);
	assert_int_equal(in(u, LSR) & 0x60, 0x60);
	assert_true(u->f.level[COM1_IRQ]);
}

static void test_receive_without_fifo(void **state)
{
	struct uart *u = *state;

	out(u, MCR, 0x08);
	out(u, IER, 0x01);
	assert_int_equal(host.front.room(host.front.arg), 1);
	type(u, "a");
	assert_int_equal(host.front.room(host.front.arg), 0);
	assert_true(u->f.level[COM1_IRQ]);
	assert_int_equal(in(u, IIR), 0x04);
	assert_int_equal(in(u, LSR), 0x61);
	assert_int_equal(in(u, DATA), 'a');
	assert_false(u->f.level[COM1_IRQ]);
	assert_int_equal(in(u, LSR), 0x60);
	assert_int_equal(host.accepts, 2);	/* MCR write, then the read */
}

static void test_fifo_trigger_and_timeout(void **state)
{
	struct uart *u = *state;
	u64 four_chars = 4 * 10 * 16 * 12 * 1000000000ULL / 1843200;

	out(u, FCR, 0x81);	/* trigger at 8 */
	fixture_advance(&u->f, QUIET);
	out(u, MCR, 0x08);
	out(u, IER, 0x01);
	assert_int_equal(in(u, IIR), 0xC1);
	type(u, "1234567");
	assert_false(u->f.level[COM1_IRQ]);
	fixture_advance(&u->f, four_chars - 1000);
	assert_false(u->f.level[COM1_IRQ]);
	fixture_advance(&u->f, 2000);
	assert_true(u->f.level[COM1_IRQ]);
	assert_int_equal(in(u, IIR), 0xCC);
	/* A read ends the timeout. */
	assert_int_equal(in(u, DATA), '1');
	assert_false(u->f.level[COM1_IRQ]);
	type(u, "89");
	assert_true(u->f.level[COM1_IRQ]);
	assert_int_equal(in(u, IIR), 0xC4);
	for (char c = '2'; c <= '9'; c++)
		assert_int_equal(in(u, DATA), c);
	assert_int_equal(in(u, LSR) & 1, 0);
	fixture_advance(&u->f, 10 * four_chars);
	assert_false(u->f.level[COM1_IRQ]);
}

static void test_fifo_depth_and_clear(void **state)
{
	struct uart *u = *state;

	out(u, FCR, 0x01);
	fixture_advance(&u->f, QUIET);
	type(u, "0123456789abcdefXYZ");
	assert_int_equal(host.front.room(host.front.arg), 0);
	assert_int_equal(in(u, DATA), '0');
	assert_int_equal(host.front.room(host.front.arg), 1);
	out(u, FCR, 0x03);
	assert_int_equal(in(u, LSR), 0x60);
	/* What was cleared goes back, and nothing comes for a while. */
	assert_int_equal(host.back_len, 15);
	assert_memory_equal(host.back, "123456789abcdef", 15);
	assert_int_equal(host.front.room(host.front.arg), 0);
	fixture_advance(&u->f, QUIET);
	assert_true(host.accepts > 0);
	assert_int_equal(host.front.room(host.front.arg), 16);
	/* Switching FIFOs off empties them; so does a reset. */
	type(u, "q");
	out(u, FCR, 0x00);
	assert_int_equal(in(u, LSR), 0x60);
	assert_int_equal(in(u, IIR), 0x01);
	fixture_advance(&u->f, QUIET);
	type(u, "r");
	serial_device_ops.reset(&u->s);
	assert_int_equal(in(u, LSR), 0x60);
	assert_memory_equal(host.back + 15, "qr", 2);
}

static void test_break(void **state)
{
	struct uart *u = *state;

	out(u, MCR, 0x08);
	out(u, IER, 0x04);
	host.front.line_break(host.front.arg);
	assert_int_equal(in(u, IIR), 0x06);
	assert_int_equal(in(u, LSR), 0x71);
	assert_int_equal(in(u, LSR), 0x61);
	assert_false(u->f.level[COM1_IRQ]);
	assert_int_equal(in(u, DATA), 0);
}

static void test_loopback(void **state)
{
	struct uart *u = *state;

	out(u, MCR, 0x10 | 0x0A);	/* RTS, OUT2: Linux's own test of a 16550A */
	assert_int_equal(in(u, MSR) & 0xF0, 0x90);
	out(u, MCR, 0x10 | 0x05);
	assert_int_equal(in(u, MSR) & 0xF0, 0x60);
	assert_int_equal(host.front.room(host.front.arg), 0);
	out(u, DATA, 'L');
	assert_int_equal(host.len, 0);
	assert_int_equal(in(u, LSR) & 1, 1);
	assert_int_equal(in(u, DATA), 'L');
	out(u, DATA, '1');
	out(u, DATA, '2');
	assert_int_equal(in(u, LSR) & 2, 2);
	assert_int_equal(in(u, LSR) & 2, 0);
	out(u, MCR, 0);
	assert_int_equal(in(u, MSR) & 0xF0, 0xB0);
}

static void test_modem_status_interrupt(void **state)
{
	struct uart *u = *state;

	out(u, MCR, 0x18);
	in(u, MSR);
	out(u, IER, 0x08);
	out(u, MCR, 0x1A);	/* RTS: CTS changes */
	assert_int_equal(in(u, IIR), 0x00);
	assert_int_equal(in(u, MSR) & 0x0F, 0x01);
	assert_int_equal(in(u, IIR), 0x01);
}

static void test_priority(void **state)
{
	struct uart *u = *state;

	out(u, IER, 0x0F);
	type(u, "a");
	host.front.line_break(host.front.arg);
	assert_int_equal(in(u, IIR), 0x06);
	in(u, LSR);
	assert_int_equal(in(u, IIR), 0x04);
	in(u, DATA);
	in(u, DATA);
	assert_int_equal(in(u, IIR), 0x02);
	assert_int_equal(in(u, IIR), 0x01);
}

static void test_round_trip(void **state)
{
	struct uart *u = *state;

	host.limit = 0;
	out(u, FCR, 0xC1);
	fixture_advance(&u->f, QUIET);
	out(u, MCR, 0x0B);
	out(u, LCR, 0x83);
	out(u, DATA, 1);
	out(u, IER, 2);
	out(u, LCR, 0x03);
	out(u, IER, 0x05);
	out(u, SCR, 0x77);
	type(u, "abc");
	in(u, DATA);
	out(u, DATA, 'o');
	check_round_trip(&serial_device_ops, &u->s);
	assert_int_equal(in(u, DATA), 'b');
	host.limit = sizeof(host.out);
	serial_device_ops.resume(&u->s);
	assert_memory_equal(host.out, "o", 1);
}

static void test_load_refuses(void **state)
{
	struct uart *u = *state;
	struct serial_state st;

	serial_device_ops.save(&u->s, &st);
	st.rx_len = 17;
	assert_int_equal(serial_device_ops.load(&u->s, &st), -EINVAL);
	st.rx_len = 0;
	st.fcr = 0x02;
	assert_int_equal(serial_device_ops.load(&u->s, &st), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_reset_values, setup),
		cmocka_unit_test_setup(test_divisor_and_scratch, setup),
		cmocka_unit_test_setup(test_ier_keeps_four_bits, setup),
		cmocka_unit_test_setup(test_transmit, setup),
		cmocka_unit_test_setup(test_transmit_interrupt, setup),
		cmocka_unit_test_setup(test_out2_gates_interrupt, setup),
		cmocka_unit_test_setup(test_slow_host_holds_thre, setup),
		cmocka_unit_test_setup(test_receive_without_fifo, setup),
		cmocka_unit_test_setup(test_fifo_trigger_and_timeout, setup),
		cmocka_unit_test_setup(test_fifo_depth_and_clear, setup),
		cmocka_unit_test_setup(test_break, setup),
		cmocka_unit_test_setup(test_loopback, setup),
		cmocka_unit_test_setup(test_modem_status_interrupt, setup),
		cmocka_unit_test_setup(test_priority, setup),
		cmocka_unit_test_setup(test_round_trip, setup),
		cmocka_unit_test_setup(test_load_refuses, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
