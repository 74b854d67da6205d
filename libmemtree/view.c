/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A view is a sorted array of spans and, apart from it so that a search stays
 * in few cache lines, an array of their last addresses.
 */

#include <stdlib.h>
#include <string.h>

#include <bsd/stdlib.h>

#include "internal.h"

struct mt_view *
mt__view_alloc(struct mt_topology *t, size_t nspans)
{
	struct mt_view *v;

	if ((v = calloc(1, sizeof(*v))) == NULL)
		return (NULL);
	v->topology = t;
	atomic_init(&v->refs, 1);
	if (nspans != 0) {
		v->spans = reallocarray(NULL, nspans, sizeof(*v->spans));
		v->lasts = reallocarray(NULL, nspans, sizeof(*v->lasts));
		if (v->spans == NULL || v->lasts == NULL) {
			free(v->spans);
			free(v->lasts);
			free(v);
			return (NULL);
		}
	}
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

void
mt_view_put(struct mt_view *v)
{
	struct mt_topology *t;
	size_t i;

	/* The order is that of mt_region_put(). */
	if (v == NULL || atomic_fetch_sub_explicit(&v->refs, 1,
	    memory_order_acq_rel) != 1)
		return;
	t = v->topology;
	for (i = 0; i < v->nspans; i++)
		mt_region_put(v->spans[i].region);
	free(v->spans);
	free(v->lasts);
	free(v);
	/* Pairs with the acquire in mt_topology_destroy(). */
	atomic_fetch_sub_explicit(&t->objects, 1, memory_order_release);
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
	const mt_addr *lasts = v->lasts;
	size_t base = 0, n = v->nspans, half;

	if (n == 0)
		return (NULL);
	/* Without branches on the data: which half is a conditional move. */
	while (n > 1) {
		half = n / 2;
		base += lasts[base + half - 1] < addr ? half : 0;
		n -= half;
	}
	return (lasts[base] >= addr ? &v->spans[base] : NULL);
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
	return (v->nspans);
}

/*
 * Spans that a listener need not tell apart.  That a region was resized beyond
 * what the span shows of it matters to accesses only.
 */
static bool
same_section(const struct mt__span *a, const struct mt__span *b)
{
	return (a->range.first == b->range.first &&
	    a->range.last == b->range.last && a->region == b->region &&
	    a->off == b->off && a->flags == b->flags);
}

bool
mt__view_equal(const struct mt_view *a, const struct mt_view *b)
{
	size_t i;

	if (a->nspans != b->nspans)
		return (false);
	for (i = 0; i < a->nspans; i++)
		if (!same_section(&a->spans[i], &b->spans[i]) ||
		    a->spans[i].region_last != b->spans[i].region_last)
			return (false);
	return (true);
}

void
mt__view_diff(const struct mt_view *a, const struct mt_view *b,
    void (*fn)(void *, const struct mt_section *), void *arg)
{
	const struct mt__span *span;
	struct mt_section sec;
	size_t i, j = 0;

	for (i = 0; i < a->nspans; i++) {
		span = &a->spans[i];
		while (j < b->nspans &&
		    b->spans[j].range.first < span->range.first)
			j++;
		if (j < b->nspans && same_section(span, &b->spans[j]))
			continue;
		mt__section_of(span, &sec);
		fn(arg, &sec);
	}
}
