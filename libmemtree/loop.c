/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Would a region contain itself?  It would if the parent that it is to get can
 * be reached from it, downwards: by subregions and what aliases show.  That is
 * the same as reaching it from the parent, upwards: by parents and aliases.
 * There may be millions of regions on either side, and few on the other.  So
 * both walks go at once, a region each in turn, until they meet or one has come
 * to its end.
 *
 * A walk remembers where it has yet to look by links in the regions, so that it
 * needs no memory, nor a stack as deep as the tree.
 */

#include "internal.h"

struct walk {
	struct mt_region *at;		/* looked at last; up: or NULL */
	struct mt_region *next;		/* down: below at, or NULL */
	struct mt_region *top;		/* down: whose subregions these are */
	struct mt__rare *todo;		/* up: with aliases; down: targets */
	struct mt__rare *alias;		/* up: the next one, or NULL */
	uint64_t stamp;			/* of what this walk has seen */
	uint64_t other;			/* of what the other one has */
	bool met;
};

/* False: it has been seen. */
static bool
visit(struct walk *w, struct mt_region *r)
{
	if (r->visited == w->other)
		w->met = true;
	if (r->visited == w->stamp)
		return (false);
	r->visited = w->stamp;
	return (true);
}

static void
remember(struct walk *w, struct mt_region *r)
{
	r->rare->todo = w->todo;
	w->todo = r->rare;
}

static void
visit_up(struct walk *w, struct mt_region *r)
{
	w->at = NULL;
	if (!visit(w, r))
		return;
	w->at = r;
	if (r->rare != NULL && !LIST_EMPTY(&r->rare->aliases))
		remember(w, r);
}

/* One region on: false if there is none. */
static bool
step_up(struct walk *w)
{
	struct mt_region *r = w->at != NULL ? w->at->state.parent : NULL;

	if (r == NULL) {
		if (w->alias == NULL) {
			if (w->todo == NULL)
				return (false);
			w->alias = LIST_FIRST(&w->todo->aliases);
			w->todo = w->todo->todo;
		}
		r = w->alias->region;
		w->alias = LIST_NEXT(w->alias, alias);
	}
	visit_up(w, r);
	return (true);
}

/* Go on with the subregions of r, and see to what it shows. */
static void
enter(struct walk *w, struct mt_region *r)
{
	struct mt_region *target = mt__target_of(r);

	w->next = mt__children_first(r);
	w->at = r;
	if (target != NULL && visit(w, target))
		remember(w, target);
}

static bool
step_down(struct walk *w)
{
	struct mt_region *r = w->next;

	/* Up to where there is a sibling, if there is nothing below. */
	while (r == NULL && w->at != w->top) {
		r = mt__children_next(w->at);
		w->at = w->at->state.parent;
	}
	if (r != NULL) {
		w->next = NULL;
		w->at = r;
		if (visit(w, r))
			enter(w, r);
		return (true);
	}
	if (w->todo == NULL)
		return (false);
	w->top = w->todo->region;
	w->todo = w->todo->todo;
	enter(w, w->top);
	return (true);
}

bool
mt__makes_loop(struct mt_region *parent, struct mt_region *child)
{
	struct mt_topology *t = child->topology;
	struct walk up = { .stamp = t->visit + 1, .other = t->visit + 2 };
	struct walk down = { .stamp = up.other, .other = up.stamp,
	    .top = child };

	t->visit += 2;
	visit_up(&up, parent);
	if (visit(&down, child))
		enter(&down, child);
	while (!up.met && !down.met)
		if (!step_down(&down) || !step_up(&up))
			break;
	return (up.met || down.met);
}
