/*
 * zeroes keep|free FILE OFFSET BYTES: asks for zeroes there, in room that stays the file's or that may be
 * given back. A disk's driver makes one request of either, without a copy in the page cache.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	int fd = argc == 5 ? open(argv[2], O_WRONLY) : -1;
	int how = argc == 5 && strcmp(argv[1], "free") == 0 ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;

	return fd < 0 || fallocate(fd, how | FALLOC_FL_KEEP_SIZE, atoll(argv[3]), atoll(argv[4])) < 0;
}
