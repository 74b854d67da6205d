/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_DUMP_H
#define LIBMEMTREE_DUMP_H

#include <stdio.h>

#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_region;
struct mt_space;

/*
 * Write the tree under root to fp as text: a line a region, indented by
 * depth, siblings in the order in which they win.  Targets of aliases that
 * are not part of the tree follow as trees of their own.  In names, here and
 * below, control characters and what is not UTF-8 are replaced by U+FFFD.
 *
 * Context: takes the topology's writer lock while it writes.
 * Returns: 0, or -1 with errno set.
 * Errors:  ENOMEM, EDEADLK (from a listener), and those of writing to fp.
 * Since:   0.1
 */
int	mt_dump_tree(FILE *fp, struct mt_region *root);

/*
 * Write the current view of sp to fp as text: a line a section, and the
 * holes between them left out.
 *
 * Context: any thread; takes no lock of the library.
 * Returns: 0, or -1 with errno set.
 * Errors:  those of writing to fp.
 * Since:   0.1
 */
int	mt_dump_view(FILE *fp, struct mt_space *sp);

/*
 * Write the tree under root to fp as a graph for Graphviz's dot(1): a node a
 * region, with its address, priority and kind; solid edges to children, in
 * the order in which they win; dashed edges from aliases to what they show;
 * grey what is disabled, or in something disabled.
 *
 * Context, Returns, Errors: as mt_dump_tree().
 * Since:   0.1
 */
int	mt_dump_dot(FILE *fp, struct mt_region *root);

/*
 * Write the current view of sp to fp as an SVG picture: sections and holes
 * from the lowest address down, with names, sizes and kinds.  Neighbours of
 * like size are drawn to one scale, all others as tall as their text.  Of
 * more than 256 sections the middle is left out.
 *
 * Context: any thread; takes no lock of the library.
 * Returns: 0, or -1 with errno set.
 * Errors:  ENOMEM, and those of writing to fp.
 * Since:   0.1
 */
int	mt_dump_svg(FILE *fp, struct mt_space *sp);

#ifdef __cplusplus
}
#endif

#endif
