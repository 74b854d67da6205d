/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The PCI function: registers and doorbells in BAR 0, MSI-X in BAR 4.
 */

#include "nvme.h"

/* From the range that 1af4's owner leaves to experiments. */
#define VENDOR_ID	0x1af4
#define DEVICE_ID	0x10f4
#define CLASS_NVME	0x010802

#define BAR0_SIZE	0x4000
#define BAR4_SIZE	0x1000
#define MSIX_TABLE	0x000
#define MSIX_PBA	0x800
#define DB_SIZE		0x1000

/*
 * Doorbells that come as messages.  Only the value is kept here: the work is
 * done when the guest has its reply.
 */
static enum mt_result
db_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct nvme_ctrl *c = arg;
	unsigned int qid = (unsigned int)(off / 8);
	bool known;

	(void)size;
	(void)attrs;
	if (!nvme_enabled(c))
		return (MT_OK);
	known = qid < NVME_QUEUES &&
	    (off % 8 == 0 ? c->sq[qid].live : c->cq[qid].live);
	if (known)
		atomic_store_explicit(&c->db[off / 4], (uint32_t)val,
		    memory_order_relaxed);
	else
		nvme_event(c, NVME_AER_ERROR, NVME_AER_BAD_DB_REG,
		    NVME_LOG_ERROR);
	return (MT_OK);
}

/* What a read gives is up to us. */
static enum mt_result
db_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)arg;
	(void)off;
	(void)size;
	(void)attrs;
	*val = 0;
	return (MT_OK);
}

static const struct mt_io_ops db_ops = {
	.read = db_read,
	.write = db_write,
	.endian = MT_LITTLE,
	.valid = { .min = 4, .max = 8 },
	.impl = { .min = 4, .max = 4 },
};

/*
 * Memory that the client can map.  Its file has the doorbells at the offset
 * that they have in the BAR, or the BAR would have to start before the file,
 * and not every client can subtract.
 */
static struct mt_region *
shared_doorbells(struct nvme_ctrl *c)
{
	struct mt_backing backing = { .kind = MT_BACKING_MEMFD, .fd = -1 };
	struct mt_region *ram, *page;

	ram = mt_region_create_ram(c->topology, "nvme-shared",
	    MT_SIZE(NVME_REG_DOORBELLS + DB_SIZE), &backing);
	if (ram == NULL)
		return (NULL);
	c->db = (void *)((uint8_t *)mt_region_ptr(ram) + NVME_REG_DOORBELLS);
	page = mt_region_create_alias(c->topology, "nvme-doorbells", ram,
	    NVME_REG_DOORBELLS, MT_SIZE(DB_SIZE));
	mt_region_put(ram);		/* page has it */
	return (page);
}

static int
doorbells_init(struct nvme_ctrl *c)
{
	if (c->map_doorbells) {
		c->doorbell_region = shared_doorbells(c);
		if (c->doorbell_region == NULL)
			return (-1);
	} else {
		c->doorbell_region = mt_region_create_io(c->topology,
		    "nvme-doorbells", MT_SIZE(DB_SIZE), &db_ops, c);
		if (c->doorbell_region == NULL)
			return (-1);
		c->db = c->own_db;
	}
	return (mt_region_add(c->bar0, c->doorbell_region, NVME_REG_DOORBELLS,
	    1));
}

int
nvme_pci_init(struct nvme_ctrl *c)
{
	const struct mt_range shared = { NVME_REG_DOORBELLS,
	    NVME_REG_DOORBELLS + DB_SIZE - 1 };
	struct vd_server *s = c->server;

	c->bar0 = mt_region_create_io(c->topology, "nvme-registers",
	    MT_SIZE(BAR0_SIZE), &nvme_reg_ops, c);
	c->bar4 = mt_region_create_container(c->topology, "nvme-msix",
	    MT_SIZE(BAR4_SIZE));
	if (c->bar0 == NULL || c->bar4 == NULL || doorbells_init(c) == -1)
		return (-1);
	if (vd_pci_set_id(s, VENDOR_ID, DEVICE_ID, VENDOR_ID, DEVICE_ID) == -1
	    || vd_pci_set_class(s, CLASS_NVME, 1) == -1 ||
	    vd_pci_set_bar(s, 0, c->bar0, VD_BAR_64) == -1 ||
	    vd_pci_set_bar(s, 4, c->bar4, 0) == -1 ||
	    vd_pci_set_intx(s, 1) == -1 ||
	    vd_pci_add_pm(s) == -1 ||
	    vd_pci_add_express(s) == -1 ||
	    vd_pci_add_msix(s, NVME_QUEUES, 4, MSIX_TABLE, 4, MSIX_PBA) == -1)
		return (-1);
	if (c->map_doorbells)
		return (vd_pci_share_bar(s, 0, shared));
	return (0);
}

/* After the server, which keeps the BARs, is gone. */
void
nvme_pci_fini(struct nvme_ctrl *c)
{
	mt_region_put(c->doorbell_region);
	mt_region_put(c->bar0);
	mt_region_put(c->bar4);
}
