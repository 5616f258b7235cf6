/* libnbd, loaded on demand: see vmm/block/nbd_library.h. */
#include "vmm/block/nbd_library.h"

#include <dlfcn.h>
#include <errno.h>

#define SONAME "libnbd.so.0"

int nbd_library_open(struct nbd_library *lib, const char *name, struct error *err)
{
	void *h = dlopen(SONAME, RTLD_NOW | RTLD_LOCAL);

	if (!h)
		return error_set(err, ENOENT, "%s: images on NBD servers need libnbd: %s", name, dlerror());
#define NBD_RESOLVE(fn)                              \
	lib->fn = (__typeof__(lib->fn))dlsym(h, "nbd_" #fn); \
	if (!lib->fn)                                \
		goto missing;
	NBD_FUNCTIONS(NBD_RESOLVE)
#undef NBD_RESOLVE
	lib->handle = h;
	return 0;
missing:
	dlclose(h);
	return error_set(err, ENOENT, "%s: %s is too old: %s", name, SONAME, dlerror());
}

void nbd_library_close(struct nbd_library *lib)
{
	if (lib->handle)
		dlclose(lib->handle);
	lib->handle = NULL;
}
