/*
 * A folder of the host as a 9P2000.L server (the protocol of Linux's v9fs; diod's protocol.md describes
 * it). A message goes in, its answer comes out, one after the other.
 *
 * The guest is hostile. Each of its fids is a descriptor opened with O_PATH; from there a walk goes down
 * by one name at a time, never through "..", a slash or a symbolic link, so nothing outside of the folder
 * can be named. What is opened for reading or writing is a regular file or a folder, by its descriptor
 * and not by its name. Devices are not made, bits that give rights (set-user-ID) not set.
 */
#ifndef QUMRA_VMM_SHARE_P9_H
#define QUMRA_VMM_SHARE_P9_H

#include <limits.h>
#include <sys/stat.h>

#include "lib/error.h"
#include "lib/types.h"

#define P9_MSIZE_MAX	(512u << 10)	/* of a message, either way */
#define P9_HEAD		7		/* size, type, tag */
#define P9_ANSWER_MIN	11		/* that of an error */
#define P9_FIDS_MAX	8192
#define P9_STATE_MAX	6144		/* bytes of fids in a saved state */

struct p9;

int p9_open(struct p9 **out, const char *folder, bool readonly, struct error *err);
void p9_close(struct p9 *s);
/* Forgets all fids, as when the guest has gone. */
void p9_reset(struct p9 *s);
/*
 * Takes the message of len bytes in p9_buffer(); its answer, of at most room bytes, is written to
 * answer. room is at least P9_ANSWER_MIN. Returns the answer's length.
 */
u32 p9_serve(struct p9 *s, u32 len, u8 *answer, u32 room);
/* P9_MSIZE_MAX bytes for a message. */
u8 *p9_buffer(struct p9 *s);

/*
 * The session for a saved state: message size, and fids by their paths, some 100 to 250 of them. What
 * another host does not find again, and files that have lost their names, are stale from then on
 * (ESTALE), fids that had no room are unknown (EBADF).
 */
u32 p9_save(struct p9 *s, u32 *msize, u8 state[P9_STATE_MAX]);
/* -EINVAL: no such state; nothing has changed. */
int p9_load(struct p9 *s, u32 msize, const u8 *state, u32 len);

/* ---- of its own parts ------------------------------------------------------------------------ */

struct p9_fid {
	u32 fid;
	int path;		/* O_PATH; -1: stale, or a free entry */
	int open;		/* by Tlopen or Tlcreate; -1 */
	int flags;		/* it was opened with */
	u32 uid;		/* who it works for */
	bool used;
};

struct p9 {
	int root;
	dev_t dev;		/* the root's */
	u64 ino;
	bool readonly, owns;	/* owns: runs as root, so what is made is given to the guest's users */
	u32 msize;		/* 0: no session */
	struct p9_fid *fid;	/* a hash table with open addressing */
	u32 fids, fids_max;
	u8 *buffer;
};

/* A message being taken apart, and an answer being put together. bad: it was too short or has no room. */
struct p9_message {
	const u8 *at, *end;
	bool bad;
};

struct p9_answer {
	u8 *start, *at, *end;
	bool full;
};

#define P9_NAME_SIZE (NAME_MAX + 1)

u8 p9_get8(struct p9_message *m);
u16 p9_get16(struct p9_message *m);
u32 p9_get32(struct p9_message *m);
u64 p9_get64(struct p9_message *m);
/* A string of less than size bytes; a longer one, or one with a NUL inside, is bad. */
void p9_get_text(struct p9_message *m, char *text, size_t size);
/* One name of a folder's entry: 0, or -EINVAL, -ENOENT for what never is one. */
int p9_get_name(struct p9_message *m, char name[P9_NAME_SIZE]);

void p9_put(struct p9_answer *a, const void *data, size_t len);
void p9_put8(struct p9_answer *a, u8 v);
void p9_put16(struct p9_answer *a, u16 v);
void p9_put32(struct p9_answer *a, u32 v);
void p9_put64(struct p9_answer *a, u64 v);
void p9_put_text(struct p9_answer *a, const char *text);
void p9_put_qid(struct p9 *s, struct p9_answer *a, const struct stat *st);
/* A qid of which only number and kind are known. */
void p9_put_entry_qid(struct p9_answer *a, u8 type, u64 ino);

struct p9_fid *p9_fid_find(struct p9 *s, u32 fid);
/* 0 and *out, or -EBADF, -ESTALE. */
int p9_fid_use(struct p9 *s, u32 fid, struct p9_fid **out);
/* A new one for path, which it takes over; -EBADF when there is one, -EMFILE. On failure path is closed. */
int p9_fid_add(struct p9 *s, u32 fid, int path, u32 uid);
void p9_fid_drop(struct p9 *s, struct p9_fid *f);

/* Down by one name: a descriptor with O_PATH, or -errno. */
int p9_step(int folder, const char *name);
/* The object of path, a regular file or a folder, opened: a descriptor or -errno. */
int p9_reopen(int path, int flags);
/* Linux's open flags as a guest may ask for them. */
int p9_open_flags(u32 flags);
int p9_stat(int path, struct stat *st);
/* "/proc/self/fd/N" for calls that take no descriptor of this kind. */
#define P9_PROC_SIZE 32
char *p9_proc(int fd, char text[P9_PROC_SIZE]);

/* Each answers one kind of message: 0, or -errno. */
int p9_getattr(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_setattr(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_statfs(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_lopen(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_read(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_write(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_readdir(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_fsync(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_lock(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_getlock(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_lcreate(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_mkdir(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_mknod(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_symlink(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_readlink(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_link(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_renameat(struct p9 *s, struct p9_message *m, struct p9_answer *a);
int p9_unlinkat(struct p9 *s, struct p9_message *m, struct p9_answer *a);

#endif
