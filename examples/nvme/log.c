/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Log pages, and the error log behind one of them.
 */

#include <string.h>

#include <bsd/string.h>

#include "nvme.h"

#define NO_LOCATION	0xffff

/* Record why a command failed; an abort is no error. */
void
nvme_log_error(struct nvme_ctrl *c, struct nvme_req *req, int status)
{
	const struct nvme_cmd *cmd = &req->cmd;
	struct nvme_error_entry *e;

	if (status == NVME_ABORT_REQUESTED || status == NVME_ABORT_SQ_DELETED)
		return;
	nvme_log(c, "queue %u: opcode 0x%02x, nsid %u, cdw10 0x%x 0x%x 0x%x: "
	    "status 0x%03x", req->sq->qid, cmd->opcode, cmd->nsid,
	    cmd->cdw10, cmd->cdw11, cmd->cdw12, NVME_STATUS_CODE(status));
	c->stats.errors++;
	if (NVME_STATUS_CODE(status) == NVME_READ_ERROR ||
	    NVME_STATUS_CODE(status) == NVME_WRITE_FAULT)
		c->stats.media_errors++;
	e = &c->errors[c->stats.errors % NVME_ERRORS];
	*e = (struct nvme_error_entry){
		.count = c->stats.errors,
		.sqid = req->sq->qid,
		.cid = cmd->cid,
		.status = (uint16_t)((status | NVME_MORE) << 1),
		.location = NO_LOCATION,
		.nsid = cmd->nsid,
	};
	if (req->sq->qid != 0 && cmd->opcode != NVME_IO_FLUSH &&
	    cmd->opcode != NVME_IO_DSM)
		e->lba = cmd->cdw10 | (uint64_t)cmd->cdw11 << 32;
}

/* Newest first; entries that are not used are zero. */
static size_t
error_page(struct nvme_ctrl *c, uint8_t *page)
{
	struct nvme_error_entry *e = (void *)page;
	uint64_t i, n = c->stats.errors;

	memset(e, 0, sizeof(c->errors));
	for (i = 0; i < NVME_ERRORS && i < n; i++)
		e[i] = c->errors[(n - i) % NVME_ERRORS];
	return (sizeof(c->errors));
}

static size_t
smart_page(struct nvme_ctrl *c, uint8_t *page)
{
	const struct nvme_stats *st = &c->stats;
	struct nvme_smart *s = (void *)page;

	memset(s, 0, sizeof(*s));
	s->critical_warning = nvme_warnings(c);
	s->temperature[0] = NVME_TEMPERATURE & 0xff;
	s->temperature[1] = NVME_TEMPERATURE >> 8;
	s->spare = 100;
	s->spare_threshold = 10;
	s->units_read.lo = (st->sectors_read + 999) / 1000;
	s->units_written.lo = (st->sectors_written + 999) / 1000;
	s->reads.lo = st->reads;
	s->writes.lo = st->writes;
	s->busy_minutes.lo = st->busy_ns / 1000000000u / 60;
	s->power_cycles.lo = 1;
	s->power_on_hours.lo =
	    (nvme_now() - st->started_ns) / 1000000000u / 3600;
	s->unsafe_shutdowns.lo = st->unsafe_shutdowns;
	s->media_errors.lo = st->media_errors;
	s->error_entries.lo = st->errors;
	return (sizeof(*s));
}

static size_t
firmware_page(uint8_t *page)
{
	struct nvme_firmware *f = (void *)page;

	memset(f, 0, sizeof(*f));
	f->afi = 1;
	memset(f->slots[0], ' ', sizeof(f->slots[0]));
	memcpy(f->slots[0], NVME_FIRMWARE, strlen(NVME_FIRMWARE));
	return (sizeof(*f));
}

static size_t
effects_page(uint8_t *page)
{
	static const uint8_t admin[] = {
		NVME_ADM_DELETE_SQ, NVME_ADM_CREATE_SQ, NVME_ADM_GET_LOG,
		NVME_ADM_DELETE_CQ, NVME_ADM_CREATE_CQ, NVME_ADM_IDENTIFY,
		NVME_ADM_ABORT, NVME_ADM_SET_FEATURES, NVME_ADM_GET_FEATURES,
		NVME_ADM_AER,
	};
	static const uint8_t io[] = {
		NVME_IO_FLUSH, NVME_IO_WRITE, NVME_IO_READ, NVME_IO_COMPARE,
		NVME_IO_WRITE_ZEROES, NVME_IO_DSM,
	};
	struct nvme_effects *e = (void *)page;
	size_t i;

	memset(e, 0, sizeof(*e));
	for (i = 0; i < sizeof(admin); i++)
		e->admin[admin[i]] = NVME_EFFECT_SUPPORTED;
	for (i = 0; i < sizeof(io); i++)
		e->io[io[i]] = NVME_EFFECT_SUPPORTED;
	e->io[NVME_IO_WRITE] |= NVME_EFFECT_CONTENT;
	e->io[NVME_IO_WRITE_ZEROES] |= NVME_EFFECT_CONTENT;
	e->io[NVME_IO_DSM] |= NVME_EFFECT_CONTENT;
	return (sizeof(*e));
}

int
nvme_get_log(struct nvme_ctrl *c, struct nvme_req *req)
{
	const struct nvme_cmd *cmd = &req->cmd;
	uint64_t off = cmd->cdw12 | (uint64_t)cmd->cdw13 << 32;
	uint64_t len = ((uint64_t)(cmd->cdw11 & 0xffff) << 16 |
	    cmd->cdw10 >> 16) + 1;
	bool retain = (cmd->cdw10 & 1u << 15) != 0;
	uint8_t id = cmd->cdw10 & 0xff, event = 0xff;
	size_t size;
	int status;

	/* Ours are all of the controller. */
	if (cmd->nsid != 0 && cmd->nsid != NVME_NSID_ALL)
		return (NVME_INVALID_FIELD | NVME_DNR);
	switch (id) {
	case NVME_LOG_ERROR:
		size = error_page(c, c->scratch);
		event = NVME_AER_ERROR;
		break;
	case NVME_LOG_SMART:
		size = smart_page(c, c->scratch);
		event = NVME_AER_SMART;
		break;
	case NVME_LOG_FIRMWARE:
		size = firmware_page(c->scratch);
		break;
	case NVME_LOG_EFFECTS:
		size = effects_page(c->scratch);
		break;
	default:
		return (NVME_BAD_LOG_PAGE | NVME_DNR);
	}
	if (off % 4 != 0 || off >= size)
		return (NVME_INVALID_FIELD | NVME_DNR);
	/* What lies past the end is not defined: it is left alone. */
	len *= 4;
	if (len > size - off)
		len = size - off;
	status = nvme_xfer_buf(c, req, MT_DMA_WRITE, c->scratch + off, len);
	if (status == NVME_OK && event != 0xff && !retain)
		nvme_event_read(c, event);
	return (status);
}
