/* --config FILE and --dry-run: see config.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/config.h"
#include "cli/machine.h"

#define CONFIG_MAX (1u << 20)
#define BLANKS " \t\r"

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

	line += strspn(line, BLANKS);
	for (n = strlen(line); n && strchr(BLANKS, line[n - 1]); n--)
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
	text += strspn(text, BLANKS);
	if (*text == '=')
		text += 1 + strspn(text + 1, BLANKS);
	return text;
}

/* ---- printing -------------------------------------------------------------------------------- */

static void print_line(const char *name, const char *value)
{
	if (!value)
		printf("%s\n", name);
	else
		printf("%s%s%s\n", name, *value ? " " : "=", value);
}

#define DEFAULT_MAX 32

/* What is so without being said. NULL: nothing. */
static const char *default_of(const struct run_options *o, const char *name,
	char buf[DEFAULT_MAX])
{
	if (strcmp(name, "memory") == 0) {
		snprintf(buf, DEFAULT_MAX, "%lluM", (unsigned long long)o->memory >> 20);
		return buf;
	}
	if (strcmp(name, "cpus") == 0) {
		snprintf(buf, DEFAULT_MAX, "%u", topology_cpus(&o->cpus));
		return buf;
	}
	if (strcmp(name, "machine") == 0)
		return machine_name(o->machine.kind);
	if (strcmp(name, "serial") == 0)
		return o->serial;
	if (strcmp(name, "virtio") == 0)
		return o->virtio.mmio ? "mmio" : "pci";
	return NULL;
}

static bool print_given(const struct run_options *o, unsigned option, const char *name)
{
	bool any = false;

	for (unsigned i = 0; i < o->givens; i++) {
		if (o->given[i].option != option)
			continue;
		print_line(name, o->given[i].value);
		any = true;
	}
	return any;
}

void config_print(const struct run_options *o, const struct accel_choice *choice)
{
	char buf[DEFAULT_MAX];
	const char *name, *value;

	printf("# runs on: %s (%s: %s)\n", choice->backend->name,
		accel_reason_name(choice->reason), choice->detail);
	for (unsigned i = 0; (name = run_option_name(i)); i++) {
		if (strcmp(name, "dry-run") == 0 || print_given(o, i, name))
			continue;
		value = default_of(o, name, buf);
		if (value)
			print_line(name, value);
	}
}
