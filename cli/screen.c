/* --display none|vnc[=ADDRESS][,password=FILE] and --screenshot FILE[,every=SECONDS]: see devices.h. */
#include <string.h>

#include "cli/devices.h"
#include "cli/suboptions.h"
#include "vmm/display/vnc_listen.h"

#define EVERY_MAX 86400

static const struct suboption vnc_suboptions[] = {
	{ "password", SUB_TEXT, offsetof(struct screen_options, vnc_password), NULL, NULL, 0, 0 },
};

int screen_parse_display(struct run_options *o, const char *value, struct error *err)
{
	char *text, *rest, *kind;
	int ret;

	if (strcmp(value, "none") == 0)
		return 0;
	text = run_options_keep(o, value, err);
	if (!text)
		return -1;
	kind = suboption_cut(text, &rest);
	if (strncmp(kind, "vnc=", 4) == 0)
		o->screen.vnc_address = kind + 4;
	else if (strcmp(kind, "vnc") != 0)
		return error_usage(err, "--display: \"%s\" is none of none, vnc[=ADDRESS]", kind);
	o->screen.vnc = true;
	ret = suboptions_parse("--display vnc", rest, vnc_suboptions, ARRAY_SIZE(vnc_suboptions),
		&o->screen, err);
	return ret < 0 ? ret : vnc_address_check(o->screen.vnc_address, o->screen.vnc_password, err);
}

static const struct suboption screenshot_suboptions[] = {
	{ "every", SUB_NUMBER, offsetof(struct screen_options, screenshot_every), NULL, NULL, 1, EVERY_MAX },
};

int screen_parse_screenshot(struct run_options *o, const char *value, struct error *err)
{
	char *text = run_options_keep(o, value, err), *rest;

	if (!text)
		return -1;
	o->screen.screenshot = suboption_cut(text, &rest);
	if (!*o->screen.screenshot)
		return error_usage(err, "--screenshot: which file? --screenshot FILE[,every=SECONDS]");
	return suboptions_parse("--screenshot", rest, screenshot_suboptions,
		ARRAY_SIZE(screenshot_suboptions), &o->screen, err);
}
