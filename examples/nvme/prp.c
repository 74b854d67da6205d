/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Physical region pages: two pointers, of which the second may name a list
 * of more.
 */

#include "nvme.h"

/* Append memory; what continues the last segment is joined to it. */
int
nvme_segs_add(struct nvme_segs *segs, mt_addr addr, size_t len)
{
	struct nvme_seg *last = segs->n > 0 ? &segs->v[segs->n - 1] : NULL;

	segs->len += len;
	/* Not over the end of all addresses: 0 continues nothing. */
	if (last != NULL && addr != 0 && last->addr + last->len == addr) {
		last->len += len;
		return (NVME_OK);
	}
	if (segs->n == NVME_MAX_SEGS)
		return (NVME_SGL_BAD_COUNT | NVME_DNR);
	segs->v[segs->n++] = (struct nvme_seg){ addr, len };
	return (NVME_OK);
}

/*
 * Follow the list at addr for len bytes.  The last entry of a page of list
 * names the next page if there is more to come, so a list can be no longer
 * than the transfer asks for.  The entries are copied before they are looked
 * at: the guest may change them meanwhile.
 */
static int
prp_list(struct nvme_ctrl *c, mt_addr addr, size_t len,
    struct nvme_segs *segs)
{
	const size_t page = (size_t)1 << c->page_shift;
	uint64_t *prp = c->list.prp;
	const size_t max = sizeof(c->list.prp) / sizeof(*prp);
	size_t bytes, i, in_page, n, want;
	int status;

	if ((addr & 7) != 0)
		return (NVME_PRP_BAD_OFFSET | NVME_DNR);
	for (;;) {
		want = (len + page - 1) >> c->page_shift;
		in_page = (page - (addr & (page - 1))) / sizeof(*prp);
		n = want < in_page ? want : in_page;
		n = n < max ? n : max;
		if (mt_space_read(c->dma, addr, prp,
		    n * sizeof(*prp), MT_ATTRS_NONE) != MT_OK)
			return (NVME_DATA_TRANSFER);
		for (i = 0; i < n; i++) {
			if ((prp[i] & (page - 1)) != 0)
				return (NVME_PRP_BAD_OFFSET | NVME_DNR);
			if (i + 1 == in_page && want > in_page)
				break;
			bytes = len < page ? len : page;
			status = nvme_segs_add(segs, prp[i], bytes);
			if (status != NVME_OK)
				return (status);
			len -= bytes;
		}
		if (len == 0)
			return (NVME_OK);
		addr = i < n ? prp[i] : addr + n * sizeof(*prp);
	}
}

int
nvme_prp(struct nvme_ctrl *c, const struct nvme_cmd *cmd, size_t len,
    struct nvme_segs *segs)
{
	const size_t page = (size_t)1 << c->page_shift;
	size_t first;
	int status;

	segs->n = 0;
	segs->len = 0;
	if ((cmd->prp1 & 3) != 0)
		return (NVME_PRP_BAD_OFFSET | NVME_DNR);
	first = page - (cmd->prp1 & (page - 1));
	if (first > len)
		first = len;
	if ((status = nvme_segs_add(segs, cmd->prp1, first)) != NVME_OK)
		return (status);
	len -= first;
	if (len == 0)
		return (NVME_OK);
	if (len > page)
		return (prp_list(c, cmd->prp2, len, segs));
	if ((cmd->prp2 & (page - 1)) != 0)
		return (NVME_PRP_BAD_OFFSET | NVME_DNR);
	return (nvme_segs_add(segs, cmd->prp2, len));
}
