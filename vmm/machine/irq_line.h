/* One wire into the interrupt controllers. It keeps its level; only changes are passed on. */
#ifndef QUMRA_VMM_MACHINE_IRQ_LINE_H
#define QUMRA_VMM_MACHINE_IRQ_LINE_H

#include "lib/types.h"

struct irq_line {
	void (*set)(void *arg, unsigned gsi, bool level);
	void *arg;
	unsigned gsi;
	bool level;
};

static inline void irq_line_set(struct irq_line *line, bool level)
{
	if (line->level == level)
		return;
	line->level = level;
	line->set(line->arg, line->gsi, level);
}

/* An edge: low, then high, then low. */
static inline void irq_line_pulse(struct irq_line *line)
{
	irq_line_set(line, true);
	irq_line_set(line, false);
}

#endif
