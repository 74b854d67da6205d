/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Moving the data of a command.  Guest memory that can be mapped is, all of it
 * at once if that can be had, and handed on as iovecs.  If any of it cannot,
 * lists included, the command is begun anew as a job: see job.c.
 */

#include <errno.h>
#include <string.h>

#include "nvme.h"

/* No bounce buffers: those would make us wait. */
static const struct mt_attrs mapped_only = { .memory_only = 1 };

/* --- which memory: lists -------------------------------------------------- */

int
nvme_walk_begin(const struct nvme_ctrl *c, struct nvme_walk *w,
    const struct nvme_cmd *cmd, size_t len)
{
	w->n = 0;
	w->len = 0;
	w->want = len;
	w->bytes = 0;
	w->sgl = NVME_CMD_PSDT(cmd) != 0;
	switch (NVME_CMD_PSDT(cmd)) {
	case 0:
		return (nvme_prp_begin(c, w, cmd));
	case 1:
	case 2:		/* they differ in the metadata, of which is none */
		return (nvme_sgl_begin(w, cmd));
	default:
		return (NVME_INVALID_FIELD | NVME_DNR);
	}
}

int
nvme_walk_feed(const struct nvme_ctrl *c, struct nvme_walk *w)
{
	return (w->sgl ? nvme_sgl_feed(w) : nvme_prp_feed(c, w));
}

static int
walk(struct nvme_ctrl *c, const struct nvme_cmd *cmd, size_t len)
{
	struct nvme_walk *w = &c->walk;
	int status;

	status = nvme_walk_begin(c, w, cmd, len);
	while (status == NVME_OK && w->bytes > 0) {
		if (mt_space_read(c->dma, w->addr, &w->list, w->bytes,
		    mapped_only) != MT_OK)
			return (NVME_REMOTE);
		status = nvme_walk_feed(c, w);
	}
	return (status);
}

/* --- mapped memory -------------------------------------------------------- */

/* A place among the segments. */
struct place {
	unsigned int seg;
	size_t off;
};

/* Map from *at on; returns a status, with *n mappings to be given back. */
static int
map_batch(struct nvme_ctrl *c, struct place *at, unsigned int dir,
    unsigned int *n, size_t *len)
{
	const struct nvme_walk *w = &c->walk;
	const struct nvme_seg *seg;
	struct mt_mapping *map;

	*n = 0;
	*len = 0;
	while (at->seg < w->n && *n < NVME_MAX_SEGS) {
		seg = &w->v[at->seg];
		map = &c->maps[*n];
		if (mt_dma_map(c->dma, seg->addr + at->off,
		    seg->len - at->off, dir, mapped_only, map) == -1)
			return (errno == ENOMEM ? NVME_INTERNAL : NVME_REMOTE);
		c->iov[*n] = (struct iovec){ map->ptr, map->len };
		++*n;
		if (map->bounced)
			return (NVME_REMOTE);
		*len += map->len;
		at->off += map->len;
		if (at->off == seg->len) {
			at->seg++;
			at->off = 0;
		}
	}
	return (NVME_OK);
}

static int
move(struct nvme_ctrl *c, const struct nvme_xfer *x)
{
	struct place at = { 0, 0 };
	struct mt_mapping *map;
	unsigned int i, n;
	uint64_t pos = 0;
	size_t len;
	int status;

	while (pos < x->len) {
		status = map_batch(c, &at, x->dir, &n, &len);
		if (status == NVME_OK)
			status = x->fn(x->arg, c->iov, n, pos, len);
		for (i = 0; i < n; i++) {
			map = &c->maps[i];
			/* Nobody shall see what a bounce buffer held before. */
			mt_dma_unmap(map, map->bounced ? 0 : map->len);
		}
		if (status != NVME_OK)
			return (status);
		pos += len;
		c->moved += len;
	}
	c->stats.by_map++;
	return (NVME_OK);
}

/* --- either --------------------------------------------------------------- */

int
nvme_xfer(struct nvme_ctrl *c, struct nvme_req *req,
    const struct nvme_xfer *x)
{
	int status;

	if (nvme_unlikely(req->job != NULL))
		return (nvme_job_end(c, req, x));
	status = walk(c, &req->cmd, x->len);
	if (nvme_likely(status == NVME_OK))
		status = move(c, x);
	if (nvme_unlikely(status == NVME_REMOTE))
		status = nvme_job_start(c, req, x);
	return (status);
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
nvme_xfer_buf(struct nvme_ctrl *c, struct nvme_req *req, unsigned int dir,
    void *buf, size_t len)
{
	struct copy arg = { buf, dir };
	const struct nvme_xfer x = { .len = len, .dir = dir, .fn = copy,
	    .arg = &arg };

	return (nvme_xfer(c, req, &x));
}
