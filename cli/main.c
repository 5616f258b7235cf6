/* The qumra command: picks the subcommand, prints errors, exits. Only main exits. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/control.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/run.h"
#include "lib/clock.h"
#include "lib/log.h"

static int command_help(int argc, char *const argv[], struct error *err)
{
	if (argc > 0 && strcmp(argv[0], "run") == 0) {
		help_run(stdout);
	} else if (argc > 0 && strcmp(argv[0], "control") == 0) {
		help_control(stdout);
	} else if (argc > 0) {
		error_usage(err, "there is no command \"%s\"", argv[0]);
		return STATUS_USAGE;
	} else {
		help_main(stdout);
	}
	return STATUS_OK;
}

static int command_unknown(const char *name, struct error *err)
{
	static const char *const names[] = { "run", "control", "help", "version" };
	const char *best = nearest_name(name, names, ARRAY_SIZE(names));

	if (best)
		error_usage(err, "unknown command \"%s\"; did you mean %s?", name, best);
	else
		error_usage(err, "unknown command \"%s\"; see qumra --help", name);
	return STATUS_USAGE;
}

static bool is_one_of(const char *arg, const char *a, const char *b, const char *c)
{
	return strcmp(arg, a) == 0 || strcmp(arg, b) == 0 || strcmp(arg, c) == 0;
}

static int command(
	int argc, char *const argv[], unsigned long long start_ns, int *sig, struct error *err)
{
	if (argc < 2) {
		error_usage(err, "what shall I do? See qumra --help");
		return STATUS_USAGE;
	}
	if (strcmp(argv[1], "run") == 0)
		return run_command(argc - 2, argv + 2, start_ns, sig, err);
	if (strcmp(argv[1], "control") == 0)
		return control_command(argc - 2, argv + 2, err);
	if (is_one_of(argv[1], "help", "--help", "-h"))
		return command_help(argc - 2, argv + 2, err);
	if (is_one_of(argv[1], "version", "--version", "-V")) {
		printf("qumra %s\n", QUMRA_VERSION);
		return STATUS_OK;
	}
	return command_unknown(argv[1], err);
}

/* Ends the way the signal would have ended us, so that the shell sees it. */
static void die_by(int sig)
{
	sigset_t set;

	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	raise(sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int main(int argc, char *argv[])
{
	unsigned long long start_ns = clock_monotonic_ns();
	struct error err = ERROR_INIT;
	int sig = 0, status;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);	/* an image that may not grow is EFBIG */
	status = command(argc, argv, start_ns, &sig, &err);
	if (err.kind != ERROR_NONE)
		log_line("%s", err.text);
	if (fflush(stdout) != 0 && status == STATUS_OK)
		status = STATUS_FAILURE;
	if (sig)
		die_by(sig);
	return status;
}
