/*
 * The PCI transport: vectors, the window in configuration space, where kicks are taken, and its saved
 * state with interrupts on the way. What both transports share is in test_virtio.c.
 */
#include "tests/device/real_vm.h"
#include "tests/device/virtio_board.h"
#include "vmm/virtio/rng.h"

#define COMMON(reg)	(VIRTIO_PCI_COMMON + VIRTIO_PCI_COMMON_##reg)
#define QUEUE_VECTOR	0
#define CONFIG_VECTOR	1	/* the last of two */

struct side {
	struct board b;
	struct virtio_rng rng;
};

/* Driven, with a queue. */
static struct side *side_start(enum board_transport transport)
{
	static struct side s;

	board_transport = transport;
	board_init(&s.b);
	assert_int_equal(virtio_rng_init(&s.rng, &s.b.ram.mem, &s.b.io, &s.b.err), 0);
	board_start(&s.b, &s.rng.dev);
	drive(&s.b, VERSION_1, 0);
	return &s;
}

static void side_end(struct side *s)
{
	board_stop(&s->b);
	virtio_destroy(&s->rng.dev);
	board_free(&s->b);
}

/* An interrupt, as the device has them. */
static void interrupt(struct side *s, int queue)
{
	virtio_lock(&s->rng.dev);
	s->rng.dev.transport.interrupt(s->rng.dev.transport.transport, queue);
	virtio_unlock(&s->rng.dev);
}

static void mask(struct side *s, unsigned vector, bool on)
{
	board_pci_table_out(&s->b.pci, 16 * vector + 12, on);
}

/* ---- vectors --------------------------------------------------------------------------------- */

static void test_vectors(void **state)
{
	struct side *s = side_start(BOARD_PCI_MESSAGES);
	struct board_pci *p = &s->b.pci;

	(void)state;
	board_set_vector(&s->b, 0);
	interrupt(s, 0);
	assert_int_equal(board_pci_messages(p), 1);
	interrupt(s, VIRTIO_CONFIG);
	assert_int_equal(board_pci_messages(p), 2);
	/* One that is not there reads back as none, and nothing is sent. */
	board_pci_out(p, COMMON(Q_MSIX), 2, 2);
	assert_int_equal(board_pci_in(p, COMMON(Q_MSIX), 2), VIRTIO_MSI_NO_VECTOR);
	interrupt(s, 0);
	assert_int_equal(board_pci_messages(p), 0);
	/* Both share one. */
	board_pci_out(p, COMMON(Q_MSIX), CONFIG_VECTOR, 2);
	interrupt(s, 0);
	assert_int_equal(board_pci_messages(p), 2);
	/* A driver's reset takes them away. */
	out(&s->b, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(board_pci_in(p, COMMON(Q_MSIX), 2), VIRTIO_MSI_NO_VECTOR);
	assert_int_equal(board_pci_in(p, COMMON(MSIX), 2), VIRTIO_MSI_NO_VECTOR);
	interrupt(s, VIRTIO_CONFIG);
	assert_int_equal(board_pci_messages(p), 0);
	/* Of a queue that is not there. */
	out(&s->b, VIRTIO_MMIO_QUEUE_SEL, 7);
	board_pci_out(p, COMMON(Q_MSIX), 0, 2);
	assert_int_equal(board_pci_in(p, COMMON(Q_MSIX), 2), 0);
	side_end(s);
}

/* ---- the window ------------------------------------------------------------------------------ */

static void test_window(void **state)
{
	/* Another BAR, widths and places that are no access, the end of the BAR. */
	static const struct { u8 bar; u32 offset, len; } bad[] = {
		{ 1, COMMON(STATUS), 1 }, { 4, COMMON(STATUS), 0 }, { 4, COMMON(STATUS), 3 },
		{ 4, COMMON(STATUS), 8 }, { 4, COMMON(DFSELECT) + 1, 2 }, { 4, VIRTIO_PCI_BAR_SIZE, 1 },
		{ 4, VIRTIO_PCI_BAR_SIZE - 2, 4 }, { 4, ~0u, 1 }, { 4, ~3u, 4 }, { 255, COMMON(STATUS), 1 },
	};
	struct side *s = side_start(BOARD_PCI_PIN);
	struct board_pci *p = &s->b.pci;
	unsigned at = board_pci_window(p);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		board_pci_config_out(p, at + 4, bad[i].bar, 1);
		board_pci_config_out(p, at + 8, bad[i].offset, 4);
		board_pci_config_out(p, at + 12, bad[i].len, 4);
		board_pci_config_out(p, at + 16, 0, 4);		/* of the status: a reset */
		assert_int_equal(s->rng.dev.status, ALL_STATUS);
		assert_int_equal(board_pci_config_in(p, at + 16, 4), 0);
	}
	/* Only its data register opens it; and that in parts, as firmware does. */
	board_pci_open_window(p, COMMON(STATUS), 1);
	board_pci_config_out(p, at + 12, 1, 1);
	assert_int_equal(s->rng.dev.status, ALL_STATUS);
	assert_int_equal(board_pci_config_in(p, at + 16, 1), ALL_STATUS);
	board_pci_config_out(p, at + 16, 0, 1);
	assert_int_equal(s->rng.dev.status, 0);
	side_end(s);
}

/* ---- a bridge's reset ------------------------------------------------------------------------ */

static void test_bus_reset(void **state)
{
	struct side *s = side_start(BOARD_PCI_MESSAGES);
	struct board_pci *p = &s->b.pci;

	(void)state;
	board_set_vector(&s->b, 0);
	assert_int_equal(in(&s->b, VIRTIO_MMIO_STATUS), ALL_STATUS);
	pci_bus_reset(&p->host.root);
	assert_int_equal(s->rng.dev.status, 0);
	assert_int_equal(p->joins, 0);
	assert_true(p->t.pci.bar[VIRTIO_PCI_BAR].base == PCI_UNMAPPED);
	board_pci_place(p);
	assert_int_equal(board_pci_in(p, COMMON(MSIX), 2), VIRTIO_MSI_NO_VECTOR);
	drive(&s->b, VERSION_1, 0);
	interrupt(s, VIRTIO_CONFIG);
	assert_int_equal(board_pci_messages(p), 2);
	side_end(s);
}

/* ---- kicks ----------------------------------------------------------------------------------- */

static struct { u64 addr; int fd; } kicks[4];
static unsigned kicks_there;

static long kicks_ioctl(int fd, unsigned long request, unsigned long arg)
{
	const struct kvm_ioeventfd *k = (const void *)arg;
	unsigned i = 0;

	assert_int_equal(request, KVM_IOEVENTFD);
	assert_int_equal(k->len, 2);
	while (i < kicks_there && kicks[i].addr != k->addr)
		i++;
	if (!(k->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)) {
		assert_int_equal(i, kicks_there);
		kicks[kicks_there].addr = k->addr;
		kicks[kicks_there++].fd = k->fd;
		return 0;
	}
	assert_true(i < kicks_there && kicks[i].fd == k->fd);
	kicks[i] = kicks[--kicks_there];
	return 0;
}

/* They are taken where the BAR is, and nowhere else, also after a reset and a load. */
static void test_kicks(void **state)
{
	static const struct kvm_backend backend = { .name = "none", .ioctl = kicks_ioctl };
	static const struct kvm kvm = { .backend = &backend, .vm_fd = 5 };
	struct board_state *saved = calloc(1, sizeof(*saved));
	struct side *s = side_start(BOARD_MMIO);
	struct board_pci *p = &s->b.pci;

	(void)state;
	virtio_mmio_destroy(&s->b.mmio);
	s->b.on_pci = true;
	board_pci_start(p, &s->rng.dev, &kvm, true, &s->b.err);
	assert_int_equal(kicks_there, 1);
	assert_int_equal(kicks[0].addr, BOARD_BAR + VIRTIO_PCI_NOTIFY);
	assert_int_equal(kicks[0].fd, s->rng.dev.queue[0].kick_fd);
	board_state_init(saved, &s->b, NULL, NULL);
	board_save(saved);
	board_pci_config_out(p, PCI_BAR0 + 16, 0xD0000000, 4);
	assert_int_equal(kicks[0].addr, 0xD0000000 + VIRTIO_PCI_NOTIFY);
	board_pci_config_out(p, PCI_COMMAND, PCI_COMMAND_MASTER, 2);
	assert_int_equal(kicks_there, 0);
	board_pci_config_out(p, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	assert_int_equal(kicks_there, 1);
	board_load(saved);
	assert_int_equal(kicks_there, 1);
	assert_int_equal(kicks[0].addr, BOARD_BAR + VIRTIO_PCI_NOTIFY);
	board_reload(&s->b, NULL, NULL);
	assert_int_equal(kicks_there, 1);
	pci_function_ops.reset(&p->t.pci);
	assert_int_equal(kicks_there, 0);
	board_pci_place(p);
	assert_int_equal(kicks_there, 1);
	side_end(s);
	assert_int_equal(kicks_there, 0);
	free(saved);
}

static bool kicked(struct side *s)
{
	u64 count;

	return read(s->rng.dev.queue[0].kick_fd, &count, sizeof(count)) == 8;
}

/*
 * The hypervisor itself: over RAM kicks are writes to RAM. They are taken again, without an exit, once
 * the BAR has moved away.
 */
static void test_over_ram(void **state)
{
	const u64 over = 16 << 20, notify = VIRTIO_PCI_NOTIFY;
	struct side *s = side_start(BOARD_MMIO);
	struct board_pci *p = &s->b.pci;
	struct real_vm vm;

	(void)state;
	io_thread_stop(&s->b.io);	/* it would take the kicks */
	virtio_mmio_destroy(&s->b.mmio);
	real_vm_init(&vm);
	s->b.on_pci = true;
	board_pci_start(p, &s->rng.dev, &vm.kvm, true, &s->b.err);
	*real_vm_ram(&vm, over + notify) = 100;
	assert_int_equal(real_vm_increment(&vm, &p->mmio, BOARD_BAR + notify), 1);	/* to read it */
	assert_true(kicked(s));
	board_pci_config_out(p, PCI_BAR0 + 16, over, 4);
	assert_true(p->t.pci.bar[VIRTIO_PCI_BAR].base == over);
	assert_int_equal(real_vm_increment(&vm, &p->mmio, over + notify), 0);
	assert_int_equal(*real_vm_ram(&vm, over + notify), 101);
	assert_false(kicked(s));
	/* Status and all, a field each: RAM. */
	for (unsigned reg = 0; reg < 64; reg++)
		assert_int_equal(real_vm_increment(&vm, &p->mmio, over + reg), 0);
	assert_int_equal(s->rng.dev.status, ALL_STATUS);
	assert_int_equal(real_vm_increment(&vm, &p->mmio, BOARD_BAR + notify), 2);	/* nobody's */
	assert_false(kicked(s));
	/* The MSI-X table, too. */
	board_pci_config_out(p, PCI_BAR0 + 4, over + 0x10000, 4);
	assert_int_equal(real_vm_increment(&vm, &p->mmio, over + 0x10000), 0);
	assert_true(p->t.pci.vector[0].address == 0xFEE00000);
	board_pci_config_out(p, PCI_BAR0 + 16, BOARD_BAR, 4);
	board_pci_config_out(p, PCI_BAR0 + 4, BOARD_MSIX_BAR, 4);
	assert_int_equal(real_vm_increment(&vm, &p->mmio, BOARD_BAR + notify), 1);
	assert_true(kicked(s));
	assert_int_equal(*real_vm_ram(&vm, over + notify), 101);
	side_end(s);
	real_vm_destroy(&vm);
}

/* ---- saved state ----------------------------------------------------------------------------- */

/* Messages that a mask holds back when the machine is saved come where it goes on. */
static void test_messages_move(void **state)
{
	struct side *s = side_start(BOARD_PCI_MESSAGES);
	struct board_pci *p = &s->b.pci;

	(void)state;
	board_set_vector(&s->b, 0);
	mask(s, QUEUE_VECTOR, true);
	mask(s, CONFIG_VECTOR, true);
	interrupt(s, VIRTIO_CONFIG);
	board_reload(&s->b, NULL, NULL);
	assert_int_equal(board_pci_messages(p), 0);
	assert_true(pci_msix_pending(&p->t.pci, CONFIG_VECTOR));
	assert_false(pci_msix_pending(&p->t.pci, QUEUE_VECTOR));
	mask(s, QUEUE_VECTOR, false);
	assert_int_equal(board_pci_messages(p), 0);
	mask(s, CONFIG_VECTOR, false);
	assert_int_equal(board_pci_messages(p), 2);
	/* The whole function's mask. */
	board_pci_config_out(p, p->t.pci.msix + 2, 0xC000, 2);
	interrupt(s, 0);
	board_reload(&s->b, NULL, NULL);
	assert_int_equal(board_pci_messages(p), 0);
	board_pci_config_out(p, p->t.pci.msix + 2, 0x8000, 2);
	assert_int_equal(board_pci_messages(p), 1);
	interrupt(s, 0);
	interrupt(s, VIRTIO_CONFIG);
	assert_int_equal(board_pci_messages(p), 3);
	side_end(s);
}

/* Registers in the midst of negotiation, and a pin that is up and was not looked at. */
static void test_pin_moves(void **state)
{
	struct side *s = side_start(BOARD_PCI_PIN);
	struct board_pci *p = &s->b.pci;
	struct pollfd told = { .fd = p->t.intx_fd, .events = POLLIN };
	const struct loop_watch *w;

	(void)state;
	board_pci_out(p, COMMON(DFSELECT), 1, 4);
	board_pci_out(p, COMMON(GFSELECT), 7, 4);
	board_pci_out(p, COMMON(Q_SELECT), 0x1234, 2);
	interrupt(s, VIRTIO_CONFIG);
	w = &p->loop.watch[p->t.intx_watch];
	w->fn(w->arg, EPOLLIN);
	assert_true(p->level);
	board_reload(&s->b, NULL, NULL);
	assert_true(p->level);
	/* Lost on the way to the loop: resuming tells it again. */
	pci_set_intx(&p->t.pci, false);
	assert_int_equal(poll(&told, 1, 0), 1);
	w->fn(w->arg, EPOLLIN);
	assert_true(p->level);
	assert_int_equal(board_pci_in(p, VIRTIO_PCI_ISR_AT, 1), 3);
	assert_false(p->level);
	assert_int_equal(board_pci_in(p, VIRTIO_PCI_ISR_AT, 1), 0);
	assert_int_equal(board_pci_in(p, COMMON(DFSELECT), 4), 1);
	assert_int_equal(board_pci_in(p, COMMON(GFSELECT), 4), 7);
	assert_int_equal(board_pci_in(p, COMMON(Q_SELECT), 2), 0x1234);
	/* A reset of the machine lowers it. */
	interrupt(s, 0);
	w->fn(w->arg, EPOLLIN);
	assert_true(p->level);
	virtio_pci_device_ops.reset(&p->t);
	assert_false(p->level);
	w->fn(w->arg, EPOLLIN);
	assert_false(p->level);
	side_end(s);
}

static void test_bad_states(void **state)
{
	struct side *s = side_start(BOARD_PCI_MESSAGES);
	const struct device dev = { &virtio_pci_device_ops, &s->b.pci.t };
	u8 saved[1024];
	long n;

	(void)state;
	board_set_vector(&s->b, 0);
	check_bad_states(&virtio_pci_device_ops, &s->b.pci.t, 20);
	/* A vector that is not there: nothing of it is taken. */
	n = device_save(&dev, saved, sizeof(saved));
	assert_true(n > 0);
	saved[n - 2] = 2;	/* the configuration's is the last one */
	saved[n - 1] = 0;
	assert_int_equal(device_load(&dev, saved, n), -EINVAL);
	assert_int_equal(board_pci_in(&s->b.pci, COMMON(MSIX), 2), CONFIG_VECTOR);
	side_end(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_bus_reset),
		cmocka_unit_test(test_kicks),
		cmocka_unit_test(test_over_ram),
		cmocka_unit_test(test_messages_move),
		cmocka_unit_test(test_pin_moves),
		cmocka_unit_test(test_bad_states),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
