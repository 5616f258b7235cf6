/* Instructions as text, for the developer's dumps. */
#ifndef QUMRA_HYPERVISOR_INSN_DISASM_H
#define QUMRA_HYPERVISOR_INSN_DISASM_H

#include "hypervisor/insn/insn.h"

/*
 * One line without newline in buf[0 .. n), always terminated if n is not 0, such as
 * "lock cmpxchg qword [gs:rax*8-0x10], rdx": Intel's order, destination first, as NASM writes it.
 * rip is the instruction's address; near targets and RIP-relative addresses are shown absolute.
 * i comes from insn_decode() with DECODE_OK. Returns the length that the whole line has, as
 * snprintf() does.
 */
int insn_format(char *buf, size_t n, const struct insn *i, u64 rip);

#endif
