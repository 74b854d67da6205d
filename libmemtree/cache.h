/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_CACHE_H
#define LIBMEMTREE_CACHE_H

#include <string.h>

#include <libmemtree/dma.h>
#include <libmemtree/region.h>
#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_space;
struct mt_view;

/*
 * A window of a space, looked up once, for many small accesses.  In the
 * caller's memory, not copied; all zero is a cache without a window.
 */
struct mt_cache {
	/* private */
	const uint8_t *rhost;		/* of rlen bytes readable in place */
	uint8_t *whost;			/* of wlen bytes writable in place */
	size_t rlen;
	size_t wlen;
	const unsigned char *logging;	/* not 0: whost's writes are marked */
	struct mt_region *wregion;	/* that whost is in */
	struct mt_view *view;		/* NULL: no window */
	struct mt_view *const *current;	/* where the space has its view */
	struct mt_space *sp;
	mt_addr addr;
	size_t len;
	unsigned int dir;
	struct mt_attrs attrs;
};

/*
 * Look up [addr, addr + len) for accesses with attrs.  It may show anything:
 * what is memory from its start on is accessed in place, the rest as by
 * mt_space_load().  A change of the tree does not change what it shows.
 *
 * Units:   len is bytes, nonzero.  dir is MT_DMA_* bits: MT_DMA_READ to load,
 *          MT_DMA_WRITE to store.
 * Owns:    keeps the view and the regions in it until mt_cache_fini(), which
 *          must come before c is set up again.
 * Context: any thread; never blocks.
 * Returns: 0, or -1 with errno set and no window.
 * Errors:  EINVAL (len or dir, or it goes past 2^64).
 * Since:   0.1
 */
int	mt_cache_init(struct mt_cache *c, struct mt_space *sp, mt_addr addr,
	    size_t len, unsigned int dir, struct mt_attrs attrs);
void	mt_cache_fini(struct mt_cache *c);

/*
 * Access [off, off + len) of the window, as mt_space_read() and so on do in
 * the view that it was made from.  Outside the window, or without one, the
 * answer is MT_DECODE, in a direction it was not made for MT_DENIED; nothing
 * is accessed then, and loads and reads give zero.
 *
 * Units:   off is bytes from the start of the window.
 * Context: any number of threads at once; otherwise as mt_space_read().
 * Returns: enum mt_result bits.
 * Since:   0.1
 */
enum mt_result mt_cache_read(const struct mt_cache *c, size_t off, void *buf,
	    size_t len);
enum mt_result mt_cache_write(const struct mt_cache *c, size_t off,
	    const void *buf, size_t len);
enum mt_result mt_cache_load(const struct mt_cache *c, size_t off,
	    unsigned int size, enum mt_endian order, uint64_t *val);
enum mt_result mt_cache_store(const struct mt_cache *c, size_t off,
	    unsigned int size, enum mt_endian order, uint64_t val);

/*
 * Does the space show another view than the one this was made from?  Then
 * what the window shows may be elsewhere by now.  One without a window is
 * stale, too.
 *
 * Context: any thread.
 * Since:   0.1
 */
static inline bool
mt_cache_stale(const struct mt_cache *c)
{
	/*
	 * Acquire as every reader of a space's view has it: who sees the new
	 * view here, and looks again, finds what it shows.  c holds its view,
	 * so no later one can have the same address.
	 */
	return (c->view == NULL ||
	    __atomic_load_n(c->current, __ATOMIC_ACQUIRE) != c->view);
}

/* A value between the order of the host and another. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define MT__HOST_IS(order)	((order) != MT_BIG)
#else
#define MT__HOST_IS(order)	((order) != MT_LITTLE)
#endif
#define MT__SWAP8(val)		(val)
#define MT__SWAP16(val)		__builtin_bswap16(val)
#define MT__SWAP32(val)		__builtin_bswap32(val)
#define MT__SWAP64(val)		__builtin_bswap64(val)

/* Private: what was stored at off, in memory, is to be marked as written. */
void	mt__cache_wrote(const struct mt_cache *c, size_t off, size_t len);

/*
 * The same for one value in memory, inlined.  Aligned ones are single atomic
 * accesses: others write guest memory meanwhile.
 * Since:   0.1
 */
#define MT__CACHED(bits, name, order)					\
static inline enum mt_result						\
mt_cache_load_##name##bits(const struct mt_cache *c, size_t off,	\
    uint##bits##_t *val)						\
{									\
	const uint8_t *p;						\
	enum mt_result res;						\
	uint##bits##_t v;						\
	uint64_t slow;							\
									\
	if (off >= c->rlen || c->rlen - off < sizeof(v)) {		\
		res = mt_cache_load(c, off, sizeof(v), order, &slow);	\
		*val = (uint##bits##_t)slow;				\
		return (res);						\
	}								\
	p = c->rhost + off;						\
	if ((uintptr_t)p % sizeof(v) == 0)				\
		v = __atomic_load_n((const uint##bits##_t *)		\
		    (const void *)p, __ATOMIC_RELAXED);			\
	else								\
		memcpy(&v, p, sizeof(v));				\
	*val = MT__HOST_IS(order) ? v : MT__SWAP##bits(v);		\
	return (MT_OK);							\
}									\
static inline enum mt_result						\
mt_cache_store_##name##bits(const struct mt_cache *c, size_t off,	\
    uint##bits##_t val)							\
{									\
	uint##bits##_t v = MT__HOST_IS(order) ? val :			\
	    MT__SWAP##bits(val);					\
	uint8_t *p;							\
									\
	if (off >= c->wlen || c->wlen - off < sizeof(v))		\
		return (mt_cache_store(c, off, sizeof(v), order, val));	\
	p = c->whost + off;						\
	if (__builtin_expect((uintptr_t)p % sizeof(v) == 0, 1))		\
		__atomic_store_n((uint##bits##_t *)(void *)p, v,	\
		    __ATOMIC_RELAXED);					\
	else								\
		memcpy(p, &v, sizeof(v));				\
	/* After the data: see mt_region_set_log(). */			\
	__atomic_signal_fence(__ATOMIC_SEQ_CST);			\
	if (__builtin_expect(__atomic_load_n(c->logging,		\
	    __ATOMIC_RELAXED) != 0, 0))					\
		mt__cache_wrote(c, off, sizeof(v));			\
	return (MT_OK);							\
}

MT__CACHED(8, u, MT_HOST)
MT__CACHED(16, le, MT_LITTLE)
MT__CACHED(32, le, MT_LITTLE)
MT__CACHED(64, le, MT_LITTLE)
MT__CACHED(16, be, MT_BIG)
MT__CACHED(32, be, MT_BIG)
MT__CACHED(64, be, MT_BIG)
MT__CACHED(16, host, MT_HOST)
MT__CACHED(32, host, MT_HOST)
MT__CACHED(64, host, MT_HOST)
#undef MT__CACHED

#ifdef __cplusplus
}
#endif

#endif
