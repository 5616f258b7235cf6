/*
 * The 9P folder, message by message: what the protocol says, what a hostile guest says, that nothing
 * leads out of the folder, and sessions that are saved and loaded in mid-work.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/device/virtio_board.h"
#include "vmm/virtio/p9.h"

#define MSIZE 8192

struct share {
	struct board b;
	struct virtio_p9 p9;
	char top[64];		/* in it: "in", which is shared, and "out", which is not */
	u8 msg[MSIZE], answer[MSIZE];
	u32 len, at;		/* of the message; read in the answer */
	u64 out, in;		/* where they are in guest memory */
};

static void put(struct share *s, const void *data, u32 n)
{
	memcpy(s->msg + s->len, data, n);
	s->len += n;
}

static void begin(struct share *s, u8 type)
{
	s->len = 4;
	put(s, &type, 1);
	put(s, "\x34\x12", 2);
}

static void number(struct share *s, u64 v, u32 n)
{
	put(s, &v, n);
}

static void text(struct share *s, const char *t)
{
	number(s, strlen(t), 2);
	put(s, t, strlen(t));
}

static u64 get(struct share *s, u32 n)
{
	u64 v = 0;

	memcpy(&v, s->answer + s->at, n);
	s->at += n;
	return v;
}

/* The message as it is; the answer's type. */
static u8 exchange(struct share *s, u32 room)
{
	const struct piece p[] = { { s->out, s->len, false }, { s->in, room, true } };
	u32 used;

	memcpy(at(s->b.ram.bytes, s->out), s->msg, s->len);
	used = transfer(&s->b, 0, p, 2);
	memcpy(s->answer, at(s->b.ram.bytes, s->in), MSIZE);
	s->at = 0;
	assert_int_equal(get(s, 4), used);
	assert_in_range(used, 7, room);
	return s->answer[4];
}

/* The errno that the message is answered by; 0: its answer, to be read. */
static int ask(struct share *s)
{
	u8 type = s->msg[4];
	u64 ram = s->b.ram.top;

	memcpy(s->msg, &s->len, 4);
	exchange(s, MSIZE);
	s->b.ram.top = ram;
	assert_memory_equal(s->answer + 5, "\x34\x12", 2);
	s->at = 7;
	if (s->answer[4] == 7)
		return get(s, 4);
	assert_int_equal(s->answer[4], type + 1);
	return 0;
}

static int version(struct share *s)
{
	begin(s, 100);
	number(s, MSIZE, 4);
	text(s, "9P2000.L");
	return ask(s);
}

static int attach(struct share *s, u32 fid)
{
	begin(s, 104);
	number(s, fid, 4);
	number(s, ~0u, 4);
	text(s, "");
	text(s, "");
	number(s, getuid(), 4);
	return ask(s);
}

static int walk_to(struct share *s, u32 from, u32 to, unsigned n, const char *const *names)
{
	begin(s, 110);
	number(s, from, 4);
	number(s, to, 4);
	number(s, n, 2);
	for (unsigned i = 0; i < n; i++)
		text(s, names[i]);
	return ask(s);
}

static int walk1(struct share *s, u32 from, u32 to, const char *name)
{
	return walk_to(s, from, to, 1, &name);
}

static int lopen(struct share *s, u32 fid, u32 flags)
{
	begin(s, 12);
	number(s, fid, 4);
	number(s, flags, 4);
	return ask(s);
}

static int lcreate(struct share *s, u32 fid, const char *name, u32 flags)
{
	begin(s, 14);
	number(s, fid, 4);
	text(s, name);
	number(s, flags, 4);
	number(s, 0644, 4);
	number(s, getgid(), 4);
	return ask(s);
}

static int io(struct share *s, u8 type, u32 fid, u64 offset, u32 n, const void *data)
{
	begin(s, type);
	number(s, fid, 4);
	number(s, offset, 8);
	number(s, n, 4);
	if (data)
		put(s, data, n);
	return ask(s);
}

static int clunk(struct share *s, u32 fid)
{
	begin(s, 120);
	number(s, fid, 4);
	return ask(s);
}

static int place(struct share *s, u8 type, u32 fid, const char *name, u32 a, u32 b)
{
	begin(s, type);
	number(s, fid, 4);
	text(s, name);
	number(s, a, 4);
	number(s, b, 4);
	return ask(s);
}

static const char *path(struct share *s, const char *name)
{
	static char buf[2][256];
	static int i;

	i ^= 1;
	snprintf(buf[i], sizeof(buf[i]), "%s/%s", s->top, name);
	return buf[i];
}

static void make_file(struct share *s, const char *name, const char *what)
{
	FILE *f = fopen(path(s, name), "w");

	fputs(what, f);
	fclose(f);
}

static struct share *share_new(bool readonly)
{
	struct share *s = calloc(1, sizeof(*s));
	struct share_options o = { .tag = "the-tag", .readonly = readonly };

	strcpy(s->top, "/tmp/qumra-p9-XXXXXX");
	assert_non_null(mkdtemp(s->top));
	assert_int_equal(mkdir(path(s, "in"), 0755) | mkdir(path(s, "out"), 0755) |
		mkdir(path(s, "in/dir"), 0755), 0);
	make_file(s, "in/file", "inside");
	make_file(s, "out/file", "outside");
	assert_int_equal(symlink("../out", path(s, "in/to-dir")), 0);
	assert_int_equal(symlink("../out/file", path(s, "in/to-file")), 0);
	assert_int_equal(symlink("/", path(s, "in/to-root")), 0);
	assert_int_equal(mkfifo(path(s, "in/pipe"), 0600), 0);
	o.folder = path(s, "in");
	board_init(&s->b);
	assert_int_equal(virtio_p9_init(&s->p9, &o, &s->b.ram.mem, &s->b.io, &s->b.err), 0);
	board_start(&s->b, &s->p9.dev);
	return s;
}

static void share_drive(struct share *s, u64 features)
{
	drive(&s->b, features | 1, 1);
	s->out = ram_alloc(&s->b.ram, MSIZE);
	s->in = ram_alloc(&s->b.ram, MSIZE);
}

static struct share *share_start(bool readonly)
{
	struct share *s = share_new(readonly);

	share_drive(s, layouts[3]);
	assert_int_equal(version(s), 0);
	assert_int_equal(attach(s, 0), 0);
	return s;
}

static int remove_one(const char *name, const struct stat *st, int kind, struct FTW *where)
{
	return remove(name);
}

static void share_free(struct share *s)
{
	board_stop(&s->b);
	virtio_p9_destroy(&s->p9);
	board_free(&s->b);
	nftw(s->top, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(s);
}

static void test_session(void **state)
{
	for (size_t l = 0; l < ARRAY_SIZE(layouts); l++) {
		struct share *s = share_new(false);
		char tag[8] = { 0 };

		share_drive(s, layouts[l]);
		assert_true(s->b.features & 1);
		assert_int_equal(config_in(&s->b, 0) | config_in(&s->b, 1) << 8, 7);
		for (int i = 0; i < 7; i++)
			tag[i] = config_in(&s->b, 2 + i);
		assert_string_equal(tag, "the-tag");
		/* Before a version nothing goes. */
		assert_int_equal(attach(s, 0), EINVAL);
		assert_int_equal(version(s), 0);
		assert_int_equal(get(s, 4), MSIZE);
		assert_int_equal(get(s, 2), 8);
		assert_memory_equal(s->answer + s->at, "9P2000.L", 8);
		assert_int_equal(attach(s, 0), 0);
		assert_int_equal(get(s, 1), 0x80);
		assert_int_equal(attach(s, 0), EBADF);
		assert_int_equal(walk1(s, 0, 1, "file"), 0);
		assert_int_equal(get(s, 2), 1);
		assert_int_equal(lopen(s, 1, O_RDWR), 0);
		assert_int_equal(io(s, 116, 1, 0, 100, NULL), 0);
		assert_int_equal(get(s, 4), 6);
		assert_memory_equal(s->answer + s->at, "inside", 6);
		assert_int_equal(io(s, 118, 1, 6, 5, " more"), 0);
		assert_int_equal(get(s, 4), 5);
		assert_int_equal(io(s, 116, 1, 3, 100, NULL), 0);
		assert_int_equal(get(s, 4), 8);
		assert_memory_equal(s->answer + s->at, "ide more", 8);
		/* A walk from a file that is open, to a fid that is there, from none. */
		assert_int_equal(walk_to(s, 1, 2, 0, NULL), EBADF);
		assert_int_equal(walk_to(s, 0, 1, 0, NULL), EBADF);
		assert_int_equal(walk_to(s, 9, 2, 0, NULL), EBADF);
		assert_int_equal(clunk(s, 1), 0);
		assert_int_equal(clunk(s, 1), EBADF);
		/* A new version begins anew. */
		assert_int_equal(version(s), 0);
		assert_int_equal(walk_to(s, 0, 1, 0, NULL), EBADF);
		share_free(s);
	}
}

static void test_names(void **state)
{
	struct share *s = share_start(false);
	struct stat st;

	assert_int_equal(walk_to(s, 0, 1, 0, NULL), 0);
	assert_int_equal(lcreate(s, 1, "new", O_RDWR | O_EXCL), 0);
	assert_int_equal(io(s, 118, 1, 0, 3, "abc"), 0);
	assert_int_equal(clunk(s, 1), 0);
	assert_int_equal(walk_to(s, 0, 1, 0, NULL), 0);
	assert_int_equal(lcreate(s, 1, "new", O_RDWR | O_EXCL), EEXIST);
	assert_int_equal(lcreate(s, 1, "new", O_RDWR | O_TRUNC), 0);
	assert_int_equal(stat(path(s, "in/new"), &st), 0);
	assert_int_equal(st.st_size, 0);
	assert_int_equal(place(s, 72, 0, "sub", 04755, getgid()), 0);	/* mkdir */
	assert_int_equal(stat(path(s, "in/sub"), &st), 0);
	assert_int_equal(st.st_mode & 07777 & ~0755, 0);
	assert_int_equal(walk1(s, 0, 2, "sub"), 0);
	/* Trenameat: from, name, to, name. */
	begin(s, 74);
	number(s, 0, 4);
	text(s, "new");
	number(s, 2, 4);
	text(s, "newer");
	assert_int_equal(ask(s), 0);
	assert_int_equal(stat(path(s, "in/sub/newer"), &st), 0);
	/* The fid went with it. */
	assert_int_equal(io(s, 118, 1, 0, 3, "xyz"), 0);
	/* Tlink: folder, fid, name. */
	begin(s, 70);
	number(s, 0, 4);
	number(s, 1, 4);
	text(s, "second");
	assert_int_equal(ask(s), 0);
	assert_int_equal(stat(path(s, "in/second"), &st), 0);
	assert_int_equal(st.st_nlink, 2);
	assert_int_equal(place(s, 76, 0, "sub", 0x200, 0), ENOTEMPTY);
	assert_int_equal(place(s, 76, 2, "newer", 0, 0), 0);
	assert_int_equal(place(s, 76, 0, "sub", 0x200, 0), 0);
	/* Still there by its fid. */
	begin(s, 24);
	number(s, 1, 4);
	number(s, 0x7FF, 8);
	assert_int_equal(ask(s), 0);
	/* Tmknod: devices are not made. */
	begin(s, 18);
	number(s, 0, 4);
	text(s, "null");
	number(s, S_IFCHR | 0666, 4);
	number(s, 1, 4);
	number(s, 3, 4);
	number(s, 0, 4);
	assert_int_equal(ask(s), EPERM);
	/* What is not ours to do is said so. */
	assert_int_equal(place(s, 20, 0, "x", 0, 0), EOPNOTSUPP);
	begin(s, 30);
	assert_int_equal(ask(s), EOPNOTSUPP);
	share_free(s);
}

/* Whatever is asked, the host's link is not followed and no name leads up. */
static void test_no_escape(void **state)
{
	static const char *const bad[] = { "..", ".", "", "../out", "dir/..", "/", "/etc/passwd", "dir/", "a/b" };
	static const u8 making[] = { 14, 72, 76, 16, 18 };
	struct share *s = share_start(false);
	const char *deep[] = { "to-dir", "file" }, *up[] = { "dir", "..", "..", "out" };
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(walk1(s, 0, 1, bad[i]), ENOENT);
		for (size_t k = 0; k < ARRAY_SIZE(making); k++)
			assert_int_equal(place(s, making[k], 0, bad[i], 0, 0) != 0, 1);
		begin(s, 74);
		number(s, 0, 4);
		text(s, "file");
		number(s, 0, 4);
		text(s, bad[i]);
		assert_int_equal(ask(s), ENOENT);
	}
	/* As far as it goes, which makes no fid. */
	assert_int_equal(walk_to(s, 0, 1, 4, up), 0);
	assert_int_equal(get(s, 2), 1);
	assert_int_equal(clunk(s, 1), EBADF);
	assert_int_equal(walk_to(s, 0, 1, 2, deep), 0);
	assert_int_equal(get(s, 2), 1);
	assert_int_equal(clunk(s, 1), EBADF);
	/* The link itself is one to be read, and to nothing else. */
	assert_int_equal(walk1(s, 0, 1, "to-file"), 0);
	s->at = 9;
	assert_int_equal(get(s, 1), 0x02);
	assert_int_equal(lopen(s, 1, O_RDONLY), ELOOP);
	assert_int_equal(lopen(s, 1, O_WRONLY | O_TRUNC), ELOOP);
	begin(s, 22);
	number(s, 1, 4);
	assert_int_equal(ask(s), 0);
	assert_memory_equal(s->answer + 9, "../out/file", 11);
	/* Its mode, size and times are not the file's. */
	begin(s, 26);
	number(s, 1, 4);
	number(s, 0x1 | 0x8 | 0x30, 4);
	number(s, 0, 4);
	number(s, 0, 8);
	for (int i = 0; i < 5; i++)
		number(s, 0, 8);
	assert_int_not_equal(ask(s), 0);
	assert_int_equal(walk1(s, 0, 2, "to-root"), 0);
	assert_int_equal(walk1(s, 2, 3, "etc"), ENOTDIR);
	assert_int_equal(walk1(s, 0, 4, "to-dir"), 0);
	assert_int_not_equal(lcreate(s, 4, "made", O_RDWR), 0);
	/* A file made over a link, and through one. */
	assert_int_equal(walk_to(s, 0, 5, 0, NULL), 0);
	assert_int_equal(lcreate(s, 5, "to-file", O_RDWR | O_TRUNC), ELOOP);
	assert_int_equal(lcreate(s, 5, "to-dir", O_RDWR), ELOOP);
	/* A pipe of the host is not opened, and nobody waits for it. */
	assert_int_equal(lcreate(s, 5, "pipe", O_RDONLY), ENXIO);
	assert_int_equal(walk1(s, 0, 6, "pipe"), 0);
	assert_int_equal(lopen(s, 6, O_RDONLY), ENXIO);
	assert_int_equal(stat(path(s, "out/file"), &st), 0);
	assert_int_equal(st.st_size, 7);
	assert_int_equal(access(path(s, "out/made"), F_OK), -1);
	assert_int_equal(access(path(s, "out/new"), F_OK), -1);
	share_free(s);
}

static void test_readonly(void **state)
{
	struct share *s = share_start(true);

	assert_int_equal(walk1(s, 0, 1, "file"), 0);
	assert_int_equal(lopen(s, 1, O_RDWR), EROFS);
	assert_int_equal(lopen(s, 1, O_RDONLY | O_TRUNC), EROFS);
	assert_int_equal(lopen(s, 1, O_RDONLY), 0);
	assert_int_equal(io(s, 118, 1, 0, 1, "x"), EROFS);
	assert_int_equal(io(s, 116, 1, 0, 10, NULL), 0);
	for (const u8 *t = (const u8 *)"\x0E\x10\x12\x1A\x46\x48\x4A\x4C"; *t; t++)
		assert_int_equal(place(s, *t, 0, "file", 0, 0), EROFS);
	share_free(s);
}

/* All of a folder, in answers of any size, each name once. */
static void test_readdir(void **state)
{
	struct share *s = share_start(false);
	static const u32 sizes[] = { 60, 300, MSIZE };

	for (int i = 0; i < 500; i++) {
		char name[32];

		snprintf(name, sizeof(name), "in/dir/entry-%03d", i);
		make_file(s, name, "");
	}
	assert_int_equal(walk1(s, 0, 1, "dir"), 0);
	assert_int_equal(lopen(s, 1, O_RDONLY | O_DIRECTORY), 0);
	for (size_t k = 0; k < ARRAY_SIZE(sizes); k++) {
		unsigned seen[500] = { 0 }, dots = 0;
		u64 offset = 0;

		for (;;) {
			u32 n, end;

			assert_int_equal(io(s, 40, 1, offset, sizes[k], NULL), 0);
			n = get(s, 4);
			assert_in_range(n, 0, sizes[k]);
			if (!n)
				break;
			for (end = s->at + n; s->at < end;) {
				char name[64] = { 0 };
				u16 len;

				s->at += 13;
				offset = get(s, 8);
				get(s, 1);
				len = get(s, 2);
				memcpy(name, s->answer + s->at, MIN(len, 63));
				s->at += len;
				if (name[0] == '.')
					dots++;
				else
					seen[atoi(name + 6)]++;
			}
			assert_int_equal(s->at, end);
		}
		assert_int_equal(dots, 2);
		for (int i = 0; i < 500; i++)
			assert_int_equal(seen[i], 1);
	}
	/* A place that never was one. */
	io(s, 40, 1, ~0ULL, MSIZE, NULL);
	io(s, 40, 1, 12345678901ULL, MSIZE, NULL);
	assert_int_equal(io(s, 116, 1, 0, 10, NULL), EISDIR);
	share_free(s);
}

/* Messages cut off anywhere, of wrong sizes, with any byte changed: always an answer. */
static void test_hostile(void **state)
{
	struct share *s = share_start(false);
	u8 good[64], type;
	u32 len, seed = 7;

	for (type = 6; type < 128; type += 2) {
		begin(s, type);
		number(s, 0, 4);
		number(s, 0x0004000300020001ULL, 8);
		text(s, "file");
		text(s, "x");
		memcpy(s->msg, &s->len, 4);
		memcpy(good, s->msg, len = s->len);
		for (u32 n = 7; n <= len; n++) {
			/* Says what it is, says more, says less. */
			for (int d = -1; d < 2; d++) {
				u32 size = n + d;

				memcpy(s->msg, good, len);
				memcpy(s->msg, &size, 4);
				s->len = n;
				exchange(s, MSIZE);
			}
		}
		if (type == 100) {
			assert_int_equal(version(s), 0);
			assert_int_equal(attach(s, 0), 0);
		}
	}
	for (int i = 0; i < 20000; i++) {
		u64 ram = s->b.ram.top;

		memcpy(s->msg, good, len);
		s->msg[4] = 6 + 2 * (rand_r(&seed) % 60);
		for (int k = rand_r(&seed) % 6; k > 0; k--)
			s->msg[7 + rand_r(&seed) % (len - 7)] = rand_r(&seed) >> 7;
		s->len = len;
		memcpy(s->msg, &s->len, 4);
		exchange(s, rand_r(&seed) % 3 ? MSIZE : 11 + rand_r(&seed) % 40);
		s->b.ram.top = ram;
		if (s->msg[4] == 100) {
			version(s);
			attach(s, 0);
		}
	}
	assert_int_equal(version(s), 0);
	assert_int_equal(attach(s, 0), 0);
	/* A count that is longer than what came. */
	assert_int_equal(walk1(s, 0, 1, "file"), 0);
	assert_int_equal(lopen(s, 1, O_RDWR), 0);
	begin(s, 118);
	number(s, 1, 4);
	number(s, 0, 8);
	number(s, 1000, 4);
	put(s, "abc", 3);
	assert_int_equal(ask(s), EINVAL);
	assert_int_equal(io(s, 116, 1, ~0ULL, 10, NULL), EINVAL);
	/* More fids than there may be. */
	s->p9.server->fids_max = 50;
	for (u32 i = 2; i < 50; i++)
		assert_int_equal(walk_to(s, 0, i * 77, 0, NULL), 0);
	assert_int_equal(walk_to(s, 0, 5000, 0, NULL), EMFILE);
	for (u32 i = 2; i < 50; i += 2)
		assert_int_equal(clunk(s, i * 77), 0);
	for (u32 i = 3; i < 50; i += 2)
		assert_int_equal(clunk(s, i * 77), 0);
	share_free(s);
}

/* Open files and folders go on where they were, what has gone is stale. */
static void test_moves(void **state)
{
	struct share *s = share_start(false);

	assert_int_equal(walk1(s, 0, 1, "file"), 0);
	assert_int_equal(lopen(s, 1, O_RDWR), 0);
	assert_int_equal(walk1(s, 0, 2, "dir"), 0);
	assert_int_equal(walk_to(s, 2, 3, 0, NULL), 0);
	assert_int_equal(lcreate(s, 3, "gone", O_RDWR), 0);
	assert_int_equal(place(s, 76, 2, "gone", 0, 0), 0);
	for (u64 i = 0; i < 20; i++) {
		struct piece p[] = { { s->out, 0, false }, { s->in, MSIZE, true } };
		u16 id;

		begin(s, 118);
		number(s, 1, 4);
		number(s, i, 8);
		number(s, 1, 4);
		put(s, "q", 1);
		memcpy(s->msg, &s->len, 4);
		memcpy(at(s->b.ram.bytes, s->out), s->msg, s->len);
		p[0].len = s->len;
		driver_submit(&s->b.q[0], p, 2, 0);
		kick(&s->b, 0);
		board_reload(&s->b, &virtio_p9_device_ops, &s->p9);
		wait_used(&s->b, 0, &id);
		assert_int_equal(((u8 *)at(s->b.ram.bytes, s->in))[4], 119);
	}
	assert_int_equal(io(s, 116, 1, 0, 100, NULL), 0);
	assert_int_equal(get(s, 4), 20);
	assert_memory_equal(s->answer + s->at, "qqqqqqqqqqqqqqqqqqqq", 20);
	assert_int_equal(io(s, 116, 3, 0, 1, NULL), ESTALE);
	assert_int_equal(clunk(s, 3), 0);
	assert_int_equal(walk_to(s, 2, 4, 0, NULL), 0);
	check_round_trip(&virtio_p9_device_ops, &s->p9);
	check_bad_states(&virtio_p9_device_ops, &s->p9, 4);
	assert_int_equal(walk_to(s, 2, 5, 0, NULL), 0);
	share_free(s);
}

/* A saved state is no way out either. */
static void test_bad_paths(void **state)
{
	static const char *const paths[] = { "../out/file", "to-file", "to-dir/file", "/etc/passwd", "dir/../../out" };
	struct share *s = share_start(false);

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		u8 st[128] = { 0 };
		struct stat there;
		u32 len = strlen(paths[i]);

		/* fid, uid, flags, number, length, open: as p9.c has it. */
		assert_int_equal(stat(path(s, "out/file"), &there), 0);
		st[0] = 7;
		memcpy(st + 12, &there.st_ino, 8);
		st[20] = len;
		st[22] = 1;
		memcpy(st + 23, paths[i], len);
		virtio_lock(&s->p9.dev);
		assert_int_equal(p9_load(s->p9.server, MSIZE, st, 23 + len), 0);
		virtio_unlock(&s->p9.dev);
		assert_int_equal(io(s, 116, 7, 0, 1, NULL), ESTALE);
	}
	share_free(s);
}

static void test_bad_drivers(void **state)
{
	const struct { u32 out, in; } bad[] = { { 6, 64 }, { 64, 10 }, { 0, 64 }, { 64, 0 } };
	struct share *s = share_new(false);

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct piece p[2];
		unsigned n = 0;

		share_drive(s, layouts[i]);
		if (bad[i].out)
			p[n++] = (struct piece){ s->out, bad[i].out, false };
		if (bad[i].in)
			p[n++] = (struct piece){ s->in, bad[i].in, true };
		driver_submit(&s->b.q[0], p, n, 0);
		kick(&s->b, 0);
		wait_needs_reset(&s->b);
	}
	share_drive(s, layouts[0]);
	assert_int_equal(version(s), 0);
	share_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_session), cmocka_unit_test(test_names),
		cmocka_unit_test(test_no_escape), cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_readdir), cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_moves), cmocka_unit_test(test_bad_paths),
		cmocka_unit_test(test_bad_drivers),
	};

	return board_run_tests(tests, BOARD_ALL);
}
