/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Interrupts: one a queue and batch of completions.  A message-signalled one
 * tells that something was posted; the pin tells that something is there to
 * be read, so it also follows the heads of the queues.
 */

#include "nvme.h"

void
nvme_intr_post(struct nvme_ctrl *c, struct nvme_cq *cq)
{
	if (cq->irq)
		return;
	cq->irq = true;
	c->irqs[c->nirqs++] = cq->qid;
	c->intr_dirty = true;
}

static bool
pin_wanted(struct nvme_ctrl *c)
{
	struct nvme_cq *cq;
	bool wanted = false;

	/* The pin is vector 0 to the mask registers. */
	if (!nvme_enabled(c) || (c->intm & 1) != 0)
		return (false);
	for (cq = c->cq; cq < c->cq + NVME_QUEUES; cq++) {
		if (!cq->live || !cq->ien)
			continue;
		nvme_cq_scan(c, cq);
		wanted |= nvme_cq_unread(cq);
	}
	return (wanted);
}

static void
set_pin(struct nvme_ctrl *c, bool high)
{
	if (c->intx == high)
		return;
	c->intx = high;
	vd_irq_set_intx(c->server, high);
}

void
nvme_intr_update(struct nvme_ctrl *c)
{
	enum vd_irq mode;
	struct nvme_cq *cq;
	unsigned int i;

	if (!c->intr_dirty && !c->intx)
		return;
	c->intr_dirty = false;
	mode = vd_irq_mode(c->server);
	set_pin(c, mode == VD_IRQ_INTX && pin_wanted(c));
	for (i = 0; i < c->nirqs; i++) {
		cq = &c->cq[c->irqs[i]];
		if (cq->irq && cq->live && mode != VD_IRQ_INTX)
			vd_irq_trigger(c->server, mode, cq->vector);
		cq->irq = false;
	}
	c->nirqs = 0;
}

void
nvme_intr_reset(struct nvme_ctrl *c)
{
	unsigned int i;

	for (i = 0; i < c->nirqs; i++)
		c->cq[c->irqs[i]].irq = false;
	c->nirqs = 0;
	set_pin(c, false);
	c->intr_dirty = false;
}
