/* What follows in an option's value: "FIRST,key=value,flag". */
#ifndef QUMRA_CLI_SUBOPTIONS_H
#define QUMRA_CLI_SUBOPTIONS_H

#include "lib/error.h"
#include "lib/types.h"

enum suboption_kind {
	SUB_TEXT, SUB_FLAG, SUB_SWITCH, SUB_NUMBER, SUB_SIZE, SUB_CALL, SUB_CALL_MAYBE,
	SUB_INDEX,	/* a number that is kept as one more: 0 is "not given" */
};

struct suboption {
	const char *name;
	enum suboption_kind kind;
	size_t offset;		/* in the struct: const char *, bool (flag; switch: on or off) or u64 */
	const char *values;	/* SUB_TEXT: those that there are, such as "raw|qcow2"; NULL: any */
	/* SUB_CALL; SUB_CALL_MAYBE may come without a value, which is NULL then. */
	int (*call)(void *out, const char *value, struct error *err);
	u64 min, max;		/* SUB_NUMBER, SUB_INDEX, SUB_SIZE */
};

/*
 * Cuts off the text in front of the first comma, in place; *rest is what follows or NULL. A doubled
 * comma stands for one that is part of the text.
 */
char *suboption_cut(char *text, char **rest);
/* Takes rest (changed in place; may be NULL) into out. option is for messages: "--disk". */
int suboptions_parse(const char *option, char *rest, const struct suboption *table, size_t n,
		     void *out, struct error *err);

#endif
