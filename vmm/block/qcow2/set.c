/* Sets of cluster numbers: linear probing, at most half full. */
#include <errno.h>
#include <stdlib.h>

#include "vmm/block/qcow2/set.h"

#define SET_ROOM_FIRST 64

static size_t set_home(const struct cluster_set *set, u64 number)
{
	return (number * 0x9E3779B97F4A7C15 >> 20) & (set->room - 1);
}

static size_t set_find(const struct cluster_set *set, u64 number)
{
	size_t i = set_home(set, number);

	while (set->slot[i] && set->slot[i] != number + 1)
		i = (i + 1) & (set->room - 1);
	return i;
}

static int set_grow(struct cluster_set *set)
{
	struct cluster_set bigger = { .room = set->room ? 2 * set->room : SET_ROOM_FIRST };

	bigger.slot = calloc(bigger.room, sizeof(*bigger.slot));
	if (!bigger.slot)
		return -ENOMEM;
	for (size_t i = 0; i < set->room; i++)
		if (set->slot[i])
			bigger.slot[set_find(&bigger, set->slot[i] - 1)] = set->slot[i];
	bigger.count = set->count;
	free(set->slot);
	*set = bigger;
	return 0;
}

int set_add(struct cluster_set *set, u64 number)
{
	size_t i;

	if (2 * (set->count + 1) > set->room && set_grow(set) < 0)
		return -ENOMEM;
	i = set_find(set, number);
	if (set->slot[i])
		return 1;
	set->slot[i] = number + 1;
	set->count++;
	return 0;
}

/* Later ones of the same run move up, so that none becomes unreachable. */
void set_remove(struct cluster_set *set, u64 number)
{
	size_t hole, i;

	if (!set_has(set, number))
		return;
	hole = i = set_find(set, number);
	for (;;) {
		size_t home;

		i = (i + 1) & (set->room - 1);
		if (!set->slot[i])
			break;
		home = set_home(set, set->slot[i] - 1);
		if (((i - home) & (set->room - 1)) >= ((i - hole) & (set->room - 1))) {
			set->slot[hole] = set->slot[i];
			hole = i;
		}
	}
	set->slot[hole] = 0;
	set->count--;
}

bool set_has(const struct cluster_set *set, u64 number)
{
	return set->room && set->slot[set_find(set, number)];
}

bool set_has_any(const struct cluster_set *set, u64 first, u64 count)
{
	for (u64 i = 0; i < count; i++)
		if (set_has(set, first + i))
			return true;
	return false;
}

void set_free(struct cluster_set *set)
{
	free(set->slot);
	*set = (struct cluster_set){ 0 };
}
