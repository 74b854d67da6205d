/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Accesses to guest memory that end later, because they are messages to the
 * client.  All that are in flight are in one list, so that they can be given
 * up.  The end of each is told once, also of one that was given up.
 */

#include <errno.h>

#include "nvme.h"

static void
ended(struct nvme_dma *d, enum mt_result res)
{
	struct nvme_ctrl *c = d->c;

	LIST_REMOVE(d, link);
	d->busy = false;
	c->inflight--;
	c->landed = true;
	d->done(d, res);		/* may free it */
	if (c->inflight == 0)
		nvme_ctrl_settled(c);
}

static void
done(void *arg, enum mt_result res)
{
	ended(arg, res);
}

int
nvme_dma_start(struct nvme_ctrl *c, struct nvme_dma *d, mt_addr addr,
    void *buf, size_t len, bool is_write,
    void (*fn)(struct nvme_dma *d, enum mt_result res))
{
	d->c = c;
	d->done = fn;
	d->range = (struct mt_range){ addr, addr + (len - 1) };
	d->is_write = is_write;
	d->busy = true;
	LIST_INSERT_HEAD(&c->flying, d, link);
	c->inflight++;
	if (mt_access_submit(c->dma, &d->acc, addr, buf, len, is_write,
	    MT_ATTRS_NONE, done, d) == 0) {
		*(is_write ? &c->stats.bytes_out : &c->stats.bytes_in) += len;
		return (0);
	}
	LIST_REMOVE(d, link);
	d->busy = false;
	c->inflight--;
	return (-1);
}

void
nvme_dma_cancel(struct nvme_dma *d)
{
	if (d->busy && mt_access_cancel(&d->acc))
		ended(d, MT_DEVICE);
}

/* What is told of an end gives up nothing else, so next stays. */
void
nvme_dma_cancel_all(struct nvme_ctrl *c, struct mt_range range, bool writes)
{
	struct nvme_dma *d, *next;

	for (d = LIST_FIRST(&c->flying); d != NULL; d = next) {
		next = LIST_NEXT(d, link);
		if ((writes || !d->is_write) && d->range.first <= range.last &&
		    range.first <= d->range.last)
			nvme_dma_cancel(d);
	}
}
