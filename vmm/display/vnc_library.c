/* libvncserver, loaded on demand: see vmm/display/vnc_library.h. */
#include "vmm/display/vnc_library.h"

#include <dlfcn.h>
#include <errno.h>

#define SONAME "libvncserver.so.1"

int vnc_library_open(struct vnc_library *lib, struct error *err)
{
	void *h = dlopen(SONAME, RTLD_NOW | RTLD_LOCAL);

	if (!h)
		return error_set(err, ENOENT, "--display vnc needs libvncserver: %s", dlerror());
#define VNC_TEXT(function) #function
#define VNC_RESOLVE(name, function)                                            \
	lib->name = (__typeof__(lib->name))dlsym(h, VNC_TEXT(function));       \
	if (!lib->name)                                                        \
		goto missing;
	VNC_FUNCTIONS(VNC_RESOLVE)
#undef VNC_RESOLVE
	lib->handle = h;
	return 0;
missing:
	dlclose(h);
	return error_set(err, ENOENT, "%s is not what we know: %s", SONAME, dlerror());
}
