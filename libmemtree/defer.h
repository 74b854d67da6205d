/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_DEFER_H
#define LIBMEMTREE_DEFER_H

#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_access;
struct mt_region;
struct mt_space;

/*
 * What submit_buf of a region has been given to do: its handle for
 * mt_access_complete().
 */
struct mt_piece {
	void *data;			/* the region's, for what it likes */
	/* private */
	struct mt_access *access;
	struct mt_region *region;	/* counted */
	void *buf;			/* NULL: a write */
	size_t len;
	int over;			/* atomic: completed or cancelled */
	struct mt_piece *next;		/* of those that were not counted */
};

#define MT_ACCESS_PIECES	2	/* more of them are allocated */

/* An access that was submitted; lives in the caller's memory. */
struct mt_access {
	/* private */
	struct mt_space *sp;
	void (*done)(void *arg, enum mt_result res);
	void *arg;
	struct mt_piece *pieces;
	size_t npieces;
	size_t room;			/* at pieces */
	struct mt_piece *more;		/* found behind IOMMUs */
	size_t pending;			/* atomic: pieces, and who looks */
	unsigned int result;		/* atomic */
	bool counted;			/* in what the space has in flight */
	struct mt_access *next;		/* whose done is called after ours */
	struct mt_piece own[MT_ACCESS_PIECES];
};

/*
 * Read or write len bytes at addr, and have done(arg, result) called once
 * when all of it is over, on whatever thread ended it, which is this one,
 * before the call returns, if no region takes its time.  On a thread that is
 * in a done of this space it is called when that has returned: they are not
 * nested.  The access goes by the view of now.  What regions with submit_buf
 * have in it is in flight together; there is no order among the parts.
 *
 * Units:   len is bytes.
 * Owns:    acc and buf must stay until done is called, which may free or use
 *          them again.  The regions that work are kept until then.
 * Context: any thread; calls region callbacks.  done runs with no lock held
 *          and in no read-side section of ours.
 * Returns: 0, or -1 with errno set and nothing done.
 * Errors:  ENOMEM (over more than MT_ACCESS_PIECES regions that defer; behind
 *          an IOMMU the piece answers MT_DEVICE instead).
 * Since:   0.1
 */
int	mt_access_submit(struct mt_space *sp, struct mt_access *acc,
	    mt_addr addr, void *buf, size_t len, bool is_write,
	    struct mt_attrs attrs, void (*done)(void *arg, enum mt_result res),
	    void *arg);

/*
 * End a piece that submit_buf was given, exactly once.  Bytes of a read that
 * failed are zeroed.  The last piece of an access ends it.
 *
 * Context: any thread, submit_buf itself included; may call done.  Hold no
 *          lock that done or submit_buf takes.
 * Since:   0.1
 */
void	mt_access_complete(struct mt_piece *piece, enum mt_result res);

/*
 * Ask the regions to give up an access.  If all that was left of it could be
 * taken back, done is not called, and neither acc nor its buffer is touched
 * any more.  Otherwise it goes on: done will be called, or was, and what was
 * given up counts as MT_DEVICE.
 *
 * Owns:    acc must be there until this returns: done must not free it
 *          meanwhile.
 * Context: any thread, after mt_access_submit() has returned; calls
 *          cancel_buf; may call done.
 * Returns: true if it was cancelled.
 * Since:   0.1
 */
bool	mt_access_cancel(struct mt_access *acc);

/*
 * Wait until nothing that was submitted to sp is in flight, and every done of
 * it has returned.
 *
 * Context: blocks; not from a region callback nor a done of this space.
 * Returns: 0, or -1 with errno set.
 * Errors:  EDEADLK (called from one).
 * Since:   0.1
 */
int	mt_access_drain(struct mt_space *sp);

#ifdef __cplusplus
}
#endif

#endif
