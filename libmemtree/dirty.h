/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_DIRTY_H
#define LIBMEMTREE_DIRTY_H

#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_region;

/*
 * Those who want to know what is written to the memory of a region are
 * clients, by number.  Each has bits of its own, one for MT_DIRTY_PAGE bytes.
 * The numbers that have no name here are free for what they like.
 */
#define MT_DIRTY_CLIENTS	8u
#define MT_DIRTY_VGA		0u	/* a display that is redrawn */
#define MT_DIRTY_CODE		1u	/* code that was translated */
#define MT_DIRTY_MIGRATION	2u	/* memory that is copied elsewhere */

#define MT_DIRTY_PAGE		((size_t)4096)

/*
 * Begin or end to log the writes to RAM, ROM or a ROM device's memory for a
 * client.  Then all that the library writes there is marked, whatever the
 * alias, space, cache or mapping that it comes through, once it is written.
 * When it begins every page is marked: so who copies what is marked, again
 * and again, ends with a copy.  Not counted: one "off" ends it.
 *
 * A change of the tree like others: listeners are told by the commit, and in
 * a transaction that fails the log stays as it was.  Marks may be made from
 * this call on.
 *
 * Units:   client is below MT_DIRTY_CLIENTS.
 * Owns:    the bits, one a page and client, stay with r until it is released.
 * Context: takes the topology's writer lock; not from a listener.
 * Returns: 0, or -1 with errno set and nothing changed.
 * Errors:  EINVAL (no such client, or a region without memory of its own),
 *          ENOMEM, EAGAIN (see mt_topology_commit()), EDEADLK (from a
 *          listener), ENOSYS (a system without membarrier(2)).
 * Since:   0.1
 */
int	mt_region_set_log(struct mt_region *r, unsigned int client, bool on);

/*
 * The clients for whom the writes to r are being marked, as 1 << client.
 *
 * Context: any thread; never blocks.
 * Since:   0.1
 */
unsigned int mt_region_log(const struct mt_region *r);

/*
 * Mark memory as written, for all clients that log it: for who writes there
 * not through the library.  The data first, then this.
 *
 * Units:   off is bytes from the start of r, len bytes, nonzero; here as below
 *          the pages that they touch are meant, to the end of r's memory.
 * Context: any thread, listeners included; never blocks.
 * Returns: 0, or -1 with errno set.
 * Errors:  EINVAL (len is 0, or past the end of r's memory).
 * Since:   0.1
 */
int	mt_region_set_dirty(struct mt_region *r, mt_addr off, size_t len);

/*
 * Is a page marked for client?  Goes by what is known here and asks nobody:
 * mt_region_sync_dirty() has listeners bring what they know.
 *
 * Context: any thread, listeners included; never blocks.
 * Returns: 1 or 0, or -1 with errno set.
 * Errors:  EINVAL (as above), ENOENT (client does not log r).
 * Since:   0.1
 */
int	mt_region_get_dirty(const struct mt_region *r, unsigned int client,
	    mt_addr off, size_t len);

/*
 * Call log_sync of the listeners, for what their spaces show of the range.
 *
 * Context: takes the topology's writer lock; not from a listener, nor inside a
 *          transaction of this thread.
 * Returns: 0, or -1 with errno set.
 * Errors:  EINVAL (as above), EDEADLK (from a listener), EBUSY (this thread has
 *          a transaction open).
 * Since:   0.1
 */
int	mt_region_sync_dirty(struct mt_region *r, mt_addr off, size_t len);

/*
 * Ask listeners as mt_region_sync_dirty() does, then tell whether a page was
 * marked for client and take its marks away; log_clear is called if so.  The
 * pages may be read after that: what is written later marks them again.
 *
 * Context: as mt_region_sync_dirty().
 * Returns: 1 or 0, or -1 with errno set and no mark taken.
 * Errors:  those of mt_region_sync_dirty(), and ENOENT (client does not log r).
 * Since:   0.1
 */
int	mt_region_test_and_clear_dirty(struct mt_region *r,
	    unsigned int client, mt_addr off, size_t len);

/*
 * What was marked for a client when it was made.  A copy: neither the region
 * nor its log need to stay.
 */
struct mt_dirty_snapshot;

/*
 * Take the marks of a range away and keep them, as
 * mt_region_test_and_clear_dirty() does.  A mark is in this snapshot or in the
 * next, and what it stands for can be read once it is in one.
 *
 * Owns:    the caller gets the snapshot, to be destroyed.
 * Context: as mt_region_sync_dirty().
 * Returns: the snapshot, or NULL with errno set and no mark taken.
 * Errors:  those of mt_region_test_and_clear_dirty(), ENOMEM.
 * Since:   0.1
 */
struct mt_dirty_snapshot *mt_dirty_snapshot_create(struct mt_region *r,
	    unsigned int client, mt_addr off, size_t len);
void	mt_dirty_snapshot_destroy(struct mt_dirty_snapshot *s);

/*
 * Ask a snapshot whether a page that [off, off + len) touches was marked, or
 * for the first run of marked pages from the one that has off on.  To walk all
 * of them, start at 0 and go on at run->last + 1.  What the snapshot was not
 * made for counts as not marked.
 *
 * Units:   off and run are bytes from the start of the region; a run begins
 *          and ends with pages, or ends with the memory of the region.
 * Context: any number of threads at once.
 * Returns: whether there is one.
 * Since:   0.1
 */
bool	mt_dirty_snapshot_get(const struct mt_dirty_snapshot *s, mt_addr off,
	    size_t len);
bool	mt_dirty_snapshot_next(const struct mt_dirty_snapshot *s, mt_addr off,
	    struct mt_range *run);

#ifdef __cplusplus
}
#endif

#endif
