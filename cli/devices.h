/* Options of `qumra run` that add devices: disks, networks, --device, and what has a screen. */
#ifndef QUMRA_CLI_DEVICES_H
#define QUMRA_CLI_DEVICES_H

#include "cli/options.h"

int devices_parse_disk(struct run_options *o, const char *value, struct error *err);
int devices_parse_cdrom(struct run_options *o, const char *value, struct error *err);
int devices_parse_net(struct run_options *o, const char *value, struct error *err);
int devices_parse_share(struct run_options *o, const char *value, struct error *err);
int devices_parse_virtio(struct run_options *o, const char *value, struct error *err);
int devices_parse_device(struct run_options *o, const char *value, struct error *err);

/* boot.c: all options are there; do those go together that say where firmware starts from? */
int boot_settle(const struct run_options *o, struct error *err);

/* screen.c */
int screen_parse_display(struct run_options *o, const char *value, struct error *err);
int screen_parse_screenshot(struct run_options *o, const char *value, struct error *err);

/* A copy that lives as long as the options, or NULL and an error. */
char *run_options_keep(struct run_options *o, const char *text, struct error *err);

#endif
