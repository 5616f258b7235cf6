/* The session: messages, fids, walks. See p9.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/share/p9.h"

#define VERSION		"9P2000.L"
#define NAMES_MAX	16	/* of one walk */
#define MSIZE_MIN	4096
#define SLOTS		(2 * P9_FIDS_MAX)

enum {	/* an answer's type is its question's and 1 */
	T_LERROR = 6, T_STATFS = 8, T_LOPEN = 12, T_LCREATE = 14, T_SYMLINK = 16, T_MKNOD = 18,
	T_READLINK = 22, T_GETATTR = 24, T_SETATTR = 26, T_READDIR = 40, T_FSYNC = 50, T_LOCK = 52,
	T_GETLOCK = 54, T_LINK = 70, T_MKDIR = 72, T_RENAMEAT = 74, T_UNLINKAT = 76, T_VERSION = 100,
	T_ATTACH = 104, T_FLUSH = 108, T_WALK = 110, T_READ = 116, T_WRITE = 118, T_CLUNK = 120,
	T_REMOVE = 122,
};

/* ---- messages -------------------------------------------------------------------------------- */

static const u8 *message_take(struct p9_message *m, size_t n)
{
	const u8 *at = m->at;

	if (n > (size_t)(m->end - m->at)) {
		m->bad = true;
		m->at = m->end;
		return NULL;
	}
	m->at += n;
	return at;
}

static u64 message_number(struct p9_message *m, size_t n)
{
	const u8 *at = message_take(m, n);
	u64 v = 0;

	if (at)
		memcpy(&v, at, n);
	return v;
}

u8 p9_get8(struct p9_message *m)
{
	return message_number(m, 1);
}

u16 p9_get16(struct p9_message *m)
{
	return message_number(m, 2);
}

u32 p9_get32(struct p9_message *m)
{
	return message_number(m, 4);
}

u64 p9_get64(struct p9_message *m)
{
	return message_number(m, 8);
}

void p9_get_text(struct p9_message *m, char *text, size_t size)
{
	size_t n = p9_get16(m);
	const u8 *at = message_take(m, n);

	text[0] = 0;
	if (!at || n >= size || memchr(at, 0, n)) {
		m->bad = true;
		return;
	}
	memcpy(text, at, n);
	text[n] = 0;
}

int p9_get_name(struct p9_message *m, char name[P9_NAME_SIZE])
{
	p9_get_text(m, name, P9_NAME_SIZE);
	if (m->bad)
		return -EINVAL;
	if (!name[0] || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		return -ENOENT;
	return 0;
}

void p9_put(struct p9_answer *a, const void *data, size_t len)
{
	if (len > (size_t)(a->end - a->at)) {
		a->full = true;
		return;
	}
	memcpy(a->at, data, len);
	a->at += len;
}

void p9_put8(struct p9_answer *a, u8 v)
{
	p9_put(a, &v, sizeof(v));
}

void p9_put16(struct p9_answer *a, u16 v)
{
	p9_put(a, &v, sizeof(v));
}

void p9_put32(struct p9_answer *a, u32 v)
{
	p9_put(a, &v, sizeof(v));
}

void p9_put64(struct p9_answer *a, u64 v)
{
	p9_put(a, &v, sizeof(v));
}

void p9_put_text(struct p9_answer *a, const char *text)
{
	size_t n = strlen(text);

	p9_put16(a, n);
	p9_put(a, text, n);
}

void p9_put_entry_qid(struct p9_answer *a, u8 type, u64 ino)
{
	p9_put8(a, type);
	p9_put32(a, 0);
	p9_put64(a, ino);
}

/* The number tells files apart; those of other file systems below the root must not meet the root's. */
static u64 stat_number(const struct p9 *s, const struct stat *st)
{
	return st->st_dev == s->dev ? st->st_ino : st->st_ino ^ st->st_dev * 0x9E3779B97F4A7C15ULL;
}

void p9_put_qid(struct p9 *s, struct p9_answer *a, const struct stat *st)
{
	p9_put_entry_qid(a, S_ISDIR(st->st_mode) ? 0x80 : S_ISLNK(st->st_mode) ? 0x02 : 0,
		stat_number(s, st));
}

/* ---- descriptors ----------------------------------------------------------------------------- */

int p9_step(int folder, const char *name)
{
	const struct open_how how = {
		.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	long fd = syscall(SYS_openat2, folder, name, &how, sizeof(how));

	/* The name is one of p9_get_name(), so this says the same on a kernel without that call. */
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

char *p9_proc(int fd, char text[P9_PROC_SIZE])
{
	snprintf(text, P9_PROC_SIZE, "/proc/self/fd/%d", fd);
	return text;
}

int p9_stat(int path, struct stat *st)
{
	return fstatat(path, "", st, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

int p9_reopen(int path, int flags)
{
	char proc[P9_PROC_SIZE];
	struct stat st;
	int fd, ret = p9_stat(path, &st);

	if (ret < 0)
		return ret;
	/* Devices, pipes and sockets are the guest's own matter. */
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return S_ISLNK(st.st_mode) ? -ELOOP : -ENXIO;
	fd = open(p9_proc(path, proc), flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

/* ---- fids ------------------------------------------------------------------------------------ */

static u32 fid_slot(u32 fid)
{
	return fid * 0x9E3779B1u >> 18 & (SLOTS - 1);
}

_Static_assert(SLOTS == 1 << 14, "fid_slot()");

struct p9_fid *p9_fid_find(struct p9 *s, u32 fid)
{
	for (u32 i = fid_slot(fid); s->fid[i].used; i = (i + 1) & (SLOTS - 1))
		if (s->fid[i].fid == fid)
			return &s->fid[i];
	return NULL;
}

int p9_fid_use(struct p9 *s, u32 fid, struct p9_fid **out)
{
	*out = p9_fid_find(s, fid);
	if (!*out)
		return -EBADF;
	return (*out)->path < 0 ? -ESTALE : 0;
}

static struct p9_fid *fid_new(struct p9 *s, u32 fid)
{
	u32 i = fid_slot(fid);

	while (s->fid[i].used)
		i = (i + 1) & (SLOTS - 1);
	s->fids++;
	s->fid[i] = (struct p9_fid){ .fid = fid, .path = -1, .open = -1, .used = true };
	return &s->fid[i];
}

int p9_fid_add(struct p9 *s, u32 fid, int path, u32 uid)
{
	struct p9_fid *f;
	int ret = p9_fid_find(s, fid) ? -EBADF : s->fids >= s->fids_max ? -EMFILE : 0;

	if (ret < 0) {
		close(path);
		return ret;
	}
	f = fid_new(s, fid);
	f->path = path;
	f->uid = uid;
	return 0;
}

static void fid_close(struct p9_fid *f)
{
	if (f->path >= 0)
		close(f->path);
	if (f->open >= 0)
		close(f->open);
}

/* Those behind it in the table that would not be found any more move up. */
void p9_fid_drop(struct p9 *s, struct p9_fid *f)
{
	u32 hole = f - s->fid;

	fid_close(f);
	s->fids--;
	s->fid[hole].used = false;
	for (u32 i = (hole + 1) & (SLOTS - 1); s->fid[i].used; i = (i + 1) & (SLOTS - 1)) {
		u32 home = fid_slot(s->fid[i].fid);

		if (((i - home) & (SLOTS - 1)) < ((i - hole) & (SLOTS - 1)))
			continue;
		s->fid[hole] = s->fid[i];
		s->fid[i].used = false;
		hole = i;
	}
}

void p9_reset(struct p9 *s)
{
	for (u32 i = 0; i < SLOTS; i++) {
		if (s->fid[i].used)
			fid_close(&s->fid[i]);
		s->fid[i].used = false;
	}
	s->fids = 0;
	s->msize = 0;
}

/* ---- messages of the session ----------------------------------------------------------------- */

static int serve_version(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	u32 msize = p9_get32(m);
	char version[32];
	bool known;

	p9_get_text(m, version, sizeof(version));
	if (m->bad || msize < MSIZE_MIN)
		return -EINVAL;
	p9_reset(s);
	known = strcmp(version, VERSION) == 0;
	s->msize = known ? MIN(msize, P9_MSIZE_MAX) : 0;
	p9_put32(a, MIN(msize, P9_MSIZE_MAX));
	p9_put_text(a, known ? VERSION : "unknown");
	return 0;
}

static int serve_attach(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	u32 fid = p9_get32(m), uid;
	char user[P9_NAME_SIZE], tree[P9_NAME_SIZE];
	struct stat st;
	int path, ret;

	p9_get32(m);	/* who vouches: nobody */
	p9_get_text(m, user, sizeof(user));
	p9_get_text(m, tree, sizeof(tree));
	uid = p9_get32(m);
	if (m->bad)
		return -EINVAL;
	if (tree[0] && strcmp(tree, "/") != 0)
		return -ENOENT;
	path = fcntl(s->root, F_DUPFD_CLOEXEC, 0);
	if (path < 0)
		return -errno;
	ret = p9_stat(path, &st);
	if (ret < 0) {
		close(path);
		return ret;
	}
	ret = p9_fid_add(s, fid, path, uid);
	p9_put_qid(s, a, &st);
	return ret;
}

/* Goes names down from path. Returns how many it got, or the first one's error; *path changes. */
static int walk(struct p9 *s, struct p9_message *m, unsigned names, int *path, struct p9_answer *a)
{
	for (unsigned i = 0; i < names; i++) {
		char name[P9_NAME_SIZE];
		struct stat st;
		int ret = p9_get_name(m, name), next;

		if (ret < 0)
			return i && ret != -EINVAL ? (int)i : ret;
		next = p9_step(*path, name);
		ret = next < 0 ? next : p9_stat(next, &st);
		if (ret < 0) {
			if (next >= 0)
				close(next);
			return i ? (int)i : ret;
		}
		close(*path);
		*path = next;
		p9_put_qid(s, a, &st);
	}
	return names;
}

static int serve_walk(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	u32 from = p9_get32(m), to = p9_get32(m);
	unsigned names = p9_get16(m);
	struct p9_fid *f;
	u8 *count = a->at;
	int path, got, ret = p9_fid_use(s, from, &f);

	if (m->bad || names > NAMES_MAX)
		return -EINVAL;
	if (ret < 0)
		return ret;
	if (f->open >= 0 || (to != from && p9_fid_find(s, to)))
		return -EBADF;
	path = fcntl(f->path, F_DUPFD_CLOEXEC, 0);
	if (path < 0)
		return -errno;
	p9_put16(a, 0);
	got = walk(s, m, names, &path, a);
	/* Only a walk to its end makes a fid. */
	if (got < 0 || (unsigned)got < names || a->full) {
		close(path);
		ret = got < 0 ? got : 0;
	} else if (to == from) {
		close(f->path);
		f->path = path;
	} else {
		ret = p9_fid_add(s, to, path, f->uid);
	}
	if (ret == 0 && !a->full)
		memcpy(count, &(u16){ got }, 2);
	return ret;
}

static int serve_clunk(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	struct p9_fid *f = p9_fid_find(s, p9_get32(m));

	(void)a;
	if (m->bad || !f)
		return m->bad ? -EINVAL : -EBADF;
	p9_fid_drop(s, f);
	return 0;
}

/* The fid goes in any case. Where its name is, it does not know: Tunlinkat does. */
static int serve_remove(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	int ret = serve_clunk(s, m, a);

	return ret < 0 ? ret : -EOPNOTSUPP;
}

/* Nothing is under way when the next message is looked at. */
static int serve_flush(struct p9 *s, struct p9_message *m, struct p9_answer *a)
{
	(void)s;
	(void)a;
	p9_get16(m);
	return m->bad ? -EINVAL : 0;
}

#define CHANGES 1	/* not in a folder that is only read */

static const struct {
	int (*fn)(struct p9 *s, struct p9_message *m, struct p9_answer *a);
	u8 flags;
} messages[256] = {
	[T_STATFS] = { p9_statfs, 0 }, [T_LOPEN] = { p9_lopen, 0 },
	[T_LCREATE] = { p9_lcreate, CHANGES }, [T_SYMLINK] = { p9_symlink, CHANGES },
	[T_MKNOD] = { p9_mknod, CHANGES }, [T_READLINK] = { p9_readlink, 0 },
	[T_GETATTR] = { p9_getattr, 0 }, [T_SETATTR] = { p9_setattr, CHANGES },
	[T_READDIR] = { p9_readdir, 0 }, [T_FSYNC] = { p9_fsync, 0 }, [T_LOCK] = { p9_lock, 0 },
	[T_GETLOCK] = { p9_getlock, 0 }, [T_LINK] = { p9_link, CHANGES },
	[T_MKDIR] = { p9_mkdir, CHANGES }, [T_RENAMEAT] = { p9_renameat, CHANGES },
	[T_UNLINKAT] = { p9_unlinkat, CHANGES }, [T_VERSION] = { serve_version, 0 },
	[T_ATTACH] = { serve_attach, 0 }, [T_FLUSH] = { serve_flush, 0 },
	[T_WALK] = { serve_walk, 0 }, [T_READ] = { p9_read, 0 }, [T_WRITE] = { p9_write, CHANGES },
	[T_CLUNK] = { serve_clunk, 0 }, [T_REMOVE] = { serve_remove, 0 },
};

static int dispatch(struct p9 *s, u8 type, struct p9_message *m, struct p9_answer *a)
{
	int ret;

	if (!messages[type].fn)
		return -EOPNOTSUPP;
	if (!s->msize && type != T_VERSION)
		return -EINVAL;
	if (messages[type].flags & CHANGES && s->readonly)
		return -EROFS;
	ret = messages[type].fn(s, m, a);
	return ret == 0 && a->full ? -EMSGSIZE : ret;
}

u32 p9_serve(struct p9 *s, u32 len, u8 *answer, u32 room)
{
	struct p9_message m = { s->buffer, s->buffer + len, false };
	struct p9_answer a = { answer, answer + P9_HEAD, answer + room, false };
	u32 size = p9_get32(&m);
	u8 type = p9_get8(&m);
	u16 tag = p9_get16(&m);
	int ret = -EINVAL;

	if (s->msize)
		a.end = answer + MIN(room, s->msize);
	if (!m.bad && size >= P9_HEAD && size <= len) {
		m.end = s->buffer + size;
		ret = dispatch(s, type, &m, &a);
	}
	if (ret < 0) {
		a = (struct p9_answer){ answer, answer + P9_HEAD, answer + room, false };
		p9_put32(&a, -ret);
		type = T_LERROR;
	}
	size = a.at - answer;
	memcpy(answer, &size, 4);
	answer[4] = type + 1;
	memcpy(answer + 5, &tag, 2);
	return size;
}

u8 *p9_buffer(struct p9 *s)
{
	return s->buffer;
}

/* ---- saved sessions -------------------------------------------------------------------------- */

struct saved_fid {
	u32 fid, uid, flags;
	u64 number;		/* what is there must have it */
	u16 name;		/* bytes of path behind this; 0xFFFF: stale */
	u8 open;
} __attribute__((packed));

#define SAVED_STALE 0xFFFF

/* The fid's path below the root. Bytes of it, or -1. */
static int fid_path(const struct p9 *s, const struct p9_fid *f, char *path, size_t size)
{
	char proc[P9_PROC_SIZE], root[PATH_MAX];
	ssize_t n, skip;

	if (f->path < 0)
		return -1;
	skip = readlink(p9_proc(s->root, proc), root, sizeof(root));
	n = readlink(p9_proc(f->path, proc), path, size);
	if (skip < 0 || n < skip || n == (ssize_t)size || memcmp(path, root, skip) != 0)
		return -1;
	if (skip == 1)		/* the root is the host's */
		skip = 0;
	if (n > skip && path[skip] != '/')
		return -1;
	skip += n > skip;
	memmove(path, path + skip, n - skip);
	return n - skip;
}

u32 p9_save(struct p9 *s, u32 *msize, u8 state[P9_STATE_MAX])
{
	u32 at = 0;

	*msize = s->msize;
	for (u32 i = 0; i < SLOTS; i++) {
		const struct p9_fid *f = &s->fid[i];
		struct saved_fid e = { .fid = f->fid, .uid = f->uid, .flags = f->flags,
			.open = f->open >= 0 };
		char path[PATH_MAX];
		struct stat st;
		int n;

		if (!f->used)
			continue;
		n = fid_path(s, f, path, sizeof(path));
		if (n < 0 || p9_stat(f->path, &st) < 0 || at + sizeof(e) + n > P9_STATE_MAX)
			n = -1;
		else
			e.number = stat_number(s, &st);
		e.name = n < 0 ? SAVED_STALE : n;
		if (at + sizeof(e) > P9_STATE_MAX)
			break;
		memcpy(state + at, &e, sizeof(e));
		if (n > 0)
			memcpy(state + at + sizeof(e), path, n);
		at += sizeof(e) + MAX(n, 0);
	}
	return at;
}

static int state_next(const u8 *state, u32 len, u32 *at, struct saved_fid *e, const u8 **path)
{
	u32 n;

	if (len - *at < sizeof(*e))
		return -EINVAL;
	memcpy(e, state + *at, sizeof(*e));
	n = e->name == SAVED_STALE ? 0 : e->name;
	*at += sizeof(*e);
	if (n > len - *at || n >= PATH_MAX || e->open > 1)
		return -EINVAL;
	*path = state + *at;
	*at += n;
	return memchr(*path, 0, n) ? -EINVAL : 0;
}

/* From a state that may be anything: beneath the root, through no link, to what it was. */
static int fid_open_again(struct p9 *s, struct p9_fid *f, const struct saved_fid *e, const u8 *path)
{
	const struct open_how how = {
		.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	char name[PATH_MAX];
	struct stat st;

	memcpy(name, path, e->name);
	name[e->name] = 0;
	f->path = e->name ? syscall(SYS_openat2, s->root, name, &how, sizeof(how)) :
		fcntl(s->root, F_DUPFD_CLOEXEC, 0);
	if (f->path < 0 || p9_stat(f->path, &st) < 0 || stat_number(s, &st) != e->number)
		return -ESTALE;
	f->flags = p9_open_flags(e->flags) & ~O_TRUNC;
	if (e->open)
		f->open = p9_reopen(f->path, s->readonly ? O_RDONLY : f->flags);
	return e->open && f->open < 0 ? -ESTALE : 0;
}

int p9_load(struct p9 *s, u32 msize, const u8 *state, u32 len)
{
	struct saved_fid e;
	const u8 *path;

	if (len > P9_STATE_MAX || msize > P9_MSIZE_MAX || (msize && msize < MSIZE_MIN))
		return -EINVAL;
	for (u32 at = 0; at < len;)
		if (state_next(state, len, &at, &e, &path) < 0)
			return -EINVAL;
	p9_reset(s);
	s->msize = msize;
	for (u32 at = 0; at < len;) {
		struct p9_fid *f;

		state_next(state, len, &at, &e, &path);
		if (p9_fid_find(s, e.fid) || s->fids >= s->fids_max)
			continue;
		f = fid_new(s, e.fid);
		f->uid = e.uid;
		if (e.name == SAVED_STALE || fid_open_again(s, f, &e, path) < 0) {
			fid_close(f);
			f->path = f->open = -1;
		}
	}
	return 0;
}

/* ---- life ------------------------------------------------------------------------------------ */

/* Each fid is a descriptor or two, and a guest may have many, but never all that there are. */
static u32 fids_allowed(void)
{
	const rlim_t wanted = 4 * P9_FIDS_MAX;
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) < 0)
		return 64;
	if (r.rlim_cur < MIN(wanted, r.rlim_max)) {
		r.rlim_cur = MIN(wanted, r.rlim_max);
		setrlimit(RLIMIT_NOFILE, &r);
	}
	return MIN(r.rlim_cur / 4, P9_FIDS_MAX);
}

int p9_open(struct p9 **out, const char *folder, bool readonly, struct error *err)
{
	struct p9 *s = calloc(1, sizeof(*s));
	struct stat st;

	*out = NULL;
	if (s) {
		s->root = -1;
		s->fid = calloc(SLOTS, sizeof(*s->fid));
		s->buffer = malloc(P9_MSIZE_MAX);
	}
	if (!s || !s->fid || !s->buffer) {
		p9_close(s);
		return error_set(err, ENOMEM, "out of memory");
	}
	s->root = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (s->root < 0 || p9_stat(s->root, &st) < 0) {
		int why = errno;

		p9_close(s);
		return error_set(err, why, "%s: cannot be shared: %s", folder, strerror(why));
	}
	s->fids_max = fids_allowed();
	s->readonly = readonly;
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	s->owns = geteuid() == 0;
	*out = s;
	return 0;
}

void p9_close(struct p9 *s)
{
	if (!s)
		return;
	if (s->fid)
		p9_reset(s);
	if (s->root >= 0)
		close(s->root);
	free(s->fid);
	free(s->buffer);
	free(s);
}
