/*
 * What the table says beyond encoding, against Zydis: RFLAGS bits, memory access, LOCK,
 * privilege.
 */
#include <stdio.h>
#include <string.h>

#include "tests/insn/decode/decode.h"

#define DIFF(c, ...) (snprintf((c)->diff, sizeof((c)->diff), __VA_ARGS__), false)

static bool compare_flags(struct comparison *c)
{
	static const ZydisAccessedFlags none;
	const ZydisAccessedFlags *z = c->zi.cpu_flags ? c->zi.cpu_flags : &none;
	u32 mask = RFLAGS_ARITH | RFLAGS_DF; /* Zydis counts IOPL checks and the like as reading */
	u32 read = c->row->f_read & mask, write = c->row->f_write & mask;
	u32 zwrite = (z->modified | z->set_0 | z->set_1) & mask;

	if (read != (z->tested & mask) || write != zwrite ||
		c->row->f_undef != (z->undefined & mask))
		return DIFF(c, "flags read %x write %x undefined %x, Zydis has %x %x %x", read,
			write, c->row->f_undef, (u32)(z->tested & mask), zwrite,
			(u32)(z->undefined & mask));
	return true;
}

static bool compare_access(struct comparison *c)
{
	unsigned int ours = opcode_mem_access(c->row), theirs = 0;

	for (unsigned int k = 0; k < c->zi.operand_count; k++) {
		const ZydisDecodedOperand *z = &c->zo[k];

		if (z->type != ZYDIS_OPERAND_TYPE_MEMORY || z->mem.type == ZYDIS_MEMOP_TYPE_AGEN ||
			(z->encoding == ZYDIS_OPERAND_ENCODING_NONE && c->insn.flags & I_MODRM))
			continue;
		if (z->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
			theirs |= OPC_MEM_READ;
		if (z->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			theirs |= OPC_MEM_WRITE;
	}
	if (c->insn.flags & I_MEM && ours != theirs)
		return DIFF(c, "memory access %u, Zydis has %u", ours, theirs);
	return true;
}

static bool compare_privilege(struct comparison *c)
{
	bool theirs = c->zi.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED;

	return theirs == !!(c->row->attr & ATTR_PRIV) ||
	       DIFF(c, "privileged: Zydis has %d", theirs);
}

bool compare_attributes(struct comparison *c)
{
	return compare_flags(c) && compare_access(c) && compare_privilege(c);
}
