/* 9P2000.L: what is done with a file or folder that a fid stands for. See p9.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/share/p9.h"

#define READ_HEAD	(P9_HEAD + 4)
#define FS_MAGIC	0x01021997	/* V9FS_MAGIC: what statfs calls it */

/* ---- attributes ------------------------------------------------------------------------------ */

#define GETATTR_BASIC	0x7FF

enum {	/* Tsetattr's mask */
	SET_MODE = 0x01, SET_UID = 0x02, SET_GID = 0x04, SET_SIZE = 0x08, SET_ATIME = 0x10,
	SET_MTIME = 0x20, SET_CTIME = 0x40, SET_ATIME_TO = 0x80, SET_MTIME_TO = 0x100,
};

static void put_time(struct p9_answer *a, const struct timespec *t)
{
	p9_put64(a, t->tv_sec);
	p9_put64(a, t->tv_nsec);
}

int p9_getattr(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	struct p9_fid *f;
	struct stat st;
	int ret = p9_fid_use(s, p9_get32(m), &f);

	p9_get64(m);	/* what is wanted: we tell what we have */
	if (m->bad)
		return -EINVAL;
	if (ret == 0)
		ret = p9_stat(f->path, &st);
	if (ret < 0)
		return ret;
	p9_put64(a, GETATTR_BASIC);
	p9_put_qid(s, a, &st);
	p9_put32(a, st.st_mode);
	p9_put32(a, st.st_uid);
	p9_put32(a, st.st_gid);
	p9_put64(a, st.st_nlink);
	p9_put64(a, st.st_rdev);
	p9_put64(a, st.st_size);
	p9_put64(a, st.st_blksize);
	p9_put64(a, st.st_blocks);
	put_time(a, &st.st_atim);
	put_time(a, &st.st_mtim);
	put_time(a, &st.st_ctim);
	for (int i = 0; i < 4; i++)	/* birth, generation, version: not told */
		p9_put64(a, 0);
	return 0;
}

struct attributes {
	u32 mask, mode, uid, gid;
	u64 size;
	struct timespec times[2];
};

static struct timespec set_time(const struct attributes *t, int i, u32 now, u32 given)
{
	if (!(t->mask & now))
		return (struct timespec){ .tv_nsec = UTIME_OMIT };
	if (!(t->mask & given))
		return (struct timespec){ .tv_nsec = UTIME_NOW };
	return t->times[i];
}

static int set_size(const struct p9_fid *f, u64 size)
{
	int fd = f->open >= 0 && (f->flags & O_ACCMODE) != O_RDONLY ? f->open :
		p9_reopen(f->path, O_WRONLY), ret = 0;

	if (fd < 0)
		return fd;
	if (size > INT64_MAX || ftruncate(fd, size) < 0)
		ret = size > INT64_MAX ? -EFBIG : -errno;
	if (fd != f->open)
		close(fd);
	return ret;
}

static int set_times(const struct p9_fid *f, const struct attributes *t)
{
	const struct timespec ts[2] = {
		set_time(t, 0, SET_ATIME, SET_ATIME_TO), set_time(t, 1, SET_MTIME, SET_MTIME_TO) };
	char proc[P9_PROC_SIZE];
	struct stat st;
	int ret = p9_stat(f->path, &st);

	/* A link has times of its own, and /proc would lead through it. */
	if (ret == 0 && S_ISLNK(st.st_mode))
		ret = utimensat(f->path, "", ts, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
	else if (ret == 0)
		ret = utimensat(AT_FDCWD, p9_proc(f->path, proc), ts, 0);
	return ret == -1 ? -errno : ret;
}

static int set_mode(const struct p9_fid *f, u32 mode)
{
	char proc[P9_PROC_SIZE];
	struct stat st;
	int ret = p9_stat(f->path, &st);

	if (ret < 0)
		return ret;
	if (S_ISLNK(st.st_mode))
		return -EOPNOTSUPP;
	return chmod(p9_proc(f->path, proc), mode & 01777) < 0 ? -errno : 0;
}

int p9_setattr(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	struct attributes t;
	struct p9_fid *f;
	int ret = p9_fid_use(s, p9_get32(m), &f);

	(void)a;
	t.mask = p9_get32(m);
	t.mode = p9_get32(m);
	t.uid = p9_get32(m);
	t.gid = p9_get32(m);
	t.size = p9_get64(m);
	for (int i = 0; i < 2; i++) {
		t.times[i].tv_sec = p9_get64(m);
		t.times[i].tv_nsec = p9_get64(m) % 1000000000;
	}
	if (m->bad)
		return -EINVAL;
	if (ret == 0 && t.mask & (SET_UID | SET_GID) &&
	    fchownat(f->path, "", t.mask & SET_UID ? t.uid : ~0u, t.mask & SET_GID ? t.gid : ~0u,
		     AT_EMPTY_PATH) < 0)
		ret = -errno;
	if (ret == 0 && t.mask & SET_MODE)
		ret = set_mode(f, t.mode);
	if (ret == 0 && t.mask & SET_SIZE)
		ret = set_size(f, t.size);
	if (ret == 0 && t.mask & (SET_ATIME | SET_MTIME))
		ret = set_times(f, &t);
	return ret;
}

int p9_statfs(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	struct p9_fid *f;
	struct statfs st;
	int ret = p9_fid_use(s, p9_get32(m), &f);

	if (m->bad || ret < 0)
		return m->bad ? -EINVAL : ret;
	if (fstatfs(f->path, &st) < 0)
		return -errno;
	p9_put32(a, FS_MAGIC);
	p9_put32(a, st.f_bsize);
	p9_put64(a, st.f_blocks);
	p9_put64(a, st.f_bfree);
	p9_put64(a, st.f_bavail);
	p9_put64(a, st.f_files);
	p9_put64(a, st.f_ffree);
	p9_put64(a, 0);		/* whose it is on the host is not told */
	p9_put32(a, NAME_MAX);
	return 0;
}

/* ---- open files ------------------------------------------------------------------------------ */

/* The protocol has Linux's own values of the generic kind, which are x86's. */
int p9_open_flags(u32 flags)
{
	return flags & (O_ACCMODE | O_TRUNC | O_APPEND | O_DSYNC | O_SYNC | O_DIRECTORY | O_EXCL);
}

int p9_lopen(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	struct p9_fid *f;
	struct stat st;
	int ret = p9_fid_use(s, p9_get32(m), &f), flags = p9_open_flags(p9_get32(m)) & ~O_EXCL, fd;

	if (m->bad)
		return -EINVAL;
	if (ret == 0 && f->open >= 0)
		ret = -EBADF;
	if (ret == 0 && s->readonly && ((flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC))
		ret = -EROFS;
	if (ret == 0)
		ret = p9_stat(f->path, &st);
	if (ret < 0)
		return ret;
	fd = p9_reopen(f->path, flags);
	if (fd < 0)
		return fd;
	f->open = fd;
	f->flags = flags;
	p9_put_qid(s, a, &st);
	p9_put32(a, 0);		/* no limit but the message's */
	return 0;
}

static int open_fid(struct p9 *s, u32 fid, struct p9_fid **f)
{
	int ret = p9_fid_use(s, fid, f);

	return ret == 0 && (*f)->open < 0 ? -EBADF : ret;
}

int p9_read(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	struct p9_fid *f;
	int ret = open_fid(s, p9_get32(m), &f);
	u64 offset = p9_get64(m);
	u32 count = p9_get32(m), room;
	ssize_t n;

	if (m->bad || ret < 0)
		return m->bad ? -EINVAL : ret;
	if (offset > INT64_MAX || a->end - a->at < 4)
		return -EINVAL;
	room = a->end - a->at - 4;
	n = pread(f->open, a->at + 4, MIN(count, room), offset);
	if (n < 0)
		return -errno;
	p9_put32(a, n);
	a->at += n;
	return 0;
}

int p9_write(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	struct p9_fid *f;
	int ret = open_fid(s, p9_get32(m), &f);
	u64 offset = p9_get64(m);
	u32 count = p9_get32(m);
	ssize_t n;

	if (m->bad || count > (size_t)(m->end - m->at) || offset > INT64_MAX)
		return -EINVAL;
	if (ret < 0)
		return ret;
	n = pwrite(f->open, m->at, count, offset);
	if (n < 0)
		return -errno;
	p9_put32(a, n);
	return 0;
}

int p9_fsync(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	struct p9_fid *f;
	int ret = open_fid(s, p9_get32(m), &f);
	u32 data_only = m->end - m->at >= 4 ? p9_get32(m) : 0;

	(void)a;
	if (m->bad || ret < 0)
		return m->bad ? -EINVAL : ret;
	return (data_only ? fdatasync(f->open) : fsync(f->open)) < 0 ? -errno : 0;
}

/* ---- folders --------------------------------------------------------------------------------- */

struct entry {			/* getdents64(2) */
	u64 ino;
	s64 next;
	u16 len;
	u8 type;
	char name[];
};

_Static_assert(offsetof(struct entry, name) == 19, "getdents64(2)");

/* False: there is no room for it any more. */
static bool put_entry(struct p9 *s, struct p9_answer *a, const struct entry *e)
{
	u64 ino = e->ino;

	if (a->end - a->at < 13 + 8 + 1 + 2 + (ptrdiff_t)strlen(e->name))
		return false;
	/* What lies above the root is nobody's business. */
	if (strcmp(e->name, "..") == 0)
		ino = s->ino;
	p9_put_entry_qid(a, e->type == DT_DIR ? 0x80 : e->type == DT_LNK ? 0x02 : 0, ino);
	p9_put64(a, e->next);
	p9_put8(a, e->type);
	p9_put_text(a, e->name);
	return true;
}

/* Places in a folder are the host's, so each question stands alone. */
int p9_readdir(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	struct p9_fid *f;
	int ret = open_fid(s, p9_get32(m), &f);
	u64 offset = p9_get64(m);
	u32 count = p9_get32(m), n;
	u8 *start = a->at;
	_Alignas(8) char buf[32768];
	bool more = true;

	if (m->bad || ret < 0)
		return m->bad ? -EINVAL : ret;
	if (a->end - a->at < 4 || lseek(f->open, offset, SEEK_SET) < 0)
		return -EINVAL;
	a->at += 4;
	if ((size_t)(a->end - a->at) > count)
		a->end = a->at + count;
	while (more) {
		long got = syscall(SYS_getdents64, f->open, buf, sizeof(buf));

		if (got < 0)
			return -errno;
		more = got > 0;
		for (long at = 0; at < got && more; at += ((struct entry *)(buf + at))->len)
			more = put_entry(s, a, (struct entry *)(buf + at));
	}
	n = a->at - start - 4;
	memcpy(start, &n, 4);
	return 0;
}

/* ---- locks ----------------------------------------------------------------------------------- */

/* The guest's kernel has them already among its own processes, and others there are none. */
int p9_lock(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	struct p9_fid *f;
	int ret = p9_fid_use(s, p9_get32(m), &f);

	if (ret == 0)
		p9_put8(a, 0);
	return ret;
}

int p9_getlock(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	struct p9_fid *f;
	int ret = p9_fid_use(s, p9_get32(m), &f);
	char client[P9_NAME_SIZE];
	u64 start, length;
	u32 process;

	p9_get8(m);
	start = p9_get64(m);
	length = p9_get64(m);
	process = p9_get32(m);
	p9_get_text(m, client, sizeof(client));
	if (m->bad || ret < 0)
		return m->bad ? -EINVAL : ret;
	p9_put8(a, 2);		/* unlocked */
	p9_put64(a, start);
	p9_put64(a, length);
	p9_put32(a, process);
	p9_put_text(a, client);
	return 0;
}
