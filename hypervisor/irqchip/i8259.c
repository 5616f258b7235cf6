/*
 * The PC's two 8259A interrupt controllers and the edge/level registers of the PIIX. Intel 8259A
 * data sheet (231468), Intel 82371AB 4.2.5.
 *
 * As in KVM, an edge stays latched in IRR when its line falls again, so devices may pulse a line.
 * The cascade does follow the slave's output: a request that is withdrawn there leaves no trace
 * here.
 */
#include "hypervisor/irqchip/chips.h"

#include <linux/errno.h>

#include "hypervisor/irqchip/lapic.h"
#include "hypervisor/x86/fpu.h"

#define PIC_MASTER_PORT	0x20
#define PIC_SLAVE_PORT	0xa0
#define ELCR_PORT	0x4d0
#define CASCADE_IR	2
#define SPURIOUS_IR	7

#define ICW1		BIT(4)
#define ICW1_IC4	BIT(0)
#define ICW1_SINGLE	BIT(1)
#define ICW4_AEOI	BIT(1)
#define ICW4_SFNM	BIT(4)
#define OCW3		BIT(3)
#define OCW3_RIS	BIT(0)
#define OCW3_RR		BIT(1)
#define OCW3_POLL	BIT(2)
#define OCW3_SMM	BIT(5)
#define OCW3_ESMM	BIT(6)

/* OCW2 bits 7:5: rotate, specific, EOI. 8259A figure 8 */
enum ocw2 {
	OCW2_ROTATE_AUTO_OFF, OCW2_EOI, OCW2_NOP, OCW2_EOI_SPECIFIC,
	OCW2_ROTATE_AUTO_ON, OCW2_ROTATE_EOI, OCW2_SET_PRIORITY, OCW2_ROTATE_EOI_SPECIFIC,
};

/* ---- priority -------------------------------------------------------------------------------- */

/* Rank 0 (highest) to 7 of the first line in mask; 8: none. */
static unsigned int rank_of(const struct i8259 *s, u8 mask)
{
	unsigned int twice = mask | (unsigned int)mask << 8;

	return mask ? (unsigned int)__builtin_ctz(twice >> s->top) : 8;
}

static unsigned int line_of(const struct i8259 *s, unsigned int rank)
{
	return (rank + s->top) & 7;
}

/* In-service lines that hold back others. */
static u8 blocking(const struct pic *p, const struct i8259 *s)
{
	u8 isr = s->isr;

	if (s->special_mask)
		isr &= ~s->imr;
	/* More from the same slave may come in. 8259A "Special Fully Nest Mode" */
	if (s->fully_nested && s == &p->chip[0])
		isr &= ~BIT(CASCADE_IR);
	return isr;
}

/* The line that requests service, or -1. */
static int i8259_request(const struct pic *p, const struct i8259 *s)
{
	unsigned int rank = rank_of(s, s->irr & ~s->imr);

	if (rank >= rank_of(s, blocking(p, s)))
		return -1;
	return (int)line_of(s, rank);
}

static void pic_update(struct irqchip *ic)
{
	struct pic *p = &ic->pic;
	u32 old = p->output;

	if (i8259_request(p, &p->chip[1]) >= 0)
		p->chip[0].irr |= BIT(CASCADE_IR);
	else
		p->chip[0].irr &= ~BIT(CASCADE_IR);
	WRITE_ONCE(p->output, i8259_request(p, &p->chip[0]) >= 0);
	if (p->output && !old)
		lapic_pic_raised(ic->vm);
}

bool pic_output(const struct irqchip *ic)
{
	return READ_ONCE(ic->pic.output);
}

/* ---- lines ----------------------------------------------------------------------------------- */

static int i8259_set_line(struct i8259 *s, unsigned int line, bool level)
{
	u8 bit = BIT(line);
	bool fresh = !(s->irr & bit);

	if (!level) {
		s->last &= ~bit;
		if (s->elcr & bit)
			s->irr &= ~bit;
		return 1;
	}
	if (s->elcr & bit || !(s->last & bit))
		s->irr |= bit;
	else
		fresh = false;
	s->last |= bit;
	return s->imr & bit ? -1 : fresh;
}

int pic_set_line(struct irqchip *ic, unsigned int pin, u32 source, int level)
{
	struct pic *p = &ic->pic;
	int ret;

	if (pin >= PIC_PINS || pin == CASCADE_IR)
		return -1;
	level = line_level(&p->sources[pin], source, level);
	ret = i8259_set_line(&p->chip[pin >> 3], pin & 7, level);
	pic_update(ic);
	return ret;
}

/* ---- acknowledge and end of interrupt -------------------------------------------------------- */

static void i8259_clear_isr(struct irqchip *ic, struct i8259 *s, unsigned int line)
{
	unsigned int chip = s == &ic->pic.chip[0] ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;

	s->isr &= ~BIT(line);
	irqchip_acked(ic, chip, line);
}

static void i8259_inta(struct irqchip *ic, struct i8259 *s, unsigned int line)
{
	s->isr |= BIT(line);
	if (!(s->elcr & BIT(line)))
		s->irr &= ~BIT(line);
	if (!s->auto_eoi)
		return;
	if (s->rotate_auto_eoi)
		s->top = (line + 1) & 7;
	i8259_clear_isr(ic, s, line);
}

/* A request that went away before INTA: IR7, nothing in service. 8259A "Interrupt Request" */
static int i8259_take(struct irqchip *ic, struct i8259 *s)
{
	int line = i8259_request(&ic->pic, s);

	if (line < 0)
		return SPURIOUS_IR;
	i8259_inta(ic, s, (unsigned int)line);
	return line;
}

/* INT is up only while a line asks, so there is no spurious vector; -1 when it has gone down. */
static int pic_take(struct irqchip *ic)
{
	struct pic *p = &ic->pic;
	int line, vector;

	if (i8259_request(p, &p->chip[0]) < 0)
		return -1;
	line = i8259_take(ic, &p->chip[0]);
	vector = p->chip[0].base + line;
	if (line == CASCADE_IR)
		vector = p->chip[1].base + i8259_take(ic, &p->chip[1]);
	pic_update(ic);
	return vector;
}

int pic_ack(struct irqchip *ic)
{
	int vector;

	os_mutex_lock(&ic->lock);
	vector = pic_take(ic);
	os_mutex_unlock(&ic->lock);
	return vector;
}

/* 8259A "Non-specific EOI": the highest in service; with special mask mode, among the unmasked. */
static void i8259_eoi(struct irqchip *ic, struct i8259 *s, bool rotate)
{
	unsigned int rank = rank_of(s, s->special_mask ? s->isr & ~s->imr : s->isr);
	unsigned int line = line_of(s, rank);

	if (rank > 7)
		return;
	if (rotate)
		s->top = (line + 1) & 7;
	i8259_clear_isr(ic, s, line);
}

static void i8259_eoi_specific(struct irqchip *ic, struct i8259 *s, unsigned int line, bool rotate)
{
	if (rotate)
		s->top = (line + 1) & 7;
	i8259_clear_isr(ic, s, line);
}

/* ---- command words --------------------------------------------------------------------------- */

/* 8259A "Initialization Command Words" */
static void i8259_icw1(struct irqchip *ic, struct i8259 *s, u8 val)
{
	unsigned int chip = s == &ic->pic.chip[0] ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
	u8 dropped = (s->irr | s->isr) & ~s->elcr;

	s->last = 0;
	s->irr &= s->elcr;
	s->imr = 0;
	s->isr = 0;
	s->top = 0;
	s->special_mask = false;
	s->read_isr = false;
	s->poll = false;
	s->rotate_auto_eoi = false;
	s->icw4 = val & ICW1_IC4;
	s->single = val & ICW1_SINGLE;
	if (!s->icw4) {
		s->fully_nested = false;
		s->auto_eoi = false;
	}
	s->init_step = 1;
	/* Interrupts that were lost here will never see their EOI. */
	for (unsigned int line = 0; line < 8; line++)
		if (dropped & BIT(line))
			irqchip_acked(ic, chip, line);
}

static void i8259_ocw2(struct irqchip *ic, struct i8259 *s, u8 val)
{
	unsigned int line = val & 7;

	switch ((enum ocw2)(val >> 5)) {
	case OCW2_ROTATE_AUTO_OFF:
		s->rotate_auto_eoi = false;
		break;
	case OCW2_ROTATE_AUTO_ON:
		s->rotate_auto_eoi = true;
		break;
	case OCW2_EOI:
		i8259_eoi(ic, s, false);
		break;
	case OCW2_ROTATE_EOI:
		i8259_eoi(ic, s, true);
		break;
	case OCW2_EOI_SPECIFIC:
		i8259_eoi_specific(ic, s, line, false);
		break;
	case OCW2_ROTATE_EOI_SPECIFIC:
		i8259_eoi_specific(ic, s, line, true);
		break;
	case OCW2_SET_PRIORITY:
		s->top = (line + 1) & 7;
		break;
	case OCW2_NOP:
		break;
	}
}

static void i8259_ocw3(struct i8259 *s, u8 val)
{
	if (val & OCW3_ESMM)
		s->special_mask = val & OCW3_SMM;
	if (val & OCW3_POLL)
		s->poll = true;
	else if (val & OCW3_RR)
		s->read_isr = val & OCW3_RIS;
}

static void i8259_set_imr(struct irqchip *ic, struct i8259 *s, u8 val)
{
	unsigned int chip = s == &ic->pic.chip[0] ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
	u8 opened = s->imr & ~val;

	s->imr = val;
	for (unsigned int line = 0; line < 8; line++)
		if (opened & BIT(line))
			irqchip_unmasked(ic, chip, line);
}

static void i8259_write_data(struct irqchip *ic, struct i8259 *s, u8 val)
{
	switch (s->init_step) {
	case 0:
		i8259_set_imr(ic, s, val);
		break;
	case 1:
		s->base = val & 0xf8;
		s->init_step = !s->single ? 2 : s->icw4 ? 3 : 0;
		break;
	case 2:	/* ICW3: the cascade is wired as in every PC */
		s->init_step = s->icw4 ? 3 : 0;
		break;
	default:
		s->fully_nested = val & ICW4_SFNM;
		s->auto_eoi = val & ICW4_AEOI;
		s->init_step = 0;
	}
}

static void i8259_write(struct irqchip *ic, struct i8259 *s, bool a0, u8 val)
{
	if (a0)
		i8259_write_data(ic, s, val);
	else if (val & ICW1)
		i8259_icw1(ic, s, val);
	else if (val & OCW3)
		i8259_ocw3(s, val);
	else
		i8259_ocw2(ic, s, val);
	pic_update(ic);
}

/* 8259A "Poll Command": the read is the acknowledge. */
static u8 i8259_poll(struct irqchip *ic, struct i8259 *s)
{
	int line = i8259_request(&ic->pic, s);

	s->poll = false;
	if (line < 0)
		return SPURIOUS_IR;
	i8259_inta(ic, s, (unsigned int)line);
	pic_update(ic);
	return 0x80 | (u8)line;
}

static u8 i8259_read(struct irqchip *ic, struct i8259 *s, bool a0)
{
	if (s->poll)
		return i8259_poll(ic, s);
	if (a0)
		return s->imr;
	return s->read_isr ? s->isr : s->irr;
}

/* ---- ports ----------------------------------------------------------------------------------- */

/* The chip behind a port, or NULL. */
static struct i8259 *pic_chip(struct pic *p, u64 port)
{
	switch (port & ~1ULL) {
	case PIC_MASTER_PORT:
		return &p->chip[0];
	case PIC_SLAVE_PORT:
		return &p->chip[1];
	default:
		return NULL;
	}
}

/* Wider accesses reach an 8-bit device as one cycle a byte. */
static int pic_read(struct vcpu *v, struct io_device *d, u64 addr, unsigned int len, void *data)
{
	struct irqchip *ic = container_of(d, struct irqchip, pic.ports);
	u8 *out = data;

	os_mutex_lock(&ic->lock);
	for (unsigned int i = 0; i < len; i++) {
		struct i8259 *s = pic_chip(&ic->pic, addr + i);

		out[i] = s ? i8259_read(ic, s, (addr + i) & 1) : 0xff;
	}
	os_mutex_unlock(&ic->lock);
	return 0;
}

static int pic_write(
	struct vcpu *v, struct io_device *d, u64 addr, unsigned int len, const void *data)
{
	struct irqchip *ic = container_of(d, struct irqchip, pic.ports);
	const u8 *in = data;

	os_mutex_lock(&ic->lock);
	for (unsigned int i = 0; i < len; i++) {
		struct i8259 *s = pic_chip(&ic->pic, addr + i);

		if (s)
			i8259_write(ic, s, (addr + i) & 1, in[i]);
	}
	os_mutex_unlock(&ic->lock);
	return 0;
}

static int elcr_read(struct vcpu *v, struct io_device *d, u64 addr, unsigned int len, void *data)
{
	struct irqchip *ic = container_of(d, struct irqchip, pic.elcr);
	u8 *out = data;

	os_mutex_lock(&ic->lock);
	for (unsigned int i = 0; i < len; i++) {
		u64 n = addr + i - ELCR_PORT;

		out[i] = n < 2 ? ic->pic.chip[n].elcr : 0xff;
	}
	os_mutex_unlock(&ic->lock);
	return 0;
}

static int elcr_write(
	struct vcpu *v, struct io_device *d, u64 addr, unsigned int len, const void *data)
{
	struct irqchip *ic = container_of(d, struct irqchip, pic.elcr);
	const u8 *in = data;

	os_mutex_lock(&ic->lock);
	for (unsigned int i = 0; i < len; i++) {
		u64 n = addr + i - ELCR_PORT;

		if (n < 2)
			ic->pic.chip[n].elcr = in[i] & ic->pic.chip[n].elcr_mask;
	}
	os_mutex_unlock(&ic->lock);
	return 0;
}

static const struct io_device_ops pic_ops = { .read = pic_read, .write = pic_write };
static const struct io_device_ops elcr_ops = { .read = elcr_read, .write = elcr_write };

int pic_create(struct irqchip *ic)
{
	struct pic *p = &ic->pic;
	struct vm *vm = ic->vm;
	int err;

	p->ports.ops = &pic_ops;
	p->elcr.ops = &elcr_ops;
	p->chip[0].elcr_mask = 0xf8; /* 82371AB 4.2.5.1: IRQ 0, 1, 2, 8 and 13 are always edges */
	p->chip[1].elcr_mask = 0xde;
	err = bus_register(vm, BUS_PIO, PIC_MASTER_PORT, 2, &p->ports);
	if (!err)
		err = bus_register(vm, BUS_PIO, PIC_SLAVE_PORT, 2, &p->ports);
	if (!err)
		err = bus_register(vm, BUS_PIO, ELCR_PORT, 2, &p->elcr);
	return err;
}

/* ---- saved state ----------------------------------------------------------------------------- */

_Static_assert(sizeof(struct kvm_pic_state) == 16, "KVM's layout");

void pic_get(const struct irqchip *ic, unsigned int chip, struct kvm_pic_state *out)
{
	const struct i8259 *s = &ic->pic.chip[chip];

	*out = (struct kvm_pic_state) {
		.last_irr = s->last, .irr = s->irr, .imr = s->imr, .isr = s->isr,
		.priority_add = s->top, .irq_base = s->base, .read_reg_select = s->read_isr,
		.poll = s->poll, .special_mask = s->special_mask, .init_state = s->init_step,
		.auto_eoi = s->auto_eoi, .rotate_on_auto_eoi = s->rotate_auto_eoi,
		.special_fully_nested_mode = s->fully_nested, .init4 = s->icw4,
		.elcr = s->elcr, .elcr_mask = s->elcr_mask,
	};
}

void pic_set(struct irqchip *ic, unsigned int chip, const struct kvm_pic_state *in)
{
	struct i8259 *s = &ic->pic.chip[chip];

	*s = (struct i8259) {
		.last = in->last_irr, .irr = in->irr, .imr = in->imr, .isr = in->isr,
		.top = in->priority_add & 7, .base = in->irq_base, .read_isr = in->read_reg_select,
		.poll = in->poll, .special_mask = in->special_mask, .init_step = in->init_state & 3,
		.auto_eoi = in->auto_eoi, .rotate_auto_eoi = in->rotate_on_auto_eoi,
		.fully_nested = in->special_fully_nested_mode, .icw4 = in->init4,
		.elcr_mask = s->elcr_mask, .elcr = in->elcr & s->elcr_mask,
	};
	pic_update(ic);
	if (ic->pic.output)	/* it may have been up before, with nobody told */
		lapic_pic_raised(ic->vm);
}
