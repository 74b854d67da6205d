/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_INTERNAL_VALUE_H
#define LIBMEMTREE_INTERNAL_VALUE_H

/*
 * Values of 1 to 8 bytes, and the byte orders that they can have on the bus:
 * inlined into everything that an access goes through.
 */

#include <endian.h>
#include <string.h>

#include "internal.h"

#if __BYTE_ORDER == __LITTLE_ENDIAN
#define MT__HOST_ENDIAN	MT_LITTLE
#else
#define MT__HOST_ENDIAN	MT_BIG
#endif

/* For the short way: small accesses were 2 ns slower with calls in between. */
#define MT__ALWAYS_INLINE	static inline __attribute__((always_inline))

static inline uint64_t
mt__swap(uint64_t val, unsigned int size)
{
	return (__builtin_bswap64(val) >> (64 - 8 * size));
}

static inline uint64_t
mt__mask(unsigned int size)
{
	return (size >= 8 ? UINT64_MAX : ((uint64_t)1 << (8 * size)) - 1);
}

static inline enum mt_endian
mt__order_of(enum mt_endian order)
{
	return (order == MT_HOST ? MT__HOST_ENDIAN : order);
}

/* Turn a value between two byte orders that it can have on the bus. */
static inline uint64_t
mt__convert(uint64_t val, unsigned int size, enum mt_endian from,
    enum mt_endian to)
{
	return (mt__order_of(from) == mt__order_of(to) ? val :
	    mt__swap(val, size));
}

/* size bytes in address order, as a value of the given byte order. */
static inline uint64_t
mt__value_of(const void *buf, unsigned int size, enum mt_endian order)
{
	uint64_t val = 0;

	memcpy(&val, buf, size);
	if (MT__HOST_ENDIAN == MT_BIG)
		val >>= 64 - 8 * size;
	return (mt__convert(val, size, MT_HOST, order));
}

static inline void
mt__bytes_of(uint64_t val, void *buf, unsigned int size, enum mt_endian order)
{
	val = mt__convert(val, size, order, MT_HOST);
	if (MT__HOST_ENDIAN == MT_BIG)
		val <<= 64 - 8 * size;
	memcpy(buf, &val, size);
}

static inline bool
mt__size_ok(unsigned int size)
{
	return (size == 1 || size == 2 || size == 4 || size == 8);
}

/* The largest power of two not above n, which is not 0. */
static inline unsigned int
mt__floor2(unsigned int n)
{
	return (1u << (31 - (unsigned int)__builtin_clz(n)));
}

#endif
