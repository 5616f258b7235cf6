/*
 * A guest in real mode that does nothing but take interrupts and report each: its handlers
 * acknowledge at PIC and local APIC, and then tell their vector by OUT to REPORT_PORT.
 */
#ifndef QUMRA_TESTS_API_HANDLERS_H
#define QUMRA_TESTS_API_HANDLERS_H

#include "tests/api/api.h"

#define REPORT_PORT	0x99
#define MSI_ADDRESS	0xfee00000

/* Handlers for all vectors, and other code at CODE_AT. */
void code_with_handlers(struct machine *m, const void *code, size_t size);
/* The same; "sti; again: hlt; jmp again" at CODE_AT. */
void handlers_install(struct machine *m);
/* The same with IF set and nothing that halts: "again: in al, 0x98; jmp again" leaves all the time. */
#define POLL_PORT	0x98
void handlers_install_polling(struct machine *m);
/* The local APIC is enabled, LINT0 as given; with an in-kernel PIC, its lines are open at 0x20. */
#define LINT0_EXTINT	0x700
#define LINT0_MASKED	0x10000
void apic_on(struct machine *m, u32 lint0);
void pic_on(struct machine *m, u8 level_lines);

/* Was the exit a poll, or a handler's write to a PIC that is not in the hypervisor? */
bool is_noise(const struct machine *m);
/* KVM_RUN until the next report. */
u8 next_report(struct machine *m);
/* The guest as made by handlers_install_polling() reports nothing for a while. */
void expect_quiet(struct machine *m);

/* One route and nothing else: GSI to a message. */
void route_msi(struct machine *m, u32 gsi, u32 data);

int new_eventfd(void);
void signal_eventfd(int fd);
/* The counter of a non-blocking eventfd, taken; 0: it was zero. */
u64 take_eventfd(int fd);

#endif
