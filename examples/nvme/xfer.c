/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Moving the data of a command: its guest memory is mapped, all of it at once
 * if that can be had, and handed on as iovecs.
 */

#include <errno.h>
#include <string.h>

#include "nvme.h"

static void
fed(void *arg)
{
	struct nvme_ctrl *c = arg;

	c->waiting = false;
	c->fed = true;
}

/* Have commands that found no bounce budget tried again when there is some. */
void
nvme_xfer_wait(struct nvme_ctrl *c)
{
	if (c->waiting)
		return;
	c->waiting = true;	/* fed() may be called before we return */
	if (mt_dma_wait(c->dma, &c->waiter, 1, fed, c) == -1)
		fed(c);
}

static int
map_status(int error)
{
	switch (error) {
	case EAGAIN:
		return (NVME_NO_MEMORY);
	case EFAULT:
		return (NVME_DATA_TRANSFER);
	default:
		return (NVME_INTERNAL);
	}
}

/* A place among the segments. */
struct place {
	unsigned int seg;
	size_t off;
};

/* Map from *at on; returns a status, with *n mappings to be given back. */
static int
map_batch(struct nvme_ctrl *c, const struct nvme_segs *segs,
    struct place *at, unsigned int dir, unsigned int *n, size_t *len)
{
	const struct nvme_seg *seg;
	struct mt_mapping *map;

	*n = 0;
	*len = 0;
	while (at->seg < segs->n && *n < NVME_MAX_SEGS) {
		seg = &segs->v[at->seg];
		map = &c->maps[*n];
		if (mt_dma_map(c->dma, seg->addr + at->off,
		    seg->len - at->off, dir, MT_ATTRS_NONE, map) == -1) {
			/* Go on with what there is: it gives budget back. */
			if (errno == EAGAIN && *n > 0)
				return (NVME_OK);
			return (map_status(errno));
		}
		c->iov[*n] = (struct iovec){ map->ptr, map->len };
		++*n;
		if (map->result != MT_OK)
			return (NVME_DATA_TRANSFER);
		*len += map->len;
		at->off += map->len;
		if (at->off == seg->len) {
			at->seg++;
			at->off = 0;
		}
	}
	return (NVME_OK);
}

int
nvme_xfer(struct nvme_ctrl *c, const struct nvme_segs *segs,
    unsigned int dir, nvme_xfer_fn *fn, void *arg)
{
	struct place at = { 0, 0 };
	struct mt_mapping *map;
	unsigned int i, n;
	uint64_t pos = 0;
	size_t len, used;
	int status;

	while (pos < segs->len) {
		status = map_batch(c, segs, &at, dir, &n, &len);
		if (status == NVME_OK)
			status = fn(arg, c->iov, n, pos, len);
		for (i = 0; i < n; i++) {
			map = &c->maps[i];
			/* Nobody shall see what a bounce buffer held before. */
			used = map->bounced && status != NVME_OK ? 0 :
			    map->len;
			if (mt_dma_unmap(map, used) == -1 &&
			    status == NVME_OK)
				status = NVME_DATA_TRANSFER;
		}
		if (status != NVME_OK)
			return (status);
		pos += len;
		c->moved += len;
	}
	return (NVME_OK);
}

struct copy {
	uint8_t *buf;
	unsigned int dir;
};

static int
copy(void *arg, struct iovec *iov, unsigned int n, uint64_t pos, size_t len)
{
	const struct copy *copy = arg;
	uint8_t *p = copy->buf + pos;

	(void)len;
	for (; n > 0; n--, iov++) {
		if (copy->dir == MT_DMA_WRITE)
			memcpy(iov->iov_base, p, iov->iov_len);
		else
			memcpy(p, iov->iov_base, iov->iov_len);
		p += iov->iov_len;
	}
	return (NVME_OK);
}

int
nvme_xfer_buf(struct nvme_ctrl *c, const struct nvme_cmd *cmd,
    unsigned int dir, void *buf, size_t len)
{
	struct copy arg = { buf, dir };
	int status;

	status = NVME_CMD_PSDT(cmd) == 0 ?
	    nvme_prp(c, cmd, len, &c->segs) : nvme_sgl(c, cmd, len, &c->segs);
	if (status != NVME_OK)
		return (status);
	return (nvme_xfer(c, &c->segs, dir, copy, &arg));
}
