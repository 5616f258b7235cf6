/* 9P2000.L: names made, moved and taken away. Every call of the host's gets a folder's descriptor and one
 * name in it that p9_get_name() let through, and follows no link. See p9.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmm/share/p9.h"

#define MODE_BITS 01777		/* no set-user-ID, no set-group-ID */

/* A folder's fid and a name in it. */
static int get_place(struct p9 *s, struct p9_message *m, struct p9_fid **f, char name[P9_NAME_SIZE])
{
	int ret = p9_fid_use(s, p9_get32(m), f), bad = p9_get_name(m, name);

	return bad == -EINVAL ? bad : ret < 0 ? ret : bad;
}

/* What was just made: given to whom it was made for, and told of. */
static int made(struct p9 *s, int folder, const char *name, u32 uid, u32 gid, struct p9_answer *a)
{
	int path = p9_step(folder, name), ret;
	struct stat st;

	if (path < 0)
		return path;
	if (s->owns && fchownat(path, "", uid, gid, AT_EMPTY_PATH) < 0)
		ret = -errno;
	else
		ret = p9_stat(path, &st);
	if (ret == 0)
		p9_put_qid(s, a, &st);
	close(path);
	return ret;
}

/* A new file, or one that is there, which must be a plain one. *path: its O_PATH descriptor. */
static int create(int folder, const char *name, int flags, u32 mode, bool *fresh, int *path)
{
	int fd = openat(folder, name, (flags & ~O_TRUNC) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		mode & MODE_BITS);

	*fresh = fd >= 0;
	if (fd < 0 && (errno != EEXIST || flags & O_EXCL))
		return -errno;
	*path = p9_step(folder, name);
	if (*path < 0 && fd >= 0)
		close(fd);
	if (*path < 0)
		return *path;
	return fd >= 0 ? fd : p9_reopen(*path, flags);
}

int p9_lcreate(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	char name[P9_NAME_SIZE];
	struct p9_fid *f;
	struct stat st;
	int ret = get_place(s, m, &f, name), flags = p9_open_flags(p9_get32(m)), path = -1, fd;
	u32 mode = p9_get32(m), gid = p9_get32(m);
	bool fresh;

	if (m->bad || ret < 0)
		return m->bad ? -EINVAL : ret;
	if (f->open >= 0)
		return -EBADF;
	fd = create(f->path, name, flags & ~O_DIRECTORY, mode, &fresh, &path);
	if (fd >= 0 && fresh && s->owns && fchown(fd, f->uid, gid) < 0)
		ret = -errno;
	if (fd >= 0 && ret == 0)
		ret = p9_stat(path, &st);
	if (fd < 0 || ret < 0) {
		if (path >= 0)
			close(path);
		if (fd >= 0)
			close(fd);
		return fd < 0 ? fd : ret;
	}
	/* The fid is the file from here on. */
	close(f->path);
	f->path = path;
	f->open = fd;
	f->flags = flags & ~(O_EXCL | O_DIRECTORY);
	p9_put_qid(s, a, &st);
	p9_put32(a, 0);
	return 0;
}

int p9_mkdir(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	char name[P9_NAME_SIZE];
	struct p9_fid *f;
	int ret = get_place(s, m, &f, name);
	u32 mode = p9_get32(m), gid = p9_get32(m);

	if (m->bad || ret < 0)
		return m->bad ? -EINVAL : ret;
	if (mkdirat(f->path, name, mode & MODE_BITS) < 0)
		return -errno;
	return made(s, f->path, name, f->uid, gid, a);
}

/* Pipes, sockets and plain files: a device would be the host's. */
int p9_mknod(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	char name[P9_NAME_SIZE];
	struct p9_fid *f;
	int ret = get_place(s, m, &f, name);
	u32 mode = p9_get32(m), gid;

	p9_get64(m);	/* major, minor */
	gid = p9_get32(m);
	if (m->bad || ret < 0)
		return m->bad ? -EINVAL : ret;
	if (!S_ISREG(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode))
		return -EPERM;
	if (mknodat(f->path, name, (mode & S_IFMT) | (mode & MODE_BITS), 0) < 0)
		return -errno;
	return made(s, f->path, name, f->uid, gid, a);
}

/* What it says is for the guest to follow: we never do. */
int p9_symlink(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	char name[P9_NAME_SIZE], target[PATH_MAX];
	struct p9_fid *f;
	int ret = get_place(s, m, &f, name);
	u32 gid;

	p9_get_text(m, target, sizeof(target));
	gid = p9_get32(m);
	if (m->bad || ret < 0)
		return m->bad ? -EINVAL : ret;
	if (symlinkat(target, f->path, name) < 0)
		return -errno;
	return made(s, f->path, name, f->uid, gid, a);
}

int p9_readlink(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	char target[PATH_MAX];
	struct p9_fid *f;
	int ret = p9_fid_use(s, p9_get32(m), &f);
	ssize_t n;

	if (m->bad || ret < 0)
		return m->bad ? -EINVAL : ret;
	n = readlinkat(f->path, "", target, sizeof(target) - 1);
	if (n < 0)
		return errno == ENOENT ? -EINVAL : -errno;
	target[n] = 0;
	p9_put_text(a, target);
	return 0;
}

int p9_link(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	char name[P9_NAME_SIZE], proc[P9_PROC_SIZE];
	struct p9_fid *folder, *f;
	int ret = p9_fid_use(s, p9_get32(m), &folder), old = p9_fid_use(s, p9_get32(m), &f);
	int bad = p9_get_name(m, name);

	(void)a;
	if (bad < 0 || ret < 0 || old < 0)
		return bad < 0 ? bad : ret < 0 ? ret : old;
	/* Of the descriptor's file itself, whatever its name is by now; needs no privilege this way. */
	if (linkat(AT_FDCWD, p9_proc(f->path, proc), folder->path, name, AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	return 0;
}

int p9_renameat(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	char from[P9_NAME_SIZE], to[P9_NAME_SIZE];
	struct p9_fid *old, *new;
	int ret = get_place(s, m, &old, from), other = get_place(s, m, &new, to);

	(void)a;
	if (m->bad || ret < 0 || other < 0)
		return m->bad ? -EINVAL : ret < 0 ? ret : other;
	return renameat(old->path, from, new->path, to) < 0 ? -errno : 0;
}

int p9_unlinkat(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	char name[P9_NAME_SIZE];
	struct p9_fid *f;
	int ret = get_place(s, m, &f, name);
	u32 flags = p9_get32(m);

	(void)a;
	if (m->bad || ret < 0)
		return m->bad ? -EINVAL : ret;
	return unlinkat(f->path, name, flags & AT_REMOVEDIR) < 0 ? -errno : 0;
}
