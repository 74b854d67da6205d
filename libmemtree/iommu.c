/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Going through IOMMU regions.  A piece of an access or mapping is as much as
 * one answer of translate covers.  It goes on in the target space, by a reader
 * of its own, within the same read-side section; readers inside each other are
 * counted, so a translation that leads back to itself comes to an end.
 */

#include <errno.h>
#include <stdlib.h>

#include "internal.h"

_Static_assert(MT_IOMMU_READ == MT_DMA_READ &&
    MT_IOMMU_WRITE == MT_DMA_WRITE, "directions of mappings are permissions");

static bool
is_mask(mt_addr mask)
{
	return ((mask & (mask + 1)) == 0);
}

mt_addr
mt_iommu_min_page(const struct mt_region *r)
{
	mt_addr size = 0;

	if (r->kind != MT_IOMMU)
		return (0);
	if (mt__iommu_of(r)->ops->min_page != NULL)
		size = mt__iommu_of(r)->ops->min_page(r->arg);
	return (size != 0 && is_mask(size - 1) ? size : 4096);
}

enum mt_result
mt__iommu_look(const struct mt_region *r, mt_addr off, unsigned int need,
    unsigned int flags, struct mt_attrs attrs, struct mt_iotlb *tlb)
{
	enum mt_result res = MT_OK;
	struct mt__inside in;

	*tlb = (struct mt_iotlb){ 0 };
	/* The lock is for the question alone, not for where the answer leads. */
	if (mt__enter(r, &in)) {
		mt__iommu_of(r)->ops->translate(r->arg, off, flags, attrs,
		    tlb);
		mt__leave(r, &in);
	}
	if (!is_mask(tlb->mask)) {
		tlb->mask = 0;
		res = MT_DEVICE;
	} else if (tlb->perm == 0 || (tlb->perm & need) != need)
		res = MT_DENIED;
	else if (tlb->target == NULL || tlb->target->topology != r->topology)
		res = MT_DEVICE;
	/* Otherwise one fault might be reported for every byte. */
	if (res != MT_OK)
		tlb->mask |= mt_iommu_min_page(r) - 1;
	return (res);
}

size_t
mt__iommu_enter(struct mt__reader *in, struct mt__reader *rd,
    const struct mt__hit *hit, size_t len, unsigned int need,
    unsigned int flags, struct mt_attrs attrs, mt_addr *at,
    enum mt_result *res)
{
	mt_addr room = hit->room;
	struct mt_iotlb tlb;

	if (rd->depth == MT_IOMMU_DEPTH || ((need & MT_IOMMU_WRITE) != 0 &&
	    (hit->span->flags & MT_SECTION_READONLY) != 0))
		*res = MT_DECODE;
	else {
		/* A guest must not be told of faults of its debugger. */
		if (attrs.debug)
			flags |= MT_IOMMU_QUIET;
		*res = mt__iommu_look(hit->span->region, hit->off, need, flags,
		    attrs, &tlb);
		if (room > tlb.mask - (hit->off & tlb.mask))
			room = tlb.mask - (hit->off & tlb.mask);
	}
	if (*res == MT_OK) {
		*at = (tlb.addr & ~tlb.mask) | (hit->off & tlb.mask);
		in->topology = rd->topology;
		in->view = mt__space_view(tlb.target);
		in->access = rd->access;
		in->outer = rd;
		in->kept = in->put = false;
		in->depth = (uint8_t)(rd->depth + 1);
		in->whole = 0;
	}
	return (room < len - 1 ? (size_t)room + 1 : len);
}

/* Map as much as one translation covers. */
static int
map_piece(struct mt__reader *rd, const struct mt__hit *hit, size_t len,
    unsigned int how, struct mt_mapping *map)
{
	unsigned int flags = map->dir |
	    ((how & MT__MAP_QUIET) != 0 ? MT_IOMMU_QUIET : 0);
	struct mt__reader in;
	mt_addr at;
	int error;

	len = mt__iommu_enter(&in, rd, hit, len, map->dir, flags, map->attrs,
	    &at, &map->result);
	if (map->result != MT_OK)
		return (EFAULT);
	error = mt__dma_map(&in, at, len, how & ~MT__MAP_PIECE, map);
	mt__reader_leave(&in);
	return (error);
}

/*
 * Pages that continue each other in host memory are one mapping.  It ends
 * where one would fault, which is not reported before somebody maps that.
 */
int
mt__iommu_map(struct mt__reader *rd, const struct mt__hit *hit, mt_addr addr,
    size_t len, unsigned int how, struct mt_mapping *map)
{
	const struct mt_mapping like = *map;
	struct mt_mapping next;
	struct mt__hit more;
	int error = map_piece(rd, hit, len, how, map);

	if (error != 0 || map->bounced || (how & MT__MAP_PIECE) != 0)
		return (error);
	while (map->len < len && addr <= MT_LAST_MAX - map->len) {
		mt__lookup(rd->view, addr + map->len,
		    (map->dir & MT_DMA_WRITE) != 0, map->attrs, &more);
		if (!mt__is_iommu(&more))
			break;
		next = like;
		if (map_piece(rd, &more, len - map->len, how |
		    MT__MAP_DIRECT | MT__MAP_QUIET, &next) != 0)
			break;
		if (!mt__dma_join(map, &next)) {
			mt__dma_unpin(&next);
			break;
		}
	}
	return (0);
}
