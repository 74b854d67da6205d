/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Who is told when the tables of an IOMMU change.
 *
 * Notifiers are called with no lock held, and may be taken out meanwhile, by
 * themselves or by others.  So each walk over them is known by a struct on the
 * stack of who walks: taking one out moves the walks that would come to it
 * next on to the one behind it, and waits for those that are in it.
 */

#include <errno.h>
#include <stdlib.h>

#include "internal.h"

struct mt__telling {
	struct mt__telling *next;	/* lock */
	struct mt_iommu_notifier *now;	/* lock; whose fn runs */
	struct mt_iommu_notifier *then;	/* lock; whose turn is next */
	pthread_t thread;
	bool gone;			/* lock; now was unregistered */
};

/* A replay: a walk over a single notifier. */
struct mt_iommu_sink {
	struct mt__iommu *io;
	struct mt__telling telling;
};

struct mt__iommu *
mt__iommu_create(const struct mt_iommu_ops *ops)
{
	pthread_mutexattr_t attr;
	struct mt__iommu *io;

	if ((io = calloc(1, sizeof(*io))) == NULL)
		return (NULL);
	io->ops = ops;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&io->change_lock, &attr);
	pthread_mutexattr_destroy(&attr);
	pthread_mutex_init(&io->lock, NULL);
	pthread_cond_init(&io->idle, NULL);
	return (io);
}

void
mt__iommu_free(struct mt__iommu *io)
{
	if (io == NULL)
		return;
	pthread_cond_destroy(&io->idle);
	pthread_mutex_destroy(&io->lock);
	pthread_mutex_destroy(&io->change_lock);
	free(io);
}

/* --- who is told --------------------------------------------------------- */

static int
change_begin(struct mt__iommu *io)
{
	int error = pthread_mutex_lock(&io->change_lock);

	if (error != 0) {
		errno = error;
		return (-1);
	}
	return (0);
}

static int
change_end(struct mt__iommu *io, int error)
{
	pthread_mutex_unlock(&io->change_lock);
	if (error != 0) {
		errno = error;
		return (-1);
	}
	return (0);
}

/* May the events that are wanted be these from now on? */
static int
change_events(const struct mt_region *r, unsigned int events)
{
	struct mt__iommu *io = mt__iommu_of(r);

	if (events != io->events && io->ops->notify_changed != NULL &&
	    io->ops->notify_changed(r->arg, io->events, events) == -1)
		return (errno);
	io->events = events;
	return (0);
}

static bool
registered(struct mt__iommu *io, const struct mt_region *r,
    const struct mt_iommu_notifier *n)
{
	bool is;

	pthread_mutex_lock(&io->lock);
	is = n->region == r;
	pthread_mutex_unlock(&io->lock);
	return (is);
}

int
mt_iommu_register(struct mt_region *r, struct mt_iommu_notifier *n)
{
	const unsigned int all = MT_IOMMU_MAP | MT_IOMMU_UNMAP |
	    MT_IOMMU_DEVTLB_UNMAP;
	struct mt__iommu *io = mt__iommu_of(r);
	int error;

	if (io == NULL || n->fn == NULL || n->events == 0 ||
	    (n->events & ~all) != 0 || n->range.first > n->range.last) {
		errno = EINVAL;
		return (-1);
	}
	if (n->region != NULL) {
		errno = EBUSY;
		return (-1);
	}
	n->index = io->ops->index != NULL ?
	    io->ops->index(r->arg, n->attrs) : 0;
	/* Takes the writer lock, which comes first. */
	n->last = mt_region_last(r);
	if (change_begin(io) == -1)
		return (-1);
	if ((error = change_events(r, io->events | n->events)) != 0)
		return (change_end(io, error));
	pthread_mutex_lock(&io->lock);
	n->region = mt_region_get(r);
	n->prev = NULL;
	n->next = io->notifiers;
	if (n->next != NULL)
		n->next->prev = n;
	io->notifiers = n;
	pthread_mutex_unlock(&io->lock);
	return (change_end(io, 0));
}

/* Take n out of the list and out of the way of walks: what others want. */
static unsigned int
unlink_notifier(struct mt__iommu *io, struct mt_iommu_notifier *n)
{
	struct mt__telling *t;
	struct mt_iommu_notifier *other;
	unsigned int events = 0;

	pthread_mutex_lock(&io->lock);
	for (t = io->tellings; t != NULL; t = t->next) {
		if (t->then == n)
			t->then = n->next;
		if (t->now == n)
			t->gone = true;
	}
	if (n->prev != NULL)
		n->prev->next = n->next;
	else
		io->notifiers = n->next;
	if (n->next != NULL)
		n->next->prev = n->prev;
	n->next = n->prev = NULL;
	n->region = NULL;
	for (other = io->notifiers; other != NULL; other = other->next)
		events |= other->events;
	pthread_mutex_unlock(&io->lock);
	return (events);
}

/* Is n being told of something, by another thread? */
static bool
told_elsewhere(const struct mt__iommu *io, const struct mt_iommu_notifier *n)
{
	const struct mt__telling *t;

	for (t = io->tellings; t != NULL; t = t->next)
		if (t->now == n && !pthread_equal(t->thread, pthread_self()))
			return (true);
	return (false);
}

int
mt_iommu_unregister(struct mt_region *r, struct mt_iommu_notifier *n)
{
	struct mt__iommu *io = mt__iommu_of(r);

	if (io == NULL) {
		errno = EINVAL;
		return (-1);
	}
	if (change_begin(io) == -1)
		return (-1);
	if (!registered(io, r, n))
		return (change_end(io, ENOENT));
	/* What is wanted less cannot be refused. */
	(void)change_events(r, unlink_notifier(io, n));
	(void)change_end(io, 0);
	pthread_mutex_lock(&io->lock);
	while (told_elsewhere(io, n))
		pthread_cond_wait(&io->idle, &io->lock);
	pthread_mutex_unlock(&io->lock);
	mt_region_put(r);
	return (0);
}

/* --- telling ------------------------------------------------------------- */

static bool
event_ok(const struct mt_iommu_event *ev)
{
	if (ev->range.first > ev->range.last)
		return (false);
	switch (ev->type) {
	case MT_IOMMU_MAP:
		return (ev->target != NULL && ev->perm != 0 &&
		    ev->range.last - ev->range.first <=
		    MT_LAST_MAX - ev->addr);
	case MT_IOMMU_UNMAP:
	case MT_IOMMU_DEVTLB_UNMAP:
		return (ev->perm == 0);
	}
	return (false);
}

/* What of an event a notifier wants to hear, if anything. */
static bool
clip(const struct mt_iommu_notifier *n, const struct mt_iommu_event *ev,
    struct mt_iommu_event *part)
{
	if ((n->events & ev->type) == 0 || n->index != ev->index ||
	    ev->range.last < n->range.first || ev->range.first > n->range.last)
		return (false);
	*part = *ev;
	if (part->range.first < n->range.first) {
		part->addr += n->range.first - part->range.first;
		part->range.first = n->range.first;
	}
	if (part->range.last > n->range.last)
		part->range.last = n->range.last;
	return (true);
}

static void
telling_begin_locked(struct mt__iommu *io, struct mt__telling *t)
{
	t->next = io->tellings;
	io->tellings = t;
}

static void
telling_end_locked(struct mt__iommu *io, struct mt__telling *t)
{
	struct mt__telling **pp;

	for (pp = &io->tellings; *pp != t; pp = &(*pp)->next)
		;
	*pp = t->next;
	pthread_cond_broadcast(&io->idle);
}

/* Call a notifier that cannot go meanwhile, but for by its own hand. */
static void
call_locked(struct mt__iommu *io, struct mt_iommu_notifier *n,
    const struct mt_iommu_event *ev)
{
	void (*fn)(void *, const struct mt_iommu_event *) = n->fn;
	void *arg = n->arg;

	pthread_mutex_unlock(&io->lock);
	fn(arg, ev);			/* may free n */
	pthread_mutex_lock(&io->lock);
}

int
mt_iommu_notify(struct mt_region *r, const struct mt_iommu_event *ev)
{
	struct mt__telling t = { .thread = pthread_self() };
	struct mt__iommu *io = mt__iommu_of(r);
	struct mt_iommu_notifier *n;
	struct mt_iommu_event part;

	if (io == NULL || !event_ok(ev)) {
		errno = EINVAL;
		return (-1);
	}
	pthread_mutex_lock(&io->lock);
	telling_begin_locked(io, &t);
	for (n = io->notifiers; n != NULL; n = t.then) {
		t.then = n->next;
		if (!clip(n, ev, &part))
			continue;
		t.now = n;
		call_locked(io, n, &part);
		t.now = NULL;
		pthread_cond_broadcast(&io->idle);
	}
	telling_end_locked(io, &t);
	pthread_mutex_unlock(&io->lock);
	return (0);
}

/* --- replaying ----------------------------------------------------------- */

int
mt_iommu_send(struct mt_iommu_sink *sink, const struct mt_iommu_event *ev)
{
	struct mt__telling *t = &sink->telling;
	struct mt_iommu_event part;
	int error = 0;

	if (!event_ok(ev)) {
		errno = EINVAL;
		return (-1);
	}
	pthread_mutex_lock(&sink->io->lock);
	if (!t->gone && clip(t->now, ev, &part))
		call_locked(sink->io, t->now, &part);
	if (t->gone)
		error = ECANCELED;
	pthread_mutex_unlock(&sink->io->lock);
	if (error != 0) {
		errno = error;
		return (-1);
	}
	return (0);
}

/*
 * Look what is mapped, from window to window.  What is found is only good for
 * the section in which it was found.
 */
static void
replay(const struct mt_region *r, struct mt_range range, unsigned int index,
    struct mt_attrs attrs, struct mt_iommu_sink *sink)
{
	struct mt_iommu_event ev = { .type = MT_IOMMU_MAP, .index = index };
	struct mt_iotlb tlb;
	mt_addr at = range.first;
	int ret = 0;

	for (;;) {
		mt__read_begin(r->topology);
		if (mt__iommu_look(r, at, 0, MT_IOMMU_QUIET, attrs, &tlb) ==
		    MT_OK) {
			ev.range.first = at & ~tlb.mask;
			ev.range.last = at | tlb.mask;
			ev.target = tlb.target;
			ev.addr = tlb.addr & ~tlb.mask;
			ev.perm = tlb.perm;
			ret = mt_iommu_send(sink, &ev);
		}
		mt__read_end(r->topology);
		if (ret == -1 || (at | tlb.mask) >= range.last)
			return;
		at = (at | tlb.mask) + 1;
	}
}

int
mt_iommu_replay(struct mt_region *r, struct mt_iommu_notifier *n)
{
	struct mt_iommu_sink sink = { .io = mt__iommu_of(r),
	    .telling = { .now = n, .thread = pthread_self() } };
	struct mt__iommu *io = mt__iommu_of(r);
	struct mt_range range;
	struct mt_attrs attrs;
	unsigned int index;
	bool gone;

	if (io == NULL) {
		errno = EINVAL;
		return (-1);
	}
	pthread_mutex_lock(&io->lock);
	if (n->region != r) {
		pthread_mutex_unlock(&io->lock);
		errno = ENOENT;
		return (-1);
	}
	range = n->range;
	if (range.last > n->last)
		range.last = n->last;
	attrs = n->attrs;
	index = n->index;
	if ((n->events & MT_IOMMU_MAP) == 0 || range.first > range.last) {
		pthread_mutex_unlock(&io->lock);
		return (0);
	}
	telling_begin_locked(io, &sink.telling);
	pthread_mutex_unlock(&io->lock);
	if (io->ops->replay != NULL)
		io->ops->replay(r->arg, range, attrs, &sink);
	else
		replay(r, range, index, attrs, &sink);
	pthread_mutex_lock(&io->lock);
	gone = sink.telling.gone;
	telling_end_locked(io, &sink.telling);
	pthread_mutex_unlock(&io->lock);
	if (gone) {
		errno = ECANCELED;
		return (-1);
	}
	return (0);
}
