/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* The smallest useful device: registers, shared memory and an interrupt. */

#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>

#include <libvfudma/vfudma.h>

/* Registers in BAR 0, 32 bits each; the MSI-X table follows them. */
#define REG_ID		0x00		/* read-only */
#define REG_SCRATCH	0x04		/* keeps what is written */
#define REG_DOORBELL	0x08		/* a write raises MSI-X vector 0 */
#define MSIX_TABLE	0x800
#define MSIX_PBA	0xc00
#define REGS_SIZE	0x1000
#define RAM_SIZE	0x10000		/* BAR 2, which the client maps */

struct device {
	struct vd_server *server;
	uint32_t scratch;
};

static enum mt_result
regs_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct device *d = arg;

	(void)size, (void)attrs;
	*val = off == REG_ID ? 0x4d494e49 : off == REG_SCRATCH ? d->scratch : 0;
	return (MT_OK);
}

static enum mt_result
regs_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct device *d = arg;

	(void)size, (void)attrs;
	if (off == REG_SCRATCH)
		d->scratch = (uint32_t)val;
	else if (off == REG_DOORBELL)
		vd_irq_trigger(d->server, VD_IRQ_MSIX, 0);
	return (MT_OK);
}

/* Only whole registers reach the callbacks; other accesses are refused. */
static const struct mt_io_ops regs_ops = {
	.read = regs_read, .write = regs_write, .endian = MT_LITTLE,
	.valid = { .min = 4, .max = 4 }, .impl = { .min = 4, .max = 4 },
};

static void
reset(void *arg, enum vd_reset why)
{
	(void)why;
	((struct device *)arg)->scratch = 0;
}

int
main(int argc, char *argv[])
{
	const struct mt_backing memfd = { .kind = MT_BACKING_MEMFD };
	const struct vd_device_ops ops = { .reset = reset };
	struct device d = { .scratch = 0 };
	struct pollfd p = { .events = POLLIN };
	struct mt_topology *t;
	struct mt_region *regs, *ram;

	if (argc != 2 || argv[1][0] == '-')
		errx(2, "usage: minimal socket");
	if ((t = mt_topology_create()) == NULL ||
	    (regs = mt_region_create_io(t, "regs", MT_SIZE(REGS_SIZE),
	    &regs_ops, &d)) == NULL ||
	    (ram = mt_region_create_ram(t, "ram", MT_SIZE(RAM_SIZE),
	    &memfd)) == NULL ||
	    (d.server = vd_server_create(t, &ops, &d)) == NULL)
		err(1, "cannot make the device");
	if (vd_pci_set_id(d.server, 0x1b36, 0x0fff, 0, 0) == -1 ||
	    vd_pci_set_bar(d.server, 0, regs, 0) == -1 ||
	    vd_pci_add_msix(d.server, 1, 0, MSIX_TABLE, 0, MSIX_PBA) == -1 ||
	    vd_pci_set_bar(d.server, 2, ram, VD_BAR_64) == -1 ||
	    vd_pci_share_bar(d.server, 2,
	    (struct mt_range){ 0, MT_SIZE(RAM_SIZE) }) == -1)
		err(1, "cannot describe the device");
	if (vd_server_listen(d.server, argv[1]) == -1)
		err(1, "%s", argv[1]);
	/* One client after the other, until a signal ends us. */
	for (p.fd = vd_server_fd(d.server); vd_server_run_all(d.server) != -1;)
		if (poll(&p, 1, -1) == -1 && errno != EINTR)
			err(1, "poll");
	err(1, "vd_server_run_all");
}
