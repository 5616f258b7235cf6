/*
 * String instructions. SDM 1 7.3.9, SDM 2 MOVS, CMPS, SCAS, LODS, STOS, INS, OUTS, REP.
 *
 * A repeated MOVS, STOS, CMPS or SCAS runs in chunks: as many elements as lie in one page at either
 * end (counting upwards, plain memory on both sides) are one host string instruction, whose overlap
 * semantics are the guest's own. All else goes element by element through the slow path. Registers
 * are committed after every chunk, so that a fault, an exit or an interrupt finds a restartable
 * state.
 */
#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/flags.h"
#include "hypervisor/x86/system.h"

#define REP_FLAGS	(I_REP | I_REPNE)

static __always_inline_ u64 addr_cut(const struct insn *i, u64 a)
{
	if (likely(i->asize == 8))
		return a;
	return i->asize == 4 ? (u32)a : (u16)a;
}

static __always_inline_ u64 index_get(struct vcpu *v, const struct insn *i, unsigned int r)
{
	return addr_cut(i, v->r[r]);
}

/* reg += n elements of size, in the direction of DF, by the address size. */
static __always_inline_ void index_move(struct vcpu *v, const struct insn *i, unsigned int r, u64 n,
	unsigned int size)
{
	u64 by = n * size;

	gpr_set(v, r * 8, i->asize, v->r[r] + (v->rflags & RFLAGS_DF ? -by : by));
}

/* How many elements from offset off up stay in its page and in the address size. At least 1. */
static __always_inline_ u64 run_length(struct vcpu *v, const struct insn *i, unsigned int seg,
	u64 off, unsigned int size)
{
	u64 la = v->ebase[seg] + off;
	u64 bytes = 0x1000 - (la & 0xfff);
	u64 room = addr_cut(i, ~0ULL) - off;	/* one less than the bytes before it wraps */

	if (room < bytes)
		bytes = room;
	return bytes >= size ? bytes / size : 1;
}

/*
 * Does each element end in an instruction boundary that counts? Not where step mode is only about
 * RFLAGS.RF, which belongs to all of them: after a page fault in a copy that would be thousands of
 * steps.
 */
static bool by_element(const struct vcpu *v)
{
	return unlikely(v->step) && (v->step_tf || v->irq_shadow || v->mov_ss_shadow ||
		v->pending_db.type != EV_NONE || debug_armed(v));
}

/* Elements of a chunk may run together only upwards and when no one watches each. */
static __always_inline_ bool can_run(const struct vcpu *v)
{
	return !(v->rflags & RFLAGS_DF) && !by_element(v);
}

/*
 * After n elements of a repeated instruction: RCX, then on with the next instruction (true), or out
 * of the handler to come back (unwinds), or on with this one (false).
 */
static __always_inline_ bool rep_done(struct vcpu *v, const struct insn *i, u64 n)
{
	u64 left = addr_cut(i, v->r[R_RCX]) - n;

	gpr_set(v, R_RCX * 8, i->asize, left);
	io_log_clear(v);
	if (!left)
		return true;
	if (unlikely(v->kick || v->run->immediate_exit || by_element(v) || v->boundary))
		vcpu_unwind(v, UNWIND_RESTART);
	return false;
}

/* The instruction of width size from what does one element and what does a run of them. */
#define DEFINE_REP(size, name)							\
static void name##_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	if (!(i->flags & REP_FLAGS)) {						\
		name##_one##size(v, i);						\
		return;								\
	}									\
	while (addr_cut(i, v->r[R_RCX]))					\
		if (rep_done(v, i, name##_run##size(v, i, addr_cut(i, v->r[R_RCX]))))	\
			break;							\
}

/* REPE goes on while ZF is set, REPNE while it is clear. */
static __always_inline_ bool scan_goes_on(const struct vcpu *v, const struct insn *i)
{
	return !(v->rflags & RFLAGS_ZF) == !!(i->flags & I_REPNE);
}

#define DEFINE_REP_SCAN(size, name)						\
static void name##_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	if (!(i->flags & REP_FLAGS)) {						\
		name##_one##size(v, i);						\
		return;								\
	}									\
	while (addr_cut(i, v->r[R_RCX])) {					\
		u64 n = name##_run##size(v, i, addr_cut(i, v->r[R_RCX]));	\
										\
		if (!scan_goes_on(v, i)) {					\
			gpr_set(v, R_RCX * 8, i->asize, v->r[R_RCX] - n);	\
			break;							\
		}								\
		if (rep_done(v, i, n))						\
			break;							\
	}									\
}

/* ---- MOVS ------------------------------------------------------------------------------------ */

#define DEFINE_MOVS(size, T, sfx, unused)					\
static void movs_one##size(struct vcpu *v, const struct insn *i)		\
{										\
	u64 x = mem_read(v, i->seg, index_get(v, i, R_RSI), size);		\
										\
	mem_write(v, SEG_ES, index_get(v, i, R_RDI), size, x);			\
	index_move(v, i, R_RSI, 1, size);					\
	index_move(v, i, R_RDI, 1, size);					\
}										\
static u64 movs_run##size(struct vcpu *v, const struct insn *i, u64 n)		\
{										\
	u64 si = index_get(v, i, R_RSI);					\
	u64 di = index_get(v, i, R_RDI);					\
	void *s = mem_hit(v, i->seg, si, size, false);				\
	void *d = mem_hit(v, SEG_ES, di, size, true);				\
	u64 c;									\
										\
	if (!s || !d || !can_run(v)) {						\
		movs_one##size(v, i);						\
		return 1;							\
	}									\
	n = MIN(n, run_length(v, i, i->seg, si, size));				\
	n = MIN(n, run_length(v, i, SEG_ES, di, size));				\
	c = n;									\
	__asm__ volatile("rep movs" sfx : "+S"(s), "+D"(d), "+c"(c) : : "memory");	\
	index_move(v, i, R_RSI, n, size);					\
	index_move(v, i, R_RDI, n, size);					\
	return n;								\
}										\
DEFINE_REP(size, movs)
EACH_SIZE(DEFINE_MOVS, 0)
const struct exec_set x_movs = SET_MEM(movs);

/* ---- STOS ------------------------------------------------------------------------------------ */

#define DEFINE_STOS(size, T, sfx, unused)					\
static void stos_one##size(struct vcpu *v, const struct insn *i)		\
{										\
	mem_write(v, SEG_ES, index_get(v, i, R_RDI), size, gpr_get(v, 0, size));	\
	index_move(v, i, R_RDI, 1, size);					\
}										\
static u64 stos_run##size(struct vcpu *v, const struct insn *i, u64 n)		\
{										\
	u64 di = index_get(v, i, R_RDI);					\
	void *d = mem_hit(v, SEG_ES, di, size, true);				\
	u64 c;									\
										\
	if (!d || !can_run(v)) {						\
		stos_one##size(v, i);						\
		return 1;							\
	}									\
	n = MIN(n, run_length(v, i, SEG_ES, di, size));				\
	c = n;									\
	__asm__ volatile("rep stos" sfx : "+D"(d), "+c"(c) : "a"(v->r[R_RAX]) : "memory");	\
	index_move(v, i, R_RDI, n, size);					\
	return n;								\
}										\
DEFINE_REP(size, stos)
EACH_SIZE(DEFINE_STOS, 0)
const struct exec_set x_stos = SET_MEM(stos);

/* ---- LODS ------------------------------------------------------------------------------------ */

#define DEFINE_LODS(size, T, sfx, unused)					\
static void lods_one##size(struct vcpu *v, const struct insn *i)		\
{										\
	gpr_set(v, 0, size, mem_read(v, i->seg, index_get(v, i, R_RSI), size));	\
	index_move(v, i, R_RSI, 1, size);					\
}										\
static u64 lods_run##size(struct vcpu *v, const struct insn *i, u64 n)		\
{										\
	lods_one##size(v, i);							\
	return 1;								\
}										\
DEFINE_REP(size, lods)
EACH_SIZE(DEFINE_LODS, 0)
const struct exec_set x_lods = SET_MEM(lods);

/* ---- CMPS, SCAS ----------------------- */

#define DEFINE_CMPS(size, T, sfx, unused)					\
static void cmps_one##size(struct vcpu *v, const struct insn *i)		\
{										\
	T a = (T)mem_read(v, i->seg, index_get(v, i, R_RSI), size);		\
	T b = (T)mem_read(v, SEG_ES, index_get(v, i, R_RDI), size);		\
	u32 ax;									\
										\
	__asm__("cmp" sfx " %2, %1" FLAGS_TAKE : "=&a"(ax) : "q"(a), "q"(b) : "cc");	\
	index_move(v, i, R_RSI, 1, size);					\
	index_move(v, i, R_RDI, 1, size);					\
	flags_set(v, ax);							\
}										\
static u64 cmps_run##size(struct vcpu *v, const struct insn *i, u64 n)		\
{										\
	u64 si = index_get(v, i, R_RSI);					\
	u64 di = index_get(v, i, R_RDI);					\
	void *s = mem_hit(v, i->seg, si, size, false);				\
	void *d = mem_hit(v, SEG_ES, di, size, false);				\
	u64 c;									\
	u32 ax;									\
										\
	if (!s || !d || !can_run(v)) {						\
		cmps_one##size(v, i);						\
		return 1;							\
	}									\
	n = MIN(n, run_length(v, i, i->seg, si, size));				\
	n = MIN(n, run_length(v, i, SEG_ES, di, size));				\
	c = n;									\
	if (i->flags & I_REPNE)							\
		__asm__ volatile("repne cmps" sfx FLAGS_TAKE			\
			: "+S"(s), "+D"(d), "+c"(c), "=&a"(ax) : : "cc", "memory");	\
	else									\
		__asm__ volatile("repe cmps" sfx FLAGS_TAKE			\
			: "+S"(s), "+D"(d), "+c"(c), "=&a"(ax) : : "cc", "memory");	\
	index_move(v, i, R_RSI, n - c, size);					\
	index_move(v, i, R_RDI, n - c, size);					\
	flags_set(v, ax);							\
	return n - c;								\
}										\
DEFINE_REP_SCAN(size, cmps)
EACH_SIZE(DEFINE_CMPS, 0)
const struct exec_set x_cmps = SET_MEM(cmps);

#define DEFINE_SCAS(size, T, sfx, unused)					\
static void scas_one##size(struct vcpu *v, const struct insn *i)		\
{										\
	T b = (T)mem_read(v, SEG_ES, index_get(v, i, R_RDI), size);		\
	T a = (T)v->r[R_RAX];							\
	u32 ax;									\
										\
	__asm__("cmp" sfx " %2, %1" FLAGS_TAKE : "=&a"(ax) : "q"(a), "q"(b) : "cc");	\
	index_move(v, i, R_RDI, 1, size);					\
	flags_set(v, ax);							\
}										\
static u64 scas_run##size(struct vcpu *v, const struct insn *i, u64 n)		\
{										\
	u64 di = index_get(v, i, R_RDI);					\
	void *d = mem_hit(v, SEG_ES, di, size, false);				\
	u64 a = v->r[R_RAX];							\
	u64 c;									\
										\
	if (!d || !can_run(v)) {						\
		scas_one##size(v, i);						\
		return 1;							\
	}									\
	n = MIN(n, run_length(v, i, SEG_ES, di, size));				\
	c = n;									\
	if (i->flags & I_REPNE)							\
		__asm__ volatile("repne scas" sfx FLAGS_TAKE			\
			: "+D"(d), "+c"(c), "+a"(a) : : "cc", "memory");	\
	else									\
		__asm__ volatile("repe scas" sfx FLAGS_TAKE			\
			: "+D"(d), "+c"(c), "+a"(a) : : "cc", "memory");	\
	index_move(v, i, R_RDI, n - c, size);					\
	flags_set(v, (u32)a);							\
	return n - c;								\
}										\
DEFINE_REP_SCAN(size, scas)
EACH_SIZE(DEFINE_SCAS, 0)
const struct exec_set x_scas = SET_MEM(scas);

/* ---- INS, OUTS ------------------------------------------------------------------------------- */

static void ins_one(struct vcpu *v, const struct insn *i, unsigned int size)
{
	u64 di = index_get(v, i, R_RDI);
	u16 port = (u16)v->r[R_RDX];

	io_check(v, port, size);
	mem_probe(v, SEG_ES, di, size, MEM_WRITE);	/* before the device sees the read */
	mem_write(v, SEG_ES, di, size, pio_read(v, port, size));
	index_move(v, i, R_RDI, 1, size);
}

static void outs_one(struct vcpu *v, const struct insn *i, unsigned int size)
{
	u16 port = (u16)v->r[R_RDX];

	io_check(v, port, size);
	pio_write(v, port, size, (u32)mem_read(v, i->seg, index_get(v, i, R_RSI), size));
	index_move(v, i, R_RSI, 1, size);
}

/*
 * How many elements at seg:off one exit to user space may move: those of a page of plain memory,
 * where nothing can happen between two of them; or as many as it has moved. Never more than IO_BATCH
 * bytes: what answered may have been another instruction, which another CPU overwrote meanwhile.
 */
static u32 batch_length(struct vcpu *v, const struct insn *i, unsigned int seg, u64 off,
	unsigned int size, u64 n, enum mem_access acc)
{
	u32 known = pio_batch_known(v, (u16)v->r[R_RDX], size, acc == MEM_READ);

	n = MIN(n, IO_BATCH / size);
	if (known)
		return (u32)MIN(n, known);
	if (!can_run(v))
		return 1;
	n = MIN(n, run_length(v, i, seg, off, size));
	return n > 1 ? (u32)mem_plain_run(v, seg, off, size, n, acc) : 1;
}

static u64 ins_some(struct vcpu *v, const struct insn *i, unsigned int size, u64 n)
{
	u64 di = index_get(v, i, R_RDI), val;
	u16 port = (u16)v->r[R_RDX];
	u8 buf[IO_BATCH];
	u32 k, count;

	io_check(v, port, size);
	mem_probe(v, SEG_ES, di, size, MEM_WRITE);	/* before the device sees the read */
	count = batch_length(v, i, SEG_ES, di, size, n, MEM_WRITE);
	count = pio_read_batch(v, port, size, count, buf);
	for (k = 0; k < count; k++) {
		val = 0;
		memcpy(&val, buf + k * size, size);
		mem_write(v, SEG_ES, di + k * size, size, val);
	}
	index_move(v, i, R_RDI, count, size);
	return count;
}

static u64 outs_some(struct vcpu *v, const struct insn *i, unsigned int size, u64 n)
{
	u64 si = index_get(v, i, R_RSI), val = 0;
	u16 port = (u16)v->r[R_RDX];
	u8 buf[IO_BATCH];
	u32 k, count;

	io_check(v, port, size);
	mem_probe(v, i->seg, si, size, MEM_READ);
	count = batch_length(v, i, i->seg, si, size, n, MEM_READ);
	for (k = 0; k < count; k++) {
		val = mem_read(v, i->seg, si + k * size, size);
		memcpy(buf + k * size, &val, size);
	}
	count = pio_write_batch(v, port, size, count, buf);
	index_move(v, i, R_RSI, count, size);
	return count;
}

#define DEFINE_STRING_IO(size, name)						\
static void name##_one##size(struct vcpu *v, const struct insn *i)		\
{										\
	name##_one(v, i, size);							\
}										\
static u64 name##_run##size(struct vcpu *v, const struct insn *i, u64 n)	\
{										\
	return name##_some(v, i, size, n);					\
}										\
DEFINE_REP(size, name)
DEFINE_STRING_IO(1, ins)
DEFINE_STRING_IO(2, ins)
DEFINE_STRING_IO(4, ins)
DEFINE_STRING_IO(1, outs)
DEFINE_STRING_IO(2, outs)
DEFINE_STRING_IO(4, outs)
const struct exec_set x_ins = { { NULL, NULL, NULL, NULL, ins_m1, ins_m2, ins_m4 } };
const struct exec_set x_outs = { { NULL, NULL, NULL, NULL, outs_m1, outs_m2, outs_m4 } };
