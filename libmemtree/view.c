/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <stdlib.h>

#include "internal.h"

struct mt_view *
mt__view_alloc(struct mt_topology *t)
{
	struct mt_view *v;

	if ((v = calloc(1, sizeof(*v))) == NULL)
		return (NULL);
	v->topology = t;
	atomic_init(&v->refs, 1);
	TAILQ_INIT(&v->old_nodes);
	TAILQ_INIT(&v->old_spans);
	atomic_fetch_add_explicit(&t->objects, 1, memory_order_relaxed);
	return (v);
}

struct mt_view *
mt_view_get(struct mt_view *v)
{
	if (v != NULL)
		atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
	return (v);
}

/* Free a view that nobody holds, and what only it and those before it had. */
static void
free_view(struct mt_view *v)
{
	struct mt_topology *t = v->topology;
	struct mt__span *span;
	struct mt__node *n;

	if (v->next == NULL)
		mt__tree_free(v->top);
	while ((span = TAILQ_FIRST(&v->old_spans)) != NULL) {
		TAILQ_REMOVE(&v->old_spans, span, link);
		mt__span_free(span);
	}
	while ((n = TAILQ_FIRST(&v->old_nodes)) != NULL) {
		TAILQ_REMOVE(&v->old_nodes, n, link);
		free(n);
	}
	free(v);
	/* Pairs with the acquire in mt_topology_destroy(). */
	atomic_fetch_sub_explicit(&t->objects, 1, memory_order_release);
}

void
mt_view_put(struct mt_view *v)
{
	struct mt_view *next;

	/*
	 * The order is that of mt_region_put(); it also makes v->next visible,
	 * which was set by who dropped the reference of the root.
	 */
	while (v != NULL && atomic_fetch_sub_explicit(&v->refs, 1,
	    memory_order_acq_rel) == 1) {
		next = v->next;
		free_view(v);
		v = next;
	}
}

static void
put_retired(struct mt__retired *retired)
{
	mt_view_put((struct mt_view *)(void *)retired);
}

void
mt__view_retire(struct mt_view *v)
{
	mt__retire_after_grace(v->topology, &v->retired, put_retired);
}

const struct mt__span *
mt__view_search(const struct mt_view *v, mt_addr addr)
{
	const struct mt__span *span = mt__tree_at(v->top, addr);

	return (span != NULL ? span : mt__tree_next(v->top, addr));
}

void
mt__section_of(const struct mt__span *span, struct mt_section *sec)
{
	sec->range = span->range;
	sec->region = span->region;
	sec->off = span->off;
	sec->flags = span->flags & MT__SECTION_FLAGS;
}

bool
mt_view_next(const struct mt_view *v, mt_addr addr, struct mt_section *sec)
{
	const struct mt__span *span = mt__view_search(v, addr);

	if (span == NULL)
		return (false);
	mt__section_of(span, sec);
	return (true);
}

size_t
mt_view_count(const struct mt_view *v)
{
	return (v->count);
}
