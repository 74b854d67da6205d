/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Readers enter a liburcu (bp flavour) read-side section: no lock, no write
 * to memory that another reader touches, and threads need not register.
 * Freeing is the job of one thread a topology, so that a commit never waits
 * for readers, and the put callbacks of owners always run in one place, with
 * no lock held.
 *
 * Why this is safe.  A reader can reach only what the view that it loaded
 * inside its section can reach.
 *  1. A view is retired after it was replaced in every space, so a section
 *     that begins later cannot load it; the grace period waits for all that
 *     began before.  Then nobody uses the view without holding a reference.
 *  2. A view counts its regions.  So a region whose count is 0 is in no view
 *     that a reader could be in, needs no grace period of its own, and
 *     nobody can take a new reference to it.
 */

#include <sys/types.h>

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "internal.h"

bool
mt__reading(void)
{
	return (urcu_bp_read_ongoing() != 0);
}

static void
push(struct mt_topology *t, _Atomic(struct mt__retired *) *queue,
    struct mt__retired *r, void (*fn)(struct mt__retired *))
{
	struct mt__reclaim *rc = &t->reclaim;
	struct mt__retired *head;

	r->fn = fn;
	head = atomic_load_explicit(queue, memory_order_relaxed);
	/*
	 * Release pairs with the acquire of the exchange in take(): the
	 * reclaimer sees all that was done to r before it was retired.  Once
	 * it is pushed r is the reclaimer's.
	 */
	do
		r->next = head;
	while (!atomic_compare_exchange_weak_explicit(queue, &head, r,
	    memory_order_release, memory_order_relaxed));
	/* The first one in wakes the reclaimer; it takes the others along. */
	if (head == NULL) {
		pthread_mutex_lock(&rc->lock);
		rc->kick = true;
		pthread_cond_signal(&rc->work);
		pthread_mutex_unlock(&rc->lock);
	}
}

void
mt__retire_after_grace(struct mt_topology *t, struct mt__retired *r,
    void (*fn)(struct mt__retired *))
{
	push(t, &t->reclaim.after_grace, r, fn);
}

void
mt__retire_now(struct mt_topology *t, struct mt__retired *r,
    void (*fn)(struct mt__retired *))
{
	push(t, &t->reclaim.now, r, fn);
}

/* Take all of a queue, oldest first. */
static struct mt__retired *
take(_Atomic(struct mt__retired *) *queue)
{
	struct mt__retired *r, *next, *list = NULL;

	r = atomic_exchange_explicit(queue, NULL, memory_order_acquire);
	for (; r != NULL; r = next) {
		next = r->next;
		r->next = list;
		list = r;
	}
	return (list);
}

static void
run(struct mt__retired *r)
{
	struct mt__retired *next;

	for (; r != NULL; r = next) {
		next = r->next;
		r->fn(r);
	}
}

static void
pass(struct mt_topology *t)
{
	struct mt__reclaim *rc = &t->reclaim;
	struct mt__retired *r;

	if ((r = take(&rc->after_grace)) != NULL) {
		urcu_bp_synchronize_rcu();
		mt__tsan_acquire(&rc->tsan);
		run(r);
	}
	/* Freeing one may drop the last reference to the next. */
	while ((r = take(&rc->now)) != NULL)
		run(r);
}

static void *
reclaimer(void *arg)
{
	struct mt_topology *t = arg;
	struct mt__reclaim *rc = &t->reclaim;

	pthread_mutex_lock(&rc->lock);
	for (;;) {
		while (!rc->kick && !rc->stop)
			pthread_cond_wait(&rc->work, &rc->lock);
		if (!rc->kick)
			break;
		rc->kick = false;
		rc->passes_begun++;
		pthread_mutex_unlock(&rc->lock);
		pass(t);
		pthread_mutex_lock(&rc->lock);
		rc->passes_done++;
		pthread_cond_broadcast(&rc->done);
	}
	pthread_mutex_unlock(&rc->lock);
	return (NULL);
}

/* Wait for a pass that began after now. */
void
mt__reclaim_wait(struct mt_topology *t)
{
	struct mt__reclaim *rc = &t->reclaim;
	uint64_t want;

	pthread_mutex_lock(&rc->lock);
	want = rc->passes_begun + 1;
	rc->kick = true;
	pthread_cond_signal(&rc->work);
	while (rc->passes_done < want)
		pthread_cond_wait(&rc->done, &rc->lock);
	pthread_mutex_unlock(&rc->lock);
}

bool
mt__reclaim_is_self(struct mt_topology *t)
{
	return (pthread_equal(pthread_self(), t->reclaim.thread) != 0);
}

int
mt__reclaim_init(struct mt_topology *t)
{
	struct mt__reclaim *rc = &t->reclaim;
	sigset_t all, old;
	int error;

	pthread_mutex_init(&rc->lock, NULL);
	pthread_cond_init(&rc->work, NULL);
	pthread_cond_init(&rc->done, NULL);
	/* The program's signals are the program's threads' business. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&rc->thread, NULL, reclaimer, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error != 0) {
		pthread_cond_destroy(&rc->done);
		pthread_cond_destroy(&rc->work);
		pthread_mutex_destroy(&rc->lock);
	}
	return (error);
}

void
mt__reclaim_fini(struct mt_topology *t)
{
	struct mt__reclaim *rc = &t->reclaim;

	pthread_mutex_lock(&rc->lock);
	rc->stop = true;
	pthread_cond_signal(&rc->work);
	pthread_mutex_unlock(&rc->lock);
	pthread_join(rc->thread, NULL);
	pthread_cond_destroy(&rc->done);
	pthread_cond_destroy(&rc->work);
	pthread_mutex_destroy(&rc->lock);
}
