/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_DMA_H
#define LIBMEMTREE_DMA_H

#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_region;
struct mt_space;
struct mt_topology;
struct mt_view;

#define MT_DMA_READ	(1u << 0)	/* the device reads this memory */
#define MT_DMA_WRITE	(1u << 1)	/* the device writes this memory */

#define MT_BOUNCE_DEFAULT	((size_t)1 << 20)

/* Memory lent by mt_dma_map(); lives in the caller's memory, not copied. */
struct mt_mapping {
	void *ptr;			/* NULL if nothing is lent */
	size_t len;			/* bytes at ptr */
	enum mt_result result;		/* of the fill, then of the write-back */
	bool bounced;			/* staged: not the memory itself */
	/* private */
	uintptr_t magic;
	union {
		struct mt_space *sp;		/* staged */
		struct mt_topology *topology;	/* lent in place */
	};
	union {
		struct mt_region *region;	/* lent in place */
		struct mt_view *view;		/* staged, to be written */
	};
	mt_addr addr;
	unsigned int dir;
	struct mt_attrs attrs;
	uint32_t pin;
};

/*
 * Lend host memory for a device to use at [addr, addr + len).  Memory is lent
 * in place, up to the first discontinuity.  Anything else is staged in a
 * bounce buffer taken from the space's budget, filled now for MT_DMA_READ and
 * written back by mt_dma_unmap() for MT_DMA_WRITE.  map->len may be shorter
 * than len, because of either: loop.  Look at map->result: what the fill of a
 * bounce buffer met on the bus is told there, and the map succeeds.
 *
 * Units:   len is bytes, nonzero.  dir is MT_DMA_* bits.
 * Owns:    map pins memory that is lent in place until mt_dma_unmap(), exactly
 *          once.  A bounce buffer for MT_DMA_WRITE pins what was at addr, and
 *          is written back to that; one that is only read pins nothing.
 * Context: any thread; never blocks for a writer; may call region callbacks,
 *          and those of waiters, if it gives some of the budget back.
 * Returns: 0, or -1 with errno set and map->ptr NULL.
 * Errors:  EAGAIN (bounce budget spent, or wanted by one who waits: see
 *          mt_dma_wait()), EFAULT (addr is unassigned or reserved, or denied
 *          by attrs, or by an IOMMU: map->result), EINVAL (len or dir),
 *          ENOMEM.
 * Since:   0.1
 */
int	mt_dma_map(struct mt_space *sp, mt_addr addr, size_t len,
	    unsigned int dir, struct mt_attrs attrs, struct mt_mapping *map);

/*
 * Give a mapping back.  used is how many bytes from the start the device has
 * written; only those are written back from a bounce buffer.  map->result
 * then tells what the write-back met.  Of memory lent in place just these
 * bytes are marked as written (see mt_region_set_log()).
 *
 * Units:   used is bytes, at most map->len; ignored without MT_DMA_WRITE.
 * Context: any thread; may call region callbacks (of a bounce buffer's
 *          write-back) and the callbacks of waiters.
 * Returns: 0, or -1 with errno set.
 * Errors:  EIO (the write-back failed in part: map->result; the mapping is
 *          gone all the same), EINVAL (map is not a live mapping, or is a
 *          copy of one), ERANGE (used is more than map->len; still mapped).
 * Since:   0.1
 */
int	mt_dma_unmap(struct mt_mapping *map, size_t used);

/*
 * Mark a part of a live mapping as written already (see mt_region_set_log()),
 * for one that is kept so long that its unmap would be too late.
 *
 * Units:   off is bytes from map->ptr, len bytes.
 * Context: any thread that may unmap it; never blocks.
 * Returns: 0, or -1 with errno set.
 * Errors:  EINVAL (map is not a live mapping, or not to be written), ERANGE
 *          (past map->len).
 * Since:   0.1
 */
int	mt_dma_set_dirty(const struct mt_mapping *map, size_t off, size_t len);

/*
 * Set how many bytes of bounce buffers a space may lend at once.  Lowering it
 * below what is lent takes nothing back: maps fail until enough is returned.
 *
 * Context: any thread; raising it may call waiters.
 * Since:   0.1
 */
void	mt_dma_set_bounce_limit(struct mt_space *sp, size_t bytes);
size_t	mt_dma_bounce_limit(const struct mt_space *sp);
size_t	mt_dma_bounce_used(const struct mt_space *sp);

/* A place in the queue for bounce budget; in the caller's memory. */
struct mt_waiter {
	/* private */
	struct mt_waiter *next;
	struct mt_waiter *prev;
	struct mt_space *sp;
	void (*fn)(void *arg);
	void *arg;
	size_t need;
	const void *by;			/* the callback that it waited from */
	size_t gives;
	size_t turn;
	bool queued;
};

#define MT_WAITER_INIT	\
	{ NULL, NULL, NULL, NULL, NULL, 0, NULL, 0, 0, false }

/*
 * Have fn(arg) called once when need bytes of the space's bounce budget are
 * free; at once, before this returns, if they are free now and nobody waits.
 * Waiters are called in the order they came: the first one is not overtaken
 * by those who need less.  fn then tries its map again, and may wait again.
 * While anybody waits, other maps get only what the first one does not need.
 * Until fn returns, need bytes are set aside for maps that it makes itself,
 * and its thread calls nobody else who waits for this space: what fn gives
 * back is offered when it has returned.
 *
 * Units:   need is bytes; more than the limit waits until all of it is free.
 * Owns:    w must stay until fn has been called or the wait was cancelled.
 * Context: any thread.  fn runs on the thread that gave budget back, or on
 *          this one, with no lock held; it may map, unmap and wait.
 * Returns: 0, or -1 with errno set.
 * Errors:  EBUSY (w is waiting already).
 * Since:   0.1
 */
int	mt_dma_wait(struct mt_space *sp, struct mt_waiter *w, size_t need,
	    void (*fn)(void *arg), void *arg);

/*
 * Take a waiter back.  When this returns fn is neither going to be called
 * nor running, unless it is fn itself that calls.
 *
 * Context: any thread, while the space is there, whether or not w waits;
 *          waits for a call of fn that is under way elsewhere; may call the
 *          fn of those who waited behind it, unless from inside one.
 * Returns: true if it was still waiting, false if fn has been called.
 * Since:   0.1
 */
bool	mt_dma_cancel(struct mt_waiter *w);

#ifdef __cplusplus
}
#endif

#endif
