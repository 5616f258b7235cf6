/*
 * A look at a program before softkvm starts it: LD_PRELOAD is silently ignored in statically linked
 * and in privileged programs, and then they would find no /dev/kvm, or the wrong one. ld.so(8)
 * "Secure-execution mode", elf(5), execve(2) "Interpreter scripts".
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cli/program.h"

#define HEAD_SIZE	4096
#define SCRIPTS_MAX	4	/* interpreters of interpreters, as execve(2) follows */
#define LINKER		"/ld-linux-x86-64.so.2"

/* ---- its name -------------------------------------------------------------------------------- */

static bool is_program(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, X_OK);
}

static bool search(const char *name, char path[PATH_MAX])
{
	const char *dirs = getenv("PATH");

	if (!dirs)
		dirs = "/usr/local/bin:/usr/bin:/bin";
	for (;; dirs++) {
		size_t n = strcspn(dirs, ":");

		if (snprintf(path, PATH_MAX, "%.*s%s%s", (int)n, dirs, n ? "/" : "./", name) <
				PATH_MAX && is_program(path))
			return true;
		dirs += n;
		if (!*dirs)
			return false;
	}
}

/* ---- what it is ------------------------------------------------------------------------------ */

static int unfit(struct error *err, const char *path, const char *why)
{
	error_set(err, ENOEXEC, "%s %s", path, why);
	return PROGRAM_UNFIT;
}

/* The kernel will set AT_SECURE, or would if we were not who it makes of us. */
static bool is_privileged(const char *path, const struct stat *st)
{
	return (st->st_mode & S_ISUID && st->st_uid != getuid()) ||
	       (st->st_mode & S_ISGID && st->st_gid != getgid()) ||
	       (getuid() && getxattr(path, "security.capability", NULL, 0) > 0);
}

static int check_linker(const char *path, const char *linker, struct error *err)
{
	size_t n = strlen(linker), want = strlen(LINKER);

	if (n >= want && !strcmp(linker + n - want, LINKER))
		return PROGRAM_OK;
	error_set(err, ENOEXEC, "%s is linked with another C library (by %s): "
		"softkvm needs a program built for the GNU C library", path, linker);
	return PROGRAM_UNFIT;
}

static int check_segments(const char *path, int fd, const Elf64_Ehdr *h, struct error *err)
{
	for (int i = 0; i < h->e_phnum; i++) {
		char linker[PATH_MAX] = "";
		Elf64_Phdr p;

		if (pread(fd, &p, sizeof(p), (off_t)(h->e_phoff + i * sizeof(p))) != sizeof(p))
			return unfit(err, path, "is a damaged ELF file");
		if (p.p_type != PT_INTERP)
			continue;
		if (pread(fd, linker, MIN(p.p_filesz, sizeof(linker) - 1), (off_t)p.p_offset) < 0)
			return unfit(err, path, "is a damaged ELF file");
		return check_linker(path, linker, err);
	}
	return unfit(err, path, "is statically linked, so no library can be put into it: "
		"use a dynamically linked build of it");
}

static int check_elf(const char *path, int fd, const Elf64_Ehdr *h, struct error *err)
{
	if (h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_machine != EM_X86_64 ||
		h->e_phentsize != sizeof(Elf64_Phdr))
		return unfit(err, path, "is no 64-bit x86 program: use one that is");
	return check_segments(path, fd, h, err);
}

static int check_file(const char *path, int depth, struct error *err);

static int check_script(const char *path, char *line, int depth, struct error *err)
{
	char *end;

	line += strspn(line, " \t");
	end = line + strcspn(line, " \t\n");
	*end = 0;
	if (!depth || !*line)
		return unfit(err, path, "is a script without an interpreter that can be found");
	return check_file(line, depth - 1, err);
}

static int check_content(const char *path, int fd, int depth, struct error *err)
{
	union {
		Elf64_Ehdr elf;
		char text[HEAD_SIZE + 1];
	} head = { .text = "" };
	ssize_t n = pread(fd, head.text, HEAD_SIZE, 0);

	if (n >= (ssize_t)sizeof(head.elf) && !memcmp(head.text, ELFMAG, SELFMAG))
		return check_elf(path, fd, &head.elf, err);
	if (n > 2 && !memcmp(head.text, "#!", 2))
		return check_script(path, head.text + 2, depth, err);
	return unfit(err, path, "is neither a program nor a script that names its interpreter");
}

static int check_file(const char *path, int depth, struct error *err)
{
	struct stat st;
	int fd, ret;

	if (stat(path, &st) || !S_ISREG(st.st_mode) || access(path, X_OK))
		return unfit(err, path, errno == ENOENT ? "is not there" : "cannot be executed");
	if (is_privileged(path, &st))
		return unfit(err, path, "is privileged (setuid, setgid or file capabilities), so no "
			"library can be put into it: use a copy without these, "
			"which softkvm does not need");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	/* May be executed but not read: try. */
	if (fd < 0)
		return PROGRAM_OK;
	ret = check_content(path, fd, depth, err);
	close(fd);
	return ret;
}

int program_find(const char *name, char path[PATH_MAX], struct error *err)
{
	bool plain = !strchr(name, '/');

	if (plain && !search(name, path)) {
		error_set(err, ENOENT, "there is no program %s: is it installed, and in PATH?", name);
		return PROGRAM_MISSING;
	}
	if (!plain && snprintf(path, PATH_MAX, "%s", name) >= PATH_MAX)
		return unfit(err, "the program", "has too long a name");
	if (access(path, F_OK)) {
		error_set(err, errno, "%s: %s", path, strerror(errno));
		return PROGRAM_MISSING;
	}
	return check_file(path, SCRIPTS_MAX, err);
}
