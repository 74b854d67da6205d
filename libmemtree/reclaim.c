/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Readers enter a liburcu (bp flavour) read-side section: no lock, no write
 * to memory that another reader touches, and threads need not register.
 * Freeing is the job of a topology's reclaimer, so that a commit never waits
 * for readers, and the put callbacks of owners always run in one place, one
 * after the other, with no lock held.
 *
 * Why this is safe.  A reader can reach only what the view that it loaded
 * inside its section can reach.
 *  1. A view is retired after it was replaced in every space, so a section
 *     that begins later cannot load it; the grace period waits for all that
 *     began before.  Then nobody uses the view without holding a reference.
 *  2. A view counts its regions.  So a region whose count is 0 is in no view
 *     that a reader could be in, needs no grace period of its own, and
 *     nobody can take a new reference to it.
 *
 * A grace period takes as long as the slowest reader, and cannot be waited for
 * and left.  So there is a second thread, the stand-in, which does what needs
 * none, and only while the first waits for readers: a reader holds up what it
 * may look at, and nothing else.
 */

#include <sys/types.h>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#include "internal.h"

/* How many a commit frees, and more than it adds unless it changes a lot. */
#define BATCH	32
/* Bytes in waiting for which the reclaimer is woken in any case. */
#define PATIENCE	((size_t)64 << 10)

bool
mt__reading(void)
{
	return (urcu_bp_read_ongoing() != 0);
}

/*
 * See that a pass begins which takes all that this thread has pushed.  Who
 * finds it roused leaves the rest to who has done so: a pass takes that back
 * before it takes the queues, by an exchange that reads the last one of these,
 * so that all pushed before them comes before.
 */
static void
rouse(struct mt_topology *t)
{
	struct mt__reclaim *rc = &t->reclaim;

	if (atomic_exchange_explicit(&rc->roused, true, memory_order_acq_rel))
		return;
	pthread_mutex_lock(&rc->lock);
	rc->kick = true;
	pthread_cond_signal(&rc->work);
	pthread_mutex_unlock(&rc->lock);
}

/* The same for the queue of what needs no grace period. */
static void
rouse_now(struct mt_topology *t)
{
	struct mt__reclaim *rc = &t->reclaim;

	if (atomic_exchange_explicit(&rc->roused_now, true,
	    memory_order_acq_rel))
		return;
	pthread_mutex_lock(&rc->lock);
	rc->kick = rc->kick_now = true;
	pthread_cond_signal(rc->in_grace ? &rc->work_now : &rc->work);
	pthread_mutex_unlock(&rc->lock);
}

static void
push(_Atomic(struct mt__retired *) *queue, struct mt__retired *r,
    void (*fn)(struct mt__retired *))
{
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
}

void
mt__retire_after_grace(struct mt_topology *t, struct mt__retired *r,
    void (*fn)(struct mt__retired *))
{
	push(&t->reclaim.after_grace, r, fn);
	rouse(t);
}

/*
 * To wake the reclaimer costs more than all the rest of a small commit, and
 * its barriers interrupt the other threads.
 */
void
mt__retire_patiently(struct mt_topology *t, struct mt__retired *r,
    void (*fn)(struct mt__retired *))
{
	size_t waiting = mt_topology_waiting(t);

	push(&t->reclaim.after_grace, r, fn);
	/* One that is awake may as well do this before it sleeps. */
	if (atomic_load_explicit(&t->reclaim.awake, memory_order_relaxed) ||
	    waiting > PATIENCE || waiting > mt_topology_max_waiting(t) / 4)
		rouse(t);
}

void
mt__retire_now(struct mt_topology *t, struct mt__retired *r,
    void (*fn)(struct mt__retired *))
{
	push(&t->reclaim.now, r, fn);
	rouse_now(t);
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

/* Run some of what is past its grace period: was there any? */
static bool
run_ready(struct mt_topology *t)
{
	struct mt__reclaim *rc = &t->reclaim;
	struct mt__retired *list, **end;
	size_t n;

	pthread_mutex_lock(&rc->lock);
	list = rc->ready;
	for (end = &rc->ready, n = 0; *end != NULL && n < BATCH; n++)
		end = &(*end)->next;
	rc->ready = *end;
	*end = NULL;
	if (list != NULL)
		rc->helpers++;
	pthread_mutex_unlock(&rc->lock);
	if (list == NULL)
		return (false);
	mt__tsan_acquire(&rc->tsan);
	run(list);
	pthread_mutex_lock(&rc->lock);
	if (--rc->helpers == 0)
		pthread_cond_broadcast(&rc->done);
	pthread_mutex_unlock(&rc->lock);
	return (true);
}

/* What is in now, when all that roused somebody for it is to be seen. */
static struct mt__retired *
take_now(struct mt__reclaim *rc)
{
	(void)atomic_exchange_explicit(&rc->roused_now, false,
	    memory_order_acq_rel);
	return (take(&rc->now));
}

/* Wait for all readers that there are, and let the stand-in work meanwhile. */
static void
wait_for_readers(struct mt__reclaim *rc)
{
	pthread_mutex_lock(&rc->lock);
	rc->in_grace = true;
	if (rc->kick_now)
		pthread_cond_signal(&rc->work_now);
	pthread_mutex_unlock(&rc->lock);
	urcu_bp_synchronize_rcu();
	pthread_mutex_lock(&rc->lock);
	rc->in_grace = false;
	pthread_mutex_unlock(&rc->lock);
}

static void
pass(struct mt_topology *t)
{
	struct mt__reclaim *rc = &t->reclaim;
	struct mt__retired *r;

	(void)atomic_exchange_explicit(&rc->roused, false,
	    memory_order_acq_rel);
	run(take_now(rc));
	if ((r = take(&rc->after_grace)) != NULL) {
		wait_for_readers(rc);
		pthread_mutex_lock(&rc->lock);
		rc->ready = r;
		pthread_mutex_unlock(&rc->lock);
		while (run_ready(t))
			;
	}
	/*
	 * A pass ends when all is freed, by whomever.  Commits that do never
	 * block, and the stand-in has no more than what it took.
	 */
	pthread_mutex_lock(&rc->lock);
	while (rc->helpers != 0)
		pthread_cond_wait(&rc->done, &rc->lock);
	pthread_mutex_unlock(&rc->lock);
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
		if (!rc->kick)
			atomic_store_explicit(&rc->awake, false,
			    memory_order_relaxed);
		while (!rc->kick && !rc->stop)
			pthread_cond_wait(&rc->work, &rc->lock);
		if (!rc->kick)
			break;
		atomic_store_explicit(&rc->awake, true, memory_order_relaxed);
		rc->kick = rc->kick_now = false;
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

static void *
stand_in(void *arg)
{
	struct mt_topology *t = arg;
	struct mt__reclaim *rc = &t->reclaim;

	pthread_mutex_lock(&rc->lock);
	for (;;) {
		while (!(rc->kick_now && rc->in_grace) && !rc->stop)
			pthread_cond_wait(&rc->work_now, &rc->lock);
		if (rc->stop)
			break;
		rc->kick_now = false;
		rc->helpers++;
		pthread_mutex_unlock(&rc->lock);
		run(take_now(rc));
		pthread_mutex_lock(&rc->lock);
		if (--rc->helpers == 0)
			pthread_cond_broadcast(&rc->done);
	}
	pthread_mutex_unlock(&rc->lock);
	return (NULL);
}

/* --- how much is in waiting ----------------------------------------------- */

/* Relaxed: these are numbers, and nobody goes by them to anything else. */
void
mt__waiting_add(struct mt_topology *t, size_t bytes)
{
	atomic_fetch_add_explicit(&t->reclaim.waiting, bytes,
	    memory_order_relaxed);
}

void
mt__waiting_sub(struct mt_topology *t, size_t bytes)
{
	atomic_fetch_sub_explicit(&t->reclaim.waiting, bytes,
	    memory_order_relaxed);
}

size_t
mt_topology_waiting(const struct mt_topology *t)
{
	return (atomic_load_explicit(&t->reclaim.waiting,
	    memory_order_relaxed));
}

void
mt_topology_set_max_waiting(struct mt_topology *t, size_t bytes)
{
	atomic_store_explicit(&t->reclaim.max_waiting, bytes,
	    memory_order_relaxed);
}

size_t
mt_topology_max_waiting(const struct mt_topology *t)
{
	return (atomic_load_explicit(&t->reclaim.max_waiting,
	    memory_order_relaxed));
}

/*
 * To replace all of a map, however large, takes one commit, and the next may
 * come at once.  So the limit is for what comes on top of that: as much as all
 * views had at most is spared, counted from when there was room without.
 */
void
mt__waiting_shown(struct mt_topology *t, size_t added, size_t gone)
{
	if (mt_topology_waiting(t) <= mt_topology_max_waiting(t))
		t->spared = t->live;
	t->live = t->live - gone + added;
	if (t->spared < t->live)
		t->spared = t->live;
}

bool
mt__waiting_exceeds(const struct mt_topology *t, size_t but)
{
	size_t waiting = mt_topology_waiting(t);
	size_t max = mt_topology_max_waiting(t);

	if (max == 0)			/* to have commits refused */
		return (waiting > but);
	return (waiting > max && waiting - max > t->spared + but);
}

/*
 * A writer can make garbage faster than one thread frees it, which also has
 * to wait for a reader that has lost its processor inside a section.  So a
 * commit that finds a quarter of the limit in waiting frees as much as it is
 * going to add, and lets others run for once.  It does not wait: not for
 * readers, and not for the reclaimer, which may be in the put of an owner.
 */
bool
mt__waiting_full(struct mt_topology *t)
{
	if (mt_topology_waiting(t) <= mt_topology_max_waiting(t) / 4)
		return (false);
	rouse(t);
	(void)run_ready(t);
	sched_yield();
	return (mt__waiting_exceeds(t, 0));
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
	return (pthread_equal(pthread_self(), t->reclaim.thread) != 0 ||
	    pthread_equal(pthread_self(), t->reclaim.stand_in) != 0);
}

static void
stop(struct mt__reclaim *rc)
{
	pthread_mutex_lock(&rc->lock);
	rc->stop = true;
	pthread_cond_signal(&rc->work);
	pthread_cond_signal(&rc->work_now);
	pthread_mutex_unlock(&rc->lock);
	pthread_join(rc->thread, NULL);
}

static void
fini(struct mt__reclaim *rc)
{
	pthread_cond_destroy(&rc->done);
	pthread_cond_destroy(&rc->work_now);
	pthread_cond_destroy(&rc->work);
	pthread_mutex_destroy(&rc->lock);
}

int
mt__reclaim_init(struct mt_topology *t)
{
	struct mt__reclaim *rc = &t->reclaim;
	sigset_t all, old;
	int error;

	atomic_init(&rc->max_waiting, MT_WAITING_DEFAULT);
	pthread_mutex_init(&rc->lock, NULL);
	pthread_cond_init(&rc->work, NULL);
	pthread_cond_init(&rc->work_now, NULL);
	pthread_cond_init(&rc->done, NULL);
	/* The program's signals are the program's threads' business. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if ((error = pthread_create(&rc->thread, NULL, reclaimer, t)) == 0 &&
	    (error = pthread_create(&rc->stand_in, NULL, stand_in, t)) != 0)
		stop(rc);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error != 0)
		fini(rc);
	return (error);
}

void
mt__reclaim_fini(struct mt_topology *t)
{
	struct mt__reclaim *rc = &t->reclaim;

	stop(rc);
	pthread_join(rc->stand_in, NULL);
	fini(rc);
}
