/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The budget of bounce buffers of a space, and those who wait for some.
 *
 * No wake-up is lost.  A waiter (a) queues itself, raising nbusy, then (b)
 * looks at bounce_used.  Who gives back (c) lowers bounce_used, then (d)
 * looks at nbusy.  All four are sequentially consistent, so not both (b)
 * can miss (c) and (d) miss (a): one of the two sees that there is both
 * budget and somebody who waits, and calls.  Raising the limit is (c), too.
 * A waiter that queues from inside a callback leaves (b) to the loop that
 * called it, which looks whether anything was given meanwhile.
 *
 * None starves.  While anybody waits, others get only what the first in the
 * queue does not need, and that is nothing while there is not enough for it:
 * so what comes back piles up until it is called.  While it is called, what
 * it needs is set aside for maps of its thread.  Only a map that found no
 * waiter before this one queued can still come in between.
 */

#include <errno.h>
#include <stdlib.h>

#include "internal.h"

/* A call of a waiter that is under way, on the stack of who calls. */
struct mt__waking {
	struct mt__waking *next;
	const struct mt_waiter *w;
	pthread_t thread;
	size_t reserved;		/* wait_lock; what is set aside */
	size_t gives;			/* sp->gives when it began */
	size_t turn;			/* sp->turns when it began */
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
	    atomic_load(&sp->nbusy) == 0);
}

/* Take from min to len bytes, and leave spare: how many, 0 if not so many. */
static size_t
take(struct mt_space *sp, size_t min, size_t len, size_t spare)
{
	size_t used = atomic_load(&sp->bounce_used);
	size_t limit, grant;

	do {
		limit = atomic_load(&sp->bounce_limit);
		/* The limit may have been lowered below what is used. */
		grant = limit > used ? limit - used : 0;
		grant = grant > spare ? grant - spare : 0;
		if (grant > len)
			grant = len;
		if (grant < min)
			return (0);
	} while (!atomic_compare_exchange_weak(&sp->bounce_used, &used,
	    used + grant));
	return (grant);
}

/* What a waiter has to get: more than there ever is means all there is. */
static size_t
need_of(struct mt_space *sp, const struct mt_waiter *w)
{
	size_t limit = atomic_load(&sp->bounce_limit);
	size_t need = w->need < limit ? w->need : limit;

	return (need != 0 ? need : 1);
}

/* The call of a waiter that this thread is in, or NULL. */
static struct mt__waking *
my_waking(const struct mt_space *sp)
{
	struct mt__waking *waking;

	for (waking = sp->waking; waking != NULL; waking = waking->next)
		if (pthread_equal(waking->thread, pthread_self()))
			break;
	return (waking);
}

/* While somebody waits or is called: after what they need. */
static size_t
take_fair(struct mt_space *sp, size_t len)
{
	struct mt__waking *waking;
	size_t grant = 0;

	pthread_mutex_lock(&sp->wait_lock);
	if ((waking = my_waking(sp)) != NULL) {
		grant = len < waking->reserved ? len : waking->reserved;
		waking->reserved -= grant;
	}
	if (grant < len)
		grant += take(sp, 1, len - grant, sp->wait_head != NULL ?
		    need_of(sp, sp->wait_head) : 0);
	pthread_mutex_unlock(&sp->wait_lock);
	return (grant);
}

size_t
mt__bounce_take(struct mt_space *sp, size_t len)
{
	if (atomic_load(&sp->nbusy) != 0)
		return (take_fair(sp, len));
	return (take(sp, 1, len, 0));
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
}

/*
 * Give back what was set aside for a call and not taken.  One who queued from
 * another call meanwhile may have found it missing.
 */
static void
unreserve_locked(struct mt_space *sp, const struct mt__waking *waking)
{
	struct mt_waiter *w;

	if (waking->reserved == 0)
		return;
	atomic_fetch_sub(&sp->bounce_used, waking->reserved);
	for (w = sp->wait_tail; w != NULL && w->turn > waking->turn;
	    w = w->prev)
		if (w->by != waking)
			w->by = NULL;
}

/* Call a waiter, for which so much has been set aside. */
static void
call_waiter(struct mt_space *sp, struct mt_waiter *w, size_t reserved)
{
	struct mt__waking waking = { sp->waking, w, pthread_self(), reserved,
	    sp->gives, ++sp->turns }, **pp;
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
	unreserve_locked(sp, &waking);
	atomic_fetch_sub(&sp->nbusy, 1);
	pthread_cond_broadcast(&sp->wait_idle);
}

/*
 * Call waiters while there is room for the first.  One who queued again from
 * a callback is called only if budget has been given since that began: a
 * waiter that never takes what there is would keep us here for ever.
 *
 * In a callback nobody is called, but by the loop that called it, which goes
 * on when it returns: else each waiter that gives back what it took would
 * call the next on top of itself, and guests decide how many wait.
 */
static void
wake(struct mt_space *sp, bool news)
{
	struct mt_waiter *w;
	size_t need, got;

	pthread_mutex_lock(&sp->wait_lock);
	if (news)
		sp->gives++;
	while (my_waking(sp) == NULL && (w = sp->wait_head) != NULL &&
	    (w->by == NULL || w->gives != sp->gives)) {
		need = need_of(sp, w);
		if ((got = take(sp, need, need, 0)) == 0)
			break;
		call_waiter(sp, w, got);
	}
	pthread_mutex_unlock(&sp->wait_lock);
}

/* There is more budget, or may be: tell those who wait. */
static void
given(struct mt_space *sp)
{
	if (atomic_load(&sp->nbusy) != 0)
		wake(sp, true);
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

int
mt_dma_wait(struct mt_space *sp, struct mt_waiter *w, size_t need,
    void (*fn)(void *), void *arg)
{
	const struct mt__waking *waking;

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
	/* From inside a callback: who called it goes on, and looks. */
	waking = my_waking(sp);
	w->by = waking;
	w->gives = waking != NULL ? waking->gives : 0;
	w->turn = ++sp->turns;
	atomic_fetch_add(&sp->nbusy, 1);		/* (a) */
	pthread_mutex_unlock(&sp->wait_lock);
	if (waking == NULL)
		wake(sp, true);				/* (b) */
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
		if ((queued = w->queued)) {
			unlink_waiter(sp, w);
			atomic_fetch_sub(&sp->nbusy, 1);
		}
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
	/* There may be enough for who was behind it. */
	if (queued)
		wake(sp, false);
	return (queued);
}
