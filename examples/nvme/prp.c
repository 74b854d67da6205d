/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Physical region pages: two pointers, of which the second may name a list
 * of more.  The list is read by the caller, who may have to wait for it.
 */

#include "nvme.h"

/* Append memory; what continues the last segment is joined to it. */
int
nvme_walk_add(struct nvme_walk *w, mt_addr addr, size_t len)
{
	struct nvme_seg *last = w->n > 0 ? &w->v[w->n - 1] : NULL;

	w->len += len;
	/* Not over the end of all addresses: 0 continues nothing. */
	if (last != NULL && addr != 0 && last->addr + last->len == addr) {
		last->len += len;
		return (NVME_OK);
	}
	if (w->n == NVME_MAX_SEGS)
		return (NVME_SGL_BAD_COUNT | NVME_DNR);
	w->v[w->n++] = (struct nvme_seg){ addr, len };
	return (NVME_OK);
}

/* Entries from addr on that its page of list has room for. */
static size_t
in_page(const struct nvme_ctrl *c, mt_addr addr)
{
	const size_t page = (size_t)1 << c->page_shift;

	return ((page - (addr & (page - 1))) / sizeof(uint64_t));
}

/* Ask for what comes next of the list, which goes on at addr. */
static void
want(const struct nvme_ctrl *c, struct nvme_walk *w, mt_addr addr)
{
	const size_t page = (size_t)1 << c->page_shift;
	size_t n = (w->want - w->len + page - 1) >> c->page_shift;
	size_t most = in_page(c, addr);

	n = n < most ? n : most;
	most = sizeof(w->list.prp) / sizeof(w->list.prp[0]);
	n = n < most ? n : most;
	w->addr = addr;
	w->bytes = n * sizeof(w->list.prp[0]);
}

/*
 * The last entry of a page of list names the next page if there is more to
 * come, so a list can be no longer than the transfer asks for.
 */
int
nvme_prp_feed(const struct nvme_ctrl *c, struct nvme_walk *w)
{
	const size_t page = (size_t)1 << c->page_shift;
	size_t n = w->bytes / sizeof(w->list.prp[0]), bytes, i, left;
	size_t most = in_page(c, w->addr);
	const uint64_t *prp = w->list.prp;
	bool more = (w->want - w->len + page - 1) >> c->page_shift > most;
	int status;

	w->bytes = 0;
	for (i = 0; i < n; i++) {
		if ((prp[i] & (page - 1)) != 0)
			return (NVME_PRP_BAD_OFFSET | NVME_DNR);
		if (i + 1 == most && more) {
			want(c, w, prp[i]);
			return (NVME_OK);
		}
		left = w->want - w->len;
		bytes = left < page ? left : page;
		if ((status = nvme_walk_add(w, prp[i], bytes)) != NVME_OK)
			return (status);
	}
	if (w->len < w->want)
		want(c, w, w->addr + n * sizeof(*prp));
	return (NVME_OK);
}

int
nvme_prp_begin(const struct nvme_ctrl *c, struct nvme_walk *w,
    const struct nvme_cmd *cmd)
{
	const size_t page = (size_t)1 << c->page_shift;
	size_t first, left;
	int status;

	if ((cmd->prp1 & 3) != 0)
		return (NVME_PRP_BAD_OFFSET | NVME_DNR);
	first = page - (cmd->prp1 & (page - 1));
	if (first > w->want)
		first = w->want;
	if ((status = nvme_walk_add(w, cmd->prp1, first)) != NVME_OK)
		return (status);
	if ((left = w->want - first) == 0)
		return (NVME_OK);
	if (left > page) {
		if ((cmd->prp2 & 7) != 0)
			return (NVME_PRP_BAD_OFFSET | NVME_DNR);
		want(c, w, cmd->prp2);
		return (NVME_OK);
	}
	if ((cmd->prp2 & (page - 1)) != 0)
		return (NVME_PRP_BAD_OFFSET | NVME_DNR);
	return (nvme_walk_add(w, cmd->prp2, left));
}
