/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_GUARD_H
#define LIBMEMTREE_GUARD_H

#include <pthread.h>

#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_region;

/*
 * What the regions of one device share, so that the device is not entered
 * twice by one thread; in the caller's memory.
 */
struct mt_guard {
	/* private */
	uint64_t refused;		/* atomic */
};

#define MT_GUARD_INIT	{ 0 }

/*
 * Refuse an access to r by a thread that is inside a callback of r, or of
 * another region with that guard: the device's own DMA has come back to it,
 * straight or by way of other devices.  The answer is MT_DENIED, as zeros, and
 * nothing is called.  Other threads are not refused meanwhile.  Who is inside
 * no callback is not either: DMA that a device makes from a thread of its own
 * reaches its registers.  An IOMMU region has no guard: to be translated is not
 * to enter a device, and what an IOMMU's registers cause to be done, such as a
 * device's answer to an invalidation, is translated as well.
 *
 * Owns:    guard must live until every region with it is released.
 * Context: before r is put into a tree, seen by an alias or made the root of a
 *          space.
 * Returns: 0, or -1 with errno set.
 * Errors:  EBUSY (has a guard, or is in use), EINVAL (has no callbacks, is an
 *          IOMMU region, or guard is NULL), ENOMEM.
 * Since:   0.1
 */
int	mt_region_set_guard(struct mt_region *r, struct mt_guard *guard);

/*
 * Have a lock held around every callback of r: the calls that carry out one
 * step of an access are made under it together.  It is not held while an
 * access waits for mt_access_complete().  A thread that is inside a callback
 * under this lock has it, and does not take it again; so one lock may serve
 * any number of regions, of several devices, too.  With a guard, what that
 * refuses is refused before the lock is taken.
 *
 * Of an IOMMU region it is held around translate, and neither around the other
 * callbacks nor while the access goes on where that leads.
 *
 * What a callback does it does with the lock held, and must not let go of it.
 * Two devices with locks of their own that access each other on two threads
 * deadlock, as with any two locks: let them share one.  So do an IOMMU that
 * reads its tables from a device, and that device: a translate that reads them
 * with the attribute memory_only does not reach one.  So do a callback that
 * changes the tree, or asks a region where it is, and a listener that accesses
 * r, as both want the writer lock and this one.  Do not access r with the lock
 * taken by yourself, unless it is recursive, nor wait for readers then.
 * If it cannot be locked (EDEADLK of one that checks for errors, say) nothing
 * is called, and the answer is MT_DENIED.
 *
 * Owns:    lock must live until every region with it is released.
 * Context, Returns: as above.
 * Errors:  EBUSY (has a lock, or is in use), EINVAL (has no callbacks, or lock
 *          is NULL), ENOMEM.
 * Since:   0.1
 */
int	mt_region_set_lock(struct mt_region *r, pthread_mutex_t *lock);

/*
 * How many steps of accesses a guard has refused.
 *
 * Context: any thread.
 * Since:   0.1
 */
uint64_t mt_guard_refused(const struct mt_guard *guard);

#ifdef __cplusplus
}
#endif

#endif
