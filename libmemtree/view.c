/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Sections in a part of a view: what a mapping of few bytes may pin. */
#define MAX_PART	64

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

void
mt__view_discard(struct mt_view *v)
{
	struct mt_topology *t = v->topology;

	free(v);
	/* Pairs with the acquire in mt_topology_destroy(). */
	atomic_fetch_sub_explicit(&t->objects, 1, memory_order_release);
}

void
mt__view_link(struct mt_view *v, struct mt_view *next)
{
	pthread_mutex_lock(&v->topology->views_lock);
	v->next = next;
	next->prev = v;
	pthread_mutex_unlock(&v->topology->views_lock);
}

/* Leave to the view before v, which goes, what both have. */
static void
bequeath_locked(struct mt_view *v)
{
	struct mt_view *heir = v->prev;
	struct mt__span *span, *next_span;
	struct mt__node *n, *next_node;

	TAILQ_FOREACH_SAFE(span, &v->old_spans, link, next_span)
		if (span->build <= heir->build) {
			TAILQ_REMOVE(&v->old_spans, span, link);
			TAILQ_INSERT_TAIL(&heir->old_spans, span, link);
		}
	TAILQ_FOREACH_SAFE(n, &v->old_nodes, link, next_node)
		if (n->build <= heir->build) {
			TAILQ_REMOVE(&v->old_nodes, n, link);
			TAILQ_INSERT_TAIL(&heir->old_nodes, n, link);
		}
}

/* Free a view that nobody holds, and what no other has. */
static void
free_view(struct mt_view *v)
{
	struct mt_topology *t = v->topology;
	struct mt__span *span;
	struct mt__node *n;
	size_t bytes = sizeof(*v);
	bool is_last;

	pthread_mutex_lock(&t->views_lock);
	is_last = v->next == NULL;
	if (v->prev != NULL) {
		bequeath_locked(v);
		/* Under the lock: the heir might free what both have. */
		if (is_last) {
			bytes += mt__tree_free(v->top, v->prev->build + 1);
			/* Garbage is part of its tree, which is its own now. */
			TAILQ_INIT(&v->prev->old_spans);
			TAILQ_INIT(&v->prev->old_nodes);
		}
		v->prev->next = v->next;
	}
	if (v->next != NULL)
		v->next->prev = v->prev;
	pthread_mutex_unlock(&t->views_lock);
	/* Nobody else knows any of this any more. */
	if (is_last && v->prev == NULL)
		bytes += mt__tree_free(v->top, 0);
	while ((span = TAILQ_FIRST(&v->old_spans)) != NULL) {
		TAILQ_REMOVE(&v->old_spans, span, link);
		mt__span_free(span);
		bytes += sizeof(*span);
	}
	while ((n = TAILQ_FIRST(&v->old_nodes)) != NULL) {
		TAILQ_REMOVE(&v->old_nodes, n, link);
		free(n);
		bytes += sizeof(*n);
	}
	mt__waiting_sub(t, bytes);
	mt__view_discard(v);
}

void
mt_view_put(struct mt_view *v)
{
	/* The order is that of mt_region_put(). */
	if (v != NULL && atomic_fetch_sub_explicit(&v->refs, 1,
	    memory_order_acq_rel) == 1)
		free_view(v);
}

/* With room for the span that is all most have. */
struct part {
	struct mt_view view;
	struct mt__span own;
};

_Static_assert(offsetof(struct part, view) == 0, "mt__view_part_free");

static void
copy_span(struct mt__span *copy, const struct mt__span *span)
{
	/* All but the link, which is the writer's. */
	memcpy(copy, span, offsetof(struct mt__span, link));
	mt_region_get(copy->region);
	mt__extras_get(copy->extras);
}

/* The tree of a part that is several sections: 0, or -1 with no memory. */
static int
build_part(struct mt_view *part, const struct mt_view *v, mt_addr first,
    mt_addr *last)
{
	const struct mt__span *span;
	struct mt__span *copy;
	struct mt__build b;

	mt__build_begin(&b, 1, part);
	for (;;) {
		span = mt__view_search(v, first);
		if (span == NULL || span->range.first > *last)
			break;
		if (b.count == MAX_PART) {
			*last = span->range.first - 1;
			break;
		}
		if ((copy = malloc(sizeof(*copy))) != NULL)
			copy_span(copy, span);
		if (copy == NULL || mt__build_add(&b, copy) == -1) {
			mt__build_abort(&b);
			return (-1);
		}
		if (span->range.last >= *last)
			break;
		first = span->range.last + 1;
	}
	part->top = b.top;
	return (0);
}

struct mt_view *
mt__view_part(const struct mt_view *v, mt_addr first, mt_addr *last)
{
	const struct mt__span *span = mt__tree_at(v->top, first);
	struct part *part;

	if ((part = malloc(sizeof(*part))) == NULL)
		return (NULL);
	/* It is not one of the topology's: what it shows keeps that. */
	part->view = (struct mt_view){ .topology = v->topology };
	atomic_init(&part->view.refs, 1);
	if (span != NULL && span->range.last >= *last) {
		copy_span(&part->own, span);
		part->view.top = (uintptr_t)&part->own;
	} else if (build_part(&part->view, v, first, last) == -1) {
		free(part);
		return (NULL);
	}
	return (&part->view);
}

void
mt__view_part_free(struct mt_view *v)
{
	struct part *part = (struct part *)(void *)v;

	if (v->top != (uintptr_t)&part->own)
		mt__tree_free(v->top, 0);
	else {
		mt__extras_put(part->own.extras);
		mt_region_put(part->own.region);
	}
	free(part);
}

static void
put_retired(struct mt__retired *retired)
{
	mt_view_put((struct mt_view *)(void *)retired);
}

void
mt__view_retire(struct mt_view *v, struct mt__build *b)
{
	struct mt_topology *t = v->topology;
	/* Nothing has gone, so nobody waits for its end. */
	bool patient = b != NULL && TAILQ_EMPTY(&b->dels);

	mt__waiting_add(t, b != NULL ? sizeof(*v) + b->garbage :
	    mt__view_bytes(v));
	if (b != NULL) {
		pthread_mutex_lock(&t->views_lock);
		TAILQ_CONCAT(&v->old_nodes, &b->old_nodes, link);
		TAILQ_CONCAT(&v->old_spans, &b->dels, link);
		pthread_mutex_unlock(&t->views_lock);
	}
	(patient ? mt__retire_patiently : mt__retire_after_grace)(t,
	    &v->retired, put_retired);
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
