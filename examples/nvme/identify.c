/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Identify: what the controller and its namespaces are.
 */

#include <stdio.h>
#include <string.h>

#include "nvme.h"

#define ID_SIZE		4096
#define PCI_VENDOR	0
#define PCI_SUBVENDOR	0x2c

/* Strings on the wire have no end but are filled up with spaces. */
static void
fill(char *dst, size_t len, const char *src)
{
	size_t n = strlen(src);

	memset(dst, ' ', len);
	memcpy(dst, src, n < len ? n : len);
}

static uint64_t
mix(uint64_t h)
{
	h ^= h >> 30;
	h *= UINT64_C(0xbf58476d1ce4e5b9);
	h ^= h >> 27;
	h *= UINT64_C(0x94d049bb133111eb);
	return (h ^ h >> 31);
}

/*
 * An identifier made of the serial number, so that it is the same the next
 * time: a UUID of version 8, whose bits may come from anywhere.
 */
static void
make_uuid(const struct nvme_ctrl *c, uint32_t nsid, uint8_t uuid[16])
{
	uint64_t a = UINT64_C(0xcbf29ce484222325) + nsid, b = ~a;
	const char *p;

	for (p = c->serial; *p != '\0'; p++) {
		a = mix(a ^ (uint8_t)*p);
		b = mix(b + (uint8_t)*p);
	}
	a = mix(a + b);
	b = mix(a ^ b);
	memcpy(uuid, &a, sizeof(a));
	memcpy(uuid + sizeof(a), &b, sizeof(b));
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x80);
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

static void
id_controller(struct nvme_ctrl *c, struct nvme_id_ctrl *id)
{
	uint8_t u[16];

	id->vid = (uint16_t)vd_pci_config_get(c->server, PCI_VENDOR, 2);
	id->ssvid = (uint16_t)vd_pci_config_get(c->server, PCI_SUBVENDOR, 2);
	fill(id->sn, sizeof(id->sn), c->serial);
	fill(id->mn, sizeof(id->mn), c->model);
	fill(id->fr, sizeof(id->fr), NVME_FIRMWARE);
	id->rab = 3;
	id->mdts = NVME_MDTS;
	id->cntlid = 1;
	id->ver = NVME_VERSION;
	id->rtd3r = 1000000;
	id->rtd3e = 30000000;	/* a file may take its time to be synced */
	id->cntrltype = 1;
	id->acl = 3;
	id->aerl = NVME_AERS - 1;
	id->frmw = 1 | 1 << 1;	/* one slot, read-only */
	id->lpa = NVME_LPA_EFFECTS | NVME_LPA_OFFSET;
	id->elpe = NVME_ERRORS - 1;
	id->wctemp = NVME_TEMPERATURE + 35;
	id->cctemp = NVME_TEMPERATURE + 45;
	id->sqes = NVME_SQE_SHIFT << 4 | NVME_SQE_SHIFT;
	id->cqes = NVME_CQE_SHIFT << 4 | NVME_CQE_SHIFT;
	id->nn = c->nns;
	id->oncs = NVME_ONCS_COMPARE | NVME_ONCS_DSM |
	    NVME_ONCS_WRITE_ZEROES | NVME_ONCS_SELECT | NVME_ONCS_TIMESTAMP;
	/* Memory has no cache in front of it that a power loss would empty. */
	id->vwc = NVME_VWC_FLUSH_ALL | (c->sync != NULL ? NVME_VWC_PRESENT : 0);
	id->sgls = NVME_SGLS_UNALIGNED | NVME_SGLS_LONGER;
	make_uuid(c, 0, u);
	snprintf(id->subnqn, sizeof(id->subnqn), "nqn.2014-08.org.nvmexpress:"
	    "uuid:%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
	    "%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3], u[4], u[5],
	    u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
	id->psd[0].max_power = 2500;
}

static void
id_namespace(const struct nvme_ns *ns, struct nvme_id_ns *id)
{
	/* Pages, not blocks, are what both memory and files are made of. */
	uint16_t page = (uint16_t)((4096u >> ns->shift) - 1);

	id->nsze = ns->blocks;
	id->ncap = ns->blocks;
	id->nuse = ns->blocks;
	id->nsfeat = NVME_NSFEAT_OPTPERF;
	id->dlfeat = NVME_DLFEAT_ZEROES | NVME_DLFEAT_DEAC;
	id->npwg = page;
	id->npwa = page;
	id->npdg = page;
	id->npda = page;
	id->lbaf[0] = NVME_LBAF_LBADS(ns->shift);
}

static void
id_descriptors(const struct nvme_ctrl *c, uint32_t nsid,
    struct nvme_ns_desc *desc)
{
	desc->type = NVME_NIDT_UUID;
	desc->len = sizeof(desc->id);
	make_uuid(c, nsid, desc->id);
}

/* Namespaces above nsid, of which there are none but ours: 1 to nns. */
static int
id_active(const struct nvme_ctrl *c, uint32_t nsid, uint32_t *list)
{
	size_t i;

	if (nsid >= NVME_NSID_ALL - 1)
		return (NVME_INVALID_NSID | NVME_DNR);
	for (i = 0; nsid < c->nns && i < ID_SIZE / sizeof(*list); i++)
		list[i] = ++nsid;
	return (NVME_OK);
}

/* What takes the ID of one namespace. */
static int
id_one(struct nvme_ctrl *c, unsigned int cns, uint32_t nsid, uint8_t *buf)
{
	if (nsid == 0 || nsid > c->nns)
		return (NVME_INVALID_NSID | NVME_DNR);
	switch (cns) {
	case NVME_CNS_NAMESPACE:
		id_namespace(c->ns[nsid - 1], (void *)buf);
		break;
	case NVME_CNS_DESCRIPTORS:
		id_descriptors(c, nsid, (void *)buf);
		break;
	case NVME_CNS_INDEPENDENT:
		buf[14] = 1;	/* NSTAT: ready */
		break;
	default:
		break;
	}
	return (NVME_OK);
}

int
nvme_identify(struct nvme_ctrl *c, struct nvme_req *req)
{
	const struct nvme_cmd *cmd = &req->cmd;
	unsigned int cns = cmd->cdw10 & 0xff, csi = cmd->cdw11 >> 24;
	int status = NVME_OK;

	memset(c->scratch, 0, ID_SIZE);
	if (cns >= NVME_CNS_CSI_NAMESPACE && cns <= NVME_CNS_CSI_ACTIVE &&
	    csi != 0)
		return (NVME_INVALID_FIELD | NVME_DNR);
	switch (cns) {
	case NVME_CNS_CONTROLLER:
		id_controller(c, (void *)c->scratch);
		break;
	case NVME_CNS_ACTIVE:
	case NVME_CNS_CSI_ACTIVE:
		status = id_active(c, cmd->nsid, (void *)c->scratch);
		break;
	case NVME_CNS_CSI_CONTROLLER:
		/* No limits but MDTS. */
		break;
	case NVME_CNS_NAMESPACE:
	case NVME_CNS_DESCRIPTORS:
	case NVME_CNS_CSI_NAMESPACE:
	case NVME_CNS_INDEPENDENT:
		status = id_one(c, cns, cmd->nsid, c->scratch);
		break;
	default:
		status = NVME_INVALID_FIELD | NVME_DNR;
	}
	if (status != NVME_OK)
		return (status);
	return (nvme_xfer_buf(c, req, MT_DMA_WRITE, c->scratch, ID_SIZE));
}
