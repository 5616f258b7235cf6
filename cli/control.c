/* A client of the control socket (QMP): see control.h. */
#include "cli/control.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/help.h"
#include "cli/run.h"

/* ---- the connection -------------------------------------------------------------------------- */

static FILE *server_open(const char *path, struct error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	FILE *f;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		error_usage(err, "a socket's path has at most %zu bytes", sizeof(addr.sun_path) - 1);
		close(fd);
		return NULL;
	}
	strcpy(addr.sun_path, path);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 && (f = fdopen(fd, "r")))
		return f;
	error_set(err, errno, "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return NULL;
}

static int server_say(FILE *server, json_t *command, struct error *err)
{
	char *text = json_dumps(command, JSON_COMPACT);
	int ret = text && dprintf(fileno(server), "%s\n", text) > 0 ? 0 :
		error_set(err, EPIPE, "the machine has ended");

	free(text);
	return ret;
}

/* The next object that has one of the keys; events are passed over. */
static json_t *server_hear(FILE *server, const char *key, const char *other, struct error *err)
{
	json_error_t why;
	json_t *object;

	while ((object = json_loadf(server, JSON_DISABLE_EOF_CHECK, &why))) {
		if (json_object_get(object, key) || json_object_get(object, other))
			return object;
		json_decref(object);
	}
	error_set(err, EPROTO, feof(server) ? "the machine has ended" : "that is no control socket");
	return NULL;
}

/* What "return" is, a new reference. Takes the command's. */
static json_t *server_do(FILE *server, json_t *command, struct error *err)
{
	json_t *reply = NULL, *value = NULL, *text;

	if (!command)
		error_set(err, ENOMEM, "out of memory");
	else if (server_say(server, command, err) == 0)
		reply = server_hear(server, "return", "error", err);
	json_decref(command);
	text = json_object_get(json_object_get(reply, "error"), "desc");
	if (text)
		error_set(err, EINVAL, "%s", json_string_value(text));
	else if (reply)
		value = json_incref(json_object_get(reply, "return"));
	json_decref(reply);
	return value;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* NAME=VALUE...; what is JSON is taken as such, all else is text. */
static json_t *arguments_make(int argc, char *const argv[], struct error *err)
{
	json_t *all = json_object();

	for (int i = 0; i < argc; i++) {
		const char *equals = strchr(argv[i], '=');
		json_t *value;

		if (!equals || equals == argv[i]) {
			error_usage(err, "control: \"%s\" is no NAME=VALUE", argv[i]);
			json_decref(all);
			return NULL;
		}
		value = json_loads(equals + 1, JSON_DECODE_ANY, NULL);
		json_object_setn_new(all, argv[i], equals - argv[i],
			value ? value : json_string(equals + 1));
	}
	return all;
}

static void value_print(const json_t *value)
{
	if (json_is_object(value) && !json_object_size(value))
		return;
	json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
	putchar('\n');
}

static json_t *converse(FILE *server, const char *name, json_t *arguments, struct error *err)
{
	json_t *greeting = server_hear(server, "QMP", "QMP", err), *value = NULL;

	if (greeting)
		value = server_do(server, json_pack("{s:s}", "execute", "qmp_capabilities"), err);
	json_decref(greeting);
	if (!value)
		return NULL;
	json_decref(value);
	return server_do(server, json_pack("{s:s, s:O}", "execute", name, "arguments", arguments), err);
}

int control_command(int argc, char *const argv[], struct error *err)
{
	json_t *arguments, *value = NULL;
	FILE *server;

	if (argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
		help_control(stdout);
		return STATUS_OK;
	}
	if (argc < 2) {
		error_usage(err, "control needs a socket and a command; see qumra help control");
		return STATUS_USAGE;
	}
	arguments = arguments_make(argc - 2, argv + 2, err);
	if (!arguments)
		return STATUS_USAGE;
	server = server_open(argv[0], err);
	if (server) {
		value = converse(server, argv[1], arguments, err);
		fclose(server);
	}
	json_decref(arguments);
	if (!value)
		return STATUS_FAILURE;
	value_print(value);
	json_decref(value);
	return STATUS_OK;
}
