/* The options of `qumra run` that add devices: --disk, --net, --device. */
#ifndef QUMRA_CLI_DEVICES_H
#define QUMRA_CLI_DEVICES_H

#include "cli/options.h"

int devices_parse_disk(struct run_options *o, const char *value, struct error *err);
int devices_parse_net(struct run_options *o, const char *value, struct error *err);
int devices_parse_virtio(struct run_options *o, const char *value, struct error *err);
int devices_parse_device(struct run_options *o, const char *value, struct error *err);

#endif
