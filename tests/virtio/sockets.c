/* In the guest: the far end of host sockets. sockets echo PORT: sends back what comes, until its end;
 * sockets send PORT: sends standard input to the host's port, prints what comes back. */
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void copy(int from, int to)
{
	static char buf[65536];
	ssize_t n;

	while ((n = read(from, buf, sizeof(buf))) > 0)
		for (ssize_t at = 0; at < n;) {
			ssize_t w = write(to, buf + at, n - at);

			if (w <= 0)
				exit(3);
			at += w;
		}
	if (n < 0)
		exit(4);
}

int main(int argc, char **argv)
{
	struct sockaddr_vm sa = { .svm_family = AF_VSOCK, .svm_port = argc > 2 ? atoi(argv[2]) : 0 };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (argc > 2 && strcmp(argv[1], "echo") == 0) {
		sa.svm_cid = VMADDR_CID_ANY;
		if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) || listen(fd, 1))
			return 1;
		puts("READY echo");
		fflush(stdout);
		fd = accept(fd, NULL, NULL);
		copy(fd, fd);
		return 0;
	}
	sa.svm_cid = VMADDR_CID_HOST;
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
		return 2;
	copy(0, fd);
	shutdown(fd, SHUT_WR);
	copy(fd, 1);
	return 0;
}
