/* In the guest: writer SEED BASE writes to files in the present folder from four processes, for ever, and reports on
 * descriptor 5 what is on the disk, a line for each call of fsync that returned:
 *
 *   O WRITER BLOCK VERSION   a block of over-WRITER was overwritten
 *   A WRITER RECORDS         log-WRITER has so many records
 *   N WRITER VERSION SECTORS the file new-WRITER-VERSION is there
 *   U WRITER VERSION         it is gone
 *
 * Versions grow from BASE. A sector says which it is and who wrote it, sixteen times. tests/virtio/durability.py reads
 * the reports and the disk. */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WRITERS 4
#define REPORT	5
#define SECTOR	512
#define MAGIC	0x6d757221
/* Of over-WRITER. */
#define BLOCK_SECTORS 16
#define BLOCKS	      64
/* Files new-WRITER-VERSION that stay. */
#define KEPT 12

enum { OVER, LOG, NEW };

struct writer {
	unsigned me, version;
	uint64_t seed;
	int folder, over, log;
	unsigned kept[256], first, last;	/* versions of the files new-…; a ring */
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static unsigned draw(struct writer *w, unsigned below)
{
	w->seed = w->seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (w->seed >> 33) % below;
}

static void sectors_fill(uint8_t *to, unsigned n, unsigned kind, unsigned me, unsigned place, unsigned version)
{
	for (unsigned i = 0; i < n; i++) {
		uint32_t words[8] = { MAGIC, kind, me, place, version, i, ~version, place + 7 * i };

		for (unsigned at = 0; at < SECTOR; at += sizeof(words))
			memcpy(to + i * SECTOR + at, words, sizeof(words));
	}
}

static void put(int fd, const void *data, size_t n, off_t at)
{
	if (pwrite(fd, data, n, at) != (ssize_t)n)
		die("pwrite");
}

/* One write(2), so that lines of several processes do not mix. */
#define report(...)                                                     \
	do {                                                            \
		char line[80];                                          \
		int len = snprintf(line, sizeof(line), __VA_ARGS__);    \
		if (write(REPORT, line, len) != len)                    \
			die("report");                                  \
	} while (0)

static void overwrite(struct writer *w)
{
	unsigned n = draw(w, 6) + 1, block[6], version = ++w->version;
	uint8_t data[BLOCK_SECTORS * SECTOR];

	for (unsigned i = 0; i < n; i++) {
		block[i] = draw(w, BLOCKS);
		sectors_fill(data, BLOCK_SECTORS, OVER, w->me, block[i], version);
		put(w->over, data, sizeof(data), (off_t)block[i] * sizeof(data));
	}
	if (draw(w, 2) ? fsync(w->over) : fdatasync(w->over))
		die("fsync");
	for (unsigned i = 0; i < n; i++)
		report("O %u %u %u\n", w->me, block[i], version);
}

/* O_DSYNC: the write is the fsync. */
static void append(struct writer *w)
{
	off_t at = lseek(w->log, 0, SEEK_END) / SECTOR;
	uint8_t data[SECTOR];

	sectors_fill(data, 1, LOG, w->me, at, at);
	put(w->log, data, sizeof(data), at * SECTOR);
	report("A %u %u\n", w->me, (unsigned)at + 1);
}

static void create(struct writer *w)
{
	unsigned n = draw(w, 48) + 1, version = ++w->version;
	uint8_t data[48 * SECTOR];
	char fresh[32], name[32];
	int fd;

	snprintf(fresh, sizeof(fresh), "fresh-%u", w->me);
	snprintf(name, sizeof(name), "new-%u-%u", w->me, version);
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0)
		die(fresh);
	sectors_fill(data, n, NEW, w->me, n, version);
	put(fd, data, n * SECTOR, 0);
	if (fsync(fd) || close(fd) || rename(fresh, name) || fsync(w->folder))
		die(name);
	report("N %u %u %u\n", w->me, version, n);
	w->kept[w->last++ % 256] = version;
}

static void forget(struct writer *w)
{
	unsigned version = w->kept[w->first++ % 256];
	char name[32];

	snprintf(name, sizeof(name), "new-%u-%u", w->me, version);
	if (unlink(name) || fsync(w->folder))
		die(name);
	report("U %u %u\n", w->me, version);
}

static int compare(const void *a, const void *b)
{
	return *(const unsigned *)a < *(const unsigned *)b ? -1 : 1;
}

/* What the machines before this one left. */
static void find_kept(struct writer *w)
{
	DIR *dir = opendir(".");
	unsigned me, version;

	for (struct dirent *e; (e = readdir(dir)) && w->last < 256;)
		if (sscanf(e->d_name, "new-%u-%u", &me, &version) == 2 && me == w->me)
			w->kept[w->last++] = version;
	closedir(dir);
	qsort(w->kept, w->last, sizeof(w->kept[0]), compare);
}

static int open_mine(const char *what, unsigned me, int flags)
{
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "%s-%u", what, me);
	fd = open(name, O_RDWR | O_CREAT | flags, 0644);
	if (fd < 0)
		die(name);
	return fd;
}

/*
 * A record whose write did not return may have made the file longer and not be there: ext4 tells the
 * journal of a size inside an allocated block before it writes the data (ext4_da_write_end()). Whoever
 * appends looks at the end first.
 */
static void log_trim(struct writer *w)
{
	off_t end = lseek(w->log, 0, SEEK_END) / SECTOR * SECTOR;
	uint32_t magic;

	if (!end || pread(w->log, &magic, sizeof(magic), end - SECTOR) != sizeof(magic) || magic == MAGIC)
		return;
	if (ftruncate(w->log, end - SECTOR))
		die("ftruncate");
}

static void writer_run(unsigned me, uint64_t seed, unsigned base)
{
	struct writer w = { .me = me, .version = base, .seed = seed * WRITERS + me };

	w.folder = open(".", O_RDONLY | O_DIRECTORY);
	w.over = open_mine("over", me, 0);
	w.log = open_mine("log", me, O_DSYNC);
	log_trim(&w);
	find_kept(&w);
	if (w.folder < 0 || fsync(w.over) || fsync(w.log) || fsync(w.folder))
		die("fsync");
	for (;;) {
		unsigned what = draw(&w, 4);

		if (what < 2)
			overwrite(&w);
		else if (what == 2)
			append(&w);
		else
			create(&w);
		while (w.last - w.first > KEPT)
			forget(&w);
	}
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	for (unsigned i = 1; i < WRITERS; i++)
		if (!fork())
			writer_run(i, strtoull(argv[1], NULL, 10), atoi(argv[2]));
	writer_run(0, strtoull(argv[1], NULL, 10), atoi(argv[2]));
}
