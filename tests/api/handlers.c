/* A guest that takes interrupts, for the tests of what raises them (handlers.h). */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/api/handlers.h"

#define HANDLERS_AT	0x2000
#define HANDLER_SIZE	32

/* push ax; mov al, 0x20; out 0x20, al; mov dword [0xfee000b0], 0; mov al, N; out 0x99, al; pop ax;
 * iret */
static const u8 handler[] = {
	0x50, 0xb0, 0x20, 0xe6, 0x20, 0x66, 0x67, 0xc7, 0x05, 0xb0, 0x00, 0xe0, 0xfe, 0, 0, 0, 0,
	0xb0, 0x00, 0xe6, REPORT_PORT, 0x58, 0xcf,
};
#define HANDLER_VECTOR	18

void code_with_handlers(struct machine *m, const void *code, size_t size)
{
	struct kvm_sregs s;
	u32 n;

	for (n = 0; n < 256; n++) {
		u8 *h = m->ram + HANDLERS_AT + n * HANDLER_SIZE;

		*(u32 *)(m->ram + n * 4) = HANDLERS_AT + n * HANDLER_SIZE;
		memcpy(h, handler, sizeof(handler));
		h[HANDLER_VECTOR] = n;
	}
	machine_code(m, code, size);
	/* All of 4 GiB, for the local APIC. */
	s = get_sregs(m->vcpu);
	s.ds.limit = 0xffffffff;
	s.ds.g = 1;
	assert_int_equal(call(m->vcpu, KVM_SET_SREGS, &s), 0);
}

void handlers_install(struct machine *m)
{
	static const u8 code[] = { 0xfb, 0xf4, 0xeb, 0xfd };

	code_with_handlers(m, code, sizeof(code));
}

void handlers_install_polling(struct machine *m)
{
	static const u8 code[] = { 0xfb, 0xe4, POLL_PORT, 0xeb, 0xfc };

	code_with_handlers(m, code, sizeof(code));
}

void apic_on(struct machine *m, u32 lint0)
{
	struct kvm_lapic_state lapic;

	assert_int_equal(call(m->vcpu, KVM_GET_LAPIC, &lapic), 0);
	*(u32 *)(lapic.regs + 0xf0) = 0x1ff;
	*(u32 *)(lapic.regs + 0x350) = lint0;
	assert_int_equal(call(m->vcpu, KVM_SET_LAPIC, &lapic), 0);
}

void pic_on(struct machine *m, u8 level_lines)
{
	struct kvm_irqchip pic = { .chip_id = KVM_IRQCHIP_PIC_MASTER };

	assert_int_equal(call(m->vm, KVM_GET_IRQCHIP, &pic), 0);
	pic.chip.pic.irq_base = 0x20;
	pic.chip.pic.imr = 0;
	pic.chip.pic.elcr = level_lines;
	assert_int_equal(call(m->vm, KVM_SET_IRQCHIP, &pic), 0);
}

bool is_noise(const struct machine *m)
{
	return m->run->exit_reason == KVM_EXIT_IO &&
	       (m->run->io.port == POLL_PORT || m->run->io.port == 0x20);
}

u8 next_report(struct machine *m)
{
	do {
		run_until(m, KVM_EXIT_IO);
	} while (is_noise(m));
	assert_int_equal(m->run->io.port, REPORT_PORT);
	return *(u8 *)io_data(m->run);
}

/* Long enough for a thread of the hypervisor to have its turn. */
#define QUIET_MS 20

void expect_quiet(struct machine *m)
{
	for (int i = 0; i < QUIET_MS; i++) {
		usleep(1000);
		run_until(m, KVM_EXIT_IO);
		assert_int_equal(m->run->io.port, POLL_PORT);
	}
}

void route_msi(struct machine *m, u32 gsi, u32 data)
{
	struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry e; } r = {
		.head.nr = 1,
		.e = { .gsi = gsi, .type = KVM_IRQ_ROUTING_MSI,
		       .u.msi = { .address_lo = MSI_ADDRESS, .data = data } },
	};

	assert_int_equal(call(m->vm, KVM_SET_GSI_ROUTING, &r), 0);
}

int new_eventfd(void)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

void signal_eventfd(int fd)
{
	u64 one = 1;

	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

u64 take_eventfd(int fd)
{
	u64 count;

	if (read(fd, &count, sizeof(count)) == sizeof(count))
		return count;
	assert_int_equal(errno, EAGAIN);
	return 0;
}
