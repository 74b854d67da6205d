/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * What few regions have besides their state: eventfds and ranges in which
 * writes may be coalesced.  Behind one pointer, which is NULL in all others.
 *
 * What is here is in waiting, unless it is what a region has now: so it counts
 * from when it is made to when it is freed, and mt__region_apply() takes off
 * what the region gets and adds what it had.  Versions share nodes, and views
 * of several spaces share versions: none is counted twice.
 */

#include <errno.h>
#include <stdlib.h>

#include "internal.h"

struct mt__extras *
mt__extras_alloc(struct mt_topology *t, size_t nranges)
{
	struct mt__extras *x;
	size_t size = sizeof(*x) + nranges * sizeof(x->ranges[0]);

	if ((x = calloc(1, size)) == NULL)
		return (NULL);
	mt__waiting_add(t, size);
	atomic_init(&x->refs, 1);
	x->topology = t;
	x->size = size;
	x->nranges = nranges;
	return (x);
}

struct mt__extras *
mt__extras_get(struct mt__extras *x)
{
	/* Whoever takes a reference knows somebody who holds one. */
	if (x != NULL)
		atomic_fetch_add_explicit(&x->refs, 1, memory_order_relaxed);
	return (x);
}

void
mt__extras_put(struct mt__extras *x)
{
	/* The order is that of mt_region_put(). */
	if (x == NULL || atomic_fetch_sub_explicit(&x->refs, 1,
	    memory_order_acq_rel) != 1)
		return;
	mt__eventfds_put(x->eventfds);
	mt__waiting_sub(x->topology, x->size);
	free(x);
}

size_t
mt__extras_bytes(const struct mt__extras *x)
{
	if (x == NULL)
		return (0);
	return (x->size + (x->eventfds == NULL ? 0 : x->eventfds->count *
	    (sizeof(struct mt__enode) + sizeof(struct mt__eventfd))));
}

int
mt__extras_begin(struct mt_region *r)
{
	struct mt_topology *t = r->topology;

	if (mt_topology_begin(t) == -1)
		return (-1);
	/* An eventfd that is to be added counts already. */
	if (!mt__waiting_exceeds(t, sizeof(struct mt__eventfd)))
		t->had_room = true;
	return (0);
}

int
mt__extras_set(struct mt_region *r, struct mt__extras *x)
{
	struct mt__extras *set = x;
	int ret, saved_errno;

	if (x->eventfds == NULL && x->nranges == 0)
		set = NULL;
	ret = mt__region_set_extras(r, set);
	saved_errno = errno;
	mt__extras_put(x);
	errno = saved_errno;
	return (ret);
}

int
mt__extras_refuse(struct mt_region *r, int error)
{
	(void)mt_topology_commit(r->topology);
	if (error == 0)
		return (0);
	errno = error;
	return (-1);
}
