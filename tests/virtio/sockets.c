/*
 * An end of AF_VSOCK. sockets echo PORT [WORD]: sends back what comes, until its end, and says READY
 * WORD behind the first of it; sockets send PORT [CID]: sends standard input to a port of the host, or of
 * that guest, and prints what comes back.
 */
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* What a read gives; false at the end. */
static int copy_once(int from, int to)
{
	static char buf[65536];
	ssize_t n = read(from, buf, sizeof(buf));

	if (n < 0)
		exit(4);
	for (ssize_t at = 0; at < n;) {
		ssize_t w = write(to, buf + at, n - at);

		if (w <= 0)
			exit(3);
		at += w;
	}
	return n > 0;
}

static void copy(int from, int to)
{
	while (copy_once(from, to))
		;
}

int main(int argc, char **argv)
{
	struct sockaddr_vm sa = { .svm_family = AF_VSOCK, .svm_port = argc > 2 ? atoi(argv[2]) : 0 };
	struct timeval patience = { .tv_sec = 60 };	/* two seconds by default: a busy host may need more */
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (argc > 2 && strcmp(argv[1], "echo") == 0) {
		sa.svm_cid = VMADDR_CID_ANY;
		if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) || listen(fd, 1))
			return 1;
		puts("READY echo");
		fflush(stdout);
		fd = accept(fd, NULL, NULL);
		if (argc > 3 && copy_once(fd, fd)) {
			printf("READY %s\n", argv[3]);
			fflush(stdout);
		}
		copy(fd, fd);
		return 0;
	}
	sa.svm_cid = argc > 3 ? atoi(argv[3]) : VMADDR_CID_HOST;
	setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
		return 2;
	/* Both at once: an echo has not room for all of it. */
	if (fork() == 0) {
		copy(0, fd);
		shutdown(fd, SHUT_WR);
		return 0;
	}
	copy(fd, 1);
	return 0;
}
