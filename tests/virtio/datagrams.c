/* datagrams PORT: each datagram goes back to whom it came from, with "back: " before it, until one is "end". */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define HEAD "back: "

int main(int argc, char **argv)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0) };
	static char buf[65536] = HEAD, *text = buf + sizeof(HEAD) - 1;

	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)))
		return 1;
	puts("READY datagrams");
	fflush(stdout);
	for (;;) {
		struct sockaddr_in from;
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(fd, text, sizeof(buf) - sizeof(HEAD), 0, (struct sockaddr *)&from, &size);

		if (n < 0 || sendto(fd, buf, n + sizeof(HEAD) - 1, 0, (struct sockaddr *)&from, size) < 0)
			return 2;
		if (n == 3 && memcmp(text, "end", 3) == 0)
			return 0;
	}
}
