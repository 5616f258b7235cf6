/* A Unix socket that listens at a path. */
#ifndef QUMRA_LIB_UNIX_LISTEN_H
#define QUMRA_LIB_UNIX_LISTEN_H

#include "lib/error.h"

/*
 * Returns a descriptor that does not block, or -errno. what: how the path is introduced in messages, such as
 * "--serial unix:". A socket there that nobody serves any more is replaced, anything else refused. private:
 * only our own user may connect. Whoever is done closes it and unlinks the path.
 */
int unix_listen(const char *what, const char *path, int backlog, bool private, struct error *err);

#endif
