/* --memory SIZE[,hugepages[=2M|1G]][,share=on][,file=PATH][,prealloc=on]: see machine.h. */
#include <errno.h>
#include <string.h>

#include "cli/devices.h"
#include "cli/machine.h"
#include "cli/suboptions.h"
#include "lib/size.h"
#include "vmm/memory/guest_memory.h"

static int memory_huge(void *out, const char *value, struct error *err)
{
	struct memory_backing *b = out;

	if (!value || strcmp(value, "2M") == 0)
		b->huge = 2ULL << 20;
	else if (strcmp(value, "1G") == 0)
		b->huge = 1ULL << 30;
	else
		return error_usage(err, "--memory: hugepages: \"%s\" is none of 2M, 1G", value);
	return 0;
}

static const struct suboption memory_suboptions[] = {
	{ "hugepages", SUB_CALL_MAYBE, 0, NULL, memory_huge, 0, 0 },
	{ "share", SUB_SWITCH, offsetof(struct memory_backing, share), NULL, NULL, 0, 0 },
	{ "file", SUB_TEXT, offsetof(struct memory_backing, file), NULL, NULL, 0, 0 },
	{ "prealloc", SUB_SWITCH, offsetof(struct memory_backing, prealloc), NULL, NULL, 0, 0 },
};

int memory_parse(struct run_options *o, const char *value, struct error *err)
{
	char *text = run_options_keep(o, value, err), *rest;
	int ret;

	if (!text)
		return -EINVAL;
	suboption_cut(text, &rest);
	if (size_parse(text, &o->memory) < 0)
		return error_usage(err, "--memory: \"%s\" is not a size; write it like 512M or 2G", text);
	ret = guest_memory_check(o->memory, err);
	if (ret == 0)
		ret = suboptions_parse("--memory", rest, memory_suboptions,
			ARRAY_SIZE(memory_suboptions), &o->backing, err);
	return ret < 0 ? ret : memory_backing_check(&o->backing, o->memory, err);
}
