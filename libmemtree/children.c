/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The subregions of a region: a red-black tree by address in which each one
 * knows the last address of those below it, so that finding who reaches into
 * a range looks at little more than those.
 */

#include <errno.h>
#include <stdlib.h>

struct mt_region;
static void	augment(struct mt_region *r);

/* The tree's macros call this wherever what is below a node has changed. */
#define RB_AUGMENT(r)	augment(r)

#include <bsd/stdlib.h>

#include "internal.h"

static mt_addr
end_of(const struct mt_region *r)
{
	return (r->state.last > MT_LAST_MAX - r->state.addr ? MT_LAST_MAX :
	    r->state.addr + r->state.last);
}

/* All the way up, as not every change is told for every node above it. */
static void
augment(struct mt_region *r)
{
	struct mt_region *side;
	mt_addr last;

	for (; r != NULL; r = RB_PARENT(r, sibling)) {
		last = end_of(r);
		side = RB_LEFT(r, sibling);
		if (side != NULL && side->subtree_last > last)
			last = side->subtree_last;
		side = RB_RIGHT(r, sibling);
		if (side != NULL && side->subtree_last > last)
			last = side->subtree_last;
		r->subtree_last = last;
	}
}

/* No two siblings have the same seq. */
static int
compare(struct mt_region *a, struct mt_region *b)
{
	if (a->state.addr != b->state.addr)
		return (a->state.addr < b->state.addr ? -1 : 1);
	if (a->state.seq != b->state.seq)
		return (a->state.seq < b->state.seq ? -1 : 1);
	return (0);
}

RB_GENERATE_INTERNAL(mt__children, mt_region, sibling, compare,
    static __attribute__((unused)))

void
mt__children_insert(struct mt_region *parent, struct mt_region *r)
{
	r->subtree_last = end_of(r);
	parent->was_parent = true;
	RB_INSERT(mt__children, &parent->children, r);
	augment(r);
}

void
mt__children_remove(struct mt_region *parent, struct mt_region *r)
{
	RB_REMOVE(mt__children, &parent->children, r);
}

struct mt_region *
mt__children_any(const struct mt_region *parent)
{
	return (RB_ROOT(&parent->children));
}

struct mt_region *
mt__children_first(const struct mt_region *parent)
{
	struct mt_region *r = RB_ROOT(&parent->children);

	while (r != NULL && RB_LEFT(r, sibling) != NULL)
		r = RB_LEFT(r, sibling);
	return (r);
}

struct mt_region *
mt__children_next(const struct mt_region *r)
{
	/* The macro only reads. */
	return (mt__children_RB_NEXT((struct mt_region *)(uintptr_t)r));
}

static int
push(struct mt_topology *t, struct mt_region *r)
{
	struct mt_region **scratch;
	size_t room;

	if (t->scratch_n == t->scratch_room) {
		room = t->scratch_room * 2 + 64;
		scratch = reallocarray(t->scratch, room, sizeof(*scratch));
		if (scratch == NULL)
			return (-1);
		t->scratch = scratch;
		t->scratch_room = room;
	}
	t->scratch[t->scratch_n++] = r;
	return (0);
}

static int
push_below(struct mt_topology *t, struct mt_region *r, mt_addr first,
    mt_addr last)
{
	for (; r != NULL && r->subtree_last >= first;
	    r = RB_RIGHT(r, sibling)) {
		if (push_below(t, RB_LEFT(r, sibling), first, last) == -1)
			return (-1);
		if (r->state.addr > last)
			break;
		if (end_of(r) >= first && push(t, r) == -1)
			return (-1);
	}
	return (0);
}

/* Who loses first: higher priority wins, and who came later among equals. */
static int
by_loss(const void *pa, const void *pb)
{
	const struct mt_region *a = *(struct mt_region *const *)pa;
	const struct mt_region *b = *(struct mt_region *const *)pb;

	if (a->state.prio != b->state.prio)
		return (a->state.prio < b->state.prio ? -1 : 1);
	if (a->state.seq != b->state.seq)
		return (a->state.seq < b->state.seq ? -1 : 1);
	return (0);
}

int
mt__children_push(const struct mt_region *parent, mt_addr first,
    mt_addr last)
{
	struct mt_topology *t = parent->topology;
	size_t n = t->scratch_n;

	if (push_below(t, RB_ROOT(&parent->children), first, last) == -1) {
		t->scratch_n = n;
		errno = ENOMEM;
		return (-1);
	}
	if (t->scratch_n - n > 1)
		qsort(t->scratch + n, t->scratch_n - n, sizeof(*t->scratch),
		    by_loss);
	return (0);
}
