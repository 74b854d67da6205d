/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_MACHINE_H
#define T_MACHINE_H

/*
 * A machine with a device: a server in a thread, with a topology of its own,
 * and a client with a space.  For tests of the client's side.
 *
 *	BAR0	memory that is shared as a whole, less the MSI-X table
 *	BAR2	registers, a page of which is shared
 *	BAR4	memory of 256 bytes, shared
 */

#include <sys/mman.h>
#include <sys/socket.h>

#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>

#include <libvfudma/vfudma.h>

#include "t/util.h"

#define PAGE		4096u
#define M_REGS		(4 * PAGE)	/* size of BAR2 */
#define M_SHARED	(2 * PAGE)	/* the page of it */
#define M_FIRE		0x10u		/* registers: MSI-X vector to fire */
#define M_PIN		0x14u		/* level of INTx */
#define M_BAD		0x800u		/* fails */
#define M_HOLE		(3 * PAGE)	/* and up: nothing there */
#define M_SMALL		256u		/* size of BAR4 */

/* What a device is to be like. */
struct m_options {
	uint64_t bar0;			/* size; 0: no such BAR */
	int file;			/* its file; 0: one of its own */
	uint32_t table;			/* offset of the MSI-X table in it */
	unsigned int vectors;		/* 0: no MSI-X */
	bool no_regs;			/* no BAR2 */
	bool no_page;			/* and no page of it is shared */
	bool small;			/* BAR4 */
	uint16_t id;			/* 0: 0x10 */
	uint32_t max_maps;		/* 0: the default */
	const char *path;		/* to listen at; NULL: one client */
};

struct m_device {
	struct m_options o;
	struct mt_topology *t;
	struct vd_server *server;
	struct mt_region *bar0, *ram, *bar2, *regs, *page, *small;
	pthread_t thread;
	int stop[2];
	int fd;				/* of the client, until it has it */

	/* Atomic. */
	unsigned int size;		/* of the last access */
	uint64_t val;			/* that was written last */
	unsigned int accesses;
	unsigned int maps, unmaps;
};

static enum mt_result
m_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct m_device *d = arg;

	(void)attrs;
	__atomic_store_n(&d->size, size, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&d->accesses, 1, __ATOMIC_SEQ_CST);
	*val = off * 0x0101010101010101;
	return (off >= M_BAD ? MT_DEVICE : MT_OK);
}

static enum mt_result
m_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct m_device *d = arg;

	(void)attrs;
	__atomic_store_n(&d->size, size, __ATOMIC_SEQ_CST);
	__atomic_store_n(&d->val, val, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&d->accesses, 1, __ATOMIC_SEQ_CST);
	if (off == M_FIRE)
		vd_irq_trigger(d->server, VD_IRQ_MSIX, (unsigned int)val);
	else if (off == M_PIN)
		vd_irq_set_intx(d->server, val != 0);
	return (off >= M_BAD ? MT_DEVICE : MT_OK);
}

static void
m_mapped(void *arg, struct mt_range iova)
{
	struct m_device *d = arg;

	(void)iova;
	__atomic_add_fetch(&d->maps, 1, __ATOMIC_SEQ_CST);
}

static void
m_unmapped(void *arg, struct mt_range iova)
{
	struct m_device *d = arg;

	(void)iova;
	__atomic_add_fetch(&d->unmaps, 1, __ATOMIC_SEQ_CST);
}

static T_UNUSED unsigned int
m_get(unsigned int *p)
{
	return (__atomic_load_n(p, __ATOMIC_SEQ_CST));
}

static struct mt_region *
m_ram(struct m_device *d, const char *name, uint64_t size)
{
	const struct mt_backing memfd = { .kind = MT_BACKING_MEMFD };
	struct mt_region *r = mt_region_create_ram(d->t, name, MT_SIZE(size),
	    &memfd);

	must(r != NULL);
	return (r);
}

static void
m_init(struct m_device *d, const struct m_options *o)
{
	static const struct mt_io_ops regs = { .read = m_read,
	    .write = m_write, .impl = { 1, 8, true } };
	static const struct vd_device_ops ops = { .dma_map = m_mapped,
	    .dma_unmap = m_unmapped };
	struct vd_server_limits limits = { .max_dma_regions = o->max_maps };

	memset(d, 0, sizeof(*d));
	d->o = *o;
	d->t = t_topology();
	must((d->server = vd_server_create(d->t, &ops, d)) != NULL);
	must(vd_server_set_limits(d->server, &limits) == 0);
	must(vd_pci_set_id(d->server, 0x1b36, o->id != 0 ? o->id : 0x10, 1,
	    2) == 0);
	must(vd_pci_set_class(d->server, 0xff0000, 1) == 0);
	must(vd_pci_set_intx(d->server, 1) == 0);
	if (o->bar0 != 0) {
		d->bar0 = t_container(d->t, "bar0", o->bar0);
		d->ram = o->file == 0 ? m_ram(d, "ram", o->bar0) :
		    mt_region_create_ram(d->t, "ram", MT_SIZE(o->bar0),
		    &(struct mt_backing){ .kind = MT_BACKING_FD,
		    .flags = MT_BACKING_KEEP_FD, .fd = o->file });
		must(d->ram != NULL);
		must(mt_region_add(d->bar0, d->ram, 0, 0) == 0);
		must(vd_pci_set_bar(d->server, 0, d->bar0, VD_BAR_64) == 0);
		must(vd_pci_share_bar(d->server, 0, (struct mt_range){ 0,
		    o->bar0 - 1 }) == 0);
	}
	if (!o->no_regs) {
		d->bar2 = t_container(d->t, "bar2", M_REGS);
		must((d->regs = mt_region_create_io(d->t, "regs",
		    MT_SIZE(PAGE), &regs, d)) != NULL);
		d->page = m_ram(d, "page", PAGE);
		must(mt_region_add(d->bar2, d->regs, 0, 0) == 0);
		must(mt_region_add(d->bar2, d->page, M_SHARED, 0) == 0);
		must(vd_pci_set_bar(d->server, 2, d->bar2, 0) == 0);
	}
	if (!o->no_regs && !o->no_page)
		must(vd_pci_share_bar(d->server, 2, (struct mt_range){
		    M_SHARED, M_SHARED + PAGE - 1 }) == 0);
	if (o->small) {
		d->small = m_ram(d, "small", M_SMALL);
		must(vd_pci_set_bar(d->server, 4, d->small, 0) == 0);
		must(vd_pci_share_bar(d->server, 4, (struct mt_range){ 0,
		    M_SMALL - 1 }) == 0);
	}
	/* Our server does not share a table, others do: so it is memory. */
	if (o->vectors > 0 && o->bar0 != 0) {
		const uint32_t cap[3] = { (o->vectors - 1) << 16, o->table,
		    0 };

		int at = vd_pci_add_cap(d->server, 0x0d,
		    (const uint8_t *)cap + 2, NULL, 10);

		must(at > 0 && vd_pci_config_set(d->server, (uint32_t)at, 1,
		    0x11) == 0);
	} else if (o->vectors > 0)
		must(vd_pci_add_msix(d->server, o->vectors, 2, PAGE, 2,
		    PAGE + 0x800) > 0);
}

static void
m_fini(struct m_device *d)
{
	vd_server_destroy(d->server);
	mt_region_put(d->bar0);
	mt_region_put(d->ram);
	mt_region_put(d->bar2);
	mt_region_put(d->regs);
	mt_region_put(d->page);
	mt_region_put(d->small);
	must(mt_topology_destroy(d->t) == 0);
}

static void *
m_thread(void *arg)
{
	struct m_device *d = arg;
	struct pollfd pfd[2] = {
		{ .fd = vd_server_fd(d->server), .events = POLLIN },
		{ .fd = d->stop[0], .events = POLLIN },
	};

	while (poll(pfd, 2, -1) != -1 || errno == EINTR) {
		if (pfd[1].revents != 0)
			break;
		/* Its client has gone: there may come no other. */
		if (vd_server_run_all(d->server) == -1)
			pfd[0].fd = -1;
	}
	return (NULL);
}

/* Start a device; d->fd is a socket that is connected to it, or -1. */
static T_UNUSED void
m_start(struct m_device *d, const struct m_options *o)
{
	int pair[2];

	m_init(d, o);
	must(pipe2(d->stop, O_CLOEXEC) == 0);
	d->fd = -1;
	if (o->path != NULL)
		must(vd_server_listen(d->server, o->path) == 0);
	else {
		must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0,
		    pair) == 0);
		must(vd_server_attach(d->server, pair[1]) == 0);
		d->fd = pair[0];
	}
	must(pthread_create(&d->thread, NULL, m_thread, d) == 0);
}

static T_UNUSED void
m_stop(struct m_device *d)
{
	must(write(d->stop[1], "x", 1) == 1);
	pthread_join(d->thread, NULL);
	close(d->stop[0]);
	close(d->stop[1]);
	m_fini(d);
}

/* A client of a device, and a space that its regions may be put into. */
struct m_machine {
	struct vd_client *c;
	struct mt_topology *t;
	struct mt_region *root;
	struct mt_space *sp;
	struct mt_region *bars[VD_NUM_BARS];
};

static T_UNUSED void
m_connect(struct m_machine *m, struct m_device *d)
{
	memset(m, 0, sizeof(*m));
	m->c = d->fd != -1 ? vd_client_attach(d->fd) :
	    vd_client_connect(d->o.path);
	must(m->c != NULL);
	m->t = t_topology();
	m->root = t_container(m->t, "root", T_ALL);
	m->sp = t_space(m->root);
}

static T_UNUSED void
m_add_bar(struct m_machine *m, unsigned int bar, mt_addr at, int prio,
    unsigned int flags)
{
	static const char *const names[] = { "bar0", "bar1", "bar2", "bar3",
	    "bar4", "bar5" };

	m->bars[bar] = vd_client_region_create(m->c, m->t, bar, names[bar],
	    flags);
	must(m->bars[bar] != NULL);
	must(mt_region_add(m->root, m->bars[bar], at, prio) == 0);
}

/* Leaves the client to the caller if keep is set. */
static T_UNUSED void
m_disconnect(struct m_machine *m, bool keep)
{
	if (!keep)
		vd_client_destroy(m->c);
	for (unsigned int i = 0; i < VD_NUM_BARS; i++)
		if (m->bars[i] != NULL) {
			must(mt_region_del(m->bars[i]) == 0);
			mt_region_put(m->bars[i]);
		}
	must(mt_space_destroy(m->sp) == 0);
	mt_region_put(m->root);
	must(mt_topology_destroy(m->t) == 0);
}

#endif
