/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Scatter-gather lists: data blocks, and segments of more descriptors.
 */

#include "nvme.h"

/* Descriptors without data could go on for ever: so many are enough. */
#define MAX_DESCRIPTORS	4096u

/* A descriptor is a data block: append it, up to what is still wanted. */
static int
add_block(struct nvme_segs *segs, const struct nvme_sgl *d, size_t want)
{
	size_t len = d->len;

	if (len > want - segs->len)
		len = want - segs->len;
	if (len == 0)
		return (NVME_OK);
	if (d->addr + (len - 1) < d->addr)
		return (NVME_DATA_TRANSFER | NVME_DNR);
	return (nvme_segs_add(segs, d->addr, len));
}

/*
 * Go through the segment that d describes.  Only its last descriptor may name
 * another, which is then left in *d; else d->len is set to 0.
 */
static int
one_segment(struct nvme_ctrl *c, struct nvme_sgl *d, size_t want,
    struct nvme_segs *segs, unsigned int *left)
{
	struct nvme_sgl *v = c->list.sgl;
	const size_t max = sizeof(c->list.sgl) / sizeof(*v);
	bool last = d->type >> 4 == NVME_SGL_LAST;
	mt_addr addr = d->addr;
	size_t i, n, todo = d->len / sizeof(*v);
	int status;

	if (d->len == 0 || d->len % sizeof(*v) != 0 ||
	    addr + (d->len - 1) < addr)
		return (NVME_SGL_BAD_SEGMENT | NVME_DNR);
	d->len = 0;
	while (todo > 0) {
		n = todo < max ? todo : max;
		if (n > *left)
			return (NVME_SGL_BAD_COUNT | NVME_DNR);
		*left -= (unsigned int)n;
		if (mt_space_read(c->dma, addr, v, n * sizeof(*v),
		    MT_ATTRS_NONE) != MT_OK)
			return (NVME_DATA_TRANSFER);
		addr += n * sizeof(*v);
		todo -= n;
		for (i = 0; i < n; i++) {
			switch (v[i].type) {
			case NVME_SGL_DATA << 4:
				status = add_block(segs, &v[i], want);
				if (status != NVME_OK)
					return (status);
				break;
			case NVME_SGL_SEGMENT << 4:
			case NVME_SGL_LAST << 4:
				if (last || todo > 0 || i + 1 < n)
					return (NVME_SGL_BAD_SEGMENT |
					    NVME_DNR);
				*d = v[i];
				break;
			default:
				return (NVME_SGL_BAD_TYPE | NVME_DNR);
			}
		}
		if (segs->len == want) {
			d->len = 0;
			return (NVME_OK);
		}
	}
	return (NVME_OK);
}

int
nvme_sgl(struct nvme_ctrl *c, const struct nvme_cmd *cmd, size_t len,
    struct nvme_segs *segs)
{
	unsigned int left = MAX_DESCRIPTORS;
	struct nvme_sgl d = cmd->sgl;
	int status;

	segs->n = 0;
	segs->len = 0;
	switch (d.type) {
	case NVME_SGL_DATA << 4:
		status = add_block(segs, &d, len);
		break;
	case NVME_SGL_SEGMENT << 4:
	case NVME_SGL_LAST << 4:
		do {
			status = one_segment(c, &d, len, segs, &left);
		} while (status == NVME_OK && d.len > 0);
		break;
	default:
		return (NVME_SGL_BAD_TYPE | NVME_DNR);
	}
	if (status == NVME_OK && segs->len < len)
		return (NVME_SGL_BAD_LENGTH | NVME_DNR);
	return (status);
}
