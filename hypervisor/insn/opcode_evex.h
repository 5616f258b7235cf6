/* Short names for rows of the EVEX maps: opcode_evex*.c and their groups only. SDM 2A 2.7 */
#ifndef QUMRA_HYPERVISOR_INSN_OPCODE_EVEX_H
#define QUMRA_HYPERVISOR_INSN_OPCODE_EVEX_H

#include "hypervisor/insn/opcode_table.h"

enum {
	E8, E16, E32, E64,		/* EV_ESIZE */
	BC = EV_BCAST, RC = EV_RC, SAE = EV_SAE, NOK = EV_NOK, KREQ = EV_KREQ, LIG = EV_LIG,
	NO128 = EV_NO128, L128 = EV_NO256 | EV_NO512, L512 = EV_NO128 | EV_NO256,
	NF = EV_NF, PACK = EV_PACK, REPEAT = EV_REPEAT,
};

/* A cell: the table's second half is for EVEX.W = 1. */
#define W(w, op)		[(w) << 8 | (op)]

/* On the host's units. EVEXA: with further attributes; EVEXG: with general registers or RFLAGS. */
#define EVEXA(f, e, a)		NAT(f, a), .evex = (e)
#define EVEX(f, e)		EVEXA(f, e, 0)
#define EVEXG(f, e, a)		NATG(f, a), .evex = (e)

/* Whatever W is. */
#define WIG(op, pfx, ...)									\
	W(0, op)[pfx] = { __VA_ARGS__ },							\
	W(1, op)[pfx] = { __VA_ARGS__ }
#define WIG_LINK(op, pfx, how, group)								\
	W(0, op)[pfx] = LINK(how, group),							\
	W(1, op)[pfx] = LINK(how, group)

/* Two instructions by W, whose names differ in the last letter. Last the operands. */
#define BY_W(op, pfx, f, n0, e0, n1, e1, ...)							\
	W(0, op)[pfx] = { n0, __VA_ARGS__, EVEX(f, e0) },					\
	W(1, op)[pfx] = { n1, __VA_ARGS__, EVEX(f, e1) }
#define BW(op, n, ops, f, e)	BY_W(op, P66, f, n "b", E8 | (e), n "w", E16 | (e), ops)
#define DQ(op, n, ops, f, e)	BY_W(op, P66, f, n "d", E32 | (e), n "q", E64 | (e), ops)
#define PSPD(op, n, ops, f, e)	BY_W(op, P66, f, n "s", E32 | (e), n "d", E64 | (e), ops)
#define SSSD(op, n, ops, f, e)									\
	BY_W(op, P66, f, n "ss", E32 | LIG | (e), n "sd", E64 | LIG | (e), ops)
#define BW_F3(op, n, ops, f, e)	BY_W(op, PF3, f, n "b", E8 | (e), n "w", E16 | (e), ops)
#define DQ_F3(op, n, ops, f, e)	BY_W(op, PF3, f, n "d", E32 | (e), n "q", E64 | (e), ops)

/* By the mandatory prefix, which W goes with. */
#define BY_PFX(op, f, n, e, a, ...)								\
	W(0, op)[NP] = { n "ps", __VA_ARGS__, EVEXA(f, E32 | (e), a) },				\
	W(1, op)[P66] = { n "pd", __VA_ARGS__, EVEXA(f, E64 | (e), a) }
#define FLOAT2A(op, n, ops, f, e, a)	BY_PFX(op, f, n, e, a, ops)
#define FLOAT2(op, n, ops, f, e)	BY_PFX(op, f, n, e, 0, ops)
#define FLOAT4(op, n, f, e)									\
	BY_PFX(op, f, n, BC | (e), 0, OPS(Vx, Hx, Wx)),						\
	W(0, op)[PF3] = { n "ss", OPS(Vx, Hx, Wd), EVEX(f, E32 | LIG | (e)) },			\
	W(1, op)[PF2] = { n "sd", OPS(Vx, Hx, Wq), EVEX(f, E64 | LIG | (e)) }

#endif
