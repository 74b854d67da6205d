/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <errno.h>
#include <string.h>

#include "internal.h"

/* As in dma.c, another number: a mapping does not pass for one of these. */
static uintptr_t
mark(const struct mt_sg *sg)
{
	return ((uintptr_t)sg ^ (uintptr_t)0x6d656d7472652a73);
}

/* Make map part of the piece before it, if that ends where map begins. */
static bool
join(const struct mt_sg *sg, struct iovec *iov, const struct mt_mapping *map)
{
	struct mt_mapping *prev;

	if (sg->niov == 0)
		return (false);
	prev = &sg->maps[sg->niov - 1];
	if (!mt__dma_join(prev, map))
		return (false);
	iov[sg->niov - 1].iov_len = prev->len;
	return (true);
}

/* Map what is left of one range, or as much as goes: 0, or what stops it. */
static int
map_range(struct mt__reader *rd, const struct mt_range *range,
    const struct mt_mapping *like, struct iovec *iov, size_t n,
    struct mt_sg *sg)
{
	struct mt_mapping next, *map;
	mt_addr left;
	size_t len;
	int error;

	if (range->first > range->last)
		return (EINVAL);
	for (sg->off = 0;; sg->off += next.len) {
		left = range->last - range->first - sg->off;
		len = left < SIZE_MAX - sg->len ? (size_t)left + 1 :
		    SIZE_MAX - sg->len;
		next = *like;
		next.addr = range->first + sg->off;
		/* When all pieces are full the last may still grow. */
		error = mt__dma_map(rd, next.addr, len, MT__MAP_PIECE |
		    (sg->niov == n ? MT__MAP_DIRECT : 0), &next);
		if (error != 0) {
			/* That of a fault. */
			sg->result = (enum mt_result)(sg->result |
			    next.result);
			return (error);
		}
		if (!join(sg, iov, &next)) {
			if (sg->niov == n) {
				mt__dma_unpin(&next);
				return (ENOSPC);
			}
			map = &sg->maps[sg->niov];
			*map = next;
			mt__dma_mark(map);
			iov[sg->niov].iov_base = map->ptr;
			iov[sg->niov].iov_len = map->len;
			sg->niov++;
		}
		sg->len += next.len;
		sg->result = (enum mt_result)(sg->result | next.result);
		if (next.len > left)
			return (0);
	}
}

int
mt_dma_map_sg(struct mt_space *sp, const struct mt_range *ranges,
    size_t nranges, unsigned int dir, struct mt_attrs attrs,
    struct iovec *iov, struct mt_mapping *maps, size_t n, struct mt_sg *sg)
{
	struct mt_mapping like = { .sp = sp, .dir = dir, .attrs = attrs };
	struct mt__reader rd;

	memset(sg, 0, sizeof(*sg));
	sg->maps = maps;
	if (nranges == 0 || n == 0)
		sg->error = EINVAL;
	mt__reader_begin(&rd, sp);
	while (sg->error == 0 && sg->range < nranges) {
		sg->error = map_range(&rd, &ranges[sg->range], &like, iov, n,
		    sg);
		if (sg->error == 0) {
			sg->range++;
			sg->off = 0;
		}
	}
	mt__reader_end(&rd);
	if (sg->niov == 0) {
		errno = sg->error;
		return (-1);
	}
	sg->magic = mark(sg);
	return (0);
}

int
mt_dma_unmap_sg(struct mt_sg *sg, size_t used)
{
	struct mt_mapping *map;
	unsigned int res = MT_OK;
	size_t i, niov, part;

	if (sg->magic != mark(sg)) {
		errno = EINVAL;
		return (-1);
	}
	if ((sg->maps[0].dir & MT_DMA_WRITE) == 0)
		used = 0;
	if (used > sg->len) {
		errno = ERANGE;
		return (-1);
	}
	sg->magic = 0;
	sg->len = 0;
	niov = sg->niov;
	for (i = 0; i < niov; i++) {
		map = &sg->maps[i];
		part = used < map->len ? used : map->len;
		used -= part;
		if (mt_dma_unmap(map, part) == -1)
			res |= map->result;
	}
	sg->niov = 0;
	sg->result = (enum mt_result)res;
	if (res != MT_OK) {
		errno = EIO;
		return (-1);
	}
	return (0);
}
