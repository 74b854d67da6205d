/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The connection of a client: who may use it, what happens when it is lost,
 * and how another one takes its place.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/stdlib.h>

#include "internal.h"

/* By what the device is known: places in config space, and their length. */
#define PCI_IDS		0x00u
#define PCI_CLASS	0x08u
#define PCI_SUBSYSTEM	0x2cu
#define NR_IDS		3u

struct vd__identity {
	struct vd_device_info info;
	uint32_t ids[NR_IDS];		/* of PCI devices */
	struct {
		uint32_t flags;
		uint64_t size;
	} regions[VD_NUM_REGIONS];
	uint32_t irqs[VD_NUM_IRQS];	/* counts; 0 if there are none */
};

/* --- who may use it ------------------------------------------------------ */

void
vd__client_init(struct vd_client *c)
{
	pthread_mutexattr_t attr;

	c->refs = 1;
	c->timeout_ms = VD_CLIENT_TIMEOUT_MS;
	c->direct = true;
	RB_INIT(&c->kept_maps);
	LIST_INIT(&c->kept_files);
	pthread_rwlock_init(&c->conn_lock, NULL);
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->regions_lock, NULL);
	/* Who waits for room serves the server, which may mean to post. */
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&c->post_lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

struct vd_client *
vd__client_get(struct vd_client *c)
{
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return (c);
}

void
vd__client_put(struct vd_client *c)
{
	/* As for mt_region_put(): the last one sees what all others did. */
	if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) > 1)
		return;
	for (unsigned int i = 0; i < VD_NUM_IRQS; i++) {
		vd__client_close_irqs(c->irqs[i].fds, c->irqs[i].nr);
		free(c->irqs[i].fds);
		free(c->irqs[i].masked);
	}
	vd__client_free_maps(c);
	pthread_mutex_destroy(&c->post_lock);
	pthread_mutex_destroy(&c->regions_lock);
	pthread_mutex_destroy(&c->lock);
	pthread_rwlock_destroy(&c->conn_lock);
	free(c->identity);
	free(c->path);
	free(c);
}

int
vd__client_enter(struct vd_client *c)
{
	/* Many who come and go must not keep out who replaces it. */
	if (!atomic_load(&c->replacing)) {
		pthread_rwlock_rdlock(&c->conn_lock);
		if (c->conn != NULL)
			return (0);
		pthread_rwlock_unlock(&c->conn_lock);
	}
	errno = ENOTCONN;
	return (-1);
}

int
vd__client_leave(struct vd_client *c, int rv)
{
	void (*fn)(void *, int) = NULL;
	int saved = errno, error = 0;
	void *arg = NULL;
	bool inside;

	/* Before we are out, so that it is this connection that is marked. */
	if (vd__conn_fd(c->conn) == -1) {
		inside = vd__conn_is_server(c->conn);
		pthread_mutex_lock(&c->lock);
		if (rv == -1 && !c->lost) {
			c->lost = true;
			c->untold = saved;
		}
		/* A call that serves this one still holds what it holds. */
		if (!inside && c->untold != 0) {
			fn = c->lost_fn;
			arg = c->lost_arg;
			error = c->untold;
			c->untold = 0;
		}
		pthread_mutex_unlock(&c->lock);
	}
	pthread_rwlock_unlock(&c->conn_lock);
	if (fn != NULL)
		fn(arg, error);
	errno = saved;
	return (rv);
}

/* Close the connection, of which nobody is told; calls under way end. */
static void
hang_up(struct vd_client *c)
{
	pthread_mutex_lock(&c->lock);
	c->lost = true;
	pthread_mutex_unlock(&c->lock);
	if (vd__client_enter(c) == 0) {
		vd__conn_close(c->conn);
		(void)vd__client_leave(c, 0);
	}
}

void
vd__client_disconnect(struct vd_client *c)
{
	hang_up(c);
	atomic_store(&c->replacing, true);
	pthread_rwlock_wrlock(&c->conn_lock);
	vd__conn_destroy(c->conn);
	c->conn = NULL;
	pthread_rwlock_unlock(&c->conn_lock);
	vd__client_set_hangup(c, NULL);
}

int
vd_client_check(struct vd_client *c)
{
	struct pollfd pfd = { .events = POLLRDHUP };

	if (vd__client_enter(c) == -1)
		return (-1);
	pfd.fd = vd__conn_fd(c->conn);
	if (pfd.fd != -1 && (poll(&pfd, 1, 0) != 1 ||
	    (pfd.revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0))
		return (vd__client_leave(c, 0));
	vd__conn_close(c->conn);
	errno = ENOTCONN;
	return (vd__client_leave(c, -1));
}

/* --- what it maps --------------------------------------------------------- */

void
vd__hangup_put(struct vd__hangup *h)
{
	if (h == NULL || atomic_fetch_sub_explicit(&h->refs, 1,
	    memory_order_acq_rel) > 1)
		return;
	vd__close(h->mark.fd);
	free(h);
}

struct vd__hangup *
vd__hangup_create(int fd)
{
	struct vd__hangup *h;

	if ((h = calloc(1, sizeof(*h))) == NULL)
		return (NULL);
	h->refs = 1;
	h->mark.is_socket = true;
	h->mark.fd = -1;
	/* It takes one only where faults are handled. */
	if (vd__sigbus_is_on() &&
	    (h->mark.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) == -1) {
		free(h);
		return (NULL);
	}
	return (h);
}

struct vd__hangup *
vd__client_hangup(struct vd_client *c)
{
	struct vd__hangup *h;

	pthread_mutex_lock(&c->lock);
	if ((h = c->hangup) != NULL)
		atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
	pthread_mutex_unlock(&c->lock);
	return (h);
}

void
vd__client_set_hangup(struct vd_client *c, struct vd__hangup *h)
{
	struct vd__hangup *old;

	pthread_mutex_lock(&c->lock);
	old = c->hangup;
	c->hangup = h;
	pthread_mutex_unlock(&c->lock);
	vd__hangup_put(old);
}

/* --- interrupts ---------------------------------------------------------- */

void
vd__client_close_irqs(const int *copies, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		vd__close(copies[i]);
}

int
vd__client_dup_irqs(struct vd_client *c, const int *fds, unsigned int count,
    int *copies)
{
	bool keep;

	pthread_mutex_lock(&c->lock);
	keep = c->identity != NULL;
	pthread_mutex_unlock(&c->lock);
	for (unsigned int i = 0; i < count; i++) {
		copies[i] = keep ? fcntl(fds[i], F_DUPFD_CLOEXEC, 0) : -1;
		if (keep && copies[i] == -1) {
			vd__client_close_irqs(copies, i);
			return (-1);
		}
	}
	return (0);
}

/* Room for nr interrupts of a kind; under the lock. */
static bool
irqs_room(struct vd__kept_irqs *k, unsigned int nr)
{
	bool *masked;
	int *fds;

	if (nr <= k->nr)
		return (true);
	if (nr > VD__MAX_IRQS)
		return (false);
	if ((fds = reallocarray(k->fds, nr, sizeof(*fds))) == NULL)
		return (false);
	k->fds = fds;
	if ((masked = reallocarray(k->masked, nr, sizeof(*masked))) == NULL)
		return (false);
	k->masked = masked;
	for (; k->nr < nr; k->nr++) {
		k->fds[k->nr] = -1;
		k->masked[k->nr] = false;
	}
	return (true);
}

/*
 * Once it is known what happens it must not fail for lack of memory: then
 * this interrupt will have to be connected by the caller after a loss.
 */
void
vd__client_keep_irqs(struct vd_client *c, enum vd_irq index,
    unsigned int start, unsigned int count, const int *copies)
{
	struct vd__kept_irqs *k = &c->irqs[index];

	if (count == 0 || copies[0] == -1)
		return;
	pthread_mutex_lock(&c->lock);
	if (index >= VD_NUM_IRQS || !irqs_room(k, start + count))
		vd__client_close_irqs(copies, count);
	else
		for (unsigned int i = 0; i < count; i++) {
			vd__close(k->fds[start + i]);
			k->fds[start + i] = copies[i];
		}
	pthread_mutex_unlock(&c->lock);
}

void
vd__client_drop_irqs(struct vd_client *c, enum vd_irq index,
    unsigned int start, unsigned int count)
{
	struct vd__kept_irqs *k;

	if (index >= VD_NUM_IRQS)
		return;
	pthread_mutex_lock(&c->lock);
	k = &c->irqs[index];
	for (unsigned int i = start; i < k->nr && (count == 0 ||
	    i - start < count); i++) {
		vd__close(k->fds[i]);
		k->fds[i] = -1;
		if (count == 0)
			k->masked[i] = false;
	}
	pthread_mutex_unlock(&c->lock);
}

void
vd__client_mask_irqs(struct vd_client *c, enum vd_irq index,
    unsigned int start, unsigned int count, bool masked)
{
	struct vd__kept_irqs *k;

	if (index >= VD_NUM_IRQS || count > VD__MAX_IRQS ||
	    start > VD__MAX_IRQS)
		return;
	pthread_mutex_lock(&c->lock);
	k = &c->irqs[index];
	if (c->identity != NULL && irqs_room(k, start + count))
		for (unsigned int i = start; i < start + count; i++)
			k->masked[i] = masked;
	pthread_mutex_unlock(&c->lock);
}

/* Connect and mask again what was so; nobody else is in the way. */
static int
restore_irqs(struct vd_client *c, enum vd_irq index, const int *fds,
    const bool *masked, unsigned int nr)
{
	unsigned int i, n;

	for (i = 0; i < nr; i += n) {
		for (n = 0; i + n < nr && fds[i + n] != -1; n++)
			continue;
		if (n > 0 && vd_client_set_eventfds(c, index, i, n,
		    fds + i) == -1)
			return (-1);
		n += n == 0;
	}
	for (i = 0; i < nr; i++)
		if (masked[i] && vd_client_set_irqs(c, index, i, 1,
		    VD_IRQ_ACT_MASK) == -1)
			return (-1);
	return (0);
}

/* --- who the device is --------------------------------------------------- */

/*
 * What stays is put into *id; regions, unless NULL, gets what may be mapped
 * now, and its fds are the caller's, also after an error.
 */
static int
identify(struct vd_client *c, struct vd__identity *id,
    struct vd_client_region *regions)
{
	static const uint32_t places[NR_IDS] = { PCI_IDS, PCI_CLASS,
	    PCI_SUBSYSTEM };
	struct vd_client_region r;
	struct vd_irq_info irq;

	memset(id, 0, sizeof(*id));
	if (vd_client_device_info(c, &id->info) == -1)
		return (-1);
	for (unsigned int i = 0; i < VD_NUM_REGIONS &&
	    i < id->info.num_regions; i++) {
		if (vd_client_region_info(c, i, &r) == -1)
			return (-1);
		id->regions[i].size = r.size;
		id->regions[i].flags = r.flags &
		    (VD_REGION_READABLE | VD_REGION_WRITABLE);
		if (regions != NULL)
			regions[i] = r;
		else
			vd__close(r.fd);
	}
	for (unsigned int i = 0; i < VD_NUM_IRQS && i < id->info.num_irqs;
	    i++) {
		if (vd_client_irq_info(c, (enum vd_irq)i, &irq) == 0)
			id->irqs[i] = irq.count;
		else if (vd_client_check(c) == -1 || errno == ETIMEDOUT)
			return (-1);
	}
	if ((id->info.flags & VD_DEVICE_PCI) == 0 ||
	    id->regions[VD_REGION_CONFIG].size < VD__PCI_ROM)
		return (0);
	for (unsigned int i = 0; i < NR_IDS; i++)
		if (vd_client_read(c, VD_REGION_CONFIG, places[i],
		    &id->ids[i], sizeof(id->ids[i])) == -1)
			return (-1);
	return (0);
}

static bool
same(const struct vd__identity *a, const struct vd__identity *b)
{
	if (a->info.flags != b->info.flags ||
	    a->info.num_regions != b->info.num_regions ||
	    a->info.num_irqs != b->info.num_irqs ||
	    memcmp(a->ids, b->ids, sizeof(a->ids)) != 0 ||
	    memcmp(a->irqs, b->irqs, sizeof(a->irqs)) != 0)
		return (false);
	for (unsigned int i = 0; i < VD_NUM_REGIONS; i++)
		if (a->regions[i].size != b->regions[i].size ||
		    a->regions[i].flags != b->regions[i].flags)
			return (false);
	return (true);
}

int
vd_client_set_lost(struct vd_client *c, void (*fn)(void *arg, int error),
    void *arg)
{
	struct vd__identity *id;

	if ((id = calloc(1, sizeof(*id))) == NULL)
		return (-1);
	if (identify(c, id, NULL) == -1) {
		free(id);
		return (-1);
	}
	pthread_mutex_lock(&c->lock);
	free(c->identity);
	c->identity = id;
	c->lost_fn = fn;
	c->lost_arg = arg;
	pthread_mutex_unlock(&c->lock);
	return (0);
}

/* --- connecting again ---------------------------------------------------- */

/*
 * A connection to what is the same device, as a client of its own.  Memory that
 * was given by hand it has; to give that needs no transaction, and who shows
 * some in the same place by a space came second before, too.
 */
static struct vd_client *
connect_again(struct vd_client *c, int fd, struct vd_client_region *regions)
{
	const struct vd_client_options o = { .no_twin = c->no_twin,
	    .timeout_ms = c->timeout_ms, .force_queue = c->force_queue,
	    .dma = atomic_load(&c->serve.space) };
	struct vd_client *fresh = NULL;
	struct vd__identity id;
	int saved, copy;

	if (c->identity == NULL || (fd == -1 && c->path == NULL)) {
		errno = EINVAL;
		return (NULL);
	}
	/* A server may have room for one client only. */
	hang_up(c);
	if (fd == -1)
		fresh = vd_client_connect_with(c->path, &o);
	else if ((copy = fcntl(fd, F_DUPFD_CLOEXEC, 0)) != -1 &&
	    (fresh = vd_client_attach_with(copy, &o)) == NULL)
		vd__close(copy);
	if (fresh == NULL)
		return (NULL);
	if (identify(fresh, &id, regions) == 0) {
		if (!same(&id, c->identity))
			errno = ENODEV;
		else if (vd__client_give_maps(c, fresh) == 0)
			return (fresh);
	}
	saved = errno;
	vd_client_destroy(fresh);
	errno = saved;
	return (NULL);
}

/* In a transaction, if c has a topology; ends it in any case. */
static int
restore(struct vd_client *c, const struct vd_client_region *regions)
{
	int rv = 0, saved;

	for (unsigned int i = 0; i < VD_NUM_IRQS && rv == 0; i++)
		rv = restore_irqs(c, (enum vd_irq)i, c->irqs[i].fds,
		    c->irqs[i].masked, c->irqs[i].nr);
	if (rv == 0)
		rv = vd__client_dma_restore(c);
	if (c->topology == NULL)
		return (rv);
	if (rv == 0)
		return (vd__client_remap(c, regions));
	saved = errno;
	(void)mt_topology_commit(c->topology);
	errno = saved;
	return (-1);
}

/* From here on losses are told again. */
static int
back(struct vd_client *c)
{
	if (vd__client_enter(c) == -1)
		return (-1);
	if (vd__conn_fd(c->conn) == -1) {
		errno = ENOTCONN;
		return (vd__client_leave(c, -1));
	}
	pthread_mutex_lock(&c->lock);
	c->lost = false;
	pthread_mutex_unlock(&c->lock);
	return (vd__client_leave(c, 0));
}

int
vd_client_reconnect(struct vd_client *c, int fd)
{
	struct vd_client_region regions[VD_NUM_REGIONS];
	struct vd_client *fresh;
	int rv = -1, saved;

	for (unsigned int i = 0; i < VD_NUM_REGIONS; i++)
		regions[i] = (struct vd_client_region){ .fd = -1 };
	fresh = connect_again(c, fd, regions);
	if (fresh != NULL) {
		/*
		 * Not under the writer lock, as a callback that is served may
		 * want it; and nobody enters before we have that.
		 */
		vd__client_take(c, fresh);
		vd_client_destroy(fresh);
		rv = c->topology != NULL ? mt_topology_begin(c->topology) : 0;
		atomic_store(&c->replacing, false);
		/* Until all is restored its loss is ours to tell. */
		if (rv == 0)
			rv = restore(c, regions);
		if (rv == 0)
			rv = back(c);
		saved = errno;
		if (rv == -1)
			hang_up(c);
		errno = saved;
	}
	for (unsigned int i = 0; i < VD_NUM_REGIONS; i++)
		vd__close(regions[i].fd);
	if (rv == 0 && fd != -1)
		close(fd);
	return (rv);
}
