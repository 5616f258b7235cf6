/* --config FILE: see config.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/config.h"

#define CONFIG_MAX (1u << 20)

/* ---- reading --------------------------------------------------------------------------------- */

/* The whole file, NUL-terminated, into o->config_text. */
static int config_load(struct run_options *o, const char *file, struct error *err)
{
	FILE *f = fopen(file, "re");
	size_t n;

	if (!f)
		return error_usage(err, "--config %s: %s", file, strerror(errno));
	o->config_text = malloc(CONFIG_MAX + 1);
	n = o->config_text ? fread(o->config_text, 1, CONFIG_MAX + 1, f) : 0;
	if (!o->config_text)
		error_set(err, ENOMEM, "out of memory");
	else if (ferror(f))
		error_usage(err, "--config %s: cannot be read", file);
	else if (n > CONFIG_MAX || memchr(o->config_text, 0, n))
		error_usage(err, "--config %s: that is no text of at most 1M", file);
	else
		o->config_text[n] = '\0';
	fclose(f);
	return err->kind == ERROR_NONE ? 0 : -EINVAL;
}

static char *line_trim(char *line)
{
	size_t n;

	line += strspn(line, CONFIG_BLANKS);
	for (n = strlen(line); n && strchr(CONFIG_BLANKS, line[n - 1]); n--)
		line[n - 1] = '\0';
	return line;
}

static int error_at(struct error *err, const char *file, unsigned line)
{
	struct error was = *err;

	*err = (struct error)ERROR_INIT;
	return error_usage(err, "%s:%u: %s", file, line, was.text);
}

int config_read(struct run_options *o, const char *file,
	int (*take)(struct run_options *o, char *line, void *arg, struct error *err), void *arg,
	struct error *err)
{
	char *next, *line;
	int ret = config_load(o, file, err);

	if (ret < 0)
		return ret;
	next = o->config_text;
	for (unsigned n = 1; next; n++) {
		line = line_trim(strsep(&next, "\n"));
		if (!*line || *line == '#')
			continue;
		if (take(o, line, arg, err) < 0)
			return error_at(err, file, n);
	}
	return 0;
}

const char *config_value(const char *text)
{
	text += strspn(text, CONFIG_BLANKS);
	if (*text == '=')
		text += 1 + strspn(text + 1, CONFIG_BLANKS);
	return text;
}
