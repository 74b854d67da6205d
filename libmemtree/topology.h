/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_TOPOLOGY_H
#define LIBMEMTREE_TOPOLOGY_H

#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A universe of regions and spaces: one writer lock, one transaction, one
 * reclaimer.  Two topologies share nothing but the process's grace periods, so
 * a callback that does not return holds up the freeing of what readers may see
 * in both, and the numbers that threads are given when they first map memory.
 */
struct mt_topology;

/*
 * Create an empty topology and start its reclaimer: two threads that block all
 * signals and sleep until something has to be freed.
 *
 * Owns:    the caller, until mt_topology_destroy().
 * Context: any thread.  A topology does not survive fork(2) in the child.
 * Returns: the topology, or NULL with errno set.
 * Errors:  ENOMEM, EAGAIN (no more threads).
 * Since:   0.1
 */
struct mt_topology *mt_topology_create(void);

/*
 * Destroy a topology whose spaces have been destroyed and whose regions have
 * been put.  Waits for the reclaimer to finish what is still in waiting.
 *
 * Context: blocks; not from any callback; no other thread may use t.
 * Returns: 0, or -1 with errno set and the topology intact.
 * Errors:  EBUSY (a space, region, view or mapping is left, or a transaction
 *          is open), EDEADLK (called from a callback).
 * Since:   0.1
 */
int	mt_topology_destroy(struct mt_topology *t);

/*
 * Open a transaction, or nest in the one this thread has open.  Until the
 * outermost mt_topology_commit() no view changes, so a series of changes
 * becomes visible as one.  Every change outside a transaction is a
 * transaction of its own.
 *
 * Context: takes the topology's writer lock until the commit: other writers
 *          wait, readers do not.  Not from a listener.
 * Returns: 0, or -1 with errno set.
 * Errors:  EDEADLK (called from a listener).
 * Since:   0.1
 */
int	mt_topology_begin(struct mt_topology *t);

/*
 * Close a transaction.  The outermost one makes a view for every space that
 * changed, publishes them, then tells the listeners.  If that fails nothing
 * is published, no listener is called, and every change made since
 * mt_topology_begin() is taken back.
 *
 * Context: the thread that began.  Never waits for readers.
 * Returns: 0, or -1 with errno set and the tree as it was at the begin.
 * Errors:  ENOMEM, EAGAIN (too much is in waiting for readers: see
 *          mt_topology_set_max_waiting()), EPERM (this thread has no
 *          transaction open, or is in a listener).
 * Since:   0.1
 */
int	mt_topology_commit(struct mt_topology *t);

/*
 * Wait until no reader can still see what was replaced, removed or put
 * before this call, and until all of it has been freed: the put callbacks of
 * owners have run and memory is unmapped.
 *
 * Context: blocks for readers; not inside a transaction, nor from any
 *          callback.
 * Returns: 0, or -1 with errno set.
 * Errors:  EDEADLK (this thread has a transaction open, is inside a region
 *          callback of any topology, or is the reclaimer).
 * Since:   0.1
 */
int	mt_topology_sync(struct mt_topology *t);

#define MT_WAITING_DEFAULT	((size_t)256 << 20)

/*
 * Set how much may be in waiting: what has been replaced or destroyed, and
 * cannot be freed because of a reader that has not left or a view that is
 * held.  As much again is spared as the views of all spaces had at most since
 * there was less than the limit, so that to replace all of them does not stand
 * in the way of what comes next.  While it is more, a commit that changes a
 * view, and with it the change that it ends, fails with EAGAIN and changes
 * nothing; it does not wait.  So there is at most the limit, what the views
 * had, and what one transaction replaces.  At a limit of 0 nothing is spared,
 * and a commit fails if anything is in waiting.
 *
 * Up to 64 KiB of what could be freed, or a quarter of the limit if that is
 * less, may be in waiting until more comes, something is taken out of a space
 * or destroyed, or mt_topology_sync() is called.
 *
 * Units:   bytes of the library's own; regions that were put, which no reader
 *          holds up, and the memory behind them are not counted.
 * Context: any thread.
 * Since:   0.1
 */
void	mt_topology_set_max_waiting(struct mt_topology *t, size_t bytes);
size_t	mt_topology_max_waiting(const struct mt_topology *t);

/*
 * How much is in waiting.
 *
 * Units:   bytes.
 * Context: any thread.
 * Since:   0.1
 */
size_t	mt_topology_waiting(const struct mt_topology *t);

#ifdef __cplusplus
}
#endif

#endif
