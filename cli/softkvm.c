/* The softkvm command: puts libsoftkvm.so into a program and starts it. Only main ends the
 * process. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/options.h"
#include "cli/program.h"
#include "lib/size.h"

enum { STATUS_USAGE = 2, STATUS_FAILED = 125 };

static const char help[] =
	"Usage: softkvm [OPTION...] PROGRAM [ARGUMENT...]\n"
	"       softkvm --check\n"
	"\n"
	"Runs a program that uses KVM, unmodified, on Qumra's hypervisor: whatever it does with\n"
	"/dev/kvm is served by a library inside the program, in software. Neither hardware\n"
	"virtualization nor /dev/kvm nor any privilege is needed. Programs that it starts have the\n"
	"same.\n"
	"\n"
	"Options (--option VALUE or --option=VALUE), before PROGRAM:\n"
	"  --check            say what this host offers for virtual machines, and stop\n"
	"  --stats            print figures to standard error when the program ends\n"
	"  --engine NAME      CPU engine: dbt, the translator (default), or interp, the interpreter\n"
	"  --code-cache SIZE  translated code kept for each CPU, 1M to 1G (default: 40M)\n"
	"  --trace KINDS      lines on standard error, of one or several of these kinds, joined by\n"
	"                     commas: exits (how each KVM_RUN ended), ioctls, irq (interrupts that\n"
	"                     the program raises), memory (slots), fds (descriptors), all\n"
	"  --trace-file FILE  append these lines to a file instead\n"
	"  --help, --version\n"
	"\n"
	"Exit status: the program's; 2: wrong usage; 125: softkvm itself failed; 126: the program\n"
	"cannot be run this way (statically linked, setuid, not for 64-bit x86 and the GNU C\n"
	"library); 127: there is no such program.\n"
	"\n"
	"Examples:\n"
	"  A kernel under QEMU, which believes to be on hardware:\n"
	"    softkvm qemu-system-x86_64 -accel kvm -kernel vmlinuz -append console=ttyS0 -nographic\n"
	"  The same, and what its devices cost:\n"
	"    softkvm --stats --trace=exits --trace-file exits.log qemu-system-x86_64 -accel kvm ...\n"
	"  A tool that runs QEMU itself:\n"
	"    LIBGUESTFS_BACKEND=direct softkvm guestfish -a disk.img\n";

/* ---- options --------------------------------------------------------------------------------- */

struct softkvm {
	bool check, help, version;
	int at;		/* of the program in argv */
};

static int set_engine(const char *value, struct error *err)
{
	if (accel_set_engine(value))
		return error_usage(err, "--engine: \"%s\" is unknown; there are dbt and interp", value);
	return 0;
}

static int set_code_cache(const char *value, struct error *err)
{
	u64 size;

	if (size_parse(value, &size) || size < 1 << 20 || size > 1 << 30 ||
		accel_set_code_cache(size))
		return error_usage(err, "--code-cache: \"%s\" is not a size from 1M to 1G", value);
	return 0;
}

static bool is_kind(const char *word, size_t n)
{
	static const char *const kinds[] = { "exits", "ioctls", "irq", "memory", "fds", "all" };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strlen(kinds[i]) == n && !memcmp(kinds[i], word, n))
			return true;
	return false;
}

static int set_trace(const char *value, struct error *err)
{
	for (const char *p = value;; p++) {
		size_t n = strcspn(p, ",");

		if (!is_kind(p, n))
			return error_usage(err, "--trace: \"%.*s\" is none of exits, ioctls, irq, "
				"memory, fds, all", (int)n, p);
		p += n;
		if (!*p)
			return setenv("SOFTKVM_TRACE", value, 1);
	}
}

static int set_trace_file(const char *value, struct error *err)
{
	FILE *f = fopen(value, "a");

	if (!f)
		return error_usage(err, "--trace-file: %s: %s", value, strerror(errno));
	fclose(f);
	return setenv("SOFTKVM_TRACE_FILE", value, 1);
}

static int set_stats(const char *value, struct error *err)
{
	return setenv("SOFTKVM_STATS", "1", 1);
}

static const struct option {
	const char *name;
	bool value;
	int (*set)(const char *value, struct error *err);
	size_t flag;	/* without set: in struct softkvm */
} options[] = {
	{ "check", false, NULL, offsetof(struct softkvm, check) },
	{ "help", false, NULL, offsetof(struct softkvm, help) },
	{ "version", false, NULL, offsetof(struct softkvm, version) },
	{ "stats", false, set_stats, 0 },
	{ "engine", true, set_engine, 0 },
	{ "code-cache", true, set_code_cache, 0 },
	{ "trace", true, set_trace, 0 },
	{ "trace-file", true, set_trace_file, 0 },
};

static const struct option *option_find(const char *name, size_t n)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (strlen(options[i].name) == n && !memcmp(options[i].name, name, n))
			return &options[i];
	return NULL;
}

static int option_unknown(const char *arg, struct error *err)
{
	const char *names[ARRAY_SIZE(options)], *best;

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		names[i] = options[i].name;
	best = nearest_name(arg + strspn(arg, "-"), names, ARRAY_SIZE(names));
	if (best)
		return error_usage(err, "unknown option %s; did you mean --%s?", arg, best);
	return error_usage(err, "unknown option %s; see softkvm --help", arg);
}

static int option_take(struct softkvm *s, int argc, char *argv[], struct error *err)
{
	const char *arg = argv[s->at++], *value = strchr(arg, '=');
	const struct option *o;

	if (!strcmp(arg, "-h"))
		arg = "--help";
	o = option_find(arg + 2, value ? (size_t)(value - arg - 2) : strlen(arg + 2));
	if (strncmp(arg, "--", 2) || !o)
		return option_unknown(arg, err);
	if (!o->value && value)
		return error_usage(err, "--%s takes no value", o->name);
	if (o->value && !value && s->at == argc)
		return error_usage(err, "--%s needs a value", o->name);
	if (!o->set) {
		*(bool *)((char *)s + o->flag) = true;
		return 0;
	}
	return o->set(o->value ? value ? value + 1 : argv[s->at++] : NULL, err);
}

/* Up to the program's name; what follows is the program's. */
static int options_take(struct softkvm *s, int argc, char *argv[], struct error *err)
{
	int ret = 0;

	for (s->at = 1; !ret && s->at < argc && argv[s->at][0] == '-';) {
		if (!strcmp(argv[s->at], "--")) {
			s->at++;
			break;
		}
		ret = option_take(s, argc, argv, err);
	}
	return ret;
}

/* ---- --check --------------------------------------------------------------------------------- */

static int check(struct error *err)
{
	struct accel_choice choice;
	int ret = accel_choose(ACCEL_AUTO, &choice, err);

	if (ret)
		return STATUS_FAILED;
	printf("hardware /dev/kvm: %s (%s: %s)\n",
		choice.reason == ACCEL_REASON_OK ? "yes" : "no", accel_reason_name(choice.reason),
		choice.detail);
	printf("page-table-based /dev/kvm: %s\n", choice.reason == ACCEL_REASON_NO_VMX_SVM
		? "yes, but it emulates kernels an instruction at a time" : "no");
	printf("softkvm: yes, in software\n");
	printf("best here: %s\n", choice.reason == ACCEL_REASON_OK
		? "/dev/kvm, without softkvm" : "softkvm");
	return 0;
}

/* ---- the start ------------------------------------------------------------------------------- */

static bool library_at(char path[PATH_MAX], const char *dir, size_t n, const char *rest)
{
	return snprintf(path, PATH_MAX, "%.*s%s/libsoftkvm.so", (int)n, dir, rest) < PATH_MAX &&
	       !access(path, R_OK);
}

/* Beside this program, as it was built, or where it was installed. */
static int library_find(char path[PATH_MAX], struct error *err)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	while (n > 0 && self[n - 1] != '/')
		n--;
	if (n > 0 && library_at(path, self, (size_t)n - 1, ""))
		return 0;
	if (library_at(path, SOFTKVM_LIBDIR, strlen(SOFTKVM_LIBDIR), ""))
		return 0;
	return error_set(err, ENOENT, "libsoftkvm.so is neither beside softkvm nor in %s",
		SOFTKVM_LIBDIR);
}

/* Before others: their interposers then stand between us and the C library. ld.so(8) */
static int preload(const char *library, struct error *err)
{
	const char *others = getenv("LD_PRELOAD");
	char *all;
	int ret;

	if (strpbrk(library, " :"))
		return error_set(err, EINVAL, "%s: the dynamic linker takes no library whose name has "
			"a space or a colon", library);
	if (asprintf(&all, "%s%s%s", library, others && *others ? ":" : "",
		others ? others : "") < 0)
		return error_set(err, ENOMEM, "out of memory");
	ret = setenv("LD_PRELOAD", all, 1);
	free(all);
	return ret;
}

static int start(char *argv[], struct error *err)
{
	char program[PATH_MAX], library[PATH_MAX];
	int status = program_find(argv[0], program, err);

	if (status)
		return status;
	if (library_find(library, err) || preload(library, err))
		return STATUS_FAILED;
	execv(program, argv);
	error_set(err, errno, "%s: %s", program, strerror(errno));
	return PROGRAM_UNFIT;
}

static int softkvm(int argc, char *argv[], struct error *err)
{
	struct softkvm s = { 0 };

	if (options_take(&s, argc, argv, err))
		return STATUS_USAGE;
	if (s.help || s.version) {
		fputs(s.help ? help : "softkvm " QUMRA_VERSION "\n", stdout);
		return 0;
	}
	if (s.check)
		return check(err);
	if (s.at < argc)
		return start(argv + s.at, err);
	error_usage(err, "which program? See softkvm --help");
	return STATUS_USAGE;
}

int main(int argc, char *argv[])
{
	struct error err = ERROR_INIT;
	int status = softkvm(argc, argv, &err);

	if (err.kind != ERROR_NONE)
		fprintf(stderr, "softkvm: %s\n", err.text);
	return status;
}
