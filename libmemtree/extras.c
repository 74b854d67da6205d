/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * What few regions have besides their state: eventfds and ranges in which
 * writes may be coalesced.  Behind one pointer, which is NULL in all others.
 */

#include <errno.h>
#include <stdlib.h>

#include "internal.h"

struct mt__extras *
mt__extras_alloc(size_t nranges)
{
	struct mt__extras *x;

	x = calloc(1, sizeof(*x) + nranges * sizeof(x->ranges[0]));
	if (x == NULL)
		return (NULL);
	atomic_init(&x->refs, 1);
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
	free(x);
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
