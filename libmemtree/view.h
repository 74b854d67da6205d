/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_VIEW_H
#define LIBMEMTREE_VIEW_H

#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_region;

#define MT_SECTION_READONLY	(1u << 0)	/* its memory is not written */
#define MT_SECTION_ROM_MODE	(1u << 1)	/* ROM device, read in place */
#define MT_SECTION_NONVOLATILE	(1u << 2)
#define MT_SECTION_UNMERGEABLE	(1u << 3)	/* joins no neighbour */

/* A range of a view that one region answers. */
struct mt_section {
	struct mt_range range;		/* addresses in the space */
	struct mt_region *region;
	mt_addr off;			/* offset in region of range.first */
	unsigned int flags;		/* MT_SECTION_* bits */
};

/*
 * What a space looked like when it was taken: immutable, ascending, with
 * neighbours that continue each other merged, unless they are unmergeable.
 */
struct mt_view;

/*
 * Take or give back a reference to a view.  It keeps every region in it.
 * To get one from a space: mt_space_view().
 *
 * Context: any thread, callbacks included; never blocks.  NULL is ignored.
 * Since:   0.1
 */
struct mt_view *mt_view_get(struct mt_view *v);
void	mt_view_put(struct mt_view *v);

/*
 * Find the first section that ends at or after addr.  To walk a view, start
 * at 0 and go on at range.last + 1 while that is not 0.
 *
 * Owns:    sec->region is lent by the view.
 * Context: any thread that holds a reference to v.
 * Returns: true with *sec filled, or false if there is none.
 * Since:   0.1
 */
bool	mt_view_next(const struct mt_view *v, mt_addr addr,
	    struct mt_section *sec);

/*
 * How many sections a view has.
 * Since:   0.1
 */
size_t	mt_view_count(const struct mt_view *v);

#ifdef __cplusplus
}
#endif

#endif
