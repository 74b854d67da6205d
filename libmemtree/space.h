/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_SPACE_H
#define LIBMEMTREE_SPACE_H

#include <libmemtree/region.h>
#include <libmemtree/types.h>
#include <libmemtree/view.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * An address space: a root region seen from address 0, and the bus on which
 * it is accessed.  Spaces on one root share their view; one on an alias of it
 * has its own, at the cost of another map.
 */
struct mt_space;

/*
 * Create a space on root, which may also be part of other trees.  Inside a
 * transaction its view stays empty until the commit; a commit that fails does
 * not take the space back.
 *
 * Owns:    name is copied; keeps a reference to root.
 * Context: takes the topology's writer lock; not from a listener.
 * Returns: the space, or NULL with errno set.
 * Errors:  ENOMEM, EAGAIN (see mt_topology_commit()), EDEADLK (from a
 *          listener).
 * Since:   0.1
 */
struct mt_space *mt_space_create(struct mt_region *root, const char *name);

/*
 * Destroy a space.  No other thread may be using it.  It is freed when the
 * readers of its topology have left.
 *
 * Context: takes the topology's writer lock; outside any transaction.
 * Returns: 0, or -1 with errno set and the space intact.
 * Errors:  EBUSY (a bounced mapping, a cache, a waiter, a listener or an access
 *          in flight is left, or this thread has a transaction open),
 *          EDEADLK (from a listener).
 * Since:   0.1
 */
int	mt_space_destroy(struct mt_space *sp);

/*
 * Look at a space.  The root and topology are lent.
 * Since:   0.1
 */
const char *mt_space_name(const struct mt_space *sp);
struct mt_region *mt_space_root(const struct mt_space *sp);
struct mt_topology *mt_space_topology(const struct mt_space *sp);

/*
 * Take the current view.
 *
 * Owns:    the caller gets a reference: mt_view_put().
 * Context: any thread; never blocks.
 * Returns: the view, never NULL.
 * Since:   0.1
 */
struct mt_view *mt_space_view(struct mt_space *sp);

/*
 * Find the first section that overlaps range, cut to range.
 *
 * Owns:    the caller gets a reference to sec->region: mt_region_put().
 * Context: any thread; never blocks.
 * Returns: 0, or -1 with errno set.
 * Errors:  ENOENT (nothing there), EINVAL (first above last).
 * Since:   0.1
 */
int	mt_space_find(struct mt_space *sp, struct mt_range range,
	    struct mt_section *sec);

/*
 * Read or write len bytes at addr, in address order.  A range may cross any
 * number of sections; memory is copied, I/O regions are called in steps that
 * they accept.  What regions with nothing but submit_buf have of it is begun
 * in that order, is in flight together, and ends in any.  Where a read meets an
 * error the bytes are zero, or what the failing device gave.  An address past
 * 2^64 - 1 answers MT_DECODE.  A word of up to four bytes that begins in a hole
 * is lost as a whole.
 *
 * Units:   len is bytes; 0 does nothing.
 * Context: any thread; takes no lock; calls region callbacks on this thread,
 *          and waits for those that complete later.
 * Returns: enum mt_result bits.
 * Since:   0.1
 */
enum mt_result mt_space_read(struct mt_space *sp, mt_addr addr, void *buf,
	    size_t len, struct mt_attrs attrs);
enum mt_result mt_space_write(struct mt_space *sp, mt_addr addr,
	    const void *buf, size_t len, struct mt_attrs attrs);

/*
 * Write byte to each of len addresses, or write to memory that may be ROM.
 * mt_space_set() writes as accesses of up to 512 bytes would, but for memory
 * and regions that take whole buffers, which get theirs in one piece, up to 1
 * MiB.  mt_space_write_rom() skips what is not host memory and answers
 * MT_DECODE for it.
 *
 * Returns, Context: as mt_space_write().
 * Since:   0.1
 */
enum mt_result mt_space_set(struct mt_space *sp, mt_addr addr, uint8_t byte,
	    size_t len, struct mt_attrs attrs);
enum mt_result mt_space_write_rom(struct mt_space *sp, mt_addr addr,
	    const void *buf, size_t len, struct mt_attrs attrs);

/*
 * Load or store one value of 1, 2, 4 or 8 bytes in the byte order named.  If
 * one region accepts the whole value it gets one access of that size;
 * otherwise the value is put together as mt_space_read() would.  Another size
 * answers MT_DECODE.
 *
 * Returns: enum mt_result bits; *val is always set by a load.
 * Context: as mt_space_read().
 * Since:   0.1
 */
enum mt_result mt_space_load(struct mt_space *sp, mt_addr addr,
	    unsigned int size, enum mt_endian order, uint64_t *val,
	    struct mt_attrs attrs);
enum mt_result mt_space_store(struct mt_space *sp, mt_addr addr,
	    unsigned int size, enum mt_endian order, uint64_t val,
	    struct mt_attrs attrs);

/*
 * The same by type, without attributes.
 * Since:   0.1
 */
#define MT__TYPED(bits, order, ORDER)					\
static inline enum mt_result						\
mt_space_load_##order##bits(struct mt_space *sp, mt_addr addr,		\
    uint##bits##_t *val)						\
{									\
	uint64_t v;							\
	enum mt_result res = mt_space_load(sp, addr, bits / 8, ORDER,	\
	    &v, MT_ATTRS_NONE);						\
									\
	*val = (uint##bits##_t)v;					\
	return (res);							\
}									\
static inline enum mt_result						\
mt_space_store_##order##bits(struct mt_space *sp, mt_addr addr,		\
    uint##bits##_t val)							\
{									\
	return (mt_space_store(sp, addr, bits / 8, ORDER, val,		\
	    MT_ATTRS_NONE));						\
}

MT__TYPED(8, u, MT_LITTLE)
MT__TYPED(16, le, MT_LITTLE)
MT__TYPED(32, le, MT_LITTLE)
MT__TYPED(64, le, MT_LITTLE)
MT__TYPED(16, be, MT_BIG)
MT__TYPED(32, be, MT_BIG)
MT__TYPED(64, be, MT_BIG)
#undef MT__TYPED

/*
 * Would every byte of [addr, addr + len) accept a read or a write?  Calls
 * accepts callbacks, but neither reads nor writes.
 *
 * Context: any thread; takes no lock.
 * Since:   0.1
 */
bool	mt_space_valid(struct mt_space *sp, mt_addr addr, size_t len,
	    bool is_write, struct mt_attrs attrs);

#ifdef __cplusplus
}
#endif

#endif
