/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Features: settings that a host may read and change.  None is kept over a
 * reset.
 */

#include <string.h>

#include "nvme.h"

#define SEL_CURRENT	0
#define SEL_CAPS	3

#define TIMESTAMP_MASK	UINT64_C(0xffffffffffff)
#define TIMESTAMP_HOST	(UINT64_C(1) << 49)	/* origin: Set Features */

static void
defaults(const struct nvme_ctrl *c, struct nvme_features *f)
{
	memset(f, 0, sizeof(*f));
	f->over = NVME_TEMPERATURE + 35;
	f->write_cache = c->sync != NULL;
	f->nsqs = NVME_QUEUES - 1;
	f->ncqs = NVME_QUEUES - 1;
	f->timestamp_set = c->stats.started_ns;
}

void
nvme_features_reset(struct nvme_ctrl *c)
{
	unsigned int i;

	defaults(c, &c->feat);
	c->feat.timestamp_set = nvme_now();
	for (i = 0; i < c->nns; i++)
		c->ns[i]->recovery = 0;
}

uint8_t
nvme_warnings(const struct nvme_ctrl *c)
{
	if (NVME_TEMPERATURE >= c->feat.over ||
	    NVME_TEMPERATURE <= c->feat.under)
		return (NVME_SMART_TEMPERATURE);
	return (0);
}

/* --- Get Features --------------------------------------------------------- */

static bool
known(const struct nvme_ctrl *c, unsigned int fid)
{
	switch (fid) {
	case NVME_FEAT_ARBITRATION:
	case NVME_FEAT_POWER:
	case NVME_FEAT_TEMPERATURE:
	case NVME_FEAT_RECOVERY:
	case NVME_FEAT_QUEUES:
	case NVME_FEAT_COALESCING:
	case NVME_FEAT_VECTOR:
	case NVME_FEAT_ATOMICITY:
	case NVME_FEAT_EVENTS:
	case NVME_FEAT_TIMESTAMP:
	case NVME_FEAT_HOST_BEHAVIOR:
		return (true);
	case NVME_FEAT_WRITE_CACHE:
		return (c->sync != NULL);
	default:
		return (false);
	}
}

static int
get_temperature(const struct nvme_features *f, uint32_t cdw11,
    uint32_t *result)
{
	/* There is one sensor, the composite one. */
	if ((cdw11 >> 16 & 0xf) != 0 || (cdw11 >> 20 & 0x3) > 1)
		return (NVME_INVALID_FIELD | NVME_DNR);
	*result = (cdw11 >> 20 & 0x3) == 0 ? f->over : f->under;
	return (NVME_OK);
}

static int
get_timestamp(struct nvme_ctrl *c, const struct nvme_features *f,
    struct nvme_req *req)
{
	uint64_t ms = f->timestamp + (nvme_now() - f->timestamp_set) / 1000000;

	ms &= TIMESTAMP_MASK;
	if (f->timestamp_host)
		ms |= TIMESTAMP_HOST;
	return (nvme_xfer_buf(c, req, MT_DMA_WRITE, &ms, sizeof(ms)));
}

static int
get_behavior(struct nvme_ctrl *c, const struct nvme_features *f,
    struct nvme_req *req)
{
	uint8_t buf[512] = { f->acre };

	return (nvme_xfer_buf(c, req, MT_DMA_WRITE, buf, sizeof(buf)));
}

int
nvme_get_feature(struct nvme_ctrl *c, struct nvme_req *req)
{
	const struct nvme_cmd *cmd = &req->cmd;
	unsigned int fid = cmd->cdw10 & 0xff, sel = cmd->cdw10 >> 8 & 0x7;
	unsigned int vector = cmd->cdw11 & 0xffff;
	struct nvme_features other;
	const struct nvme_features *f = &c->feat;

	if (!known(c, fid) || sel > SEL_CAPS)
		return (NVME_INVALID_FIELD | NVME_DNR);
	if (fid == NVME_FEAT_RECOVERY &&
	    (cmd->nsid == 0 || cmd->nsid > c->nns))
		return (NVME_INVALID_NSID | NVME_DNR);
	if (sel == SEL_CAPS) {
		req->result = NVME_FEAT_CAP_CHANGEABLE;
		if (fid == NVME_FEAT_RECOVERY)
			req->result |= NVME_FEAT_CAP_NAMESPACED;
		return (NVME_OK);
	}
	if (sel != SEL_CURRENT) {
		/* Nothing can be saved, so what is saved is the default. */
		defaults(c, &other);
		f = &other;
	}
	switch (fid) {
	case NVME_FEAT_ARBITRATION:
		req->result = f->arbitration;
		break;
	case NVME_FEAT_POWER:
		req->result = f->power;
		break;
	case NVME_FEAT_TEMPERATURE:
		return (get_temperature(f, cmd->cdw11, &req->result));
	case NVME_FEAT_RECOVERY:
		if (sel == SEL_CURRENT)
			req->result = c->ns[cmd->nsid - 1]->recovery;
		break;
	case NVME_FEAT_WRITE_CACHE:
		req->result = f->write_cache;
		break;
	case NVME_FEAT_QUEUES:
		req->result = (f->nsqs - 1u) | (f->ncqs - 1u) << 16;
		break;
	case NVME_FEAT_COALESCING:
		req->result = f->coalescing;
		break;
	case NVME_FEAT_VECTOR:
		if (vector >= NVME_QUEUES)
			return (NVME_INVALID_FIELD | NVME_DNR);
		req->result = vector |
		    (uint32_t)f->no_coalescing[vector] << 16;
		break;
	case NVME_FEAT_ATOMICITY:
		req->result = f->atomicity;
		break;
	case NVME_FEAT_EVENTS:
		req->result = f->events;
		break;
	case NVME_FEAT_TIMESTAMP:
		return (get_timestamp(c, f, req));
	case NVME_FEAT_HOST_BEHAVIOR:
		return (get_behavior(c, f, req));
	default:
		break;
	}
	return (NVME_OK);
}

/* --- Set Features --------------------------------------------------------- */

static int
set_temperature(struct nvme_ctrl *c, uint32_t cdw11)
{
	unsigned int sensor = cdw11 >> 16 & 0xf, which = cdw11 >> 20 & 0x3;

	if ((sensor != 0 && sensor != 0xf) || which > 1)
		return (NVME_INVALID_FIELD | NVME_DNR);
	if (which == 0)
		c->feat.over = cdw11 & 0xffff;
	else
		c->feat.under = cdw11 & 0xffff;
	if ((nvme_warnings(c) & c->feat.events) != 0)
		nvme_event(c, NVME_AER_SMART, NVME_AER_TEMPERATURE,
		    NVME_LOG_SMART);
	return (NVME_OK);
}

static int
set_recovery(struct nvme_ctrl *c, uint32_t nsid, uint32_t cdw11)
{
	uint32_t i;

	/* Deallocated blocks can be read: no error can be asked for. */
	if ((cdw11 & 1u << 16) != 0)
		return (NVME_INVALID_FIELD | NVME_DNR);
	if (nsid != NVME_NSID_ALL && (nsid == 0 || nsid > c->nns))
		return (NVME_INVALID_NSID | NVME_DNR);
	for (i = 0; i < c->nns; i++)
		if (nsid == NVME_NSID_ALL || nsid == i + 1)
			c->ns[i]->recovery = (uint16_t)cdw11;
	return (NVME_OK);
}

static int
set_queues(struct nvme_ctrl *c, struct nvme_req *req)
{
	uint32_t nsqs = req->cmd.cdw11 & 0xffff, ncqs = req->cmd.cdw11 >> 16;
	unsigned int qid;

	if (nsqs == 0xffff || ncqs == 0xffff)
		return (NVME_INVALID_FIELD | NVME_DNR);
	for (qid = 1; qid < NVME_QUEUES; qid++)
		if (c->cq[qid].live || c->sq[qid].live)
			return (NVME_COMMAND_SEQUENCE | NVME_DNR);
	if (nsqs > NVME_QUEUES - 2)
		nsqs = NVME_QUEUES - 2;
	if (ncqs > NVME_QUEUES - 2)
		ncqs = NVME_QUEUES - 2;
	c->feat.nsqs = (uint16_t)(nsqs + 1);
	c->feat.ncqs = (uint16_t)(ncqs + 1);
	req->result = nsqs | ncqs << 16;
	return (NVME_OK);
}

static int
set_vector(struct nvme_ctrl *c, uint32_t cdw11)
{
	if ((cdw11 & 0xffff) >= NVME_QUEUES)
		return (NVME_INVALID_FIELD | NVME_DNR);
	c->feat.no_coalescing[cdw11 & 0xffff] = (cdw11 & 1u << 16) != 0;
	return (NVME_OK);
}

static int
set_timestamp(struct nvme_ctrl *c, struct nvme_req *req)
{
	uint64_t ms;
	int status;

	status = nvme_xfer_buf(c, req, MT_DMA_READ, &ms, sizeof(ms));
	if (status != NVME_OK)
		return (status);
	c->feat.timestamp = ms & TIMESTAMP_MASK;
	c->feat.timestamp_set = nvme_now();
	c->feat.timestamp_host = true;
	return (NVME_OK);
}

static int
set_behavior(struct nvme_ctrl *c, struct nvme_req *req)
{
	uint8_t buf[512];
	int status;

	status = nvme_xfer_buf(c, req, MT_DMA_READ, buf, sizeof(buf));
	if (status != NVME_OK)
		return (status);
	if (buf[0] > 1)
		return (NVME_INVALID_FIELD | NVME_DNR);
	c->feat.acre = buf[0];
	return (NVME_OK);
}

int
nvme_set_feature(struct nvme_ctrl *c, struct nvme_req *req)
{
	const struct nvme_cmd *cmd = &req->cmd;
	unsigned int fid = cmd->cdw10 & 0xff;

	if (!known(c, fid))
		return (NVME_INVALID_FIELD | NVME_DNR);
	if ((cmd->cdw10 & 1u << 31) != 0)
		return (NVME_NOT_SAVEABLE | NVME_DNR);
	if (fid != NVME_FEAT_RECOVERY && cmd->nsid != 0 &&
	    cmd->nsid != NVME_NSID_ALL)
		return (NVME_NOT_NAMESPACED | NVME_DNR);
	switch (fid) {
	case NVME_FEAT_ARBITRATION:
		c->feat.arbitration = cmd->cdw11;
		break;
	case NVME_FEAT_POWER:
		/* There is one power state; the workload hint is kept. */
		if ((cmd->cdw11 & 0x1f) != 0)
			return (NVME_INVALID_FIELD | NVME_DNR);
		c->feat.power = cmd->cdw11 & 0xe0;
		break;
	case NVME_FEAT_TEMPERATURE:
		return (set_temperature(c, cmd->cdw11));
	case NVME_FEAT_RECOVERY:
		return (set_recovery(c, cmd->nsid, cmd->cdw11));
	case NVME_FEAT_WRITE_CACHE:
		c->feat.write_cache = (cmd->cdw11 & 1) != 0;
		/* Without a cache there is nothing in it. */
		if (!c->feat.write_cache)
			return (nvme_flush(c, req, NVME_NSID_ALL));
		break;
	case NVME_FEAT_QUEUES:
		return (set_queues(c, req));
	case NVME_FEAT_COALESCING:
		c->feat.coalescing = cmd->cdw11 & 0xffff;
		break;
	case NVME_FEAT_VECTOR:
		return (set_vector(c, cmd->cdw11));
	case NVME_FEAT_ATOMICITY:
		c->feat.atomicity = cmd->cdw11 & 1;
		break;
	case NVME_FEAT_EVENTS:
		c->feat.events = cmd->cdw11;
		break;
	case NVME_FEAT_TIMESTAMP:
		return (set_timestamp(c, req));
	case NVME_FEAT_HOST_BEHAVIOR:
		return (set_behavior(c, req));
	default:
		break;
	}
	return (NVME_OK);
}
