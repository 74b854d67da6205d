/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A small NVMe driver in user space, on libvfudma's client: it brings up the
 * controller behind a vfio-user socket, fills its namespaces with a pattern
 * through several queues, reads everything back and compares every byte.
 *
 * What the namespaces held is lost.
 *
 * All that the controller reaches (queues, PRP lists, data) is one memfd.  It
 * is given to the controller in segments whose addresses run backwards and
 * have gaps between them, so that what is contiguous here is not contiguous
 * there, as in a real machine.
 */

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/types.h>

#include <endian.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <bsd/libutil.h>
#include <bsd/stdlib.h>

#include <libvfudma/client.h>

#define PAGE		4096u
#define SEGMENT		((size_t)2 << 20)
#define IOVA_BASE	((uint64_t)4 << 30)
#define IOVA_STEP	(2 * SEGMENT)

#define MEM_MAX		((size_t)1 << 30)
#define BLOCK_MAX	((size_t)1 << 20)
#define DEFAULT_SIZE	((uint64_t)64 << 20)

#define MAX_QUEUES	64u
#define MAX_VECTORS	(MAX_QUEUES + 1)
#define IDLE_MAX	10.0	/* seconds without a completion: give up */

/* PCI */
#define PCI_VENDOR	0x00
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

/* Controller registers */
#define REG_CAP		0x00
#define REG_VS		0x08
#define REG_CC		0x14
#define REG_CSTS	0x1c
#define REG_AQA		0x24
#define REG_ASQ		0x28
#define REG_ACQ		0x30
#define REG_DOORBELLS	0x1000

#define CC_ENABLE	0x00000001u
#define CC_SHN_NORMAL	0x00004000u
#define CC_SHN_MASK	0x0000c000u
#define CC_ENTRY_SIZES	0x00460000u	/* 64-byte commands, 16-byte results */
#define CSTS_READY	0x1u
#define CSTS_FATAL	0x2u
#define CSTS_SHST	0xcu
#define CSTS_SHST_DONE	0x8u

/* Commands */
#define ADM_DELETE_SQ	0x00
#define ADM_CREATE_SQ	0x01
#define ADM_DELETE_CQ	0x04
#define ADM_CREATE_CQ	0x05
#define ADM_IDENTIFY	0x06
#define ADM_SET_FEATURE	0x09
#define NVM_FLUSH	0x00
#define NVM_WRITE	0x01
#define NVM_READ	0x02

#define FEAT_NR_QUEUES	0x07
#define CNS_NAMESPACE	0
#define CNS_CONTROLLER	1
#define CNS_ACTIVE	2
#define MAX_NAMESPACES	1024

struct sqe {
	uint8_t opcode;
	uint8_t flags;
	uint16_t cid;
	uint32_t nsid;
	uint32_t cdw2, cdw3;
	uint64_t metadata;
	uint64_t prp1, prp2;
	uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
_Static_assert(sizeof(struct sqe) == 64, "sqe");

struct cqe {
	uint32_t result;
	uint32_t reserved;
	uint16_t sq_head;
	uint16_t sq_id;
	uint16_t cid;
	uint16_t status;		/* bit 0 is the phase */
};
_Static_assert(sizeof(struct cqe) == 16, "cqe");

/* The memory that the controller may use; places in it are offsets. */
struct mem {
	int fd;
	uint8_t *base;
	size_t len;
	size_t used;
};

/* What one command in flight uses. */
struct slot {
	size_t data;
	size_t list;
	uint64_t off;			/* bytes from the namespace's start */
	size_t len;
	bool busy;
};

struct queue {
	unsigned int id;
	unsigned int entries;
	unsigned int tail;		/* of the submission queue */
	unsigned int head;		/* of the completion queue */
	unsigned int rung;		/* tail that the controller knows */
	uint16_t phase;
	size_t sq, cq;
	struct slot *slots;		/* entries - 1 of them */
	uint16_t *idle;			/* a stack of their numbers */
	unsigned int nr_idle;
};

struct namespace {
	uint32_t id;
	uint64_t blocks;
	unsigned int shift;		/* of the block size */
};

enum doorbells { DB_AUTO, DB_MAP, DB_MESSAGE };

struct options {
	const char *socket;
	uint64_t size;			/* 0: not given */
	uint64_t block;
	uint64_t seed;
	unsigned int queues;
	unsigned int depth;
	enum doorbells doorbells;
	bool no_irq;
};

struct host {
	struct vd_client *client;
	struct options opt;
	struct vd_client_limits limits;
	struct vd_client_region bar;
	struct mem mem;

	uint64_t cap;
	uint8_t *doorbells;		/* NULL: by message */
	void *map;			/* that they are in */
	size_t map_len;
	unsigned int stride;		/* of doorbells, in bytes */

	struct queue admin;
	struct queue *queues;
	unsigned int nr_queues;
	size_t block;			/* bytes in one command */
	size_t scratch;			/* a page for admin commands */
	uint8_t *expect;		/* one block */

	uint8_t msix;			/* capability offset, 0: none */
	int *irq_fds;
	unsigned int nr_vectors;	/* 0: completions are polled for */

	struct namespace *ns;
	unsigned int nr_ns;
};

/* How long nothing has come from the controller. */
struct idle {
	double since;
	double checked;
	unsigned int spins;
};

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (ts.tv_sec + ts.tv_nsec / 1e9);
}

/* --- memory -------------------------------------------------------------- */

static uint64_t
iova_of(const struct mem *m, size_t at)
{
	size_t last = m->len / SEGMENT - 1;

	return (IOVA_BASE + (last - at / SEGMENT) * IOVA_STEP + at % SEGMENT);
}

/*
 * Hand out whole pages.  A queue must be contiguous for the controller, so it
 * must not cross into another segment.
 */
static size_t
mem_alloc(struct mem *m, size_t len, bool contiguous)
{
	size_t at = m->used;

	len = (len + PAGE - 1) / PAGE * PAGE;
	if (contiguous && at / SEGMENT != (at + len - 1) / SEGMENT)
		at = (at / SEGMENT + 1) * SEGMENT;
	if (at + len > m->len)
		errx(1, "out of memory for the controller");
	m->used = at + len;
	return (at);
}

static void
mem_create(struct host *h, size_t len)
{
	struct mem *m = &h->mem;

	len = (len + SEGMENT - 1) / SEGMENT * SEGMENT;
	if (len > MEM_MAX)
		errx(1, "%zu MiB of buffers are too many: "
		    "ask for less depth, queues or block", len >> 20);
	if (len / SEGMENT > h->limits.max_dma_maps)
		errx(1, "the server takes only %ju DMA maps",
		    (uintmax_t)h->limits.max_dma_maps);
	m->len = len;
	m->fd = memfd_create("nvme-host", MFD_CLOEXEC);
	if (m->fd == -1 || ftruncate(m->fd, (off_t)len) == -1)
		err(1, "memfd of %zu bytes", len);
	m->base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd,
	    0);
	if (m->base == MAP_FAILED)
		err(1, "mmap");
	for (size_t at = 0; at < len; at += SEGMENT)
		if (vd_client_dma_map(h->client, iova_of(m, at), SEGMENT,
		    VD_DMA_READABLE | VD_DMA_WRITABLE, m->fd, at) == -1)
			err(1, "DMA map of 0x%jx", (uintmax_t)iova_of(m, at));
}

static void
mem_destroy(struct host *h)
{
	struct mem *m = &h->mem;

	for (size_t at = 0; at < m->len; at += SEGMENT)
		if (vd_client_dma_unmap(h->client, iova_of(m, at),
		    SEGMENT) == -1)
			err(1, "DMA unmap of 0x%jx", (uintmax_t)iova_of(m, at));
	munmap(m->base, m->len);
	close(m->fd);
}

/* --- registers and config space ------------------------------------------ */

static uint64_t
reg_read(struct host *h, unsigned int reg, size_t size)
{
	uint64_t val = 0;

	if (vd_client_read(h->client, VD_REGION_BAR0, reg, &val, size) == -1)
		err(1, "read of register 0x%x", reg);
	return (le64toh(val));
}

static void
reg_write(struct host *h, unsigned int reg, uint64_t val, size_t size)
{
	val = htole64(val);
	if (vd_client_write(h->client, VD_REGION_BAR0, reg, &val, size) == -1)
		err(1, "write of register 0x%x", reg);
}

static uint32_t
cfg_read(struct host *h, unsigned int off, size_t size)
{
	uint32_t val = 0;

	if (vd_client_read(h->client, VD_REGION_CONFIG, off, &val, size) == -1)
		err(1, "read of config space at 0x%x", off);
	return (le32toh(val));
}

static void
cfg_write(struct host *h, unsigned int off, uint32_t val, size_t size)
{
	val = htole32(val);
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

/* --- doorbells ----------------------------------------------------------- */

/*
 * Map the doorbells if the BAR has an area that holds those of all queues.
 * Mapped, they cost no message; the controller watches the memory.
 */
static void
doorbells_open(struct host *h, unsigned int queues)
{
	uint64_t end = REG_DOORBELLS + (uint64_t)(queues + 1) * 2 * h->stride;

	if (end > h->bar.size)
		errx(1, "BAR0 of %ju bytes has no room for %u queues",
		    (uintmax_t)h->bar.size, queues);
	if (h->opt.doorbells == DB_MESSAGE)
		return;
	for (unsigned int i = 0; i < h->bar.nr_areas; i++) {
		struct vd_area *a = &h->bar.areas[i];
		void *p;

		if (a->offset > REG_DOORBELLS || a->offset + a->size < end)
			continue;
		p = mmap(NULL, a->size, PROT_READ | PROT_WRITE, MAP_SHARED,
		    h->bar.fd, (off_t)(h->bar.fd_off + a->offset));
		if (p == MAP_FAILED)
			err(1, "mmap of the doorbells");
		h->map = p;
		h->map_len = a->size;
		h->doorbells = (uint8_t *)p + (REG_DOORBELLS - a->offset);
		return;
	}
	if (h->opt.doorbells == DB_MAP)
		errx(1, "the doorbells cannot be mapped");
}

/*
 * Ring: which is 2 * queue for a tail, + 1 for a completion queue's head.  The
 * store publishes the entries written before it.  By message it is posted: the
 * controller reads them in order, and there is nothing to wait for.
 */
static void
ring(struct host *h, unsigned int which, uint32_t val)
{
	size_t off = (size_t)which * h->stride;

	val = htole32(val);
	if (h->doorbells != NULL)
		__atomic_store_n((uint32_t *)(void *)(h->doorbells + off), val,
		    __ATOMIC_RELEASE);
	else if (vd_client_post(h->client, VD_REGION_BAR0, REG_DOORBELLS + off,
	    &val, sizeof(val)) == -1)
		err(1, "doorbell %u", which);
}

/* --- waiting ------------------------------------------------------------- */

/* Memory never tells us that the server is gone, or the controller unwell. */
static void
check_alive(struct host *h)
{
	uint32_t csts = 0;

	if (vd_client_read(h->client, VD_REGION_BAR0, REG_CSTS, &csts,
	    sizeof(csts)) == -1) {
		if (errno == ENOTCONN)
			errx(1, "the server is gone");
		err(1, "the controller does not answer");
	}
	if (le32toh(csts) & CSTS_FATAL)
		errx(1, "the controller reports a fatal error");
}

/*
 * Nothing has completed: sleep until an interrupt comes, or a moment.  Now and
 * then see whether anybody is there at all.
 */
static void
idle_wait(struct host *h, struct idle *idle)
{
	const struct timespec nap = { .tv_nsec = 20000 };
	double t;

	if (h->nr_vectors > 0) {
		struct pollfd pfd[MAX_VECTORS];
		unsigned int n = h->nr_vectors;

		for (unsigned int i = 0; i < n; i++)
			pfd[i] = (struct pollfd){ .fd = h->irq_fds[i],
			    .events = POLLIN };
		if (poll(pfd, n, 500) == -1 && errno != EINTR)
			err(1, "poll");
		for (unsigned int i = 0; i < n; i++) {
			uint64_t count;

			if (pfd[i].revents != 0 && read(pfd[i].fd, &count,
			    sizeof(count)) == -1 && errno != EAGAIN)
				err(1, "eventfd");
		}
	} else if (++idle->spins < 200)
		sched_yield();
	else
		nanosleep(&nap, NULL);

	t = now();
	if (idle->since == 0)
		idle->since = idle->checked = t;
	if (t - idle->checked < 0.25)
		return;
	idle->checked = t;
	check_alive(h);
	if (t - idle->since > IDLE_MAX)
		errx(1, "no command completed for %.0f seconds", IDLE_MAX);
}

/* --- queues -------------------------------------------------------------- */

static void *
ptr(struct host *h, size_t off)
{
	return (h->mem.base + off);
}

static void
queue_init(struct host *h, struct queue *q, unsigned int id,
    unsigned int entries)
{
	*q = (struct queue){ .id = id, .entries = entries, .phase = 1 };
	q->sq = mem_alloc(&h->mem, entries * sizeof(struct sqe), true);
	q->cq = mem_alloc(&h->mem, entries * sizeof(struct cqe), true);
}

/*
 * Give a queue's commands their buffers.  Every other buffer starts inside a
 * page, and half of the PRP lists near the end of one, so that they have to be
 * continued in the next.
 */
static void
queue_init_slots(struct host *h, struct queue *q)
{
	unsigned int n = q->entries - 1;

	q->slots = calloc(n, sizeof(*q->slots));
	q->idle = calloc(n, sizeof(*q->idle));
	if (q->slots == NULL || q->idle == NULL)
		err(1, NULL);
	for (unsigned int i = 0; i < n; i++) {
		q->slots[i].data = mem_alloc(&h->mem, h->block + PAGE, false) +
		    (i & 1 ? 512 : 0);
		q->slots[i].list = mem_alloc(&h->mem, 2 * PAGE, false) +
		    (i & 2 ? PAGE - 32 : 0);
		q->idle[i] = (uint16_t)(n - 1 - i);
	}
	q->nr_idle = n;
}

static void
queue_fini(struct queue *q)
{
	free(q->slots);
	free(q->idle);
}

/* Place a command; the controller is told by queue_ring(). */
static void
queue_put(struct host *h, struct queue *q, const struct sqe *e)
{
	struct sqe *sq = ptr(h, q->sq);

	sq[q->tail] = *e;
	q->tail = (q->tail + 1) % q->entries;
}

static void
queue_ring(struct host *h, struct queue *q)
{
	if (q->rung == q->tail)
		return;
	q->rung = q->tail;
	ring(h, 2 * q->id, q->tail);
}

/*
 * Take the next completion if there is one.  Its phase bit says so, and is
 * read before the rest.
 */
static bool
queue_take(struct host *h, struct queue *q, struct cqe *out)
{
	struct cqe *e = (struct cqe *)ptr(h, q->cq) + q->head;
	uint16_t status = le16toh(__atomic_load_n(&e->status,
	    __ATOMIC_ACQUIRE));

	if ((status & 1) != q->phase)
		return (false);
	*out = *e;
	out->status = status >> 1;
	if (++q->head == q->entries) {
		q->head = 0;
		q->phase ^= 1;
	}
	return (true);
}

static void
check_status(const char *what, uint16_t status)
{
	if ((status & 0x7ff) != 0)
		errx(1, "%s: status code type %u, code 0x%02x%s", what,
		    status >> 8 & 7, status & 0xff,
		    status & 0x4000 ? ", do not retry" : "");
}

/* Run one admin command. */
static uint32_t
admin(struct host *h, struct sqe *e, const char *what)
{
	struct idle idle = { 0 };
	struct cqe done;

	e->cid = htole16(h->admin.tail);
	queue_put(h, &h->admin, e);
	queue_ring(h, &h->admin);
	while (!queue_take(h, &h->admin, &done))
		idle_wait(h, &idle);
	ring(h, 1, h->admin.head);
	if (done.cid != e->cid)
		errx(1, "%s: completion of a command that was not sent", what);
	check_status(what, done.status);
	return (le32toh(done.result));
}

static const uint8_t *
identify(struct host *h, uint32_t cns, uint32_t nsid, const char *what)
{
	struct sqe e = { .opcode = ADM_IDENTIFY, .nsid = htole32(nsid),
	    .prp1 = htole64(iova_of(&h->mem, h->scratch)),
	    .cdw10 = htole32(cns) };

	memset(ptr(h, h->scratch), 0, PAGE);
	admin(h, &e, what);
	return (ptr(h, h->scratch));
}

/* --- bringing the controller up and down --------------------------------- */

static void
wait_csts(struct host *h, uint32_t mask, uint32_t want, const char *what)
{
	/* The controller says how long it may take, in half seconds. */
	double end = now() + (double)((h->cap >> 24 & 0xff) + 1) / 2;
	const struct timespec nap = { .tv_nsec = 1000000 };
	uint32_t csts;

	while (((csts = (uint32_t)reg_read(h, REG_CSTS, 4)) & mask) != want) {
		if (csts & CSTS_FATAL)
			errx(1, "%s: the controller reports a fatal error",
			    what);
		if (now() > end)
			errx(1, "%s: CSTS is still 0x%x", what, csts);
		nanosleep(&nap, NULL);
	}
}

/* Find an NVMe controller and let it be a bus master. */
static void
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
	if (vd_client_region_info(h->client, VD_REGION_BAR0, &h->bar) == -1)
		err(1, "BAR0");
	class = cfg_read(h, PCI_REVISION, 4) >> 8;
	if (class != PCI_CLASS_NVME)
		errx(1, "class is %06x, not an NVMe controller", class);
	if (h->bar.size < REG_DOORBELLS + PAGE)
		errx(1, "BAR0 is too small: %ju bytes",
		    (uintmax_t)h->bar.size);
	cfg_write(h, PCI_COMMAND, cfg_read(h, PCI_COMMAND, 2) |
	    PCI_CMD_MEMORY | PCI_CMD_MASTER | PCI_CMD_NO_INTX, 2);
	if (!h->opt.no_irq && info.num_irqs > VD_IRQ_MSIX)
		h->msix = cfg_find_cap(h, PCI_CAP_MSIX);
}

static void
ctrl_enable(struct host *h)
{
	unsigned int entries = 32;

	h->cap = reg_read(h, REG_CAP, 8);
	h->stride = 4u << (h->cap >> 32 & 0xf);
	if ((h->cap >> 48 & 0xf) != 0)
		errx(1, "the controller cannot use pages of %u bytes", PAGE);
	if ((h->cap >> 37 & 1) == 0)
		errx(1, "the controller lacks the NVM command set");
	doorbells_open(h, h->opt.queues);

	reg_write(h, REG_CC, 0, 4);
	wait_csts(h, CSTS_READY, 0, "reset");
	queue_init(h, &h->admin, 0, entries);
	h->scratch = mem_alloc(&h->mem, PAGE, true);
	reg_write(h, REG_AQA, (entries - 1) << 16 | (entries - 1), 4);
	reg_write(h, REG_ASQ, iova_of(&h->mem, h->admin.sq), 8);
	reg_write(h, REG_ACQ, iova_of(&h->mem, h->admin.cq), 8);
	reg_write(h, REG_CC, CC_ENTRY_SIZES, 4);
	reg_write(h, REG_CC, CC_ENTRY_SIZES | CC_ENABLE, 4);
	wait_csts(h, CSTS_READY, CSTS_READY, "enable");
}

static void
ctrl_shutdown(struct host *h)
{
	uint32_t cc = (uint32_t)reg_read(h, REG_CC, 4) & ~CC_SHN_MASK;

	reg_write(h, REG_CC, cc | CC_SHN_NORMAL, 4);
	wait_csts(h, CSTS_SHST, CSTS_SHST_DONE, "shutdown");
	reg_write(h, REG_CC, 0, 4);
	wait_csts(h, CSTS_READY, 0, "disable");
}

/*
 * Connect MSI-X vectors to eventfds: 0 for the admin queue, the rest for the
 * I/O queues in turn.  Before it is enabled the table gets a message for each
 * vector; what it says is up to us, as no processor will see it.
 */
static void
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
		uint32_t entry[4] = { htole32(0xfee00000), 0, htole32(i), 0 };

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

static void
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

/* Ask for queues; the controller may grant fewer, or more. */
static void
queues_negotiate(struct host *h)
{
	uint32_t want = h->opt.queues - 1, got, least;
	struct sqe e = { .opcode = ADM_SET_FEATURE,
	    .cdw10 = htole32(FEAT_NR_QUEUES),
	    .cdw11 = htole32(want << 16 | want) };

	got = admin(h, &e, "number of queues");
	least = ((got & 0xffff) < got >> 16 ? got & 0xffff : got >> 16) + 1;
	h->nr_queues = least < h->opt.queues ? least : h->opt.queues;
}

static void
queues_create(struct host *h)
{
	unsigned int most = (h->cap & 0xffff) + 1;
	unsigned int entries = h->opt.depth + 1;

	h->queues = calloc(h->nr_queues, sizeof(*h->queues));
	h->expect = malloc(h->block);
	if (h->queues == NULL || h->expect == NULL)
		err(1, NULL);
	for (unsigned int i = 0; i < h->nr_queues; i++) {
		struct queue *q = &h->queues[i];
		uint32_t vector = h->nr_vectors < 2 ? 0 :
		    1 + i % (h->nr_vectors - 1);
		struct sqe e = { .opcode = ADM_CREATE_CQ };

		queue_init(h, q, i + 1, entries < most ? entries : most);
		queue_init_slots(h, q);
		e.prp1 = htole64(iova_of(&h->mem, q->cq));
		e.cdw10 = htole32((q->entries - 1) << 16 | q->id);
		e.cdw11 = htole32(vector << 16 |
		    (h->nr_vectors > 0 ? 2u : 0) | 1);
		admin(h, &e, "create completion queue");
		e = (struct sqe){ .opcode = ADM_CREATE_SQ };
		e.prp1 = htole64(iova_of(&h->mem, q->sq));
		e.cdw10 = htole32((q->entries - 1) << 16 | q->id);
		e.cdw11 = htole32(q->id << 16 | 1);
		admin(h, &e, "create submission queue");
	}
}

static void
queues_delete(struct host *h)
{
	for (unsigned int i = h->nr_queues; i-- > 0;) {
		struct sqe e = { .opcode = ADM_DELETE_SQ,
		    .cdw10 = htole32(i + 1) };

		admin(h, &e, "delete submission queue");
		e.opcode = ADM_DELETE_CQ;
		admin(h, &e, "delete completion queue");
		queue_fini(&h->queues[i]);
	}
	free(h->queues);
	free(h->expect);
}

/* --- what there is ------------------------------------------------------- */

/* A field of space padded ASCII, in a static buffer. */
static const char *
text(const uint8_t *p, size_t len, char *buf)
{
	size_t i;

	for (i = 0; i < len; i++)
		buf[i] = p[i] >= 0x20 && p[i] < 0x7f ? (char)p[i] : '?';
	while (i > 0 && (buf[i - 1] == ' ' || p[i - 1] == '\0'))
		i--;
	buf[i] = '\0';
	return (buf);
}

static uint32_t
le32_at(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return (le32toh(v));
}

static uint64_t
le64_at(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return (le64toh(v));
}

/* A size in a few characters, such as 128 MiB. */
static const char *
human(uint64_t bytes, char buf[static 8])
{
	if (humanize_number(buf, 8, (int64_t)bytes, "B", HN_AUTOSCALE,
	    HN_DECIMAL | HN_IEC_PREFIXES) == -1)
		err(1, "humanize_number");
	return (buf);
}

/* Look at the controller and settle how much one command moves. */
static uint32_t
show_controller(struct host *h)
{
	uint32_t vs = (uint32_t)reg_read(h, REG_VS, 4);
	uint32_t id = cfg_read(h, PCI_VENDOR, 4);
	const uint8_t *p = identify(h, CNS_CONTROLLER, 0,
	    "identify controller");
	uint8_t mdts = p[77];
	char model[41], serial[21], firmware[9], max[8] = "";

	h->block = (size_t)h->opt.block;
	if (mdts > 0 && mdts < 20) {
		size_t most = (size_t)PAGE << mdts;

		human(most, max);
		if (h->block > most)
			h->block = most;
	}
	printf("controller  %s, serial %s, firmware %s\n",
	    text(p + 24, 40, model), text(p + 4, 20, serial),
	    text(p + 64, 8, firmware));
	printf("            NVMe %u.%u, PCI %04x:%04x, transfers up to %s\n",
	    vs >> 16, vs >> 8 & 0xff, id & 0xffff, id >> 16,
	    max[0] != '\0' ? max : "any size");
	return (le32_at(p + 516));
}

/* Add a namespace, unless it is not there or not of a kind we can use. */
static void
add_namespace(struct host *h, uint32_t nsid)
{
	const uint8_t *p = identify(h, CNS_NAMESPACE, nsid,
	    "identify namespace");
	const uint8_t *format = p + 128 + 4 * (p[26] & 0xf);
	struct namespace ns = { .id = nsid, .blocks = le64_at(p),
	    .shift = format[2] };
	char size[8];

	if (ns.blocks == 0)
		return;
	if (ns.shift < 9 || ns.shift > 12 || format[0] != 0 ||
	    format[1] != 0 || ns.blocks > (uint64_t)INT64_MAX >> ns.shift) {
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

static void
find_namespaces(struct host *h)
{
	uint32_t list[MAX_NAMESPACES], nn = show_controller(h);
	unsigned int n = 0;

	if (reg_read(h, REG_VS, 4) >= 0x10100) {
		memcpy(list, identify(h, CNS_ACTIVE, 0, "active namespaces"),
		    sizeof(list));
		while (n < MAX_NAMESPACES && list[n] != 0) {
			list[n] = le32toh(list[n]);
			n++;
		}
	} else
		for (; n < MAX_NAMESPACES && n < nn; n++)
			list[n] = n + 1;
	for (unsigned int i = 0; i < n; i++)
		add_namespace(h, list[i]);
	if (h->nr_ns == 0)
		errx(1, "no namespace to test");
}

static void
show_queues(struct host *h)
{
	char size[8];

	printf("queues      %u pair%s, %u deep, %s a command\n",
	    h->nr_queues, h->nr_queues == 1 ? "" : "s",
	    h->queues[0].entries - 1, human(h->block, size));
	printf("doorbells   %s\n", h->doorbells != NULL ? "mapped" :
	    "by message");
	if (h->nr_vectors > 0)
		printf("interrupts  MSI-X, %u vector%s\n", h->nr_vectors,
		    h->nr_vectors == 1 ? "" : "s");
	else
		printf("interrupts  none, completions are polled for\n");
}

/* --- the pattern --------------------------------------------------------- */

static uint64_t
mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return (x ^ x >> 31);
}

/* What belongs at off: every word of the disk has its own value. */
static void
pattern(uint64_t seed, uint32_t nsid, uint64_t off, void *buf, size_t len)
{
	uint64_t *p = buf, base = mix(seed + nsid) + off;

	for (size_t i = 0; i < len / 8; i++)
		p[i] = mix(base + 8 * i);
}

/* A sum that does not depend on the order in which commands complete. */
static uint64_t
checksum(const void *buf, size_t len, uint64_t off)
{
	const uint64_t *p = buf;
	uint64_t sum = off;

	for (size_t i = 0; i < len / 8; i++)
		sum = (sum ^ p[i]) * 0x9e3779b97f4a7c15u;
	return (mix(sum));
}

/* --- reading and writing ------------------------------------------------- */

/* One pass over a namespace. */
struct pass {
	struct host *h;
	const struct namespace *ns;
	const char *name;
	uint8_t opcode;
	uint64_t size;			/* bytes to do */
	uint64_t next;			/* of them submitted */
	uint64_t done;			/* of them completed */
	uint64_t commands;
	uint64_t sum;
	uint64_t bad;			/* bytes that differ */
	double start;
	double shown;			/* last progress; -1: no terminal */
};

/*
 * Name the pages of a buffer: two fit in the command, more go to a list, whose
 * last entry in a page points to where it goes on if it does.
 */
static void
set_prps(struct host *h, struct sqe *e, const struct slot *slot)
{
	struct mem *m = &h->mem;
	size_t data = slot->data, list = slot->list;
	size_t first = PAGE - data % PAGE, pages;

	e->prp1 = htole64(iova_of(m, data));
	if (slot->len <= first)
		return;
	pages = (slot->len - first + PAGE - 1) / PAGE;
	data += first;
	if (pages == 1) {
		e->prp2 = htole64(iova_of(m, data));
		return;
	}
	e->prp2 = htole64(iova_of(m, list));
	for (; pages > 0; list += 8) {
		uint64_t *entry = ptr(h, list);

		if (pages > 1 && list % PAGE == PAGE - 8) {
			*entry = htole64(iova_of(m, list + 8));
			continue;
		}
		*entry = htole64(iova_of(m, data));
		data += PAGE;
		pages--;
	}
}

static void
submit(struct pass *p, struct queue *q)
{
	struct host *h = p->h;
	uint16_t cid = q->idle[--q->nr_idle];
	struct slot *slot = &q->slots[cid];
	struct sqe e = { .opcode = p->opcode, .cid = htole16(cid),
	    .nsid = htole32(p->ns->id) };
	uint64_t lba = p->next >> p->ns->shift, left = p->size - p->next;

	slot->off = p->next;
	slot->len = left < h->block ? (size_t)left : h->block;
	slot->busy = true;
	p->next += slot->len;
	if (p->opcode == NVM_WRITE) {
		pattern(h->opt.seed, p->ns->id, slot->off, ptr(h, slot->data),
		    slot->len);
		p->sum += checksum(ptr(h, slot->data), slot->len, slot->off);
	} else {
		/* What is not read must not look as if it were. */
		memset(ptr(h, slot->data), 0xdb, slot->len);
	}
	set_prps(h, &e, slot);
	e.cdw10 = htole32((uint32_t)lba);
	e.cdw11 = htole32((uint32_t)(lba >> 32));
	e.cdw12 = htole32((uint32_t)(slot->len >> p->ns->shift) - 1);
	queue_put(h, q, &e);
}

/* Compare what was read, byte by byte where it differs. */
static void
compare(struct pass *p, const struct slot *slot)
{
	const uint8_t *got = ptr(p->h, slot->data), *want = p->h->expect;

	p->sum += checksum(got, slot->len, slot->off);
	pattern(p->h->opt.seed, p->ns->id, slot->off, p->h->expect, slot->len);
	if (memcmp(got, want, slot->len) == 0)
		return;
	for (size_t i = 0; i < slot->len; i++) {
		if (got[i] == want[i])
			continue;
		if (p->bad++ == 0)
			warnx("namespace %u, byte %ju: read 0x%02x, wrote "
			    "0x%02x", p->ns->id, (uintmax_t)(slot->off + i),
			    got[i], want[i]);
	}
}

/* Take what has completed on a queue. */
static bool
reap(struct pass *p, struct queue *q)
{
	struct cqe e;
	bool any = false;

	while (queue_take(p->h, q, &e)) {
		uint16_t cid = le16toh(e.cid);

		if (cid >= q->entries - 1 || !q->slots[cid].busy)
			errx(1, "%s: queue %u completes command %u, which "
			    "was not sent", p->name, q->id, cid);
		check_status(p->name, e.status);
		if (p->opcode == NVM_READ)
			compare(p, &q->slots[cid]);
		q->slots[cid].busy = false;
		q->idle[q->nr_idle++] = cid;
		p->done += q->slots[cid].len;
		p->commands++;
		any = true;
	}
	if (any)
		ring(p->h, 2 * q->id + 1, q->head);
	return (any);
}

static void
show_progress(struct pass *p)
{
	double t;

	if (p->shown < 0 || (t = now()) - p->shown < 0.1)
		return;
	p->shown = t;
	fprintf(stderr, "\r%-5s namespace %u: %3.0f%%, %.0f MiB/s ", p->name,
	    p->ns->id, 100.0 * (double)p->done / (double)p->size,
	    (double)p->done / (1 << 20) / (t - p->start));
}

static void
run_pass(struct pass *p)
{
	struct host *h = p->h;
	struct idle idle = { 0 };
	char size[8];
	double t;

	p->shown = isatty(STDERR_FILENO) ? 0 : -1;
	p->start = now();
	while (p->done < p->size) {
		bool any = false;

		for (unsigned int i = 0; i < h->nr_queues; i++) {
			struct queue *q = &h->queues[i];

			while (q->nr_idle > 0 && p->next < p->size)
				submit(p, q);
			queue_ring(h, q);
		}
		for (unsigned int i = 0; i < h->nr_queues; i++)
			any |= reap(p, &h->queues[i]);
		if (any)
			idle = (struct idle){ 0 };
		else
			idle_wait(h, &idle);
		show_progress(p);
	}
	t = now() - p->start;
	if (p->shown >= 0)
		fprintf(stderr, "\r%50s\r", "");
	printf("%-11s namespace %u: %s in %.3f s, %.0f MiB/s, %.0f IOPS\n",
	    p->name, p->ns->id, human(p->size, size), t,
	    (double)p->size / (1 << 20) / t, (double)p->commands / t);
}

static void
flush(struct host *h, const struct namespace *ns)
{
	struct sqe e = { .opcode = NVM_FLUSH, .nsid = htole32(ns->id) };
	struct queue *q = &h->queues[0];
	struct idle idle = { 0 };
	struct cqe done;

	queue_put(h, q, &e);
	queue_ring(h, q);
	while (!queue_take(h, q, &done))
		idle_wait(h, &idle);
	ring(h, 2 * q->id + 1, q->head);
	check_status("flush", done.status);
}

/* Write, flush, read back; true if every byte came back. */
static bool
test_namespace(struct host *h, const struct namespace *ns)
{
	uint64_t size = ns->blocks << ns->shift;
	uint64_t want = h->opt.size != 0 ? h->opt.size : DEFAULT_SIZE;
	struct pass p = { .h = h, .ns = ns, .name = "write",
	    .opcode = NVM_WRITE };
	uint64_t sum;
	char text_size[8];

	if (size > want)
		size = want >> ns->shift << ns->shift;
	if (size == 0)
		errx(1, "--size is less than a block of %u bytes",
		    1u << ns->shift);
	p.size = size;
	run_pass(&p);
	sum = p.sum;
	flush(h, ns);
	p = (struct pass){ .h = h, .ns = ns, .name = "read",
	    .opcode = NVM_READ, .size = size };
	run_pass(&p);
	if (p.bad != 0 || p.sum != sum) {
		printf("compare     namespace %u: %ju bytes of %ju differ; "
		    "checksum %016jx, wrote %016jx\n", ns->id,
		    (uintmax_t)p.bad, (uintmax_t)size, (uintmax_t)p.sum,
		    (uintmax_t)sum);
		return (false);
	}
	printf("compare     namespace %u: %s, every byte as written, "
	    "checksum %016jx\n", ns->id, human(size, text_size),
	    (uintmax_t)sum);
	return (true);
}

/* --- the program --------------------------------------------------------- */

static void __attribute__((noreturn))
usage(void)
{
	fprintf(stderr,
	    "usage: nvme-host --socket PATH [--size BYTES] [--queues N]\n"
	    "           [--depth N] [--block BYTES] [--seed N]\n"
	    "           [--doorbells map|message] [--no-irq]\n"
	    "Overwrites the first --size bytes (64M) of every namespace with\n"
	    "a pattern and reads them back.  BYTES may end in K, M or G.\n");
	exit(2);
}

static uint64_t
parse_size(const char *s, const char *what, uint64_t least, uint64_t most)
{
	uint64_t n;

	if (expand_number(s, &n) == -1 || n < least || n > most)
		errx(2, "--%s: %s is not a size from %ju to %ju", what, s,
		    (uintmax_t)least, (uintmax_t)most);
	return (n);
}

static unsigned int
parse_count(const char *s, const char *what, unsigned int most)
{
	const char *why;
	long long n = strtonum(s, 1, most, &why);

	if (why != NULL)
		errx(2, "--%s: %s is %s; 1 to %u are possible", what, s, why,
		    most);
	return ((unsigned int)n);
}

static void
parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "block", required_argument, NULL, 'b' },
		{ "depth", required_argument, NULL, 'd' },
		{ "doorbells", required_argument, NULL, 'D' },
		{ "help", no_argument, NULL, 'h' },
		{ "no-irq", no_argument, NULL, 'n' },
		{ "queues", required_argument, NULL, 'q' },
		{ "seed", required_argument, NULL, 'S' },
		{ "size", required_argument, NULL, 's' },
		{ "socket", required_argument, NULL, 'p' },
		{ NULL, 0, NULL, 0 },
	};
	int ch;

	*o = (struct options){ .queues = 4, .depth = 32, .block = 128 << 10,
	    .seed = 1 };
	while ((ch = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (ch == 'b')
			o->block = parse_size(optarg, "block", PAGE,
			    BLOCK_MAX) / PAGE * PAGE;
		else if (ch == 'd')
			o->depth = parse_count(optarg, "depth", 1023);
		else if (ch == 'D' && strcmp(optarg, "map") == 0)
			o->doorbells = DB_MAP;
		else if (ch == 'D' && strcmp(optarg, "message") == 0)
			o->doorbells = DB_MESSAGE;
		else if (ch == 'n')
			o->no_irq = true;
		else if (ch == 'q')
			o->queues = parse_count(optarg, "queues", MAX_QUEUES);
		else if (ch == 'S')
			o->seed = strtoull(optarg, NULL, 0);
		else if (ch == 's')
			o->size = parse_size(optarg, "size", 512, INT64_MAX);
		else if (ch == 'p')
			o->socket = optarg;
		else
			usage();
	}
	if (optind != argc || o->socket == NULL)
		usage();
}

int
main(int argc, char **argv)
{
	struct host h = { 0 };
	size_t per_queue;
	bool good = true;

	parse_options(argc, argv, &h.opt);
	setvbuf(stdout, NULL, _IOLBF, 0);
	h.client = vd_client_connect(h.opt.socket);
	if (h.client == NULL)
		err(1, "%s", h.opt.socket);
	vd_client_limits(h.client, &h.limits);

	pci_open(&h);
	/* Both queues, each possibly moved to the next segment; buffers. */
	per_queue = (h.opt.depth + 1) * 2 * (sizeof(struct sqe) +
	    sizeof(struct cqe)) + 2 * PAGE +
	    h.opt.depth * ((size_t)h.opt.block + 3 * PAGE);
	mem_create(&h, 2 * SEGMENT + h.opt.queues * per_queue);
	ctrl_enable(&h);
	find_namespaces(&h);
	queues_negotiate(&h);
	msix_open(&h);
	queues_create(&h);
	show_queues(&h);

	for (unsigned int i = 0; i < h.nr_ns; i++)
		good &= test_namespace(&h, &h.ns[i]);

	queues_delete(&h);
	ctrl_shutdown(&h);
	msix_close(&h);
	if (h.map != NULL)
		munmap(h.map, h.map_len);
	mem_destroy(&h);
	if (h.bar.fd != -1)
		close(h.bar.fd);
	free(h.ns);
	vd_client_destroy(h.client);
	if (fflush(stdout) == EOF)
		err(1, "standard output");
	return (good ? 0 : 1);
}
