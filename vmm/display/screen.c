/* Putting the screen together: see screen.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "vmm/display/screen.h"
#include "vmm/display/screenshot.h"
#include "vmm/display/vnc.h"
#include "vmm/hw/vga.h"
#include "vmm/memory/slots.h"

#define ROM_FILE "/usr/share/seabios/vgabios-stdvga.bin"

struct screen {
	struct display display;
	struct vga vga;
	struct pci_rom rom;
	struct screenshot screenshot;
	struct vnc *vnc;
};

static int adapter_create(struct screen *s, const struct screen_env *env, struct error *err)
{
	struct vga_env vga = {
		.kvm = env->kvm, .pio = &env->pc->pio, .mmio = &env->pc->mmio,
		.display = &s->display, .slot = SLOT_DEVICES,
	};
	int ret = env->bios ? pci_rom_open(&s->rom, ROM_FILE, VGA_VENDOR, VGA_DEVICE, err) : 0;

	if (ret < 0)
		return ret;
	vga.rom = s->rom;
	ret = vga_init(&s->vga, &vga);
	if (ret == 0)
		ret = pc_add_pci(env->pc, PC_SLOT_ANY, &s->vga.pci, &vga_device_ops, &s->vga);
	return ret < 0 ? error_set(err, -ret, "cannot make the graphics adapter: %s", strerror(-ret)) : 0;
}

static int front_ends_create(struct screen *s, const struct screen_options *o,
			     const struct screen_env *env, struct error *err)
{
	const struct vnc_config vnc = {
		.address = o->vnc_address, .password = o->vnc_password, .name = "qumra",
		.display = &s->display, .input = env->input, .lock = env->lock,
	};
	int ret = 0;

	if (o->screenshot)
		ret = screenshot_init(&s->screenshot, &s->display, env->timers, o->screenshot,
			o->screenshot_every, err);
	if (ret == 0 && o->vnc)
		ret = vnc_create(&s->vnc, &vnc, err);
	if (ret == 0 && s->vnc)
		log_line("VNC on %s", vnc_where(s->vnc));
	return ret;
}

int screen_create(struct screen **out, const struct screen_options *o, const struct screen_env *env,
		  struct error *err)
{
	struct screen *s;
	int ret;

	*out = NULL;
	if (!screen_wanted(o))
		return 0;
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, ENOMEM, "out of memory");
	ret = display_init(&s->display);
	if (ret < 0)
		error_set(err, -ret, "out of memory");
	if (ret == 0 && screen_has_vga(o))
		ret = adapter_create(s, env, err);
	if (ret == 0)
		ret = front_ends_create(s, o, env, err);
	if (ret < 0)
		screen_destroy(s);
	else
		*out = s;
	return ret;
}

struct display *screen_display(struct screen *s)
{
	return s ? &s->display : NULL;
}

void screen_destroy(struct screen *s)
{
	if (!s)
		return;
	vnc_destroy(s->vnc);
	screenshot_destroy(&s->screenshot);
	vga_destroy(&s->vga);
	display_destroy(&s->display);
	pci_rom_close(&s->rom);
	free(s);
}

void screen_screenshot(struct screen *s, char *text, size_t size)
{
	struct error err = ERROR_INIT;

	if (!s || !s->screenshot.file)
		snprintf(text, size, "no screenshot: start qumra with --screenshot FILE");
	else if (screenshot_take(&s->screenshot, &err) < 0)
		snprintf(text, size, "%s", err.text);
	else
		snprintf(text, size, "screenshot: %s", s->screenshot.file);
}

int screen_dump(struct screen *s, const char *file, struct error *err)
{
	if (!s)
		return error_set(err, ENODEV,
			"there is no screen: start qumra with --device vga or --display vnc");
	return screenshot_save(&s->display, file, err);
}

void screen_finish(struct screen *s)
{
	struct error err = ERROR_INIT;

	if (s && s->screenshot.file && screenshot_take(&s->screenshot, &err) < 0)
		log_line("%s", err.text);
}
