/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The admin commands: which there are, and those that make and end queues
 * and commands.
 */

#include "nvme.h"

/*
 * What creating either kind of queue asks of the command: an identifier that
 * is allocated and free, a size, and memory in one piece.
 */
static int
check_create(struct nvme_ctrl *c, const struct nvme_cmd *cmd,
    unsigned int allocated, bool exists, unsigned int entry_shift,
    bool entry_size_set)
{
	unsigned int qid = cmd->cdw10 & 0xffff;
	uint64_t entries = (cmd->cdw10 >> 16) + 1;

	if (qid == 0 || qid > allocated || exists)
		return (NVME_BAD_QID | NVME_DNR);
	if (entries < 2 || entries > NVME_MQES + 1 || !entry_size_set)
		return (NVME_BAD_QUEUE_SIZE | NVME_DNR);
	if ((cmd->cdw11 & 1) == 0)
		return (NVME_INVALID_FIELD | NVME_DNR);
	if ((cmd->prp1 & ((UINT64_C(1) << c->page_shift) - 1)) != 0)
		return (NVME_PRP_BAD_OFFSET | NVME_DNR);
	if (cmd->prp1 + (entries << entry_shift) - 1 < cmd->prp1)
		return (NVME_INVALID_FIELD | NVME_DNR);
	return (NVME_OK);
}

static int
create_cq(struct nvme_ctrl *c, const struct nvme_cmd *cmd)
{
	unsigned int qid = cmd->cdw10 & 0xffff;
	unsigned int vector = cmd->cdw11 >> 16;
	bool ien = (cmd->cdw11 & 2) != 0;
	int status;

	status = check_create(c, cmd, c->feat.ncqs,
	    qid < NVME_QUEUES && c->cq[qid].live, NVME_CQE_SHIFT,
	    NVME_CC_IOCQES(c->cc) == NVME_CQE_SHIFT);
	if (status != NVME_OK)
		return (status);
	/* A pin has no more than one vector. */
	if (vector >= NVME_QUEUES ||
	    (ien && vector > 0 && vd_irq_mode(c->server) == VD_IRQ_INTX))
		return (NVME_BAD_VECTOR | NVME_DNR);
	nvme_cq_start(c, qid, cmd->prp1, (cmd->cdw10 >> 16) + 1, ien, vector);
	return (NVME_OK);
}

static int
create_sq(struct nvme_ctrl *c, const struct nvme_cmd *cmd)
{
	unsigned int qid = cmd->cdw10 & 0xffff;
	unsigned int cqid = cmd->cdw11 >> 16;
	int status;

	if (cqid == 0 || cqid > c->feat.ncqs)
		return (NVME_BAD_QID | NVME_DNR);
	if (!c->cq[cqid].live)
		return (NVME_BAD_CQ | NVME_DNR);
	status = check_create(c, cmd, c->feat.nsqs,
	    qid < NVME_QUEUES && c->sq[qid].live, NVME_SQE_SHIFT,
	    NVME_CC_IOSQES(c->cc) == NVME_SQE_SHIFT);
	if (status != NVME_OK)
		return (status);
	nvme_sq_start(c, qid, cmd->prp1, (cmd->cdw10 >> 16) + 1, cqid);
	return (NVME_OK);
}

static int
delete_sq(struct nvme_ctrl *c, const struct nvme_cmd *cmd)
{
	unsigned int qid = cmd->cdw10 & 0xffff;

	if (qid == 0 || qid >= NVME_QUEUES || !c->sq[qid].live)
		return (NVME_BAD_QID | NVME_DNR);
	return (nvme_sq_stop(c, qid) ? NVME_OK : NVME_DRAIN);
}

static int
delete_cq(struct nvme_ctrl *c, const struct nvme_cmd *cmd)
{
	unsigned int qid = cmd->cdw10 & 0xffff;

	if (qid == 0 || qid >= NVME_QUEUES || !c->cq[qid].live)
		return (NVME_BAD_QID | NVME_DNR);
	if (c->cq[qid].nsqs > 0)
		return (NVME_QUEUE_IN_USE | NVME_DNR);
	return (nvme_cq_stop(c, qid) ? NVME_OK : NVME_DRAIN);
}

/* Most commands are done when they are fetched, and too late to abort. */
static int
abort_command(struct nvme_ctrl *c, struct nvme_req *req)
{
	unsigned int sqid = req->cmd.cdw10 & 0xffff;
	uint16_t cid = (uint16_t)(req->cmd.cdw10 >> 16);
	struct nvme_req *victim;

	req->result = 1;
	if (sqid >= NVME_QUEUES || !c->sq[sqid].live)
		return (NVME_INVALID_FIELD | NVME_DNR);
	victim = nvme_req_find(&c->sq[sqid], cid);
	if (victim != NULL && victim != req) {
		nvme_abort(c, victim, NVME_ABORT_REQUESTED);
		req->result = 0;
	} else if (sqid == 0 && nvme_aer_abort(c, cid)) {
		req->result = 0;
	}
	return (NVME_OK);
}

int
nvme_admin(struct nvme_ctrl *c, struct nvme_req *req)
{
	const struct nvme_cmd *cmd = &req->cmd;

	/* Nothing is fused, and data is described by PRPs. */
	if (NVME_CMD_FUSE(cmd) != 0 || NVME_CMD_PSDT(cmd) != 0)
		return (NVME_INVALID_FIELD | NVME_DNR);
	switch (cmd->opcode) {
	case NVME_ADM_DELETE_SQ:
		return (delete_sq(c, cmd));
	case NVME_ADM_CREATE_SQ:
		return (create_sq(c, cmd));
	case NVME_ADM_GET_LOG:
		return (nvme_get_log(c, req));
	case NVME_ADM_DELETE_CQ:
		return (delete_cq(c, cmd));
	case NVME_ADM_CREATE_CQ:
		return (create_cq(c, cmd));
	case NVME_ADM_IDENTIFY:
		return (nvme_identify(c, req));
	case NVME_ADM_ABORT:
		return (abort_command(c, req));
	case NVME_ADM_SET_FEATURES:
		return (nvme_set_feature(c, req));
	case NVME_ADM_GET_FEATURES:
		return (nvme_get_feature(c, req));
	case NVME_ADM_AER:
		return (nvme_aer(c, req));
	default:
		return (NVME_INVALID_OPCODE | NVME_DNR);
	}
}
