/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/*
 * A live mapping is marked with a number made from its own address, so that
 * neither a copy of one nor one that was unmapped passes for one.
 */
static uintptr_t
mark(const struct mt_mapping *map)
{
	return ((uintptr_t)map ^ (uintptr_t)0x6d656d7472656521);
}

size_t
mt__direct_len(const struct mt_view *v, const struct mt__hit *hit, mt_addr addr,
    size_t len, bool is_write, struct mt_attrs attrs)
{
	struct mt__hit next;
	size_t n = 0;
	mt_addr room = hit->room;

	for (;;) {
		if (room >= len - n - 1)
			return (len);
		n += (size_t)room + 1;
		if (addr > MT_LAST_MAX - n)
			return (n);
		mt__lookup(v, addr + n, is_write, attrs, &next);
		if (next.host != hit->host + n ||
		    next.span->region != hit->span->region)
			return (n);
		room = next.room;
	}
}

/*
 * How much of memory that must not be written is staged at a time: to the end
 * of its section, whose incomplete pages at both ends count as sections of
 * their own.  So device models get the pieces that they get from QEMU.
 */
static size_t
rom_len(const struct mt__hit *hit, mt_addr addr, size_t len)
{
	const mt_addr in_page = 4095;
	const struct mt_range *range = &hit->span->range;
	mt_addr last = range->last;

	if ((range->first & in_page) != 0 && (addr | in_page) ==
	    (range->first | in_page))
		last = addr | in_page;
	else if ((last & in_page) != in_page && (addr | in_page) !=
	    (last | in_page))
		last = (last & ~in_page) - 1;
	if (last > range->last)
		last = range->last;
	return (last - addr < len - 1 ? (size_t)(last - addr) + 1 : len);
}

/*
 * What is to be written back goes to what is there now, whatever is there then:
 * who takes memory back, and waits for it, must not find it written later, nor
 * must whoever gets its place.  What is there may be an IOMMU, which is asked
 * again then: the guest may have thought better of it.
 */
static int
map_bounce(const struct mt__reader *rd, size_t len, struct mt_mapping *map)
{
	size_t grant = mt__bounce_take(map->sp, len), part;
	mt_addr last = map->addr + (grant - 1);

	if (grant == 0)
		return (EAGAIN);
	while (rd->depth != 0)
		rd = rd->outer;
	if ((map->dir & MT_DMA_WRITE) != 0 &&
	    (map->view = mt__view_part(rd->view, map->addr, &last)) == NULL) {
		mt__bounce_give(map->sp, grant);
		return (ENOMEM);
	}
	part = (size_t)(last - map->addr) + 1;
	/* Zeroed, unless it is filled: no bytes of ours for the guest. */
	map->ptr = (map->dir & MT_DMA_READ) != 0 ? malloc(part) :
	    calloc(1, part);
	if (map->ptr == NULL) {
		if (map->view != NULL)
			mt__view_part_free(map->view);
		mt__bounce_give(map->sp, grant);
		return (ENOMEM);
	}
	if (part < grant)
		mt__bounce_give(map->sp, grant - part);
	map->len = part;
	map->bounced = true;
	return (0);
}

void
mt__dma_mark(struct mt_mapping *map)
{
	map->magic = mark(map);
}

/* Pin what map lends in place: from here on it may outlive the space. */
static inline void
lend(struct mt_topology *t, const struct mt__span *span,
    struct mt_mapping *map)
{
	map->region = span->region;
	map->topology = t;
	map->pin = span->pin;
	mt__pin(t, span->pin);
}

int
mt__dma_map(struct mt__reader *rd, mt_addr addr, size_t len, unsigned int how,
    struct mt_mapping *map)
{
	bool is_write = (map->dir & MT_DMA_WRITE) != 0;
	struct mt__hit hit;
	int error;

	if (len == 0 || map->dir == 0 ||
	    (map->dir & ~(MT_DMA_READ | MT_DMA_WRITE)) != 0)
		return (EINVAL);
	mt__lookup(rd->view, addr, is_write, map->attrs, &hit);
	if (hit.host != NULL) {
		map->ptr = hit.host;
		map->len = mt__direct_len(rd->view, &hit, addr, len, is_write,
		    map->attrs);
		lend(rd->topology, hit.span, map);
		return (0);
	}
	if (mt__is_iommu(&hit))
		return (mt__iommu_map(rd, &hit, addr, len, how, map));
	if (hit.span == NULL || hit.span->region->kind == MT_RESERVED ||
	    (map->attrs.memory_only &&
	    hit.span->region->kind != MT_RAM_DEVICE))
		return (EFAULT);
	if ((how & MT__MAP_DIRECT) != 0)
		return (ENOSPC);
	if (mt__region_is_ram(hit.span->region))
		len = rom_len(&hit, addr, len);
	if (addr != 0 && len - 1 > MT_LAST_MAX - addr)
		len = (size_t)(MT_LAST_MAX - addr) + 1;
	if ((error = map_bounce(rd, len, map)) != 0)
		return (error);
	if ((map->dir & MT_DMA_READ) != 0)
		map->result = mt__access(rd, addr, map->ptr, map->len, false,
		    map->attrs);
	return (0);
}

void
mt__dma_unpin(const struct mt_mapping *map)
{
	mt__unpin(map->topology, map->pin);
}

bool
mt__dma_join(struct mt_mapping *map, const struct mt_mapping *next)
{
	if (next->bounced || map->bounced || map->region != next->region ||
	    (uint8_t *)map->ptr + map->len != next->ptr)
		return (false);
	map->len += next->len;
	mt__dma_unpin(next);
	return (true);
}

int
mt_dma_map(struct mt_space *sp, mt_addr addr, size_t len, unsigned int dir,
    struct mt_attrs attrs, struct mt_mapping *map)
{
	const struct mt__span *span;
	struct mt__reader rd;
	int error;

	map->ptr = NULL;
	map->len = 0;
	map->result = MT_OK;
	map->bounced = false;
	map->magic = 0;
	map->sp = sp;
	map->view = NULL;
	map->addr = addr;
	map->dir = dir;
	map->attrs = attrs;
	mt__reader_begin(&rd, sp);
	/* The short way, for what is in one section; the long one finds it. */
	span = mt__tree_at(rd.view->top, addr);
	if (span != NULL && (mt_addr)len - 1 <= span->range.last - addr &&
	    ((dir == MT_DMA_READ && (span->flags & MT__DIRECT_READ) != 0) ||
	    ((dir & ~MT_DMA_READ) == MT_DMA_WRITE &&
	    (span->flags & MT__DIRECT_WRITE) != 0))) {
		map->ptr = span->host + (addr - span->range.first);
		map->len = len;
		lend(sp->topology, span, map);
		error = 0;
	} else
		error = mt__dma_map(&rd, addr, len, 0, map);
	mt__reader_end(&rd);
	if (error != 0) {
		errno = error;
		return (-1);
	}
	map->magic = mark(map);
	return (0);
}

/* The device has written a part of a mapping that is lent in place. */
static void
wrote(const struct mt_mapping *map, size_t off, size_t len)
{
	struct mt_region *r = map->region;

	mt__wrote(r, (mt_addr)((uint8_t *)map->ptr - r->ptr) + off, len);
}

/* Give a bounce buffer back, of which the first used bytes were written. */
static int
unmap_bounce(struct mt_mapping *map, size_t used)
{
	struct mt_space *sp = map->sp;
	size_t len = map->len;
	bool failed;

	if (used != 0) {
		mt__read_begin(sp->topology);
		map->result = mt__access_on(sp, map->view, map->addr,
		    map->ptr, used, true, map->attrs);
	}
	failed = map->result != MT_OK;
	free(map->ptr);
	if (map->view != NULL)
		mt__view_part_free(map->view);
	map->ptr = NULL;
	map->len = 0;
	/* Last: a waiter that is called now may reuse map. */
	mt__bounce_give(sp, len);
	if (failed) {
		errno = EIO;
		return (-1);
	}
	return (0);
}

int
mt_dma_unmap(struct mt_mapping *map, size_t used)
{
	if (map->magic != mark(map)) {
		errno = EINVAL;
		return (-1);
	}
	if ((map->dir & MT_DMA_WRITE) == 0)
		used = 0;
	if (used > map->len) {
		errno = ERANGE;
		return (-1);
	}
	map->magic = 0;
	map->result = MT_OK;
	if (map->bounced)
		return (unmap_bounce(map, used));
	if (used != 0)
		wrote(map, 0, used);
	map->ptr = NULL;
	map->len = 0;
	mt__dma_unpin(map);
	return (0);
}

int
mt_dma_set_dirty(const struct mt_mapping *map, size_t off, size_t len)
{
	if (map->magic != mark(map) || (map->dir & MT_DMA_WRITE) == 0) {
		errno = EINVAL;
		return (-1);
	}
	if (off > map->len || len > map->len - off) {
		errno = ERANGE;
		return (-1);
	}
	/* A bounce buffer is not the memory yet: its write-back marks. */
	if (len != 0 && !map->bounced)
		wrote(map, off, len);
	return (0);
}
