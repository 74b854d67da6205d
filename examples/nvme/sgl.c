/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Scatter-gather lists: data blocks, and segments of more descriptors, which
 * are read by the caller, who may have to wait for them.
 */

#include "nvme.h"

/* Descriptors without data could go on for ever: so many are enough. */
#define MAX_DESCRIPTORS	4096u

/* A descriptor is a data block: append it, up to what is still wanted. */
static int
add_block(struct nvme_walk *w, const struct nvme_sgl *d)
{
	size_t len = d->len;

	if (len > w->want - w->len)
		len = w->want - w->len;
	if (len == 0)
		return (NVME_OK);
	if (d->addr + (len - 1) < d->addr)
		return (NVME_DATA_TRANSFER | NVME_DNR);
	return (nvme_walk_add(w, d->addr, len));
}

/* Ask for the next piece of a segment. */
static int
want(struct nvme_walk *w, mt_addr addr)
{
	const size_t max = sizeof(w->list.sgl) / sizeof(w->list.sgl[0]);
	size_t n = w->todo < max ? w->todo : max;

	if (n > w->left)
		return (NVME_SGL_BAD_COUNT | NVME_DNR);
	w->left -= (unsigned int)n;
	w->todo -= n;
	w->addr = addr;
	w->bytes = n * sizeof(w->list.sgl[0]);
	return (NVME_OK);
}

/* Go on in the segment that d describes. */
static int
enter(struct nvme_walk *w, const struct nvme_sgl *d)
{
	if (d->len == 0 || d->len % sizeof(*d) != 0 ||
	    d->addr + (d->len - 1) < d->addr)
		return (NVME_SGL_BAD_SEGMENT | NVME_DNR);
	w->last = d->type >> 4 == NVME_SGL_LAST;
	w->todo = d->len / sizeof(*d);
	return (want(w, d->addr));
}

static int
end(const struct nvme_walk *w)
{
	return (w->len < w->want ? NVME_SGL_BAD_LENGTH | NVME_DNR : NVME_OK);
}

/* Only the last descriptor of a segment may name another. */
int
nvme_sgl_feed(struct nvme_walk *w)
{
	const struct nvme_sgl *v = w->list.sgl, *next = NULL;
	size_t i, n = w->bytes / sizeof(*v);
	mt_addr addr = w->addr + w->bytes;
	int status;

	w->bytes = 0;
	for (i = 0; i < n; i++) {
		switch (v[i].type) {
		case NVME_SGL_DATA << 4:
			if ((status = add_block(w, &v[i])) != NVME_OK)
				return (status);
			break;
		case NVME_SGL_SEGMENT << 4:
		case NVME_SGL_LAST << 4:
			if (w->last || w->todo > 0 || i + 1 < n)
				return (NVME_SGL_BAD_SEGMENT | NVME_DNR);
			next = &v[i];
			break;
		default:
			return (NVME_SGL_BAD_TYPE | NVME_DNR);
		}
	}
	if (w->len == w->want)
		return (NVME_OK);
	if (w->todo > 0)
		return (want(w, addr));
	return (next != NULL ? enter(w, next) : end(w));
}

int
nvme_sgl_begin(struct nvme_walk *w, const struct nvme_cmd *cmd)
{
	int status;

	w->left = MAX_DESCRIPTORS;
	switch (cmd->sgl.type) {
	case NVME_SGL_DATA << 4:
		status = add_block(w, &cmd->sgl);
		return (status != NVME_OK ? status : end(w));
	case NVME_SGL_SEGMENT << 4:
	case NVME_SGL_LAST << 4:
		return (enter(w, &cmd->sgl));
	default:
		return (NVME_SGL_BAD_TYPE | NVME_DNR);
	}
}
