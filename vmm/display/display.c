/* The screen between device and front ends: see display.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/display/display.h"

#define FIRST_WIDTH	640
#define FIRST_HEIGHT	480

static void view_clear(struct display_view *v)
{
	for (u32 y = 0; y < v->rows; y++)
		v->row[y] = (struct display_span){ ~0U, 0 };
}

static void view_add(struct display_view *v, u32 y, u32 from, u32 to)
{
	if (y >= v->rows || from >= to)
		return;
	v->row[y].from = MIN(v->row[y].from, from);
	v->row[y].to = MAX(v->row[y].to, to);
}

static int view_fit(struct display_view *v, u32 rows)
{
	struct display_span *row = realloc(v->row, rows * sizeof(*row));

	if (!row)
		return -ENOMEM;
	v->row = row;
	v->rows = rows;
	view_clear(v);
	return 0;
}

static void view_add_all(struct display_view *v)
{
	for (u32 y = 0; y < v->rows; y++)
		view_add(v, y, 0, v->display->width);
}

int display_init(struct display *d)
{
	*d = (struct display){ 0 };
	return display_resize(d, FIRST_WIDTH, FIRST_HEIGHT);
}

void display_destroy(struct display *d)
{
	for (unsigned i = 0; i < DISPLAY_VIEWS_MAX; i++)
		if (d->view[i])
			display_detach(d->view[i]);
	free(d->pixel);
	*d = (struct display){ 0 };
}

void display_set_source(struct display *d, void (*update)(void *arg), void *arg)
{
	d->update = update;
	d->arg = arg;
}

void display_set_overlay(struct display *d, bool (*overlay)(void *arg, struct display *d), void *arg)
{
	d->overlay = overlay;
	d->overlay_arg = arg;
}

int display_resize(struct display *d, u32 width, u32 height)
{
	u32 *pixel;

	if (!width || !height || width > DISPLAY_WIDTH_MAX || height > DISPLAY_HEIGHT_MAX)
		return -EINVAL;
	pixel = calloc((size_t)width * height, sizeof(*pixel));
	if (!pixel)
		return -ENOMEM;
	/* A view that cannot grow misses rows at the bottom, nothing worse. */
	for (unsigned i = 0; i < DISPLAY_VIEWS_MAX; i++)
		if (d->view[i])
			view_fit(d->view[i], height);
	free(d->pixel);
	d->pixel = pixel;
	d->width = width;
	d->height = height;
	for (unsigned i = 0; i < DISPLAY_VIEWS_MAX; i++) {
		if (!d->view[i])
			continue;
		d->view[i]->rows = MIN(d->view[i]->rows, height);
		d->view[i]->resized = true;
		view_clear(d->view[i]);
		view_add_all(d->view[i]);
	}
	return 0;
}

void display_damage(struct display *d, u32 y, u32 from, u32 to)
{
	for (unsigned i = 0; i < DISPLAY_VIEWS_MAX; i++)
		if (d->view[i])
			view_add(d->view[i], y, from, MIN(to, d->width));
}

void display_put_row(struct display *d, u32 y, const u32 *pixel)
{
	u32 *old = d->pixel + (size_t)y * d->width;
	u32 from = 0, to = d->width;

	if (memcmp(old, pixel, d->width * sizeof(*pixel)) == 0)
		return;
	while (old[from] == pixel[from])
		from++;
	while (old[to - 1] == pixel[to - 1])
		to--;
	memcpy(old + from, pixel + from, (to - from) * sizeof(*pixel));
	display_damage(d, y, from, to);
}

static void display_clear(struct display *d)
{
	memset(d->pixel, 0, (size_t)d->width * d->height * sizeof(*d->pixel));
	for (u32 y = 0; y < d->height; y++)
		display_damage(d, y, 0, d->width);
}

void display_refresh(struct display *d)
{
	if (d->overlay && d->overlay(d->overlay_arg, d)) {
		d->overlaid = true;
		return;
	}
	if (d->update)
		d->update(d->arg);
	else if (d->overlaid)
		display_clear(d);
	d->overlaid = false;
}

int display_attach(struct display *d, struct display_view *view)
{
	*view = (struct display_view){ .display = d, .resized = true };
	for (unsigned i = 0; i < DISPLAY_VIEWS_MAX; i++) {
		if (d->view[i])
			continue;
		if (view_fit(view, d->height) < 0)
			return -ENOMEM;
		d->view[i] = view;
		view_add_all(view);
		return 0;
	}
	return -ENOSPC;
}

void display_detach(struct display_view *view)
{
	for (unsigned i = 0; view->display && i < DISPLAY_VIEWS_MAX; i++)
		if (view->display->view[i] == view)
			view->display->view[i] = NULL;
	free(view->row);
	*view = (struct display_view){ 0 };
}

bool display_view_resized(struct display_view *view)
{
	bool resized = view->resized;

	view->resized = false;
	return resized;
}

/* Neighbouring rows go together: what they have in between costs less than another rectangle. */
bool display_view_next(struct display_view *view, struct display_rect *rect)
{
	u32 y = 0, end, from = ~0U, to = 0;

	while (y < view->rows && view->row[y].from >= view->row[y].to)
		y++;
	if (y == view->rows)
		return false;
	for (end = y; end < view->rows && view->row[end].from < view->row[end].to; end++) {
		from = MIN(from, view->row[end].from);
		to = MAX(to, view->row[end].to);
		view->row[end] = (struct display_span){ ~0U, 0 };
	}
	*rect = (struct display_rect){ from, y, to - from, end - y };
	return true;
}
