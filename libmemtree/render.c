/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Flatten a region tree.  Walk it in the order in which regions win, children
 * before the region itself; each one that answers accesses paints the parts
 * of its window that nobody has painted yet.
 *
 * A window is the range of addresses through which some region is seen,
 * together with the offset in that region that its first address shows.  It
 * only ever shrinks on the way down, so that all fits in 64 bits: where QEMU
 * needs wider, signed numbers for a base below zero (a window into the middle
 * of a region), we have an offset above zero.
 */

#include <errno.h>
#include <stdlib.h>

#include <bsd/sys/tree.h>

#include "internal.h"

struct piece {
	RB_ENTRY(piece) entry;
	struct mt_range range;
	mt_addr off;
	struct mt_region *region;
	unsigned int flags;
};

RB_HEAD(pieces, piece);

/* Pieces never overlap, so their first addresses order them. */
static int
compare(struct piece *a, struct piece *b)
{
	if (a->range.first == b->range.first)
		return (0);
	return (a->range.first < b->range.first ? -1 : 1);
}

RB_GENERATE_INTERNAL(pieces, piece, entry, compare,
    static __attribute__((unused)))

struct window {
	struct mt_range range;
	mt_addr off;			/* in the region, of range.first */
	unsigned int flags;		/* MT_SECTION_* inherited */
};

static int
insert(struct pieces *pieces, struct mt_region *r, const struct window *w,
    mt_addr first, mt_addr last)
{
	struct piece *p;

	if ((p = malloc(sizeof(*p))) == NULL)
		return (-1);
	p->range.first = first;
	p->range.last = last;
	p->off = w->off + (first - w->range.first);
	p->region = r;
	p->flags = w->flags;
	RB_INSERT(pieces, pieces, p);
	return (0);
}

/* The first piece that ends at or after addr. */
static struct piece *
piece_at(struct pieces *pieces, mt_addr addr)
{
	struct piece key, *p, *before;

	key.range.first = addr;
	p = RB_NFIND(pieces, pieces, &key);
	before = p != NULL ? RB_PREV(pieces, pieces, p) :
	    RB_MAX(pieces, pieces);
	if (before != NULL && before->range.last >= addr)
		return (before);
	return (p);
}

/* Fill what is free in the window. */
static int
paint(struct pieces *pieces, struct mt_region *r, const struct window *w)
{
	struct piece *p = piece_at(pieces, w->range.first);
	mt_addr addr = w->range.first;

	for (;;) {
		if (p == NULL || p->range.first > w->range.last)
			return (insert(pieces, r, w, addr, w->range.last));
		if (addr < p->range.first &&
		    insert(pieces, r, w, addr, p->range.first - 1) == -1)
			return (-1);
		if (p->range.last >= w->range.last)
			return (0);
		addr = p->range.last + 1;
		p = RB_NEXT(pieces, pieces, p);
	}
}

/* Cut a window so that at most room + 1 bytes of it remain. */
static void
cut(struct window *w, mt_addr room)
{
	if (w->range.last - w->range.first > room)
		w->range.last = w->range.first + room;
}

static int	walk(struct pieces *pieces, struct mt_region *r,
		    struct window w);

static int
walk_children(struct pieces *pieces, struct mt_region *r,
    const struct window *w)
{
	mt_addr end = w->off + (w->range.last - w->range.first);
	struct mt_region *child;
	struct window cw;
	mt_addr first;

	TAILQ_FOREACH(child, &r->children, sibling) {
		if (child->state.addr > end)
			continue;
		first = child->state.addr > w->off ? child->state.addr :
		    w->off;
		cw = *w;
		cw.range.first += first - w->off;
		cw.off = first - child->state.addr;
		if (walk(pieces, child, cw) == -1)
			return (-1);
	}
	return (0);
}

static int
walk(struct pieces *pieces, struct mt_region *r, struct window w)
{
	if (!r->state.enabled || w.off > r->state.last)
		return (0);
	cut(&w, r->state.last - w.off);
	if (r->state.readonly || r->write_protected)
		w.flags |= MT_SECTION_READONLY;
	if (r->state.nonvolatile)
		w.flags |= MT_SECTION_NONVOLATILE;
	if (r->kind == MT_ALIAS) {
		/* Subregions of an alias lie on top of what it shows. */
		if (walk_children(pieces, r, &w) == -1)
			return (-1);
		if (w.off > MT_LAST_MAX - r->state.alias_off)
			return (0);
		w.off += r->state.alias_off;
		cut(&w, MT_LAST_MAX - w.off);
		return (walk(pieces, r->target, w));
	}
	if (walk_children(pieces, r, &w) == -1)
		return (-1);
	if (r->kind == MT_CONTAINER)
		return (0);
	if (r->kind == MT_ROM_DEVICE && r->state.rom_mode)
		w.flags |= MT_SECTION_ROM_MODE;
	return (paint(pieces, r, &w));
}

/* Does b go on where a ends, so that they are one section? */
static bool
continues(const struct piece *a, const struct piece *b)
{
	return (a->range.last + 1 == b->range.first &&
	    a->region == b->region && a->flags == b->flags &&
	    a->off + (a->range.last - a->range.first) + 1 == b->off);
}

static void
fill_span(struct mt__span *span, const struct piece *p)
{
	struct mt_region *r = p->region;

	span->range = p->range;
	span->region = mt_region_get(r);
	span->off = p->off;
	/* A region may hang out over the end of all addresses. */
	span->region_last = r->state.last - p->off >
	    MT_LAST_MAX - p->range.first ?
	    p->off + (MT_LAST_MAX - p->range.first) : r->state.last;
	span->flags = p->flags;
	span->host = r->ptr != NULL ? r->ptr + p->off : NULL;
	if (mt__region_is_ram(r) || (p->flags & MT_SECTION_ROM_MODE) != 0)
		span->flags |= MT__DIRECT_READ;
	if (r->kind == MT_RAM && (p->flags & MT_SECTION_READONLY) == 0)
		span->flags |= MT__DIRECT_WRITE;
}

static struct mt_view *
flatten(struct mt_topology *t, struct pieces *pieces)
{
	struct piece *p, *prev = NULL;
	struct mt__span *span = NULL;
	struct mt_view *v;
	size_t n = 0;

	RB_FOREACH(p, pieces, pieces) {
		n += prev == NULL || !continues(prev, p);
		prev = p;
	}
	if ((v = mt__view_alloc(t, n)) == NULL)
		return (NULL);
	prev = NULL;
	RB_FOREACH(p, pieces, pieces) {
		if (prev != NULL && continues(prev, p))
			span->range.last = p->range.last;
		else {
			span = &v->spans[v->nspans++];
			fill_span(span, p);
		}
		prev = p;
	}
	for (n = 0; n < v->nspans; n++)
		v->lasts[n] = v->spans[n].range.last;
	return (v);
}

struct mt_view *
mt__render(struct mt_region *root)
{
	struct pieces pieces = RB_INITIALIZER(&pieces);
	struct window w = { .range = { 0, MT_LAST_MAX } };
	struct mt_view *v = NULL;
	struct piece *p, *next;

	if (walk(&pieces, root, w) == 0)
		v = flatten(root->topology, &pieces);
	RB_FOREACH_SAFE(p, pieces, &pieces, next) {
		RB_REMOVE(pieces, &pieces, p);
		free(p);
	}
	if (v == NULL)
		errno = ENOMEM;
	return (v);
}
