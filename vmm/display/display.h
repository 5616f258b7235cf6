/*
 * A screen between a graphics device, which fills it, and front ends, which show it (VNC) or keep it
 * (screenshots). Pixels are 0x00RRGGBB, rows follow each other without gaps. Everything is called
 * under the machine's lock.
 *
 * A device draws only when somebody looks: display_refresh() asks it to, and it says with
 * display_damage() what has changed. Each front end has a view, which gathers changes until it takes
 * them, so several front ends never disturb each other.
 *
 * There may be two devices: one that is always there (VGA), and an overlay, whose picture shows in the
 * other's place as long as it has one (virtio-gpu, once its driver is at work).
 */
#ifndef QUMRA_VMM_DISPLAY_DISPLAY_H
#define QUMRA_VMM_DISPLAY_DISPLAY_H

#include "lib/types.h"

#define DISPLAY_WIDTH_MAX	8192
#define DISPLAY_HEIGHT_MAX	8192
#define DISPLAY_VIEWS_MAX	4

struct display;

struct display_view {
	struct display *display;	/* NULL: not attached */
	bool resized;
	u32 rows;
	struct display_span { u32 from, to; } *row;	/* changed columns; from >= to: none */
};

struct display {
	u32 width, height;
	u32 *pixel;
	void (*update)(void *arg);	/* the device: bring pixels up to date */
	void *arg;
	bool (*overlay)(void *arg, struct display *d);	/* the other one; false: it shows nothing */
	void *overlay_arg;
	bool overlaid;		/* pixels are the overlay's, from the last refresh */
	struct display_view *view[DISPLAY_VIEWS_MAX];
};

struct display_rect { u32 x, y, width, height; };

/* 640x480, black. */
int display_init(struct display *d);
void display_destroy(struct display *d);

/* ---- the device's side ----------------------------------------------------------------------- */

void display_set_source(struct display *d, void (*update)(void *arg), void *arg);
/* A device that finds d->overlaid to be the other's draws everything. */
void display_set_overlay(struct display *d, bool (*overlay)(void *arg, struct display *d), void *arg);
/* Black afterwards, and all of it changed. 0, -EINVAL beyond the limits, -ENOMEM: it stays as it was. */
int display_resize(struct display *d, u32 width, u32 height);
/* columns [from, to) of a row were drawn anew */
void display_damage(struct display *d, u32 y, u32 from, u32 to);
/* Copies a row of the display's width where it differs, and says so. */
void display_put_row(struct display *d, u32 y, const u32 *pixel);

/* ---- a front end's side ---------------------------------------------------------------------- */

void display_refresh(struct display *d);
/* Sees all of the screen as changed. -ENOSPC, -ENOMEM. */
int display_attach(struct display *d, struct display_view *view);
void display_detach(struct display_view *view);
/* Was the size changed since the last call? */
bool display_view_resized(struct display_view *view);
/* The next changed rectangle, the uppermost first; false: there is none. It counts as seen. */
bool display_view_next(struct display_view *view, struct display_rect *rect);

#endif
