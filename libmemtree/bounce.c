/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The budget of bounce buffers of a space, and those who wait for some.
 *
 * No wake-up is lost.  A waiter (a) queues itself, raising nwaiters, then
 * (b) looks at bounce_used.  Who gives back (c) lowers bounce_used, then (d)
 * looks at nwaiters.  All four are sequentially consistent, so not both (b)
 * can miss (c) and (d) miss (a): one of the two sees that there is both
 * budget and somebody who waits, and calls.  Raising the limit is (c), too.
 * A waiter that queues from inside a callback leaves (b) to the loop that
 * called it, which looks whether anything was given meanwhile.
 */

#include <errno.h>
#include <stdlib.h>

#include "internal.h"

/* A call of a waiter that is under way, on the stack of who calls. */
struct mt__waking {
	struct mt__waking *next;
	const struct mt_waiter *w;
	pthread_t thread;
};

int
mt__bounce_init(struct mt_space *sp)
{
	atomic_init(&sp->bounce_limit, MT_BOUNCE_DEFAULT);
	pthread_mutex_init(&sp->wait_lock, NULL);
	pthread_cond_init(&sp->wait_idle, NULL);
	return (0);
}

void
mt__bounce_fini(struct mt_space *sp)
{
	pthread_cond_destroy(&sp->wait_idle);
	pthread_mutex_destroy(&sp->wait_lock);
}

bool
mt__bounce_idle(struct mt_space *sp)
{
	return (atomic_load(&sp->bounce_used) == 0 &&
	    atomic_load(&sp->nwaiters) == 0);
}

size_t
mt__bounce_take(struct mt_space *sp, size_t len)
{
	size_t used = atomic_load_explicit(&sp->bounce_used,
	    memory_order_relaxed);
	size_t limit, grant;

	do {
		limit = atomic_load_explicit(&sp->bounce_limit,
		    memory_order_relaxed);
		/* The limit may have been lowered below what is used. */
		grant = limit > used ? limit - used : 0;
		if (grant > len)
			grant = len;
		if (grant == 0)
			return (0);
	} while (!atomic_compare_exchange_weak_explicit(&sp->bounce_used,
	    &used, used + grant, memory_order_relaxed, memory_order_relaxed));
	return (grant);
}

/* Is there room for the first in the queue? */
static bool
room_for(struct mt_space *sp, size_t need)
{
	size_t limit = atomic_load(&sp->bounce_limit);
	size_t used = atomic_load(&sp->bounce_used);

	if (need > limit)
		need = limit;
	if (need == 0)
		need = 1;
	return (limit > used && limit - used >= need);
}

static void
unlink_waiter(struct mt_space *sp, struct mt_waiter *w)
{
	if (w->prev != NULL)
		w->prev->next = w->next;
	else
		sp->wait_head = w->next;
	if (w->next != NULL)
		w->next->prev = w->prev;
	else
		sp->wait_tail = w->prev;
	w->next = w->prev = NULL;
	w->queued = false;
	atomic_fetch_sub(&sp->nwaiters, 1);
}

static void
call_waiter(struct mt_space *sp, struct mt_waiter *w)
{
	struct mt__waking waking = { sp->waking, w, pthread_self() }, **pp;
	void (*fn)(void *) = w->fn;
	void *arg = w->arg;

	unlink_waiter(sp, w);
	sp->waking = &waking;
	pthread_mutex_unlock(&sp->wait_lock);
	fn(arg);			/* may free w */
	pthread_mutex_lock(&sp->wait_lock);
	for (pp = &sp->waking; *pp != &waking; pp = &(*pp)->next)
		;
	*pp = waking.next;
	pthread_cond_broadcast(&sp->wait_idle);
}

/*
 * Call waiters while there is room for the first.  One who queues again from
 * its callback is called again only if budget has been given since: a waiter
 * that never takes what there is would keep us here for ever otherwise.
 */
static void
wake(struct mt_space *sp)
{
	struct mt_waiter *w;
	size_t gives, turns;

	pthread_mutex_lock(&sp->wait_lock);
	do {
		gives = atomic_load(&sp->gives);
		turns = atomic_load(&sp->nwaiters);
		while (turns-- != 0 && (w = sp->wait_head) != NULL &&
		    room_for(sp, w->need))
			call_waiter(sp, w);
	} while (sp->wait_head != NULL && atomic_load(&sp->gives) != gives);
	pthread_mutex_unlock(&sp->wait_lock);
}

/* There is more budget, or may be: tell those who wait. */
static void
given(struct mt_space *sp)
{
	atomic_fetch_add(&sp->gives, 1);
	if (atomic_load(&sp->nwaiters) != 0)
		wake(sp);
}

void
mt__bounce_give(struct mt_space *sp, size_t len)
{
	atomic_fetch_sub(&sp->bounce_used, len);	/* (c) */
	given(sp);					/* (d) */
}

void
mt_dma_set_bounce_limit(struct mt_space *sp, size_t bytes)
{
	atomic_store(&sp->bounce_limit, bytes);		/* (c) */
	given(sp);					/* (d) */
}

size_t
mt_dma_bounce_limit(const struct mt_space *sp)
{
	return (atomic_load_explicit(&sp->bounce_limit,
	    memory_order_relaxed));
}

size_t
mt_dma_bounce_used(const struct mt_space *sp)
{
	return (atomic_load_explicit(&sp->bounce_used, memory_order_relaxed));
}

/* Is this thread inside a waiter's callback?  Then its caller goes on. */
static bool
is_waking(const struct mt_space *sp)
{
	const struct mt__waking *waking;

	for (waking = sp->waking; waking != NULL; waking = waking->next)
		if (pthread_equal(waking->thread, pthread_self()))
			return (true);
	return (false);
}

int
mt_dma_wait(struct mt_space *sp, struct mt_waiter *w, size_t need,
    void (*fn)(void *), void *arg)
{
	bool nested;

	pthread_mutex_lock(&sp->wait_lock);
	if (w->queued) {
		pthread_mutex_unlock(&sp->wait_lock);
		errno = EBUSY;
		return (-1);
	}
	w->sp = sp;
	w->fn = fn;
	w->arg = arg;
	w->need = need;
	w->queued = true;
	w->next = NULL;
	w->prev = sp->wait_tail;
	if (sp->wait_tail != NULL)
		sp->wait_tail->next = w;
	else
		sp->wait_head = w;
	sp->wait_tail = w;
	nested = is_waking(sp);
	atomic_fetch_add(&sp->nwaiters, 1);		/* (a) */
	pthread_mutex_unlock(&sp->wait_lock);
	if (!nested)
		wake(sp);				/* (b) */
	return (0);
}

bool
mt_dma_cancel(struct mt_waiter *w)
{
	struct mt_space *sp = w->sp;
	const struct mt__waking *waking;
	bool queued;

	if (sp == NULL)
		return (false);
	pthread_mutex_lock(&sp->wait_lock);
	for (;;) {
		if ((queued = w->queued))
			unlink_waiter(sp, w);
		for (waking = sp->waking; waking != NULL;
		    waking = waking->next)
			if (waking->w == w &&
			    !pthread_equal(waking->thread, pthread_self()))
				break;
		if (queued || waking == NULL)
			break;
		pthread_cond_wait(&sp->wait_idle, &sp->wait_lock);
	}
	pthread_mutex_unlock(&sp->wait_lock);
	return (queued);
}
