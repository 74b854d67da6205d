/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_IOMMU_H
#define LIBMEMTREE_IOMMU_H

#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_iommu_sink;
struct mt_region;
struct mt_space;
struct mt_topology;

#define MT_IOMMU_READ	(1u << 0)	/* same as MT_DMA_READ */
#define MT_IOMMU_WRITE	(1u << 1)	/* same as MT_DMA_WRITE */
#define MT_IOMMU_QUIET	(1u << 2)	/* a fault is not to be reported */

/* Where an offset of an IOMMU region leads; all zero: nowhere. */
struct mt_iotlb {
	struct mt_space *target;
	mt_addr addr;			/* in target; low bits do not matter */
	mt_addr mask;			/* size of the window, minus one */
	unsigned int perm;		/* MT_IOMMU_READ, _WRITE */
};

/*
 * The callbacks of an IOMMU region.
 *
 * translate says where off leads, and everything else in the window of mask
 * bytes, a power of two minus one, that off is in.  flags has MT_IOMMU_READ
 * and MT_IOMMU_WRITE as the access needs them, or neither if nothing is
 * accessed now; MT_IOMMU_QUIET if the model must not report a fault to its
 * guest.  *out is zero before.  perm without what is needed is a fault, for
 * all of the window, or of the minimum page if that is larger.
 *
 * min_page is the size of the smallest page (NULL, or an answer that is no
 * power of two: 4096).  index tells apart requesters with tables of their own
 * (NULL: 0 for all).  notify_changed hears of the events that anybody wants:
 * those until now and those from now on; it may refuse more with -1 and errno
 * set.  replay sends a MAP event for each page in range that is mapped for
 * attrs, with mt_iommu_send() to sink, and stops when that fails (NULL: found
 * out with translate).
 *
 * Context: translate and index: the accessing thread, inside a read-side
 *          section, with no lock of the library held, but translate with that
 *          of mt_region_set_lock().  A space that was in
 *          *out may be destroyed once translate gives it no more: accesses
 *          that go on to it are waited for.  notify_changed: whoever
 *          registers; it must not register, change the tree, nor wait for one
 *          who does.  replay: the caller of mt_iommu_replay().
 * Since:   0.1
 */
struct mt_iommu_ops {
	void (*translate)(void *arg, mt_addr off, unsigned int flags,
	    struct mt_attrs attrs, struct mt_iotlb *out);
	mt_addr (*min_page)(void *arg);
	unsigned int (*index)(void *arg, struct mt_attrs attrs);
	int (*notify_changed)(void *arg, unsigned int was, unsigned int now);
	void (*replay)(void *arg, struct mt_range range,
	    struct mt_attrs attrs, struct mt_iommu_sink *sink);
};

/*
 * Create a region whose accesses go on to where ops->translate says, which
 * may be another IOMMU region.  A fault answers MT_DENIED; more than
 * MT_IOMMU_DEPTH translations one after the other, MT_DECODE; an answer that
 * makes no sense, MT_DEVICE: a mask that is none, no target, or one of another
 * topology.  Where it is read-only on the way, writes answer MT_DECODE.
 *
 * Units:   last is the offset of the last byte: MT_SIZE(bytes).
 * Owns:    ops must live until the region is released, arg as the callbacks
 *          need it.  Target spaces are not kept.
 * Context: any thread.
 * Returns: the region, or NULL with errno set.
 * Errors:  ENOMEM, EINVAL (no translate).
 * Since:   0.1
 */
struct mt_region *mt_region_create_iommu(struct mt_topology *t,
	    const char *name, mt_addr last, const struct mt_iommu_ops *ops,
	    void *arg);

#define MT_IOMMU_DEPTH	8

/* The size of the smallest page of an IOMMU region, 0 of another.  Since 0.1 */
mt_addr	mt_iommu_min_page(const struct mt_region *r);

#define MT_IOMMU_MAP		(1u << 0)	/* a range leads somewhere */
#define MT_IOMMU_UNMAP		(1u << 1)	/* it does no more */
#define MT_IOMMU_DEVTLB_UNMAP	(1u << 2)	/* same, for devices' TLBs */

/* What has become of a range. */
struct mt_iommu_event {
	unsigned int type;		/* one of the above */
	unsigned int index;		/* for whom: see ops->index */
	struct mt_range range;		/* offsets in the region */
	struct mt_space *target;	/* MT_IOMMU_MAP, as the next two */
	mt_addr addr;			/* in target, of range.first */
	unsigned int perm;		/* MT_IOMMU_READ, _WRITE */
};

/* Someone who is told; in the caller's memory, zero but for the first five. */
struct mt_iommu_notifier {
	struct mt_range range;		/* offsets that matter */
	unsigned int events;		/* types that matter, OR-ed */
	struct mt_attrs attrs;		/* whose table: see ops->index */
	void (*fn)(void *arg, const struct mt_iommu_event *ev);
	void *arg;
	/* private */
	struct mt_region *region;	/* NULL: not registered */
	struct mt_iommu_notifier *next;
	struct mt_iommu_notifier *prev;
	unsigned int index;
	mt_addr last;			/* of the region, when registered */
};

/*
 * Have n told of events of r from now on, or no more.  Nothing is told of what
 * is mapped already: see mt_iommu_replay().  An event that is being told while
 * n is registered is not told to it.
 *
 * When mt_iommu_unregister() returns, fn is neither going to be called nor
 * running, unless it is fn itself that calls.
 *
 * Owns:    n must stay until it is unregistered, and keeps r.
 * Context: any thread, listeners and fn included.  Unregistering waits for
 *          calls of fn on other threads, and for a replay: hold no lock that
 *          fn or translate takes.  In a listener that is the writer lock.
 *          From the fn of one notifier another may be unregistered, unless
 *          the fn of that one waits for this thread, as it does when it
 *          unregisters this one: two that do so to each other never return.
 * Returns: 0, or -1 with errno set.
 * Errors:  EINVAL (r is no IOMMU region, or n makes no sense), EBUSY (n is
 *          registered), ENOENT (is not), EDEADLK (from notify_changed), and
 *          what notify_changed refuses with.
 * Since:   0.1
 */
int	mt_iommu_register(struct mt_region *r, struct mt_iommu_notifier *n);
int	mt_iommu_unregister(struct mt_region *r, struct mt_iommu_notifier *n);

/*
 * Tell the notifiers of r that want to hear it, newest first, what of ev is in
 * their range; addr moves along.  Called by the model of the IOMMU when its
 * tables change.
 *
 * Context: any thread; calls their fn on this one, with no lock of the library
 *          held but those that the caller has.  Events told by two threads at
 *          once have no order.
 * Returns: 0, or -1 with errno set and nobody told.
 * Errors:  EINVAL (r is no IOMMU region; not one type; a range that ends
 *          before it begins; a MAP without target or perm or past 2^64, an
 *          unmap with perm).
 * Since:   0.1
 */
int	mt_iommu_notify(struct mt_region *r, const struct mt_iommu_event *ev);

/*
 * Tell n, registered with r, of everything that is mapped in its range, if it
 * wants MAP events.  Ends early when n is unregistered meanwhile.
 *
 * Context: as mt_iommu_notify(); calls ops, and fn inside a read-side section
 *          unless there is an ops->replay.  Without it the time it takes is
 *          that of a translate for each page, or window of a fault.
 * Returns: 0, or -1 with errno set.
 * Errors:  EINVAL (r is no IOMMU region), ENOENT (n is not registered with r),
 *          ECANCELED (n was unregistered meanwhile: it is not looked at again).
 * Since:   0.1
 */
int	mt_iommu_replay(struct mt_region *r, struct mt_iommu_notifier *n);

/*
 * Tell the notifier that ops->replay is called for of one event.
 *
 * Returns: 0, or -1 with errno set.
 * Errors:  EINVAL (as mt_iommu_notify()), ECANCELED (it was unregistered:
 *          there is nobody to be told of more).
 * Since:   0.1
 */
int	mt_iommu_send(struct mt_iommu_sink *sink,
	    const struct mt_iommu_event *ev);

#ifdef __cplusplus
}
#endif

#endif
