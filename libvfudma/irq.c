/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <sys/stat.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libmemtree/memtree.h>

#include "libvfudma/internal.h"

/*
 * What a vector goes through: the device triggers it; if the guest has not
 * enabled its kind it is dropped; if it is masked it becomes pending, until
 * it is unmasked; else its eventfd is signalled.
 *
 * Three hands mask: the guest by config space (all of MSI-X, single vectors
 * of MSI), the guest by the MSI-X table, and the client by SET_IRQS.  The
 * table needs care.  A client may let the guest's writes to it through to us,
 * and then its mask bits count.  But most (QEMU among them) emulate it: ours
 * then stays as a reset left it, with every vector masked, and what the guest
 * wants is told by connecting eventfds.  So an entry masks its vector only
 * once it has been written since the reset.
 *
 * Whether MSI or MSI-X is enabled is taken from config space alone.  A client
 * that connects eventfds and never sets the enable bit, as a driver without
 * an operating system might, gets none: vd_irq_mode() stays VD_IRQ_INTX.
 *
 * The INTx pin is a level.  When an eventfd has been signalled for it the
 * interrupt masks itself, until the client, having had the guest's end of
 * interrupt, unmasks it; if the pin is still high then, it signals again.  A
 * device that has MSI or MSI-X enabled may not use its pin.
 */

#define MAX_MSI		32u
#define ENTRY_SIZE	16u		/* of the MSI-X table */
#define ENTRY_CTRL	12u		/* vector control, in it */
#define ENTRY_MASKED	0x01u

struct vector {
	int fd;				/* -1: not connected */
	bool masked;			/* by the client, or INTx by itself */
	bool pending;			/* triggered while masked */
	bool written;			/* entry has been, since the reset */
	uint8_t entry[ENTRY_SIZE];	/* MSI-X: of the table */
};

struct index {
	unsigned int count;		/* of vectors that the client sees */
	unsigned int room;		/* of vectors that there are */
	struct vector *vectors;
};

/*
 * [a] atomic	[m] lock, a leaf: nothing else is taken or called under it
 */
struct vd__irqs {
	atomic_uint refs;		/* [a] the server, and both regions */
	pthread_mutex_t lock;
	struct vd__notifier notifier;	/* [m] open if a vector has an fd */
	struct index index[VD_NUM_IRQS];	/* [m] */
	struct vector few[MAX_MSI + 3];	/* [m] those of all but MSI-X */
	bool pin;			/* [m] high */
	/* What config space says. */
	bool no_intx;			/* [m] */
	bool msi_on;			/* [m] */
	unsigned int msi_used;		/* [m] vectors the guest allows */
	uint32_t msi_masks;		/* [m] */
	bool msix_on;			/* [m] */
	bool msix_masked;		/* [m] all of it */
};

/* --- life ---------------------------------------------------------------- */

static void
vectors_init(struct index *x, struct vector *v, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		memset(&v[i], 0, sizeof(v[i]));
		v[i].fd = -1;
		v[i].entry[ENTRY_CTRL] = ENTRY_MASKED;
	}
	x->vectors = n > 0 ? v : NULL;
	x->room = n;
}

int
vd__irq_init(struct vd_server *s)
{
	static const unsigned int room[VD_NUM_IRQS] = {
		[VD_IRQ_INTX] = 1, [VD_IRQ_MSI] = MAX_MSI,
		[VD_IRQ_ERR] = 1, [VD_IRQ_REQ] = 1,
	};
	struct vd__irqs *q;
	struct vector *v;
	unsigned int i;
	int error;

	q = calloc(1, sizeof(*q));
	if (q == NULL)
		return (-1);
	error = pthread_mutex_init(&q->lock, NULL);
	if (error != 0) {
		free(q);
		errno = error;
		return (-1);
	}
	atomic_init(&q->refs, 1);
	q->notifier.fd = -1;
	for (i = 0, v = q->few; i < VD_NUM_IRQS; v += room[i++])
		vectors_init(&q->index[i], v, room[i]);
	q->index[VD_IRQ_ERR].count = q->index[VD_IRQ_REQ].count = 1;
	s->irqs = q;
	return (0);
}

static void
irqs_put(void *arg)
{
	struct vd__irqs *q = arg;

	/*
	 * Release: what a callback did comes before the free.  Acquire: pairs
	 * with that of the others.
	 */
	if (atomic_fetch_sub_explicit(&q->refs, 1, memory_order_acq_rel) > 1)
		return;
	pthread_mutex_destroy(&q->lock);
	free(q->index[VD_IRQ_MSIX].vectors);
	free(q);
}

void
vd__irq_fini(struct vd_server *s)
{
	if (s->irqs == NULL)
		return;
	vd__irq_disconnect(s);
	/* What is left of the device's has no eventfd to signal. */
	pthread_mutex_lock(&s->irqs->lock);
	vd__notifier_close(&s->irqs->notifier);
	pthread_mutex_unlock(&s->irqs->lock);
	irqs_put(s->irqs);
	s->irqs = NULL;
}

/* --- signalling ---------------------------------------------------------- */

static void
signal_locked(struct vd__irqs *q, const struct vector *v)
{
	if (v->fd != -1)
		vd__notify(&q->notifier, v->fd);
}

static bool
enabled_locked(const struct vd__irqs *q, enum vd_irq index, unsigned int i)
{
	switch (index) {
	case VD_IRQ_MSIX:
		return (q->msix_on);
	case VD_IRQ_MSI:
		return (q->msi_on && !q->msix_on && i < q->msi_used);
	default:
		return (true);
	}
}

static bool
masked_locked(const struct vd__irqs *q, enum vd_irq index, unsigned int i)
{
	const struct vector *v = &q->index[index].vectors[i];

	if (v->masked)
		return (true);
	if (index == VD_IRQ_MSI)
		return ((q->msi_masks >> i & 1) != 0);
	return (index == VD_IRQ_MSIX && (q->msix_masked ||
	    (v->written && (v->entry[ENTRY_CTRL] & ENTRY_MASKED) != 0)));
}

/* Signal a pending vector of MSI or MSI-X if nothing keeps it any more. */
static void
settle_locked(struct vd__irqs *q, enum vd_irq index, unsigned int i)
{
	struct vector *v = &q->index[index].vectors[i];

	if (!v->pending || v->fd == -1 || !enabled_locked(q, index, i) ||
	    masked_locked(q, index, i))
		return;
	v->pending = false;
	signal_locked(q, v);
}

/* The same for the pin. */
static void
settle_intx_locked(struct vd__irqs *q)
{
	struct vector *v = &q->index[VD_IRQ_INTX].vectors[0];

	if (!q->pin || v->masked || v->fd == -1 || q->no_intx ||
	    q->msi_on || q->msix_on)
		return;
	v->masked = true;
	signal_locked(q, v);
}

static void
settle_all_locked(struct vd__irqs *q)
{
	unsigned int i;

	for (i = 0; i < q->index[VD_IRQ_MSI].count; i++)
		settle_locked(q, VD_IRQ_MSI, i);
	for (i = 0; i < q->index[VD_IRQ_MSIX].count; i++)
		settle_locked(q, VD_IRQ_MSIX, i);
	settle_intx_locked(q);
}

/* --- the device's side --------------------------------------------------- */

enum vd_irq
vd_irq_mode(struct vd_server *s)
{
	struct vd__irqs *q = s->irqs;
	enum vd_irq mode;

	pthread_mutex_lock(&q->lock);
	mode = q->msix_on ? VD_IRQ_MSIX : q->msi_on ? VD_IRQ_MSI : VD_IRQ_INTX;
	pthread_mutex_unlock(&q->lock);
	return (mode);
}

int
vd_irq_trigger(struct vd_server *s, enum vd_irq index, unsigned int vector)
{
	struct vd__irqs *q = s->irqs;
	int ret = 0;

	if ((unsigned int)index >= VD_NUM_IRQS || index == VD_IRQ_INTX) {
		errno = EINVAL;
		return (-1);
	}
	pthread_mutex_lock(&q->lock);
	if (vector >= q->index[index].count)
		ret = -1;
	else if (!enabled_locked(q, index, vector))
		;
	else if (masked_locked(q, index, vector))
		q->index[index].vectors[vector].pending = true;
	else
		signal_locked(q, &q->index[index].vectors[vector]);
	pthread_mutex_unlock(&q->lock);
	if (ret == -1)
		errno = EINVAL;
	return (ret);
}

int
vd_irq_set_intx(struct vd_server *s, bool high)
{
	struct vd__irqs *q = s->irqs;
	int ret = 0;

	pthread_mutex_lock(&q->lock);
	if (q->index[VD_IRQ_INTX].count == 0) {
		ret = -1;
	} else {
		q->pin = high;
		settle_intx_locked(q);
	}
	pthread_mutex_unlock(&q->lock);
	if (ret == -1)
		errno = EINVAL;
	return (ret);
}

/* --- config space and reset ---------------------------------------------- */

static void
forget_pending_locked(struct index *x)
{
	unsigned int i;

	for (i = 0; i < x->room; i++)
		x->vectors[i].pending = false;
}

void
vd__irq_config(struct vd_server *s)
{
	const struct vd__pci *p = &s->pci;
	struct vd__irqs *q = s->irqs;
	uint32_t command, msi = 0, msix = 0, masks = 0;
	unsigned int used;

	command = vd__pci_field(p->config + VD__PCI_COMMAND, 2);
	if (p->msi_cap != 0) {
		msi = vd__pci_field(p->config + p->msi_cap + VD__MSI_CTRL, 2);
		masks = vd__pci_field(p->config + p->msi_cap + VD__MSI_MASK,
		    4);
	}
	if (p->msix_cap != 0)
		msix = vd__pci_field(p->config + p->msix_cap + VD__MSIX_CTRL,
		    2);
	/* The guest may name more vectors than there are. */
	used = 1u << (msi >> 4 & 7);
	if (used > p->msi_vectors)
		used = p->msi_vectors;

	pthread_mutex_lock(&q->lock);
	q->index[VD_IRQ_INTX].count = p->config[VD__PCI_PIN] != 0 ? 1 : 0;
	q->index[VD_IRQ_MSI].count = p->msi_vectors;
	q->index[VD_IRQ_MSIX].count = p->msix_cap != 0 ? p->msix_vectors : 0;
	q->no_intx = (command & VD__PCI_CMD_NO_INTX) != 0;
	q->msi_on = (msi & VD__MSI_ENABLE) != 0;
	q->msi_used = used;
	q->msi_masks = masks;
	q->msix_on = (msix & VD__MSIX_ENABLE) != 0;
	q->msix_masked = (msix & VD__MSIX_MASK_ALL) != 0;
	/* What could not be sent before the guest turned it off is gone. */
	if (!q->msi_on)
		forget_pending_locked(&q->index[VD_IRQ_MSI]);
	if (!q->msix_on)
		forget_pending_locked(&q->index[VD_IRQ_MSIX]);
	settle_all_locked(q);
	pthread_mutex_unlock(&q->lock);
}

/* Eventfds stay: they belong to the client, not to the device's state. */
void
vd__irq_reset(struct vd_server *s)
{
	struct vd__irqs *q = s->irqs;
	struct vector *v;
	unsigned int i, n;

	pthread_mutex_lock(&q->lock);
	q->pin = false;
	for (n = 0; n < VD_NUM_IRQS; n++) {
		for (i = 0; i < q->index[n].room; i++) {
			v = &q->index[n].vectors[i];
			v->masked = v->pending = v->written = false;
			memset(v->entry, 0, sizeof(v->entry));
			v->entry[ENTRY_CTRL] = ENTRY_MASKED;
		}
	}
	pthread_mutex_unlock(&q->lock);
}

/* Disconnect vectors [start, start + count). */
static void
detach_locked(struct index *x, unsigned int start, unsigned int count)
{
	unsigned int i;

	for (i = start; i < start + count; i++) {
		vd__close(x->vectors[i].fd);
		x->vectors[i].fd = -1;
	}
}

void
vd__irq_disconnect(struct vd_server *s)
{
	struct vd__irqs *q = s->irqs;
	unsigned int n, i;

	pthread_mutex_lock(&q->lock);
	for (n = 0; n < VD_NUM_IRQS; n++) {
		detach_locked(&q->index[n], 0, q->index[n].room);
		for (i = 0; i < q->index[n].room; i++)
			q->index[n].vectors[i].masked = false;
	}
	pthread_mutex_unlock(&q->lock);
}

bool
vd__irq_pin(const struct vd_server *s)
{
	bool high;

	pthread_mutex_lock(&s->irqs->lock);
	high = s->irqs->pin;
	pthread_mutex_unlock(&s->irqs->lock);
	return (high);
}

uint32_t
vd__irq_msi_pending(const struct vd_server *s)
{
	const struct index *x = &s->irqs->index[VD_IRQ_MSI];
	uint32_t bits = 0;
	unsigned int i;

	pthread_mutex_lock(&s->irqs->lock);
	for (i = 0; i < x->count; i++)
		bits |= (uint32_t)x->vectors[i].pending << i;
	pthread_mutex_unlock(&s->irqs->lock);
	return (bits);
}

/* --- the client's side --------------------------------------------------- */

unsigned int
vd__irq_count(const struct vd_server *s, enum vd_irq index)
{
	unsigned int count = 0;

	pthread_mutex_lock(&s->irqs->lock);
	if ((unsigned int)index < VD_NUM_IRQS)
		count = s->irqs->index[index].count;
	pthread_mutex_unlock(&s->irqs->lock);
	return (count);
}

/*
 * NORESIZE is never said: vectors of MSI and MSI-X may be connected one by
 * one while others are in use, which spares the client a disable and enable
 * of all of them, and with it interrupts that get lost meanwhile.
 */
int
vd__irq_info(const struct vd_server *s, struct vd_irq_info *info)
{
	if (info->index >= VD_NUM_IRQS)
		return (EINVAL);
	info->count = vd__irq_count(s, (enum vd_irq)info->index);
	info->flags = VD_IRQ_INFO_EVENTFD;
	if (info->index == VD_IRQ_INTX)
		info->flags |= VD_IRQ_INFO_MASKABLE | VD_IRQ_INFO_AUTOMASKED;
	return (0);
}

/*
 * Anything that can be polled and written may come as an "eventfd"; a full
 * pipe or our own socket would be trouble.  The kernel tells what it is in
 * /proc.  Without that, take what has no type, as no file, pipe, socket or
 * device does: what else that may be (an epoll or timer) refuses to be
 * written, which hurts nobody.
 */
static bool
is_eventfd(int fd)
{
	static const char want[] = "anon_inode:[eventfd]";
	char path[32], link[sizeof(want)];
	struct stat st;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link));
	if (n != -1)
		return ((size_t)n == sizeof(want) - 1 &&
		    memcmp(link, want, (size_t)n) == 0);
	return (fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == 0);
}

/* Check what does not depend on the device: flags and lengths. */
static int
check_set(const struct vd_irq_set *set, size_t len, const int *fds,
    size_t nfds)
{
	uint32_t data = set->flags & VD_IRQ_DATA_MASK;
	uint32_t action = set->flags & VD_IRQ_ACTION_MASK;
	size_t i;

	if (set->argsz < sizeof(*set) || set->index >= VD_NUM_IRQS ||
	    (set->flags & ~(VD_IRQ_DATA_MASK | VD_IRQ_ACTION_MASK)) != 0)
		return (EINVAL);
	/* Exactly one bit of each. */
	if (data == 0 || (data & (data - 1)) != 0 ||
	    action == 0 || (action & (action - 1)) != 0)
		return (EINVAL);
	if (nfds != 0 && (data != VD_IRQ_DATA_EVENTFD || nfds != set->count))
		return (EINVAL);
	if (data == VD_IRQ_DATA_BOOL && len != set->count)
		return (EINVAL);
	/* Errors and requests are events; there is nothing to mask. */
	if ((set->index == VD_IRQ_ERR || set->index == VD_IRQ_REQ) &&
	    action != VD_IRQ_ACT_TRIGGER)
		return (EINVAL);
	if (set->count == 0 && (data != VD_IRQ_DATA_NONE ||
	    action != VD_IRQ_ACT_TRIGGER || set->start != 0))
		return (EINVAL);
	/*
	 * To be masked by eventfd the server would have to wait for what the
	 * client signals.  QEMU asks for it where KVM could unmask INTx
	 * without it, and does without if it is refused.
	 */
	if (nfds != 0 && action != VD_IRQ_ACT_TRIGGER)
		return (ENOTSUP);
	for (i = 0; i < nfds; i++)
		if (!is_eventfd(fds[i]))
			return (EINVAL);
	return (0);
}

/* Connect fds to the vectors from start on, or disconnect those. */
static void
attach_locked(struct vd__irqs *q, const struct vd_irq_set *set, int *fds,
    size_t nfds)
{
	struct index *x = &q->index[set->index];
	size_t i;

	detach_locked(x, set->start, set->count);
	/* Its mask told of a signal that nobody is going to answer now. */
	if (set->index == VD_IRQ_INTX && nfds == 0)
		x->vectors[0].masked = false;
	if (nfds > 0)
		vd__notifier_open(&q->notifier);
	for (i = 0; i < nfds; i++) {
		x->vectors[set->start + i].fd = fds[i];
		fds[i] = -1;
	}
}

/* Mask, unmask or signal those vectors that the data selects. */
static void
act_locked(struct vd__irqs *q, const struct vd_irq_set *set,
    const uint8_t *data)
{
	struct vector *v = &q->index[set->index].vectors[set->start];
	unsigned int i;

	for (i = 0; i < set->count; i++, v++) {
		if ((set->flags & VD_IRQ_DATA_BOOL) && data[i] == 0)
			continue;
		if (set->flags & VD_IRQ_ACT_MASK)
			v->masked = true;
		else if (set->flags & VD_IRQ_ACT_UNMASK)
			v->masked = false;
		else	/* a test of the way to the client, masked or not */
			signal_locked(q, v);
	}
}

int
vd__irq_set(struct vd_server *s, const struct vd_irq_set *set,
    const uint8_t *data, size_t len, int *fds, size_t nfds)
{
	struct vd__irqs *q = s->irqs;
	struct index *x;
	unsigned int i;
	int error;

	error = check_set(set, len, fds, nfds);
	if (error != 0)
		return (error);
	x = &q->index[set->index];
	pthread_mutex_lock(&q->lock);
	if (set->start > x->count || set->count > x->count - set->start) {
		error = EINVAL;
	} else if (set->count == 0) {
		/* Off, as if never used; also where there is none. */
		detach_locked(x, 0, x->count);
		for (i = 0; i < x->count; i++)
			x->vectors[i].masked = false;
	} else if ((set->flags & VD_IRQ_DATA_EVENTFD) == 0) {
		act_locked(q, set, data);
	} else if (set->flags & VD_IRQ_ACT_TRIGGER) {
		attach_locked(q, set, fds, nfds);
	}
	/* What was masked or not connected may be neither any more. */
	if (error == 0 && set->index == VD_IRQ_INTX)
		settle_intx_locked(q);
	else if (error == 0 && set->index <= VD_IRQ_MSIX)
		for (i = 0; i < set->count; i++)
			settle_locked(q, (enum vd_irq)set->index,
			    set->start + i);
	pthread_mutex_unlock(&q->lock);
	return (error);
}

/* --- the MSI-X table and pending bits ------------------------------------ */

/*
 * Both are bytes: real guests use aligned words of 4 or 8, but any access
 * that stays inside has a meaning.  The regions may outlive the server, in
 * the views of its BARs.
 */
static enum mt_result
table_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct vd__irqs *q = arg;
	const struct index *x = &q->index[VD_IRQ_MSIX];
	enum mt_result res = MT_OK;
	unsigned int i;

	(void)attrs;
	*val = 0;
	pthread_mutex_lock(&q->lock);
	if (off + size > (mt_addr)x->count * ENTRY_SIZE)
		res = MT_DECODE;
	else
		for (i = 0; i < size; i++, off++)
			*val |= (uint64_t)x->vectors[off / ENTRY_SIZE].
			    entry[off % ENTRY_SIZE] << 8 * i;
	pthread_mutex_unlock(&q->lock);
	return (res);
}

static enum mt_result
table_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct vd__irqs *q = arg;
	struct index *x = &q->index[VD_IRQ_MSIX];
	enum mt_result res = MT_OK;
	mt_addr at, end = off + size;
	struct vector *v;
	unsigned int byte;

	(void)attrs;
	pthread_mutex_lock(&q->lock);
	if (end > (mt_addr)x->count * ENTRY_SIZE) {
		res = MT_DECODE;
		end = off;
	}
	for (at = off; at < end; at++, val >>= 8) {
		v = &x->vectors[at / ENTRY_SIZE];
		byte = at % ENTRY_SIZE;
		v->written = true;
		if (byte == 0)			/* of a 4-byte address */
			v->entry[byte] = (uint8_t)(val & ~3u);
		else if (byte < ENTRY_CTRL)
			v->entry[byte] = (uint8_t)val;
		else if (byte == ENTRY_CTRL)
			v->entry[byte] = (uint8_t)(val & ENTRY_MASKED);
	}
	for (at = off; at < end; at = (at / ENTRY_SIZE + 1) * ENTRY_SIZE)
		settle_locked(q, VD_IRQ_MSIX,
		    (unsigned int)(at / ENTRY_SIZE));
	pthread_mutex_unlock(&q->lock);
	return (res);
}

static enum mt_result
pba_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct vd__irqs *q = arg;
	const struct index *x = &q->index[VD_IRQ_MSIX];
	unsigned int bit;
	mt_addr i;

	(void)attrs;
	*val = 0;
	pthread_mutex_lock(&q->lock);
	for (bit = 0, i = off * 8; bit < size * 8 && i < x->count; bit++, i++)
		*val |= (uint64_t)x->vectors[i].pending << bit;
	pthread_mutex_unlock(&q->lock);
	return (MT_OK);
}

/* A guest may not write here; one that does is not worth an error. */
static enum mt_result
pba_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	(void)arg;
	(void)off;
	(void)size;
	(void)val;
	(void)attrs;
	return (MT_OK);
}

static const struct mt_io_ops table_ops = {
	.read = table_read,
	.write = table_write,
	.endian = MT_LITTLE,
	.valid = { .min = 1, .max = 8, .unaligned = true },
	.impl = { .min = 1, .max = 8, .unaligned = true },
};

static const struct mt_io_ops pba_ops = {
	.read = pba_read,
	.write = pba_write,
	.endian = MT_LITTLE,
	.valid = { .min = 1, .max = 8, .unaligned = true },
	.impl = { .min = 1, .max = 8, .unaligned = true },
};

/* An I/O region that keeps q. */
static struct mt_region *
create_region(struct vd_server *s, const char *name, uint64_t size,
    const struct mt_io_ops *ops)
{
	struct mt_region *r;
	int error;

	r = mt_region_create_io(s->topology, name, MT_SIZE(size), ops,
	    s->irqs);
	if (r == NULL)
		return (NULL);
	/* Relaxed: whoever takes a reference has one. */
	atomic_fetch_add_explicit(&s->irqs->refs, 1, memory_order_relaxed);
	if (mt_region_set_owner(r, s->irqs, irqs_put) == -1) {
		error = errno;
		irqs_put(s->irqs);
		mt_region_put(r);
		errno = error;
		return (NULL);
	}
	return (r);
}

int
vd__irq_msix_regions(struct vd_server *s, unsigned int vectors,
    struct mt_region **table, struct mt_region **pba)
{
	struct vd__irqs *q = s->irqs;
	struct index *x = &q->index[VD_IRQ_MSIX];
	struct vector *v, *old;
	int error;

	v = calloc(vectors, sizeof(*v));
	if (v == NULL)
		return (-1);
	/* There are some already if it failed later, the last time. */
	pthread_mutex_lock(&q->lock);
	old = x->vectors;
	vectors_init(x, v, vectors);
	pthread_mutex_unlock(&q->lock);
	free(old);

	*table = create_region(s, "msix-table",
	    (uint64_t)vectors * ENTRY_SIZE, &table_ops);
	if (*table == NULL)
		return (-1);
	*pba = create_region(s, "msix-pba",
	    ((uint64_t)vectors + 63) / 64 * 8, &pba_ops);
	if (*pba == NULL) {
		error = errno;
		mt_region_put(*table);
		errno = error;
		return (-1);
	}
	return (0);
}
