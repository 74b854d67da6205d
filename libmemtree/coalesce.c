/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Extras with the eventfds of r, and room for ranges. */
static struct mt__extras *
with_room(const struct mt_region *r, size_t nranges)
{
	struct mt__extras *x = mt__extras_alloc(r->topology, nranges);

	if (x != NULL && r->state.extras != NULL)
		x->eventfds = mt__eventfds_get(r->state.extras->eventfds);
	return (x);
}

/* Does a end before b begins, with something in between? */
static bool
apart(const struct mt_range *a, const struct mt_range *b)
{
	return (a->last < b->first && a->last + 1 < b->first);
}

/* Copy the ranges of old, ascending, with range among them. */
static void
fill(struct mt__extras *x, const struct mt__extras *old, struct mt_range range)
{
	size_t i = 0, n = old != NULL ? old->nranges : 0, to = 0;

	for (; i < n && apart(&old->ranges[i], &range); i++)
		x->ranges[to++] = old->ranges[i];
	for (; i < n && !apart(&range, &old->ranges[i]); i++) {
		if (old->ranges[i].first < range.first)
			range.first = old->ranges[i].first;
		if (old->ranges[i].last > range.last)
			range.last = old->ranges[i].last;
	}
	x->ranges[to++] = range;
	for (; i < n; i++)
		x->ranges[to++] = old->ranges[i];
	x->nranges = to;
}

size_t
mt__coalesce_find(const struct mt__extras *x, mt_addr off)
{
	size_t low = 0, high = x != NULL ? x->nranges : 0, mid;

	while (low < high) {
		mid = low + (high - low) / 2;
		if (x->ranges[mid].last < off)
			low = mid + 1;
		else
			high = mid;
	}
	return (low);
}

/* Is there a range that has all of this one? */
static bool
covered(const struct mt__extras *x, struct mt_range range)
{
	size_t i = mt__coalesce_find(x, range.first);

	return (x != NULL && i < x->nranges &&
	    x->ranges[i].first <= range.first &&
	    x->ranges[i].last >= range.last);
}

bool
mt__coalesce_shown(const struct mt__span *span, const struct mt_range *range,
    struct mt_range *shown)
{
	mt_addr end = span->off + (span->range.last - span->range.first);
	mt_addr first = range->first > span->off ? range->first : span->off;
	mt_addr last = range->last < end ? range->last : end;

	if (first > last)
		return (false);
	shown->first = span->range.first + (first - span->off);
	shown->last = span->range.first + (last - span->off);
	return (true);
}

int
mt_region_add_coalescing(struct mt_region *r, mt_addr off, mt_addr last)
{
	const struct mt_range range = { off, last };
	const struct mt__extras *old;
	struct mt__extras *x;

	if (off > last || r->ops == NULL) {
		errno = EINVAL;
		return (-1);
	}
	if (mt__extras_begin(r) == -1)
		return (-1);
	old = r->state.extras;
	if (covered(old, range))
		return (mt__extras_refuse(r, 0));
	x = with_room(r, (old != NULL ? old->nranges : 0) + 1);
	if (x == NULL)
		return (mt__extras_refuse(r, ENOMEM));
	fill(x, old, range);
	return (mt__extras_set(r, x));
}

int
mt_region_clear_coalescing(struct mt_region *r)
{
	struct mt__extras *x;

	if (r->ops == NULL) {
		errno = EINVAL;
		return (-1);
	}
	if (mt__extras_begin(r) == -1)
		return (-1);
	if (r->state.extras == NULL || r->state.extras->nranges == 0)
		return (mt__extras_refuse(r, 0));
	if ((x = with_room(r, 0)) == NULL)
		return (mt__extras_refuse(r, ENOMEM));
	return (mt__extras_set(r, x));
}
