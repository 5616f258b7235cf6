/* Parsing of what follows in an option's value: see suboptions.h. */
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/suboptions.h"
#include "lib/size.h"

#define SUBOPTIONS_MAX 32

char *suboption_cut(char *text, char **rest)
{
	char *to = text;

	for (char *from = text;; from++) {
		if (from[0] == ',' && from[1] == ',')
			from++;
		else if (*from == ',' || !*from) {
			*rest = *from ? from + 1 : NULL;
			*to = 0;
			return text;
		}
		*to++ = *from;
	}
}

static int unknown(const char *option, const char *name, const struct suboption *table, size_t n,
		   struct error *err)
{
	const char *names[SUBOPTIONS_MAX], *best;
	char list[400] = "";

	for (size_t i = 0; i < n && i < SUBOPTIONS_MAX; i++) {
		names[i] = table[i].name;
		strncat(list, i ? ", " : "", sizeof(list) - strlen(list) - 1);
		strncat(list, table[i].name, sizeof(list) - strlen(list) - 1);
	}
	best = nearest_name(name, names, MIN(n, SUBOPTIONS_MAX));
	if (best)
		return error_usage(err, "%s: \"%s\" is unknown; did you mean %s?", option, name, best);
	return error_usage(err, "%s: \"%s\" is unknown; there are %s", option, name, list);
}

static bool is_one_of(const char *values, const char *value)
{
	size_t len = strlen(value);

	for (const char *p = values;; p++) {
		size_t n = strcspn(p, "|");

		if (n == len && memcmp(p, value, n) == 0)
			return true;
		p += n;
		if (!*p)
			return false;
	}
}

static bool out_of_range(const struct suboption *s, u64 value)
{
	return value < s->min || value > s->max;
}

static int take(const char *option, const struct suboption *s, const char *value, void *out,
		struct error *err)
{
	void *field = (char *)out + s->offset;
	char *end;

	switch (s->kind) {
	case SUB_FLAG:
		*(bool *)field = true;
		return 0;
	case SUB_SWITCH:
		*(bool *)field = strcmp(value, "on") == 0;
		if (*(bool *)field || strcmp(value, "off") == 0)
			return 0;
		return error_usage(err, "%s: %s: \"%s\" is neither on nor off", option, s->name, value);
	case SUB_TEXT:
		if (!*value)
			return error_usage(err, "%s: %s: the value is empty", option, s->name);
		if (s->values && !is_one_of(s->values, value))
			return error_usage(err, "%s: %s: \"%s\" is none of %s", option, s->name, value,
				s->values);
		*(const char **)field = value;
		return 0;
	case SUB_NUMBER:
	case SUB_INDEX:
		*(u64 *)field = strtoull(value, &end, 10);
		if (*value < '0' || *value > '9' || *end || out_of_range(s, *(u64 *)field))
			return error_usage(err, "%s: %s: \"%s\" is not a number from %llu to %llu", option,
				s->name, value, (unsigned long long)s->min, (unsigned long long)s->max);
		*(u64 *)field += s->kind == SUB_INDEX;
		return 0;
	case SUB_SIZE:
		if (size_parse(value, field) < 0 || out_of_range(s, *(u64 *)field))
			return error_usage(err, "%s: %s: \"%s\" is not a size such as 512K or 20M", option,
				s->name, value);
		return 0;
	case SUB_CALL:
	case SUB_CALL_MAYBE:
		return s->call(out, value, err);
	}
	return 0;
}

static int take_word(const char *option, char *word, const struct suboption *table, size_t n,
		     void *out, struct error *err)
{
	char *value = strchr(word, '=');

	if (value)
		*value++ = 0;
	for (size_t i = 0; i < n; i++) {
		if (strcmp(table[i].name, word) != 0)
			continue;
		if (table[i].kind == SUB_FLAG && value)
			return error_usage(err, "%s: %s takes no value", option, word);
		if (table[i].kind != SUB_FLAG && table[i].kind != SUB_CALL_MAYBE && !value)
			return error_usage(err, "%s: %s needs a value: %s=...", option, word, word);
		return take(option, &table[i], value, out, err);
	}
	return unknown(option, word, table, n, err);
}

int suboptions_parse(const char *option, char *rest, const struct suboption *table, size_t n,
		     void *out, struct error *err)
{
	int ret = 0;

	while (rest && ret == 0)
		ret = take_word(option, suboption_cut(rest, &rest), table, n, out, err);
	return ret;
}
