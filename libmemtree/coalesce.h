/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_COALESCE_H
#define LIBMEMTREE_COALESCE_H

#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_region;

/*
 * Say that writes to [off, last] of a device have no effects that anybody
 * waits for, so that whoever brings accesses (a hypervisor) may collect them
 * and pass them on later, in order.  A hint: the library tells listeners and
 * does nothing else with it.  Ranges that overlap or touch become one;
 * clearing takes all of them back.
 *
 * Both are part of a transaction, like any change of the tree.
 *
 * Units:   off and last are offsets in r, which may end before them; last is
 *          that of the last byte.
 * Context: as mt_region_add().
 * Returns: 0, or -1 with errno set and nothing changed.
 * Errors:  EINVAL (off above last, or a region without callbacks), ENOMEM,
 *          EAGAIN (see mt_topology_commit()), EDEADLK (from a listener).
 * Since:   0.1
 */
int	mt_region_add_coalescing(struct mt_region *r, mt_addr off,
	    mt_addr last);
int	mt_region_clear_coalescing(struct mt_region *r);

#ifdef __cplusplus
}
#endif

#endif
