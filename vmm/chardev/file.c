/* Output into a file (or a device or FIFO), and output into nothing. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "lib/log.h"
#include "vmm/chardev/chardev.h"

static void file_destroy(struct chardev *cd)
{
	if (cd->out_fd >= 0)
		close(cd->out_fd);
}

/* Output stops here; the machine runs on. */
static void file_hangup(struct chardev *cd)
{
	log_line("%s%s: output stopped: %s", cd->option, cd->spec, strerror(errno));
}

static const struct chardev_ops file_ops = { .hangup = file_hangup, .destroy = file_destroy };

int chardev_open_none(struct chardev *cd, const char *path, struct error *err)
{
	(void)path;
	(void)err;
	cd->ops = &file_ops;
	return 0;
}

int chardev_open_file(struct chardev *cd, const char *path, struct error *err)
{
	cd->ops = &file_ops;
	cd->out_fd =
		open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
	if (cd->out_fd < 0)
		return error_set(err, errno, "%s%s: %s", cd->option, cd->spec,
				 errno == ENXIO ? "nobody reads this FIFO" : strerror(errno));
	cd->connected = true;
	return chardev_start(cd, err);
}
