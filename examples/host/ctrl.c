/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The controller: bringing it up and down, and what it says of itself.
 */

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <bsd/libutil.h>
#include <bsd/stdlib.h>

#include "host.h"

#define CC_SHN_NORMAL	(1u << 14)
#define CC_SHN_MASK	(3u << 14)
#define CC_ENTRY_SIZES	(NVME_SQE_SHIFT << 16 | NVME_CQE_SHIFT << 20)
#define MAX_NAMESPACES	1024

/* --- up and down --------------------------------------------------------- */

static void
wait_csts(struct host *h, uint32_t mask, uint32_t want, const char *what)
{
	/* The controller says how long it may take, in half seconds. */
	double end = now() + (double)((h->cap >> 24 & 0xff) + 1) / 2;
	const struct timespec nap = { .tv_nsec = 1000000 };
	uint32_t csts;

	for (;;) {
		csts = (uint32_t)reg_read(h, NVME_REG_CSTS, 4);
		if ((csts & mask) == want)
			break;
		if (csts & NVME_CSTS_CFS)
			errx(1, "%s: the controller reports a fatal error",
			    what);
		if (now() > end)
			errx(1, "%s: CSTS is still 0x%x", what, csts);
		nanosleep(&nap, NULL);
	}
}

void
ctrl_enable(struct host *h)
{
	unsigned int entries = 32;

	h->cap = reg_read(h, NVME_REG_CAP, 8);
	h->stride = 4u << (h->cap >> 32 & 0xf);
	if ((h->cap >> 48 & 0xf) != 0)
		errx(1, "the controller cannot use pages of %u bytes",
		    HOST_PAGE);
	if ((h->cap >> 37 & 1) == 0)
		errx(1, "the controller lacks the NVM command set");
	doorbells_open(h, h->opt.queues);

	reg_write(h, NVME_REG_CC, 0, 4);
	wait_csts(h, NVME_CSTS_RDY, 0, "reset");
	queue_init(h, &h->admin, 0, entries);
	h->scratch = mem_alloc(&h->mem, HOST_PAGE, true);
	reg_write(h, NVME_REG_AQA, (entries - 1) << 16 | (entries - 1), 4);
	reg_write(h, NVME_REG_ASQ, mem_iova(&h->mem, h->admin.sq), 8);
	reg_write(h, NVME_REG_ACQ, mem_iova(&h->mem, h->admin.cq), 8);
	reg_write(h, NVME_REG_CC, CC_ENTRY_SIZES, 4);
	reg_write(h, NVME_REG_CC, CC_ENTRY_SIZES | NVME_CC_EN, 4);
	wait_csts(h, NVME_CSTS_RDY, NVME_CSTS_RDY, "enable");
}

void
ctrl_shutdown(struct host *h)
{
	uint32_t cc = (uint32_t)reg_read(h, NVME_REG_CC, 4) & ~CC_SHN_MASK;

	reg_write(h, NVME_REG_CC, cc | CC_SHN_NORMAL, 4);
	wait_csts(h, NVME_CSTS_SHST, NVME_CSTS_SHST_DONE, "shutdown");
	reg_write(h, NVME_REG_CC, 0, 4);
	wait_csts(h, NVME_CSTS_RDY, 0, "disable");
}

/* --- what there is ------------------------------------------------------- */

/* A size in a few characters, such as 128 MiB. */
const char *
human(uint64_t bytes, char buf[static 8])
{
	if (humanize_number(buf, 8, (int64_t)bytes, "B", HN_AUTOSCALE,
	    HN_DECIMAL | HN_IEC_PREFIXES) == -1)
		err(1, "humanize_number");
	return (buf);
}

/* A field of space padded ASCII as a string in buf. */
static const char *
text(const char *p, size_t len, char *buf)
{
	size_t i;

	for (i = 0; i < len; i++)
		buf[i] = p[i] >= 0x20 && p[i] < 0x7f ? p[i] : '?';
	while (i > 0 && (buf[i - 1] == ' ' || p[i - 1] == '\0'))
		i--;
	buf[i] = '\0';
	return (buf);
}

/* Look at the controller and settle how much one command moves. */
static uint32_t
show_controller(struct host *h)
{
	uint32_t vs = (uint32_t)reg_read(h, NVME_REG_VS, 4);
	uint32_t pci_id = cfg_read(h, PCI_VENDOR, 4);
	const struct nvme_id_ctrl *id = identify(h, NVME_CNS_CONTROLLER, 0,
	    "identify controller");
	uint8_t mdts = id->mdts;
	char model[41], serial[21], firmware[9], max[8] = "";

	h->block = (size_t)h->opt.block;
	if (mdts > 0 && mdts < 20) {
		size_t most = (size_t)HOST_PAGE << mdts;

		human(most, max);
		if (h->block > most)
			h->block = most;
	}
	printf("controller  %s, serial %s, firmware %s\n",
	    text(id->mn, sizeof(id->mn), model),
	    text(id->sn, sizeof(id->sn), serial),
	    text(id->fr, sizeof(id->fr), firmware));
	printf("            NVMe %u.%u, PCI %04x:%04x, transfers up to %s\n",
	    vs >> 16, vs >> 8 & 0xff, pci_id & 0xffff, pci_id >> 16,
	    max[0] != '\0' ? max : "any size");
	return (id->nn);
}

/* Add a namespace, unless it is not there or not of a kind we can use. */
static void
add_namespace(struct host *h, uint32_t nsid)
{
	const struct nvme_id_ns *id = identify(h, NVME_CNS_NAMESPACE, nsid,
	    "identify namespace");
	uint32_t format = id->lbaf[id->flbas & 0xf];
	struct namespace ns = { .id = nsid, .blocks = id->nsze,
	    .shift = format >> 16 & 0xff };
	char size[8];

	if (ns.blocks == 0)
		return;
	/* The low half is the size of its metadata. */
	if (ns.shift < 9 || ns.shift > 12 || (format & 0xffff) != 0 ||
	    ns.blocks > (uint64_t)INT64_MAX >> ns.shift) {
		printf("namespace %-2u has a format that is not tested\n",
		    nsid);
		return;
	}
	printf("namespace   %u: %s, %ju blocks of %u bytes\n", nsid,
	    human(ns.blocks << ns.shift, size), (uintmax_t)ns.blocks,
	    1u << ns.shift);
	h->ns = reallocarray(h->ns, h->nr_ns + 1, sizeof(*h->ns));
	if (h->ns == NULL)
		err(1, NULL);
	h->ns[h->nr_ns++] = ns;
}

void
find_namespaces(struct host *h)
{
	uint32_t list[MAX_NAMESPACES], nn = show_controller(h);
	unsigned int n = 0;

	if (reg_read(h, NVME_REG_VS, 4) >= 0x10100) {
		memcpy(list, identify(h, NVME_CNS_ACTIVE, 0,
		    "active namespaces"), sizeof(list));
		while (n < MAX_NAMESPACES && list[n] != 0)
			n++;
	} else
		for (; n < MAX_NAMESPACES && n < nn; n++)
			list[n] = n + 1;
	for (unsigned int i = 0; i < n; i++)
		add_namespace(h, list[i]);
	if (h->nr_ns == 0)
		errx(1, "no namespace to test");
}
