/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Asynchronous events.  The host leaves requests with us; an event takes one.
 * Having told of one type we say no more of it until its log page was read.
 */

#include <string.h>

#include "nvme.h"

/* Remember an event; one that is waiting to be told already is not doubled. */
void
nvme_event(struct nvme_ctrl *c, uint8_t type, uint8_t info, uint8_t log)
{
	unsigned int i;

	for (i = 0; i < c->nevents; i++)
		if (c->events[i].type == type && c->events[i].info == info)
			return;
	if (c->nevents < NVME_EVENTS)
		c->events[c->nevents++] =
		    (struct nvme_event){ type, info, log };
}

void
nvme_event_read(struct nvme_ctrl *c, uint8_t type)
{
	c->masked &= (uint8_t)~(1u << type);
}

/*
 * Post for a request that was left with us.  It holds no entry of the queue,
 * so there may be none.
 */
static bool
post(struct nvme_ctrl *c, uint16_t cid, uint32_t result, uint16_t status)
{
	struct nvme_cq *cq = &c->cq[0];
	const struct nvme_cqe cqe = {
		.result = result,
		.sqhd = (uint16_t)c->sq[0].head,
		.cid = cid,
		.status = (uint16_t)(status << 1),
	};

	if (nvme_cq_room(cq) == 0)
		return (false);
	nvme_cq_post(c, cq, &cqe);
	return (true);
}

void
nvme_event_deliver(struct nvme_ctrl *c)
{
	struct nvme_event *e;
	unsigned int i = 0;

	while (i < c->nevents && c->naers > 0) {
		e = &c->events[i];
		if ((c->masked & 1u << e->type) != 0) {
			i++;
			continue;
		}
		if (!post(c, c->aer_cid[0], e->type | (uint32_t)e->info << 8 |
		    (uint32_t)e->log << 16, NVME_OK))
			return;
		c->masked |= (uint8_t)(1u << e->type);
		c->naers--;
		memmove(c->aer_cid, c->aer_cid + 1,
		    c->naers * sizeof(c->aer_cid[0]));
		c->nevents--;
		memmove(e, e + 1, (c->nevents - i) * sizeof(*e));
	}
}

int
nvme_aer(struct nvme_ctrl *c, struct nvme_req *req)
{
	if (c->naers == NVME_AERS)
		return (NVME_AER_LIMIT | NVME_DNR);
	c->aer_cid[c->naers++] = req->cmd.cid;
	nvme_req_release(req);
	return (NVME_LATER);
}

bool
nvme_aer_abort(struct nvme_ctrl *c, uint16_t cid)
{
	unsigned int i;

	for (i = 0; i < c->naers; i++)
		if (c->aer_cid[i] == cid)
			break;
	if (i == c->naers || !post(c, cid, 0, NVME_ABORT_REQUESTED))
		return (false);
	c->naers--;
	memmove(&c->aer_cid[i], &c->aer_cid[i + 1],
	    (c->naers - i) * sizeof(c->aer_cid[0]));
	return (true);
}
