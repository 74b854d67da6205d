/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The memory of a queue.
 *
 * It is the client's, who may take it back and give it again, elsewhere or
 * in other pieces, at any time; firmware does so under live queues.  So we
 * keep one mapping that reaches from some entry to the end of the piece, and
 * make a new one for an entry outside of it.  Where there is nothing to map
 * every access is a copy through the space, and where even that fails the
 * queue is stuck until memory comes.
 */

#include <string.h>

#include "nvme.h"

void
nvme_ring_init(struct nvme_ring *r, mt_addr base, uint32_t entries,
    unsigned int shift, unsigned int dir)
{
	nvme_ring_drop(r);
	r->base = base;
	r->entries = entries;
	r->shift = shift;
	r->dir = dir;
}

static void
ring_unmap(struct nvme_ring *r)
{
	if (r->ptr == NULL)
		return;
	mt_dma_unmap(&r->map, r->map.len);
	r->ptr = NULL;
	r->len = 0;
	r->off = 0;
}

void
nvme_ring_drop(struct nvme_ring *r)
{
	ring_unmap(r);
	r->slow = false;
	r->stuck = false;
}

/* Have the entry at byte off of the queue mapped. */
static bool
ring_map(struct nvme_ctrl *c, struct nvme_ring *r, size_t off)
{
	/* A bounce buffer would not show what the guest writes later. */
	const struct mt_attrs attrs = { .memory_only = 1 };
	size_t entry = (size_t)1 << r->shift;
	size_t end = (size_t)r->entries << r->shift;

	if (r->slow)
		return (false);
	ring_unmap(r);
	if (mt_dma_map(c->dma, r->base + off, end - off, r->dir, attrs,
	    &r->map) == -1) {
		r->slow = true;
		return (false);
	}
	if (r->map.bounced || r->map.len < entry ||
	    ((uintptr_t)r->map.ptr & (entry - 1)) != 0) {
		mt_dma_unmap(&r->map, 0);
		r->slow = true;
		return (false);
	}
	r->ptr = r->map.ptr;
	r->off = off;
	r->len = r->map.len & ~(entry - 1);
	return (true);
}

/* Copy entry i to cmd. */
bool
nvme_ring_get(struct nvme_ctrl *c, struct nvme_ring *r, uint32_t i,
    struct nvme_cmd *cmd)
{
	size_t off = (size_t)i << NVME_SQE_SHIFT;

	if (nvme_likely(off - r->off < r->len) || ring_map(c, r, off)) {
		memcpy(cmd, r->ptr + (off - r->off), sizeof(*cmd));
		return (true);
	}
	if (mt_space_read(c->dma, r->base + off, cmd, sizeof(*cmd),
	    MT_ATTRS_NONE) == MT_OK)
		return (true);
	r->stuck = true;
	return (false);
}

/*
 * Copy cqe to entry i.  The guest finds it by the phase bit in its last four
 * bytes: these are released after the rest, or it would read an old result.
 */
bool
nvme_ring_put(struct nvme_ctrl *c, struct nvme_ring *r, uint32_t i,
    const struct nvme_cqe *cqe)
{
	size_t off = (size_t)i << NVME_CQE_SHIFT;
	const size_t last = offsetof(struct nvme_cqe, cid);
	const uint8_t *tail = (const uint8_t *)cqe + last;
	uint32_t word;
	uint8_t *p;

	if (nvme_likely(off - r->off < r->len) || ring_map(c, r, off)) {
		p = r->ptr + (off - r->off);
		memcpy(p, cqe, last);
		memcpy(&word, tail, sizeof(word));
		atomic_store_explicit((_Atomic uint32_t *)(void *)(p + last),
		    word, memory_order_release);
		return (true);
	}
	if (mt_space_write(c->dma, r->base + off, cqe, last,
	    MT_ATTRS_NONE) == MT_OK &&
	    mt_space_write(c->dma, r->base + off + last, tail, sizeof(word),
	    MT_ATTRS_NONE) == MT_OK)
		return (true);
	r->stuck = true;
	return (false);
}
