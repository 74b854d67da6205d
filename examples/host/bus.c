/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The controller as the bus shows it: registers, config space, doorbells and
 * interrupts.
 */

#include <sys/eventfd.h>

#include <err.h>
#include <stdlib.h>
#include <unistd.h>

#include "host.h"

#define PCI_COMMAND	0x04
#define PCI_CMD_MEMORY	0x0002
#define PCI_CMD_MASTER	0x0004
#define PCI_CMD_NO_INTX	0x0400
#define PCI_STATUS	0x06
#define PCI_STAT_CAPS	0x10
#define PCI_REVISION	0x08	/* class code in the upper 24 bits */
#define PCI_CLASS_NVME	0x010802
#define PCI_CAPS	0x34
#define PCI_CAP_MSIX	0x11
#define MSIX_ENABLE	0x8000
#define MSIX_MASK_ALL	0x4000

/*
 * An access to the bus has failed.  The bus does not say why; but what is not
 * answered takes until the client gives up, and what is refused does not.
 */
static void __attribute__((noreturn))
bad_access(struct host *h, const char *what, unsigned int reg, double begun)
{
	bool late = now() - begun > VD_CLIENT_TIMEOUT_MS / 1e3 - 0.1;

	if (vd_client_check(h->client) == -1)
		errx(1, "the server is gone");
	errx(1, "%s of register 0x%x: the controller %s", what, reg,
	    late ? "does not answer" : "refuses it");
}

uint64_t
reg_read(struct host *h, unsigned int reg, size_t size)
{
	double begun = now();
	uint64_t val;

	if (mt_space_load(h->bus, BAR0_BASE + reg, (unsigned int)size,
	    MT_LITTLE, &val, MT_ATTRS_NONE) != MT_OK)
		bad_access(h, "read", reg, begun);
	return (val);
}

void
reg_write(struct host *h, unsigned int reg, uint64_t val, size_t size)
{
	double begun = now();

	if (mt_space_store(h->bus, BAR0_BASE + reg, (unsigned int)size,
	    MT_LITTLE, val, MT_ATTRS_NONE) != MT_OK)
		bad_access(h, "write", reg, begun);
}

uint32_t
cfg_read(struct host *h, unsigned int off, size_t size)
{
	uint32_t val = 0;

	if (vd_client_read(h->client, VD_REGION_CONFIG, off, &val, size) == -1)
		err(1, "read of config space at 0x%x", off);
	return (val);
}

static void
cfg_write(struct host *h, unsigned int off, uint32_t val, size_t size)
{
	if (vd_client_write(h->client, VD_REGION_CONFIG, off, &val,
	    size) == -1)
		err(1, "write of config space at 0x%x", off);
}

/* The offset of a capability, or 0.  A list that loops ends some time. */
static uint8_t
cfg_find_cap(struct host *h, uint8_t id)
{
	uint8_t at;
	int left = 48;

	if ((cfg_read(h, PCI_STATUS, 2) & PCI_STAT_CAPS) == 0)
		return (0);
	at = cfg_read(h, PCI_CAPS, 1) & 0xfc;
	while (at >= 0x40 && left-- > 0) {
		uint32_t head = cfg_read(h, at, 2);

		if ((head & 0xff) == id)
			return (at);
		at = head >> 8 & 0xfc;
	}
	return (0);
}

void
bus_create(struct host *h)
{
	if ((h->topology = mt_topology_create()) == NULL ||
	    (h->root = mt_region_create_container(h->topology, "bus",
	    MT_LAST_MAX)) == NULL ||
	    (h->bus = mt_space_create(h->root, "bus")) == NULL)
		err(1, "bus");
}

void
bus_destroy(struct host *h)
{
	if (mt_region_del(h->bar) == -1)
		err(1, "BAR0");
	mt_region_put(h->bar);
	mt_region_put(h->root);
	if (mt_space_destroy(h->bus) == -1 ||
	    mt_topology_destroy(h->topology) == -1)
		err(1, "bus");
}

/* Find an NVMe controller and let it be a bus master. */
void
pci_open(struct host *h)
{
	struct vd_device_info info;
	uint32_t class;

	if (vd_client_device_info(h->client, &info) == -1)
		err(1, "device info");
	if ((info.flags & VD_DEVICE_PCI) == 0 ||
	    info.num_regions <= VD_REGION_CONFIG)
		errx(1, "not a PCI device");
	if (info.flags & VD_DEVICE_RESETTABLE &&
	    vd_client_reset(h->client) == -1)
		err(1, "reset");
	h->bar = vd_client_region_create(h->client, h->topology,
	    VD_REGION_BAR0, "bar0", VD_CLIENT_POST);
	if (h->bar == NULL || mt_region_add(h->root, h->bar, BAR0_BASE,
	    1) == -1)
		err(1, "BAR0");
	class = cfg_read(h, PCI_REVISION, 4) >> 8;
	if (class != PCI_CLASS_NVME)
		errx(1, "class is %06x, not an NVMe controller", class);
	if (mt_region_last(h->bar) < MT_SIZE(NVME_REG_DOORBELLS + HOST_PAGE))
		errx(1, "BAR0 is too small: %ju bytes",
		    (uintmax_t)mt_region_last(h->bar) + 1);
	cfg_write(h, PCI_COMMAND, cfg_read(h, PCI_COMMAND, 2) |
	    PCI_CMD_MEMORY | PCI_CMD_MASTER | PCI_CMD_NO_INTX, 2);
	if (!h->opt.no_irq && info.num_irqs > VD_IRQ_MSIX)
		h->msix = cfg_find_cap(h, PCI_CAP_MSIX);
}

/* --- doorbells ----------------------------------------------------------- */

/*
 * Are the doorbells of all queues mapped?  Then they cost no message; the
 * controller watches the memory.
 */
void
doorbells_open(struct host *h, unsigned int queues)
{
	uint64_t end = NVME_REG_DOORBELLS +
	    (uint64_t)(queues + 1) * 2 * h->stride;
	struct mt_range range = { BAR0_BASE + NVME_REG_DOORBELLS,
	    BAR0_BASE + end - 1 };
	struct mt_section sec;

	if (end - 1 > mt_region_last(h->bar))
		errx(1, "BAR0 of %ju bytes has no room for %u queues",
		    (uintmax_t)mt_region_last(h->bar) + 1, queues);
	if (h->opt.doorbells == DB_MESSAGE &&
	    vd_client_set_direct(h->client, false) == -1)
		err(1, "doorbells by message");
	if (mt_space_find(h->bus, range, &sec) == -1)
		err(1, "doorbells");
	h->mapped = mt_region_kind(sec.region) != MT_IO &&
	    sec.range.first == range.first && sec.range.last == range.last;
	mt_region_put(sec.region);
	if (h->opt.doorbells == DB_MAP && !h->mapped)
		errx(1, "the doorbells cannot be mapped");
}

/*
 * Ring: which is 2 * queue for a tail, + 1 for a completion queue's head.  The
 * barrier publishes the entries written before it; it is a full one, because
 * gcc warns of fences where ThreadSanitizer is to be used.  Where nothing can
 * be mapped it is posted: the controller reads messages in order, and there is
 * nothing to wait for.
 */
void
doorbell_ring(struct host *h, unsigned int which, uint32_t val)
{
	__sync_synchronize();
	reg_write(h, NVME_REG_DOORBELLS + which * h->stride, val, sizeof(val));
}

/* --- interrupts ---------------------------------------------------------- */

/*
 * Connect MSI-X vectors to eventfds: 0 for the admin queue, the rest for the
 * I/O queues in turn.  Before it is enabled the table gets a message for each
 * vector; what it says is up to us, as no processor will see it.
 */
void
msix_open(struct host *h)
{
	struct vd_irq_info info;
	uint32_t control, table;
	unsigned int n;

	if (h->msix == 0)
		return;
	if (vd_client_irq_info(h->client, VD_IRQ_MSIX, &info) == -1)
		err(1, "MSI-X info");
	control = cfg_read(h, h->msix + 2, 2);
	table = cfg_read(h, h->msix + 4, 4);
	n = (control & 0x7ff) + 1;
	if (n > info.count)
		n = info.count;
	if (n > h->nr_queues + 1)
		n = h->nr_queues + 1;
	if (n == 0 || (info.flags & VD_IRQ_INFO_EVENTFD) == 0)
		return;
	h->irq_fds = calloc(n, sizeof(*h->irq_fds));
	if (h->irq_fds == NULL)
		err(1, NULL);
	for (unsigned int i = 0; i < n; i++) {
		uint32_t entry[4] = { 0xfee00000, 0, i, 0 };

		h->irq_fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (h->irq_fds[i] == -1)
			err(1, "eventfd");
		/* Servers may leave the table to their clients altogether. */
		(void)vd_client_write(h->client, table & 7,
		    (table & ~7u) + i * sizeof(entry), entry, sizeof(entry));
	}
	if (vd_client_set_eventfds(h->client, VD_IRQ_MSIX, 0, n,
	    h->irq_fds) == -1)
		err(1, "MSI-X eventfds");
	cfg_write(h, h->msix + 2, (control & ~MSIX_MASK_ALL) | MSIX_ENABLE, 2);
	h->nr_vectors = n;
}

void
msix_close(struct host *h)
{
	if (h->nr_vectors == 0)
		return;
	cfg_write(h, h->msix + 2,
	    cfg_read(h, h->msix + 2, 2) & ~MSIX_ENABLE, 2);
	if (vd_client_set_eventfds(h->client, VD_IRQ_MSIX, 0, 0, NULL) == -1)
		err(1, "MSI-X off");
	for (unsigned int i = 0; i < h->nr_vectors; i++)
		close(h->irq_fds[i]);
	free(h->irq_fds);
	h->nr_vectors = 0;
}
