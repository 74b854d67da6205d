/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Flatten the part of a region tree that a range of addresses shows.  Walk it
 * in the order in which regions win, children before the region itself; each
 * one that answers accesses paints the parts of its window that nobody has
 * painted yet.  Then put what came out into a build, together with what it
 * continues on either side.
 *
 * A window is the range of addresses through which some region is seen,
 * together with the offset in that region that its first address shows.  It
 * only ever shrinks on the way down, so that all fits in 64 bits: where QEMU
 * needs wider, signed numbers for a base below zero (a window into the middle
 * of a region), we have an offset above zero.
 */

#include <errno.h>
#include <stdlib.h>

#include <bsd/stdlib.h>
#include <bsd/sys/tree.h>

#include "internal.h"

struct mt__piece {
	RB_ENTRY(mt__piece) entry;
	struct mt_range range;
	mt_addr off;
	struct mt_region *region;
	unsigned int flags;
};

/* Pieces never overlap, so their first addresses order them. */
static int
compare(struct mt__piece *a, struct mt__piece *b)
{
	if (a->range.first == b->range.first)
		return (0);
	return (a->range.first < b->range.first ? -1 : 1);
}

RB_GENERATE_INTERNAL(mt__pieces, mt__piece, entry, compare,
    static __attribute__((unused)))

struct window {
	struct mt_range range;
	mt_addr off;			/* in the region, of range.first */
	unsigned int flags;		/* MT_SECTION_* inherited */
};

static int
insert(struct mt__pieces *pieces, struct mt_region *r, const struct window *w,
    mt_addr first, mt_addr last)
{
	struct mt__piece *p;

	if ((p = malloc(sizeof(*p))) == NULL)
		return (-1);
	p->range.first = first;
	p->range.last = last;
	p->off = w->off + (first - w->range.first);
	p->region = r;
	p->flags = w->flags;
	RB_INSERT(mt__pieces, pieces, p);
	return (0);
}

/* The first piece that ends at or after addr. */
static struct mt__piece *
piece_at(struct mt__pieces *pieces, mt_addr addr)
{
	struct mt__piece key, *p, *before;

	key.range.first = addr;
	p = RB_NFIND(mt__pieces, pieces, &key);
	before = p != NULL ? RB_PREV(mt__pieces, pieces, p) :
	    RB_MAX(mt__pieces, pieces);
	if (before != NULL && before->range.last >= addr)
		return (before);
	return (p);
}

/* Fill what is free in the window. */
static int
paint(struct mt__pieces *pieces, struct mt_region *r, const struct window *w)
{
	struct mt__piece *p = piece_at(pieces, w->range.first);
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
		p = RB_NEXT(mt__pieces, pieces, p);
	}
}

/* Cut a window so that at most room + 1 bytes of it remain. */
static void
cut(struct window *w, mt_addr room)
{
	if (w->range.last - w->range.first > room)
		w->range.last = w->range.first + room;
}

/* A region that is walked through, whose last children are still to come. */
struct mt__frame {
	struct mt_region *region;
	struct window window;
	size_t bottom;			/* of its children in scratch */
};

static int
push_frame(struct mt_region *r, const struct window *w)
{
	struct mt_topology *t = r->topology;
	struct mt__frame *frames;
	size_t room;

	if (t->nframes == t->frames_room) {
		room = t->frames_room * 2 + 16;
		frames = reallocarray(t->frames, room, sizeof(*frames));
		if (frames == NULL)
			return (-1);
		t->frames = frames;
		t->frames_room = room;
	}
	frames = &t->frames[t->nframes];
	frames->region = r;
	frames->window = *w;
	frames->bottom = t->scratch_n;
	if (mt__children_push(r, w->off, w->off +
	    (w->range.last - w->range.first)) == -1)
		return (-1);
	t->nframes++;
	return (0);
}

/* Narrow the window to r: false if nothing of it is left. */
static bool
narrow(const struct mt_region *r, struct window *w)
{
	if (!r->state.enabled || w->off > r->state.last)
		return (false);
	cut(w, r->state.last - w->off);
	if (r->state.readonly || r->write_protected)
		w->flags |= MT_SECTION_READONLY;
	if (r->state.nonvolatile)
		w->flags |= MT_SECTION_NONVOLATILE;
	if (r->state.unmergeable)
		w->flags |= MT_SECTION_UNMERGEABLE;
	return (true);
}

/*
 * What r shows below its children.  For an alias that is its target, whose
 * window w becomes; *next is NULL if there is no such thing.
 */
static int
show(struct mt__pieces *pieces, struct mt_region *r, struct window *w,
    struct mt_region **next)
{
	*next = NULL;
	switch (r->kind) {
	case MT_CONTAINER:
		return (0);
	case MT_ALIAS:
		if (w->off > MT_LAST_MAX - r->state.alias_off)
			return (0);
		w->off += r->state.alias_off;
		cut(w, MT_LAST_MAX - w->off);
		*next = r->rare->target;
		return (0);
	default:
		if (r->kind == MT_ROM_DEVICE && r->state.rom_mode)
			w->flags |= MT_SECTION_ROM_MODE;
		return (paint(pieces, r, w));
	}
}

/* Paint r, or push a frame for what is to be painted first. */
static int
enter(struct mt__pieces *pieces, struct mt_region *r, struct window w)
{
	while (r != NULL) {
		if (!narrow(r, &w))
			return (0);
		if (mt__children_any(r) != NULL)
			return (push_frame(r, &w));
		if (show(pieces, r, &w, &r) == -1)
			return (-1);
	}
	return (0);
}

/* Of the window of its parent the part that begins with child, or in it. */
static struct window
child_window(const struct window *w, const struct mt_region *child)
{
	mt_addr first = child->state.addr > w->off ? child->state.addr :
	    w->off;
	struct window cw = *w;

	cw.range.first += first - w->off;
	cw.off = first - child->state.addr;
	return (cw);
}

/* Trees may be deep: the stack is one of our own. */
static int
walk(struct mt__pieces *pieces, struct mt_region *r, struct window w)
{
	struct mt_topology *t = r->topology;
	struct mt_region *child;
	struct mt__frame *f;
	int ret;

	ret = enter(pieces, r, w);
	while (ret == 0 && t->nframes > 0) {
		f = &t->frames[t->nframes - 1];
		if (t->scratch_n > f->bottom) {
			child = t->scratch[--t->scratch_n];
			ret = enter(pieces, child,
			    child_window(&f->window, child));
			continue;
		}
		/* Subregions of an alias lie on top of what it shows. */
		t->nframes--;
		w = f->window;
		ret = show(pieces, f->region, &w, &r);
		if (ret == 0)
			ret = enter(pieces, r, w);
	}
	if (ret == -1)
		t->nframes = t->scratch_n = 0;
	return (ret);
}

/* Does b go on where a ends, so that they are one section? */
static bool
continues(const struct mt__piece *a, const struct mt__piece *b)
{
	return ((a->flags & MT_SECTION_UNMERGEABLE) == 0 &&
	    a->range.last + 1 == b->range.first &&
	    a->region == b->region && a->flags == b->flags &&
	    a->off + (a->range.last - a->range.first) + 1 == b->off);
}

/* Make neighbours that continue each other one. */
static void
merge(struct mt__pieces *pieces)
{
	struct mt__piece *p, *next;

	for (p = RB_MIN(mt__pieces, pieces); p != NULL; p = next) {
		next = RB_NEXT(mt__pieces, pieces, p);
		while (next != NULL && continues(p, next)) {
			p->range.last = next->range.last;
			RB_REMOVE(mt__pieces, pieces, next);
			free(next);
			next = RB_NEXT(mt__pieces, pieces, p);
		}
	}
}

/* The part of a span that lies in [first, last], as a piece. */
static int
insert_part(struct mt__pieces *pieces, const struct mt__span *span,
    mt_addr first, mt_addr last)
{
	struct window w = { .range = span->range, .off = span->off,
	    .flags = span->flags & MT__SECTION_FLAGS };

	return (insert(pieces, span->region, &w, first, last));
}

/*
 * The last offset that an access may reach.  A register that is hidden in part
 * is accessed as a whole, but not what is hidden of a RAM device.
 */
static mt_addr
reach(const struct mt__piece *p)
{
	mt_addr last = p->region->kind != MT_RAM_DEVICE ?
	    p->region->state.last :
	    p->off + (p->range.last - p->range.first);
	/* A region may hang out over the end of all addresses. */
	mt_addr room = MT_LAST_MAX - p->range.first;

	return (last - p->off > room ? p->off + room : last);
}

static void
fill_span(struct mt__span *span, const struct mt__piece *p)
{
	struct mt_region *r = p->region;

	span->range = p->range;
	span->region = mt_region_get(r);
	span->off = p->off;
	span->region_last = reach(p);
	span->flags = p->flags;
	span->extras = mt__extras_get(r->state.extras);
	span->host = r->ptr != NULL ? r->ptr + p->off : NULL;
	if (mt__region_is_ram(r) || (p->flags & MT_SECTION_ROM_MODE) != 0)
		span->flags |= MT__DIRECT_READ;
	if (r->kind == MT_RAM && (p->flags & MT_SECTION_READONLY) == 0)
		span->flags |= MT__DIRECT_WRITE;
	if (r->kind == MT_IOMMU)
		span->flags |= MT__IOMMU;
	if (r->ops != NULL && r->ops->qemu_exact)
		span->flags |= MT__EXACT;
	span->pin = r->pin;
}

/* Would the piece make just this span? */
static bool
same(const struct mt__piece *p, const struct mt__span *span)
{
	return (p->range.first == span->range.first &&
	    p->range.last == span->range.last && p->region == span->region &&
	    p->off == span->off &&
	    p->flags == (span->flags & MT__SECTION_FLAGS) &&
	    p->region->state.extras == span->extras &&
	    reach(p) == span->region_last);
}

/*
 * Put the pieces in the place of all spans of the build that they or
 * [first, last] overlap.  Ascending, as listeners are told.
 */
static int
replace(struct mt__build *b, struct mt__pieces *pieces, mt_addr first,
    mt_addr last)
{
	struct mt__piece *p;
	struct mt__span *span;
	mt_addr addr = first;

	/* Out goes what is not there any more, or not like that. */
	for (;;) {
		span = (struct mt__span *)(uintptr_t)mt__tree_next(b->top,
		    addr);
		if (span == NULL || span->range.first > last)
			break;
		addr = span->range.last;
		p = piece_at(pieces, span->range.first);
		if (p != NULL && same(p, span)) {
			RB_REMOVE(mt__pieces, pieces, p);
			free(p);
		} else if (mt__build_del(b, span) == -1)
			return (-1);
		if (addr++ == MT_LAST_MAX)
			break;
	}
	RB_FOREACH(p, mt__pieces, pieces) {
		if ((span = calloc(1, sizeof(*span))) == NULL)
			return (-1);
		fill_span(span, p);
		if (mt__build_add(b, span) == -1)
			return (-1);
	}
	return (0);
}

/*
 * What lies across the ends of the range, or right before and behind it, may
 * be continued by what is in the range now: let its other part take part.
 */
static int
insert_neighbours(const struct mt__build *b, struct mt__pieces *pieces,
    mt_addr *first, mt_addr *last)
{
	const struct mt__span *span;
	mt_addr at;

	if (*first != 0) {
		at = *first - 1;
		span = mt__tree_at(b->top, at);
		if (span != NULL) {
			if (insert_part(pieces, span, span->range.first,
			    at) == -1)
				return (-1);
			*first = span->range.first;
		}
	}
	if (*last != MT_LAST_MAX) {
		at = *last + 1;
		span = mt__tree_at(b->top, at);
		if (span != NULL) {
			if (insert_part(pieces, span, at, span->range.last)
			    == -1)
				return (-1);
			*last = span->range.last;
		}
	}
	return (0);
}

/*
 * A part of an unmergeable section cannot be joined with the rest of it any
 * more, as two such sections side by side may look just the same.  So render
 * all of those that the range cuts, or touches: it may go on in the range now.
 * Where another range of this commit changes what such a section is, that one
 * touches it and comes to render it, too.
 */
static void
widen(const struct mt__build *b, mt_addr *first, mt_addr *last)
{
	const struct mt__span *span;

	if (*first != 0) {
		span = mt__tree_at(b->top, *first - 1);
		if (span != NULL &&
		    (span->flags & MT_SECTION_UNMERGEABLE) != 0)
			*first = span->range.first;
	}
	if (*last != MT_LAST_MAX) {
		span = mt__tree_at(b->top, *last + 1);
		if (span != NULL &&
		    (span->flags & MT_SECTION_UNMERGEABLE) != 0)
			*last = span->range.last;
	}
}

int
mt__render(struct mt__build *b, struct mt_region *region, mt_addr first,
    mt_addr last)
{
	struct mt__pieces pieces = RB_INITIALIZER(&pieces);
	struct window w = { .flags = 0 };
	struct mt__piece *p, *next;
	int ret;

	widen(b, &first, &last);
	w.range.first = w.off = first;
	w.range.last = last;
	ret = walk(&pieces, region, w);
	if (ret == 0)
		ret = insert_neighbours(b, &pieces, &first, &last);
	if (ret == 0) {
		merge(&pieces);
		ret = replace(b, &pieces, first, last);
	}
	RB_FOREACH_SAFE(p, mt__pieces, &pieces, next) {
		RB_REMOVE(mt__pieces, &pieces, p);
		free(p);
	}
	if (ret == -1)
		errno = ENOMEM;
	return (ret);
}
